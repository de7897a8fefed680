// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules that precondition matrices: against transcriptions of their papers (goldens/make.py), and where the answer is
// known.
#include <algorithm>
#include <atomic>
#include <map>
#include <string>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/io/saved_state.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/matrix.hpp>
#include <dovetail/sync.hpp>

#include <doctest/doctest.h>

#include "goldens.hpp"
#include "training.hpp"

namespace optim_matrix {

using namespace golden;

namespace {

/// Leaves vectors alone, as the golden of optax does.
template <class Rule>
auto matrices_only(Rule rule) {
  return optim::partition{optim::frozen{}, optim::group{[](auto, shape const& s) { return s.rank == 2; }, rule}};
}

std::map<std::string, run> const rules{
    {"muon_without_nesterov",
     with(matrices_only(optim::muon{.lr = 0.02f, .momentum = 0.8f, .nesterov = false, .weight_decay = decay}))},
    {"soap_every_step",
     with(optim::chain{
         optim::scale_by_soap{
             .beta1 = 0, .beta2 = 0.9f, .shampoo_beta = 0.8f, .epsilon = 1e-3f, .interval = 1, .largest = 5},
         optim::add_decayed_weights{decay}, optim::scale_by_learning_rate{0.02f}})},
    {"soap_one_side",
     with(optim::chain{
         optim::scale_by_soap{.beta1 = 0.9f, .beta2 = 0.95f, .epsilon = 1e-3f, .interval = 5, .largest = 3},
         optim::add_decayed_weights{decay}, optim::scale_by_learning_rate{0.02f}})},
};

}  // namespace

TEST_CASE("every matrix rule goes the way of its paper in double precision") {
  auto const seen =
      compare(DOVETAIL_GOLDENS_MATRIX, {{"a", {4, 4}}, {"b", {6, 3}}, {"c", {7}}}, rules, 1e-5, known::matrix());
  for (auto const& r : known::matrix())
    if (!r->needs.layers)  // kfac.cpp
      CHECK_MESSAGE(seen.contains(r->name), r->name, " has no case in the file: add one to goldens/make.py");
}

namespace {

/// Counts the tensors that it worked on.
struct counted : optim::scale_by_soap {
  std::atomic<int>* solved = nullptr;
  void solve(optim::tensor_update const& t) const {
    ++*solved;
    optim::scale_by_soap::solve(t);
  }
};

}  // namespace

TEST_CASE("ranks divide the work of matrix rules and get the same weights as one") {
  std::vector<arena::tensor> const tensors{{"a", {9, 5}}, {"b", {9}}, {"c", {5, 17}}, {"d", {4, 4}}, {"e", {0, 3}}};
  auto const train = [&](int ranks, auto const& check) {
    std::vector<std::vector<float>> weights(static_cast<std::size_t>(ranks));
    comm::threads(ranks).run([&](auto& c) {
      std::atomic<int> solved = 0;
      optim::chain const rule{counted{{.interval = 2}, &solved}, optim::scale_by_learning_rate{0.01f}};
      arena a(tensors);
      draw(a.weights(), 0);
      auto session = sync::all_reduce{}.join(a.parameters(), rule, c);
      for (std::uint64_t t = 1; t <= 6; ++t) {
        session.begin();
        draw(a.gradients(), t);
        for (float& g : a.gradients()) g *= c.rank() == 0 ? 1.0f : 0.0f;  // the sum is the gradient of one rank
        CHECK(!session.step().skipped);
      }
      check(solved.load());
      weights[static_cast<std::size_t>(c.rank())].assign(a.weights().begin(), a.weights().end());
    });
    for (auto const& w : weights) CHECK(w == weights[0]);
    return weights[0];
  };
  // Bases are renewed in steps 1, 4 and 6, of three tensors.
  auto const alone = train(1, [](int solved) { CHECK(solved == 9); });
  CHECK(train(2, [](int solved) { CHECK(solved <= 6); }) == alone);
  CHECK(train(3, [](int solved) { CHECK(solved == 3); }) == alone);
  CHECK(train(5, [](int solved) { CHECK(solved <= 3); }) == alone);
}

TEST_CASE(
    "known answers: what preconditioning leaves of matrices that need none, or that it can turn into the identity") {
  auto const step = [](auto const& rule, std::vector<float> gradient, shape s, int steps = 1) {
    arena a({{"w", s}});
    auto state = rule.init(a.parameters());
    for (int t = 0; t < steps; ++t) {
      std::copy(gradient.begin(), gradient.end(), a.gradients().begin());
      rule.step(a.parameters(), state);
    }
    std::vector<float> update;  // at a rate of 1 the weights, which begin at 0, become the opposite of the update
    for (float const w : a.weights()) update.push_back(-w);
    return update;
  };
  auto const near = [](std::vector<float> const& a, std::vector<float> const& b, double tolerance) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, static_cast<double>(std::abs(a[i] - b[i])));
    return worst <= tolerance;
  };
  optim::scale_by_learning_rate const rate{1.0f};
  // One step of Shampoo with full matrices: (G G^T)^-1/4 G (G^T G)^-1/4 = U V^T of G = U S V^T, whatever S.
  std::vector<float> const g{3, 1, 0, 2, 0, -1, 1, 4, 5}, scaled{300, 100, 0, 200, 0, -100, 100, 400, 500};
  optim::chain const shampoo{optim::scale_by_shampoo{.epsilon = 1e-12f, .grafting = optim::graft::none}, rate};
  auto const u = step(shampoo, g, {3, 3});
  CHECK(near(step(shampoo, scaled, {3, 3}), u, 1e-4));
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 3; ++j) {
      double dot = 0;
      for (std::size_t k = 0; k < 3; ++k) dot += static_cast<double>(u[3 * i + k] * u[3 * j + k]);
      CHECK(dot == doctest::Approx(i == j ? 1 : 0).epsilon(1e-4));
    }
  // Muon's iteration ends near the same matrix: its coefficients leave singular values between 0.7 and 1.2.
  CHECK(near(step(optim::chain{optim::orthogonalize{}, rate}, g, {3, 3}), u, 0.35));
  // With coefficients that converge, at that matrix.
  CHECK(
      near(step(optim::chain{optim::orthogonalize{.iterations = 30, .a = 15.f / 8, .b = -10.f / 8, .c = 3.f / 8}, rate},
                g, {3, 3}),
           u, 1e-4));
  // SOAP in the eigenbasis of a diagonal gradient is Adam, one step late; with no side preconditioned always.
  std::vector<float> const diagonal{2, 0, 0, 0, -1, 0, 0, 0, 3};
  optim::chain const adam{optim::scale_by_adam{.beta1 = 0.95f, .beta2 = 0.95f}, rate};
  CHECK(near(step(optim::chain{optim::scale_by_soap{}, rate}, diagonal, {3, 3}, 4), step(adam, diagonal, {3, 3}, 3),
             1e-5));
  CHECK(
      near(step(optim::chain{optim::scale_by_soap{.largest = 2}, rate}, g, {3, 3}, 4), step(adam, g, {3, 3}, 3), 1e-5));
  // Blocks as large as the matrix are no blocks.
  auto const blocks = [&](std::int64_t n) {
    return step(optim::chain{optim::scale_by_shampoo{.block = n}, rate}, g, {3, 3}, 3);
  };
  CHECK(blocks(3) == blocks(1024));
  CHECK(blocks(2) != blocks(3));
}

TEST_CASE("defaults: matrices") {
  optim::muon const m;  // Jordan et al., 2024
  CHECK((m.stages().learning_rate(1) == 0.02f && m.momentum == 0.95f && m.nesterov && m.iterations == 5));
  optim::orthogonalize const o;
  CHECK((o.a == 3.4445f && o.b == -4.7750f && o.c == 2.0315f));
  optim::shampoo const s;  // Gupta et al., 2018: sums; Anil et al., 2020: blocks of 1024, AdaGrad's lengths
  CHECK((s.beta2 == 1 && s.block == 1024 && s.grafting == optim::graft::adagrad && s.momentum == 0.9f));
  optim::soap const p;  // Vyas et al., 2025, section 6: rate 3e-3, betas 0.95, every 10 steps, decay 0.01
  CHECK((p.stages().learning_rate(1) == 3e-3f && p.beta1 == 0.95f && p.beta2 == 0.95f && p.interval == 10 &&
         p.weight_decay == 0.01f));
}

namespace {
template <class Rule>
void check_resized(Rule const& made, Rule const& used, shape const& s, std::string const& first,
                   std::string const& second) {
  arena a({{"w", s}});
  for (std::size_t i = 0; i < a.gradients().size(); ++i) a.gradients()[i] = static_cast<float>(i % 5) - 2;
  auto state = made.init(a.parameters());
  auto const kept = state;
  try {
    used.step(a.parameters(), state);
    FAIL_CHECK("not refused: ", first, " with ", second);
  } catch (argument_error const& e) {
    std::string const what = e.what();
    for (auto const& word : {std::string("parameter 'w' ") + message(s), first, second})
      CHECK_MESSAGE(what.find(word) != std::string::npos, what, " has no ", word);
  }
  CHECK(state == kept);
  auto into = used.init(a.parameters());
  CHECK_THROWS_AS(io::saved_state(state.tensors("")).restore(into.tensors("")), checkpoint_error);
  CHECK(into == used.init(a.parameters()));
  made.step(a.parameters(), state);  // as made, it works
}
}  // namespace

TEST_CASE("a state is refused, stepped or loaded, when block or largest are others than sized it") {
  check_resized(optim::shampoo{.block = 2}, optim::shampoo{.block = 1024}, {5, 3}, "statistics_in_blocks_of_2 {33}",
                "statistics {34}");
  check_resized(optim::shampoo{.block = 1024}, optim::shampoo{.block = 2}, {2, 100}, "statistics {10004}",
                "statistics_in_blocks_of_2 {400}");
  // As many numbers, elsewhere.
  check_resized(optim::shampoo{.block = 2}, optim::shampoo{.block = 4}, {4, 4}, "statistics_in_blocks_of_2 {32}",
                "statistics {32}");
  check_resized(optim::shampoo{.block = 2}, optim::shampoo{.block = 4}, {8, 8}, "statistics_in_blocks_of_2 {128}",
                "statistics_in_blocks_of_4 {128}");
  check_resized(optim::shampoo{.grafting = optim::graft::none}, optim::shampoo{}, {4, 4}, "roots {32}, but",
                "graft {4, 4}");
  check_resized(optim::soap{.largest = 3}, optim::soap{.largest = 100}, {4, 4}, "exp_avg_sq {4, 4}, but", "bases {32}");
  check_resized(optim::soap{.largest = 100}, optim::soap{.largest = 3}, {4, 3}, "statistics {25}", "statistics {9}");
  // A block of nothing has no layout, and is refused before it is asked for one.
  {
    arena a({{"w", {4, 4}}});
    optim::chain const made{optim::scale_by_shampoo{.block = 2}, optim::sgd{}};
    decltype(made) used{optim::scale_by_shampoo{.block = 0}, optim::sgd{}};
    auto s = made.init(a.parameters());
    CHECK_THROWS_WITH_AS(used.step(a.parameters(), s), doctest::Contains("block is 0"), argument_error);
  }
  // Of a tensor that is one block either way, the state is the same.
  arena a({{"w", {3, 3}}});
  auto state = optim::shampoo{.block = 8}.init(a.parameters());
  CHECK_NOTHROW(optim::shampoo{.block = 4}.step(a.parameters(), state));
  // Of groups, each has the blocks of its own.
  arena b({{"v", {5, 3}}, {"w", {5, 3}}});
  optim::param_groups const two{optim::shampoo{.block = 1024},
                                optim::group{optim::name_matches{"w"}, optim::shampoo{.block = 2}}};
  auto own = two.init(b.parameters());
  CHECK(own.arrays(0, 0)[0].name == "statistics");
  CHECK(own.arrays(0, 1)[0].name == "statistics_in_blocks_of_2");
  for (float& g : b.gradients()) g = 1;
  CHECK_NOTHROW(two.step(b.parameters(), own));
}

TEST_CASE("a gradient whose square overflows is skipped where the chain looks first, and elsewhere no silent end") {
  std::vector<arena::tensor> const tensors{{"b", {3}}, {"w", {4, 4}}};
  auto const run = [&](auto const& rule, int steps, int at, auto const& each) {
    arena a(tensors);
    conformance::fill(a.weights(), 1);
    auto s = rule.init(a.parameters());
    for (int t = 1; t <= steps; ++t) {
      conformance::fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
      if (t == at) a.gradients()[1] = a.gradients()[5] = 3e19f;
      each(t, rule.step(a.parameters(), s).skipped);
    }
    CHECK(conformance::finite(a.weights()));
    for (auto const& t : s.tensors(""))
      if (t.type == dtype::f32)
        CHECK_MESSAGE(all_finite({reinterpret_cast<float const*>(t.bytes.data()), t.bytes.size() / sizeof(float)}),
                      t.name);
  };
  auto const never = [](int, bool skipped) { CHECK(!skipped); };
  auto const tenth = [](int t, bool skipped) { CHECK(skipped == (t == 10)); };
  run(optim::adafactor{}, 20, 10, never);
  run(optim::chain{optim::skip_non_finite{}, optim::adafactor{}}, 20, 10, tenth);
  run(optim::chain{optim::skip_non_finite{}, optim::sm3{}}, 20, 10, tenth);
  run(optim::chain{optim::skip_non_finite{}, optim::shampoo{}}, 20, 10, tenth);
  run(optim::chain{optim::skip_non_finite{}, optim::soap{}}, 22, 10, tenth);
  run(optim::chain{optim::skip_non_finite{}, optim::adamw{}}, 20, 10, tenth);
  run(optim::chain{optim::clip_by_global_norm{}, optim::soap{}}, 22, 10, never);  // which makes it small
  CHECK_THROWS_WITH_AS(run(optim::shampoo{}, 20, 10, never), doctest::Contains("put optim::skip_non_finite before"),
                       numeric_error);
  CHECK_THROWS_WITH_AS(run(optim::soap{}, 22, 10, never), doctest::Contains("lapack: "), numeric_error);
  std::vector<float> bad{1, NAN, NAN, 1}, out(4);
  CHECK_THROWS_AS(optim::lapack::eigen(bad, 2), numeric_error);
  CHECK_THROWS_AS(optim::lapack::inverse(bad, 2, 1, out), numeric_error);
  std::vector<float> const indefinite{1, 2, 2, 1};
  CHECK_THROWS_WITH_AS(optim::lapack::inverse(indefinite, 2, 0, out), doctest::Contains("failed with info"),
                       numeric_error);
}

}  // namespace optim_matrix
