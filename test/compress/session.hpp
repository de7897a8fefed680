// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include <dovetail/comm/threads.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/optim.hpp>

#include <doctest/doctest.h>

#include "tools.hpp"

namespace test {

/// `size` ranks that train with `sync`, a sync::all_reduce, on the arenas that `memory` makes: the same bits on all of
/// them, as many bytes as predicted, and what was in a step that is skipped or abandoned makes no difference.
template <class Sync, class Memory>
void check_session(Sync const& sync, Memory const& memory, int size) {
  CAPTURE(size);
  std::map<int, std::vector<float>> all;
  std::mutex mutex;
  comm::threads(size).run([&](auto& c) {
    auto a = memory(), b = memory();
    auto one = sync.join(a.parameters(), optim::sgd{.lr = 0.1f}, c);
    auto other = sync.join(b.parameters(), optim::sgd{.lr = 0.1f}, c);
    auto const begin = [&](arena& of, auto& session, std::uint64_t number) {
      auto const x = normal(of.gradients().size(), 50 * number + static_cast<std::uint64_t>(c.rank()));
      session.begin();
      std::copy(x.begin(), x.end(), of.gradients().begin());
    };
    auto const skips = [&](arena& of, auto& session, std::uint64_t number, bool bad = false) {
      begin(of, session, number);
      if (bad && c.rank() == c.size() - 1) of.gradients()[400] = not_a_number;
      for (std::size_t i = of.parameters().size(); i-- > 0;) session.ready(of.parameters().offset(i));
      return session.step().skipped;
    };
    auto const abandon = [&](arena& of, auto& session, std::uint64_t number) {
      begin(of, session, number);
      session.ready(0);
    };
    for (std::uint64_t s = 0; s < 6; ++s) {
      if (s == 3) {
        CHECK(skips(a, one, 90, true));
        CHECK(skips(b, other, 91, true));
      }
      auto const moved = c.traffic();
      if (s == 4) abandon(a, one, 92);
      CHECK_FALSE(skips(a, one, s));
      auto const counted = c.traffic() - moved, predicted = sync.predict(a.parameters(), c.size(), c.rank());
      if (s != 4) {
        CHECK(counted.bytes_sent == predicted.bytes_sent);
        CHECK(counted.bytes_received == predicted.bytes_received);
      }
      if (s == 4) abandon(b, other, 93);
      CHECK_FALSE(skips(b, other, s));
    }
    CHECK(same_bits(a.weights(), b.weights()));
    std::lock_guard const lock(mutex);
    all[c.rank()] = {a.weights().begin(), a.weights().end()};
  });
  for (auto const& [rank, w] : all) CHECK(same_bits(w, all.at(0)));
}

}  // namespace test
