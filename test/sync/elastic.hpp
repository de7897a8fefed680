// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <dovetail/comm/self.hpp>
#include <dovetail/dovetail.hpp>

#include "../comm/conformance.hpp"
#include "gradients.hpp"

// A training whose ranks may be lost, one after another, as a function of one rank.
namespace test {

using namespace dovetail;
using conformance::expect;

struct loss_of_rank {
  int rank;           ///< of the whole
  std::int64_t step;  ///< in this step
  enum { before, between, behind } where;
};

struct elastic_outcome {
  std::vector<float> weights;
  std::vector<int> ranks_of;       ///< how many ranks made each step
  std::vector<std::string> named;  ///< who was lost, as it was said
};

/// Of `total` steps; each rank's gradients are those of its number in the beginning. `lose()` does not come back.
template <class Sync, class Communicator, class Lose>
elastic_outcome train_elastic(Sync const& sync, Communicator& whole, std::int64_t total,
                              std::vector<loss_of_rank> const& losses, Lose const& lose) {
  using rest = decltype(whole.shrink());
  int const me = whole.rank();
  auto a = odd_arena();
  fill(a.weights(), 0, 1000);
  optim::adamw const opt{.lr = 0.01f};
  elastic_outcome out;
  std::vector<std::unique_ptr<rest>> groups;  // those before stay for who is in them
  using session_of_whole = decltype(sync.join(a.parameters(), opt, whole));
  using session_of_rest = decltype(sync.join(a.parameters(), opt, *groups[0]));
  std::optional<session_of_whole> first;
  first.emplace(sync, a.parameters(), opt, whole);
  std::vector<std::unique_ptr<session_of_rest>> later;
  std::int64_t steps = 0;
  int lost_so_far = 0;
  auto const one_step = [&](auto& session, int ranks) {
    auto const dies = [&](auto where) {
      for (auto const& l : losses)
        if (l.rank == me && l.step == steps && l.where == where) lose();
    };
    session.begin();
    dies(loss_of_rank::before);
    fill(a.gradients(), me, static_cast<std::uint64_t>(steps));
    session.ready(600);
    dies(loss_of_rank::between);
    expect(!session.step().skipped, "step ", steps);
    dies(loss_of_rank::behind);
    out.ranks_of.push_back(ranks);
    ++steps;
  };
  while (steps < total) {
    try {
      if (groups.empty())
        one_step(*first, whole.size());
      else
        one_step(*later.back(), groups.back()->size());
    } catch (rank_lost const& e) {
      out.named.push_back(e.what());
      auto const go_on = [&](auto& old, auto& group) {
        groups.push_back(std::make_unique<rest>(group.shrink()));
        later.push_back(std::make_unique<session_of_rest>(sync, a.parameters(), opt, *groups.back()));
        auto const r = sync::regroup(old, *later.back(), a.parameters(), steps, *groups.back());
        expect(r.steps == steps || r.steps == steps + 1, "made ", steps, ", agreed on ", r.steps);
        for (; steps < r.steps; ++steps) out.ranks_of.push_back(group.size());
        expect(r.kept_own, "own state");
      };
      ++lost_so_far;
      if (groups.empty())
        go_on(*first, whole);
      else
        go_on(*later[later.size() - 1], *groups.back());
    }
  }
  expect(lost_so_far == static_cast<int>(losses.size()), lost_so_far, " losses of ", losses.size());
  out.weights.assign(a.weights().begin(), a.weights().end());
  return out;
}

/// The weights of a training whose steps are made by the ranks in `alive(step)`.
template <class Alive>
std::vector<float> expected_weights(std::int64_t total, Alive const& alive) {
  auto a = odd_arena();
  fill(a.weights(), 0, 1000);
  optim::adamw const opt{.lr = 0.01f};
  auto state = opt.init(a.parameters());
  auto share = odd_arena();
  for (std::int64_t s = 0; s < total; ++s) {
    bool begun = false;
    for (int const r : alive(s)) {
      fill(share.gradients(), r, static_cast<std::uint64_t>(s));
      for (std::size_t i = 0; i < share.gradients().size(); ++i)
        a.gradients()[i] = begun ? a.gradients()[i] + share.gradients()[i] : share.gradients()[i];
      begun = true;
    }
    opt.step(a.parameters(), state);
  }
  return {a.weights().begin(), a.weights().end()};
}

}  // namespace test
