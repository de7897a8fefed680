// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "reference.hpp"

#include <cstring>
#include <limits>
#include <sstream>

#include <dovetail/optim.hpp>

#include <doctest/doctest.h>

using namespace dovetail;

namespace {

bool same_bits(std::span<float const> a, std::span<float const> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

/// Weights of all tensors in order after some steps over `p`, whose gradients are filled the same way for every layout.
template <class Optimizer>
std::vector<float> train(Optimizer const& opt, parameter_list& p, optim::step_context const& options = {},
                         int steps = 5) {
  std::uint32_t stream = 1;
  for (auto& x : p) test::fill(x.weight, stream++);
  auto s = opt.init(p);
  for (int t = 0; t < steps; ++t) {
    for (auto& x : p) test::fill(x.gradient, stream++);
    opt.step(p, s, options);
  }
  std::vector<float> all;
  for (auto& x : p) all.insert(all.end(), x.weight.begin(), x.weight.end());
  for (std::size_t k = 0; k < s.slots(); ++k) all.insert(all.end(), s.slot(k).begin(), s.slot(k).end());
  return all;
}

/// Calls `f` for one optimizer of every kind of plan.
template <class F>
void for_every_rule(F const& f) {
  f(optim::sgd{.lr = 0.1f, .weight_decay = 0.1f});
  f(optim::momentum{.lr = 0.1f});
  f(optim::nesterov{.lr = 0.1f});
  f(optim::adam{});
  f(optim::adamw{});
  f(optim::lars{});
  f(optim::lamb{});
  f(optim::chain{optim::clip_by_global_norm{1}, optim::lamb{}});
}

/// Stages whose prepare is a template and computes with what it gets.
struct prepared {
  using kind = optim::elementwise;
  static constexpr bool ends_chain = true;
  struct kernel {
    float rate = 0;
    template <class T>
    constexpr T emit(T, T u) const {
      return rate * u;
    }
  };
  float learning_rate(std::int64_t) const { return 0.1f; }
};
struct by_any_rate : prepared {
  constexpr auto prepare(std::int64_t, auto rate) const { return kernel{-1 * rate}; }
};
struct by_any : prepared {
  constexpr auto prepare(auto step, auto rate) const { return kernel{-1 * rate * static_cast<float>(step % 2)}; }
};
struct by_rate_of_any_step : prepared {
  constexpr kernel prepare(float rate, auto) const { return {rate}; }
};
static_assert(optim::stage<by_any_rate> && optim::stage<by_any> && !optim::stage<by_rate_of_any_step>);

// A gradient source that counts what is loaded from it.
struct counting {
  std::size_t* loaded;
  struct cursor {
    optim::gradient::dense::cursor from;
    std::size_t* loaded;
    simd::pack load(std::size_t i) const {
      *loaded += simd::pack::lanes;
      return from.load(i);
    }
    cursor advanced(std::size_t n) const { return {from.advanced(n), loaded}; }
    cursor padded(std::size_t n, std::byte* room) const { return {from.padded(n, room), loaded}; }
    bool continued_by(std::size_t n, cursor next) const { return from.continued_by(n, next.from); }
  };
  static constexpr double bytes() { return 4; }
  static void check(parameter_list const&) {}
  cursor at(parameter_list const& p, std::size_t i) const { return {optim::gradient::dense::at(p, i), loaded}; }
};

/// Runs each pass of a flow alone on arrays of 64 elements, and compares what it touched with the plan. An array that
/// is not in the plan's reads is NaN: any use of it would reach the result.
template <class... Stages>
void check_passes(typename optim::detail::flow<Stages...>::kernels const& kernels) {
  using flow = optim::detail::flow<Stages...>;
  static constexpr optim::plan plan = flow::make();
  [&]<std::size_t... P>(std::index_sequence<P...>) {
    (([&] {
       constexpr std::size_t arrays = 2 + flow::slots;
       constexpr auto pass = plan.pass[P];
       for (std::size_t n : {std::size_t{64}, std::size_t{7}}) {
         std::vector<std::vector<float>> data(arrays, std::vector<float>(64));
         for (std::size_t a = 0; a < arrays; ++a)
           for (std::size_t i = 0; i < 64; ++i)
             data[a][i] = pass.reads >> a & 1 ? 0.5f + 0.01f * static_cast<float>(i + a)
                                              : std::numeric_limits<float>::quiet_NaN();
         auto const before = data;
         using loop = optim::detail::pass_loop<float, flow, P, optim::gradient::dense>;
         typename loop::view view{data[0].data(), {data[1].data()}, {}, 1, {}};
         for (std::size_t b = 2; b < arrays; ++b) view.slot[b - 2] = data[b].data();
         std::array<float, flow::factors + 1> factors;
         factors.fill(0.7f);
         for (double const sum : loop::run(kernels, factors.data(), view, n)) CHECK(std::isfinite(sum));
         for (std::size_t a = 0; a < arrays; ++a) {
           CAPTURE(P);
           CAPTURE(a);
           if (pass.writes >> a & 1) {
             for (std::size_t i = 0; i < n; ++i) {
               CHECK(std::isfinite(data[a][i]));
               CHECK(data[a][i] != before[a][i]);
             }
             CHECK(same_bits(std::span(data[a]).subspan(n), std::span(before[a]).subspan(n)));
           } else {
             CHECK(same_bits(data[a], before[a]));
           }
           // Every array in the plan's reads matters: poisoned, it shows in something that is written or summed.
           if (!(pass.reads >> a & 1)) continue;
           auto poisoned = before;
           poisoned[a][0] = std::numeric_limits<float>::quiet_NaN();
           view.weight = poisoned[0].data();
           view.input = {poisoned[1].data()};
           for (std::size_t b = 2; b < arrays; ++b) view.slot[b - 2] = poisoned[b].data();
           bool seen = false;
           for (double const sum : loop::run(kernels, factors.data(), view, n)) seen |= !std::isfinite(sum);
           for (std::size_t b = 0; b < arrays; ++b)
             if (pass.writes >> b & 1) seen |= std::isnan(poisoned[b][0]);
           CHECK(seen);
         }
       }
     }()),
     ...);
  }
  (std::make_index_sequence<plan.passes>{});
}

}  // namespace

TEST_CASE("the plan is what the loops touch: nothing else is read, all of it matters, nothing else is written") {
  optim::scale_by_learning_rate const lr{0.1f};
  optim::add_decayed_weights const decay{0.1f};
  check_passes<optim::add_decayed_weights, optim::scale_by_learning_rate>({decay.prepare(1), lr.prepare(1, 0.1f)});
  check_passes<optim::scale_by_adam, optim::add_decayed_weights, optim::scale_by_learning_rate>(
      {optim::scale_by_adam{}.prepare(2), decay.prepare(2), lr.prepare(2, 0.1f)});
  check_passes<optim::scale_by_adam, optim::add_decayed_weights, optim::scale_by_trust_ratio,
               optim::scale_by_learning_rate>({optim::scale_by_adam{}.prepare(2), decay.prepare(2),
                                               optim::scale_by_trust_ratio{}.prepare(2), lr.prepare(2, 0.1f)});
  check_passes<optim::scale_by_lars_trust_ratio, optim::accumulate_momentum, optim::scale_by_learning_rate>(
      {optim::scale_by_lars_trust_ratio{.weight_decay = 0.1f}.prepare(2), optim::accumulate_momentum{}.prepare(2),
       lr.prepare(2, 0.1f)});
  check_passes<optim::skip_non_finite, optim::clip_by_global_norm, optim::accumulate_nesterov_momentum,
               optim::scale_by_learning_rate>({optim::skip_non_finite{}.prepare(1),
                                               optim::clip_by_global_norm{}.prepare(1),
                                               optim::accumulate_nesterov_momentum{}.prepare(1), lr.prepare(1, 0.1f)});
}

TEST_CASE("gradients are loaded as often as the plan's passes read them") {
  auto const loads = [](auto const& opt) {
    arena a({{"w", {1600}}, {"v", {160}}});
    test::fill(a.weights(), 1);
    test::fill(a.gradients(), 2);
    auto s = opt.init(a.parameters());
    std::size_t loaded = 0;
    opt.step(a.parameters(), s, counting{&loaded});
    return static_cast<double>(loaded) / 1760;
  };
  CHECK(loads(optim::adamw{}) == 1);
  CHECK(loads(optim::lars{}) == 2);
  CHECK(loads(optim::lamb{}) == 1);  // the second pass goes without
  CHECK(loads(optim::chain{optim::skip_non_finite{}, optim::clip_by_global_norm{}, optim::adamw{}}) == 2);
}

TEST_CASE("a plan can be printed") {
  std::ostringstream out;
  out << optim::lamb::plan;
  CHECK(out.str() ==
        "2 passes, 40 bytes per parameter\n"
        "  pass 1: reads weight gradient exp_avg exp_avg_sq; writes exp_avg exp_avg_sq; norms per tensor\n"
        "  pass 2: reads weight exp_avg exp_avg_sq; writes weight\n");
}

TEST_CASE("bits depend neither on threads, nor on where tensors lie in memory") {
  std::vector<std::size_t> const sizes{1, 31, 0, 33, 70000, 1000, 4096, 4097, 130000};
  for_every_rule([&](auto const& opt) {
    std::vector<arena::tensor> all;
    std::vector<arena> apart;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      all.push_back({message("t", i), {static_cast<std::int64_t>(sizes[i])}});
      apart.emplace_back(std::vector{all.back()});
    }
    arena together(all);
    parameter_list scattered;
    std::vector<std::vector<float>> unaligned;  // off by one element from any alignment
    for (std::size_t n : sizes) unaligned.emplace_back(2 * n + 3);
    parameter_list odd;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      scattered.add(all[i].name, apart[i].weights(), apart[i].gradients());
      std::span<float> const block(unaligned[i]);
      odd.add(all[i].name, block.subspan(1, sizes[i]), block.subspan(2 + sizes[i], sizes[i]));
    }
    auto const expected = train(opt, together.parameters());
    CHECK(same_bits(train(opt, together.parameters(), {.threads = 3}), expected));
    CHECK(same_bits(train(opt, scattered), expected));
    CHECK(same_bits(train(opt, scattered, {.threads = 2}), expected));
    CHECK(same_bits(train(opt, odd, {.threads = 3}), expected));
  });
}

TEST_CASE("an element's bits do not depend on how an elementwise rule's tensors are cut") {
  for (int first : {0, 1, 15, 16, 17, 500}) {
    arena whole({{"w", {777}}}), cut({{"a", {first}}, {"b", {777 - first}}});
    auto const run = [](arena& a) {
      optim::adamw const opt{.lr = 0.1f};
      test::fill(a.weights(), 1);
      auto s = opt.init(a.parameters());
      for (std::uint32_t t = 0; t < 4; ++t) {
        test::fill(a.gradients(), 5 + t);
        opt.step(a.parameters(), s);
      }
      return std::vector<float>(a.weights().begin(), a.weights().end());
    };
    CHECK(same_bits(run(whole), run(cut)));
  }
}

TEST_CASE("a list without elements or without tensors steps") {
  for_every_rule([](auto const& opt) {
    parameter_list none;
    auto s = opt.init(none);
    CHECK(opt.step(none, s).step == 1);
    arena a({{"empty", {0}}, {"also", {0, 3}}});
    auto e = opt.init(a.parameters());
    CHECK(opt.step(a.parameters(), e, {.threads = 4}).step == 1);
  });
}

TEST_CASE("a gradient that is not finite skips the step: weights and state keep their bits and the result says so") {
  auto const run = [](auto const& opt, float poison) {
    arena a(test::awkward_sizes());
    auto& p = a.parameters();
    test::fill(a.weights(), 1);
    auto s = opt.init(p);
    test::make_gradients(a, 1);
    CHECK_FALSE(opt.step(p, s).skipped);
    std::vector<float> const w(a.weights().begin(), a.weights().end());
    auto const before = s;
    test::make_gradients(a, 2);
    p[4].gradient[999] = poison;
    auto const r = opt.step(p, s);
    CHECK(r.skipped);
    CHECK(r.step == 1);
    CHECK_FALSE(std::isfinite(r.gradient_norm));
    CHECK(same_bits(a.weights(), w));
    CHECK(s == before);
    test::make_gradients(a, 2);
    auto const after = opt.step(p, s);
    CHECK_FALSE(after.skipped);
    CHECK(after.step == 2);
  };
  float const inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (float poison : {nan, inf, -inf}) {
    run(optim::chain{optim::skip_non_finite{}, optim::adamw{}}, poison);
    run(optim::chain{optim::skip_non_finite{}, optim::lamb{}}, poison);
    run(optim::chain{optim::clip_by_global_norm{1}, optim::momentum{}}, poison);  // knows the norm, so it knows
    run(optim::lars{}, poison);
  }
}

TEST_CASE("a step says what it did") {
  arena a({{"w", {3}}, {"b", {1}}});
  for (float& g : a.gradients()) g = 2;
  auto& p = a.parameters();
  optim::chain const opt{optim::clip_by_global_norm{1},
                         optim::sgd{.lr = optim::linear{.from = 1, .to = 0, .steps = 4}}};
  auto s = opt.init(p);
  auto r = opt.step(p, s);
  CHECK(r.step == 1);
  CHECK(r.lr == 1);
  CHECK(r.gradient_norm == doctest::Approx(4));
  CHECK(a.weights()[0] == -0.5f);
  r = opt.step(p, s);
  CHECK(r.step == 2);
  CHECK(r.lr == 0.75f);
  auto t = optim::adamw{}.init(p);
  CHECK(optim::adamw{}.step(p, t).gradient_norm == -1);
}

TEST_CASE("ranks that hold parts of the parameters get the norms of the whole by adding sums between passes") {
  for_every_rule([](auto const& opt) {
    // One list of two tensors against two lists, each with a part of both tensors.
    arena whole({{"a", {100}}, {"b", {60}}});
    arena left({{"a", {40}}, {"b", {0}}}), right({{"a", {60}}, {"b", {60}}});
    auto const copy = [&](auto member) {
      auto const from = (whole.*member)();
      std::copy_n(from.begin(), 40, (left.*member)().begin());
      std::copy_n(from.begin() + 40, 120, (right.*member)().begin());
    };
    test::fill(whole.weights(), 1);
    copy(static_cast<std::span<float> (arena::*)()>(&arena::weights));
    auto s = opt.init(whole.parameters()), l = opt.init(left.parameters()), r = opt.init(right.parameters());
    for (std::uint32_t t = 0; t < 3; ++t) {
      test::fill(whole.gradients(), 10 + t);
      copy(static_cast<std::span<float> (arena::*)()>(&arena::gradients));
      opt.step(whole.parameters(), s);
      // Without ranks: run each side once on copies to learn its sums, then with the other side's added.
      std::vector<std::vector<double>> sums[2];
      auto const sides = {std::pair{&left, &l}, std::pair{&right, &r}};
      for (std::size_t pass = 0; pass + 1 < static_cast<std::size_t>(opt.passes); ++pass) {
        int side = 0;
        std::vector<std::vector<double>> found(2);
        for (auto const& [a, st] : sides) {
          arena trial = *a;
          auto trial_state = *st;
          std::size_t call = 0;
          opt.step(trial.parameters(), trial_state, {.all_reduce_sums = [&](std::span<double> x) {
                     if (call < pass)
                       for (std::size_t i = 0; i < x.size(); ++i) x[i] = sums[0][call][i];
                     if (call == pass) found[static_cast<std::size_t>(side)].assign(x.begin(), x.end());
                     ++call;
                   }});
          ++side;
        }
        for (std::size_t i = 0; i < found[0].size(); ++i) found[0][i] += found[1][i];
        sums[0].push_back(found[0]);
      }
      for (auto const& [a, st] : sides) {
        std::size_t call = 0;
        opt.step(a->parameters(), *st, {.all_reduce_sums = [&](std::span<double> x) {
                   for (std::size_t i = 0; i < x.size(); ++i) x[i] = sums[0][call][i];
                   ++call;
                 }});
      }
    }
    for (std::size_t i = 0; i < 40; ++i) CHECK(left.weights()[i] == doctest::Approx(whole.weights()[i]).epsilon(1e-6));
    for (std::size_t i = 0; i < 120; ++i)
      CHECK(right.weights()[i] == doctest::Approx(whole.weights()[40 + i]).epsilon(1e-6));
  });
}

TEST_CASE("a learning rate that is not finite is refused, and nothing is changed") {
  arena a({{"w", {5}}});
  for (float& g : a.gradients()) g = 1;
  auto& p = a.parameters();
  float rate = 0.5f;
  optim::adamw const opt{.lr = [&rate](std::int64_t) { return rate; }};
  auto s = opt.init(p);
  opt.step(p, s);
  auto const before = s;
  std::vector<float> const w(a.weights().begin(), a.weights().end());
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    rate = bad;
    CHECK_THROWS_WITH_AS(opt.step(p, s), doctest::Contains("the learning rate of step 2 is"), argument_error);
    CHECK(same_bits(a.weights(), w));
    CHECK(s == before);
  }
}
