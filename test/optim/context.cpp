// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a step is told (optim/step.hpp) reaches the rule, through all that lies around it; and what it tells.
#include "reference.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <dovetail/comm.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/any_optimizer.hpp>
#include <dovetail/optim/low_precision.hpp>
#include <dovetail/optim/second_order.hpp>
#include <dovetail/sync.hpp>

namespace optim_context {

using namespace dovetail;
using namespace test;

namespace {

double sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

/// AdamW in double precision, with what `turn` makes of the direction u and the gradient g.
template <class Turn>
reference_rule adamw_with(Turn const& turn) {
  return [turn](tensor& x, vec g, int t) {
    double const lr = 0.01, b1 = 0.9, b2 = 0.99, epsilon = 1e-6, decay = 0.1;
    vec u(g.size());
    for (std::size_t i = 0; i < g.size(); ++i) {
      x.m[i] = b1 * x.m[i] + (1 - b1) * g[i];
      x.v[i] = b2 * x.v[i] + (1 - b2) * g[i] * g[i];
      u[i] = x.m[i] / (1 - std::pow(b1, t)) / (std::sqrt(x.v[i] / (1 - std::pow(b2, t))) + epsilon);
    }
    turn(u, g);
    for (std::size_t i = 0; i < g.size(); ++i) x.w[i] -= lr * (u[i] + decay * x.w[i]);
  };
}
void cautiously(vec& u, vec const& g) {
  double agreeing = 0;
  for (std::size_t i = 0; i < u.size(); ++i) agreeing += sign(u[i]) * sign(g[i]) > 0 ? 1 : 0;
  for (std::size_t i = 0; i < u.size(); ++i)
    u[i] *= sign(u[i]) * sign(g[i]) > 0 ? static_cast<double>(u.size()) / (agreeing + 1) : 0;
}
void like_grams(vec& u, vec const& g) {
  for (std::size_t i = 0; i < u.size(); ++i) u[i] = std::abs(u[i]) * sign(g[i]);
}

template <class Stage>
auto adamw_with_stage(Stage const& stage) {
  return optim::chain{optim::scale_by_adam{.beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-6f}, stage,
                      optim::add_decayed_weights{0.1f}, optim::scale_by_learning_rate{0.01f}};
}

/// A whole tensor's update becomes a multiple of itself: what comes behind reads a stored update.
struct times_two {
  using kind = optim::tensorwise;
  void apply(optim::tensor_update const& t) const {
    for (float& x : t.update) x *= 2;
  }
};
/// u <- u + g / 4: exact, so that ways to the gradient can be compared bit by bit.
struct add_gradient {
  using kind = optim::elementwise;
  static constexpr bool reads_gradient = true;
  struct kernel {
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T g) const {
      return u + 0.25f * g;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
/// With slots, from the update, the weight and the gradient: remembers their product and passes it on.
struct remember_all {
  using kind = optim::elementwise;
  static constexpr bool reads_gradient = true;
  static constexpr std::array slots{"seen"};
  struct kernel {
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T w, T u, T g, T& seen) const {
      seen = seen + w * u * g;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T g, T seen) const {
      return seen - g;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
/// Lion's form: a step that reads the gradient.
struct step_of_all {
  using kind = optim::elementwise;
  static constexpr bool reads_gradient = true;
  static constexpr std::array slots{"before"};
  struct kernel {
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T g, T& before) const {
      T const passed = before + g;
      before = u;
      return passed;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

template <class Rule, class Step>
std::vector<float> weights_after(Rule const& rule, int steps, Step const& step) {
  arena a(awkward_sizes());
  fill(a.weights(), 1);
  auto state = rule.init(a.parameters());
  for (int t = 1; t <= steps; ++t) {
    fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
    step(rule, a, state, t);
  }
  return {a.weights().begin(), a.weights().end()};
}
template <class Rule>
void check_factor(Rule const& rule) {
  auto const scaled = [](auto const& r, arena& a, auto& state, int t) {
    float const factor = t == 2 ? 0.5f : 0.125f;  // exact
    for (float& g : a.gradients()) g /= factor;
    r.step(a.parameters(), state, optim::step_context{.gradient_factor = factor});
  };
  auto const plain = [](auto const& r, arena& a, auto& state, int) { r.step(a.parameters(), state); };
  CHECK(weights_after(rule, 4, scaled) == weights_after(rule, 4, plain));
}

}  // namespace

TEST_CASE("cautious AdamW and Grams are their papers', in fp64") {
  CHECK(largest_difference(adamw_with_stage(optim::cautious{}), adamw_with(cautiously), 20) < 2e-6);
  CHECK(largest_difference(adamw_with_stage(optim::grams{}), adamw_with(like_grams), 20) < 2e-6);
  // And not AdamW's own: the stages do something.
  CHECK(largest_difference(adamw_with_stage(optim::cautious{}), adamw_with([](vec&, vec const&) {}), 20) > 1e-2);
  CHECK(largest_difference(adamw_with_stage(optim::grams{}), adamw_with([](vec&, vec const&) {}), 20) > 1e-2);
}

TEST_CASE("behind a stage that stores the update, the gradient is read beside it") {
  // 2 g + g / 4, once with the gradient itself and once by stages that keep to the update.
  optim::chain const reads{times_two{}, add_gradient{}, optim::scale_by_learning_rate{0.5f}};
  optim::chain const plain{optim::scale{2.25f}, optim::scale_by_learning_rate{0.5f}};
  static_assert(reads.passes == 2 && reads.bytes_per_parameter == 8 + 16);  // update, gradient, weight twice
  auto const dense = [](auto const& r, arena& a, auto& state, int) { r.step(a.parameters(), state); };
  CHECK(weights_after(reads, 3, dense) == weights_after(plain, 3, dense));
  // From halves, from a multiple of them, and with a factor on top.
  auto const halves = [](float factor, float on_top) {
    return [=](auto const& r, arena& a, auto& state, int) {
      auto& p = a.parameters();
      std::vector<bf16> memory;
      for (float& g : a.gradients()) memory.emplace_back(g), g = static_cast<float>(memory.back());
      std::vector<std::span<bf16 const>> spans;
      for (std::size_t i = 0; i < p.size(); ++i)
        spans.push_back(std::span<bf16 const>(memory).subspan(p.offset(i), p[i].size()));
      r.step(p, state, optim::gradient::half<bf16>{spans, factor}, optim::step_context{.gradient_factor = on_top});
    };
  };
  CHECK(weights_after(reads, 3, halves(1, 1)) == weights_after(plain, 3, halves(1, 1)));
  CHECK(weights_after(reads, 3, halves(4, 0.25f)) == weights_after(plain, 3, halves(1, 1)));
  // In packed weights or slots, and in column-major tensors.
  optim::chain const with_slots{optim::accumulate_momentum{0.5f}, times_two{}, add_gradient{},
                                optim::scale_by_learning_rate{0.5f}};
  auto const packed = optim::low_precision_state{with_slots, optim::blockwise_8bit{}};
  CHECK(weights_after(packed, 1, dense) == weights_after(reads, 1, dense));  // nothing remembered yet
  for (bool const transposed : {false, true}) {
    std::vector<float> w(6, 1), g{1, 2, 3, 4, 5, 6};
    parameter_list p;
    if (transposed)
      p.add("w", w, g, {2, 3}, layout::column_major);
    else
      p.add("w", w, g, {2, 3});
    auto state = reads.init(p);
    reads.step(p, state);
    for (std::size_t i = 0; i < 6; ++i) CHECK(w[i] == 1 - 0.5f * 2.25f * g[i]);
  }
}

TEST_CASE("every function of a kernel can have the gradient") {
  arena a({{"w", {19}}});
  for (float& w : a.weights()) w = 2;
  for (float& g : a.gradients()) g = 3;
  optim::chain const opt{optim::scale{0.5f}, remember_all{}, step_of_all{}, optim::scale_by_learning_rate{1}};
  static_assert(opt.passes == 1 && opt.plan.slots == 2);
  auto state = opt.init(a.parameters());
  opt.step(a.parameters(), state);
  for (float const w : a.weights()) CHECK(w == 2 - 3.0f);  // before = 0, then 2 * 1.5 * 3 - 3 = 6
  for (float const x : state.slot(0)) CHECK(x == 9);
  for (float const x : state.slot(1)) CHECK(x == 6);
}

TEST_CASE("a factor of gradients is that of gradients in memory, for all that steps") {
  check_factor(optim::adamw{});
  check_factor(optim::lamb{});
  check_factor(optim::chain{optim::clip_by_global_norm{0.5f}, optim::adamw{}});
  check_factor(adamw_with_stage(optim::cautious{}));
  check_factor(optim::param_groups{optim::adamw{}, optim::group{optim::name_matches{"*.bias"}, optim::adamw{.lr = 1}}});
  check_factor(optim::partition{optim::adamw{}, optim::group{optim::name_matches{"*.bias"}, optim::lion{}}});
  check_factor(optim::low_precision_state{optim::adamw{}, optim::bf16_slots{}});
  check_factor(optim::any_optimizer(optim::nadam{}));
  check_factor(optim::stochastic_lbfgs{.lr = 0.01f, .weight_decay = 0.1f});
  // Both factors: the source's and the step's.
  auto const both = [](auto const& r, arena& a, auto& state, int) {
    for (float& g : a.gradients()) g *= 4;
    r.step(a.parameters(), state, optim::gradient::scaled{0.5f}, optim::step_context{.gradient_factor = 0.5f});
  };
  auto const plain = [](auto const& r, arena& a, auto& state, int) { r.step(a.parameters(), state); };
  CHECK(weights_after(optim::adamw{}, 3, both) == weights_after(optim::adamw{}, 3, plain));
  // One that is not a number is refused before anything has changed.
  arena a({{"w", {3}}});
  auto state = optim::adamw{}.init(a.parameters());
  for (float const bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    CHECK_THROWS_AS(optim::adamw{}.step(a.parameters(), state, optim::step_context{.gradient_factor = bad}),
                    argument_error);
  CHECK(state.steps() == 0);
}

namespace {
/// The least optimizer: its step takes no context.
struct least {
  struct state_type {
    std::vector<named_tensor> tensors(std::string const&) { return {}; }
  };
  state_type init(parameter_list const&) const { return {}; }
  optim::step_result step(parameter_list const& p, state_type&) const {
    for (auto const& x : p)
      for (std::size_t i = 0; i < x.size(); ++i) x.weight[i] -= x.gradient[i];
    return {.step = 1};
  }
};
template <class Optimizer, class Policy>
std::vector<float> trained(Optimizer const& opt, Policy const& policy, float loss_scale) {
  std::vector<float> all(2 * 40);
  comm::threads{2}.run([&](auto& c) {
    arena a({{"a", {33}}, {"b", {7}}});
    fill(a.weights(), 1);
    auto session = policy.join(a.parameters(), opt, c);
    for (int t = 0; t < 3; ++t) {
      session.begin();
      fill(a.gradients(), static_cast<std::uint32_t>(10 * t + c.rank()), loss_scale);
      session.step({.gradient_factor = 1 / loss_scale});
    }
    std::copy(a.weights().begin(), a.weights().end(), all.begin() + 40 * c.rank());
  });
  return all;
}
}  // namespace

TEST_CASE("a session's step takes the factor of its gradients") {
  CHECK(trained(optim::adamw{}, sync::all_reduce{}, 1024) == trained(optim::adamw{}, sync::all_reduce{}, 1));
  CHECK(trained(optim::adamw{}, sync::local_sgd{.every = 2}, 1024) ==
        trained(optim::adamw{}, sync::local_sgd{.every = 2}, 1));
  CHECK(trained(least{}, sync::all_reduce{}, 1024) == trained(least{}, sync::all_reduce{}, 1));
}

TEST_CASE("the gradient's norm is known wherever the chain measures it") {
  arena a({{"w", {100}}, {"b", {3}}});
  auto const norm_of = [&](auto const& opt) {
    fill(a.weights(), 1);
    fill(a.gradients(), 2);
    auto state = opt.init(a.parameters());
    return opt.step(a.parameters(), state).gradient_norm;
  };
  fill(a.gradients(), 2);
  double squares = 0;
  for (float const g : a.gradients()) squares += static_cast<double>(g) * static_cast<double>(g);
  double const norm = std::sqrt(squares);
  CHECK(norm_of(optim::chain{optim::clip_by_global_norm{1}, optim::sgd{}}) == doctest::Approx(norm).epsilon(1e-12));
  CHECK(norm_of(optim::chain{optim::skip_non_finite{}, optim::sgd{}}) == doctest::Approx(norm).epsilon(1e-12));
  CHECK(norm_of(optim::chain{optim::skip_non_finite{}, optim::clip_by_global_norm{1}, optim::sgd{}}) ==
        doctest::Approx(norm).epsilon(1e-12));
  CHECK(norm_of(optim::larc{}) == doctest::Approx(norm).epsilon(1e-12));
  CHECK(norm_of(optim::lamb{}) == -1);  // a norm of Adam's update…
  CHECK(norm_of(optim::chain{optim::normalize_per_tensor{}, optim::sgd{}}) == doctest::Approx(norm).epsilon(1e-12));
  // …and behind a stage that changes the gradient.
  CHECK(norm_of(optim::chain{optim::scale{2}, optim::clip_by_global_norm{1}, optim::sgd{}}) == -1);
  // Several rules: that of all their parameters, if each measures its own.
  optim::chain const clipped{optim::clip_by_global_norm{1}, optim::sgd{}};
  CHECK(norm_of(optim::partition{clipped, optim::group{optim::name_matches{"b"}, clipped}}) ==
        doctest::Approx(norm).epsilon(1e-12));
  CHECK(norm_of(optim::partition{clipped, optim::group{optim::name_matches{"b"}, optim::sgd{}}}) == -1);
  CHECK(norm_of(optim::param_groups{clipped, optim::group{optim::name_matches{"b"}, clipped}}) ==
        doctest::Approx(norm).epsilon(1e-12));
}

namespace {
/// One step of Sophia or AdaHessian after an estimate has been taken in.
template <class Rule, class Observe>
std::vector<float> after_an_estimate(Rule const& rule, Observe const& observe) {
  return weights_after(rule, 3, [&](auto const& r, arena& a, auto& state, int t) {
    std::vector<float> estimate(a.parameters().flat_size());
    fill(estimate, static_cast<std::uint32_t>(50 + t));
    for (float& x : estimate) x = std::abs(x);
    CHECK(observe(r, a.parameters(), state, optim::hessian_diagonal{estimate}));
    r.step(a.parameters(), state);
  });
}
template <class Session, class Communicator>
void estimate_not_finite(Session& session, arena& a, Communicator& c) {
  std::vector<float> estimate(a.parameters().flat_size(), 1);
  if (c.rank() == c.size() - 1) estimate.back() = std::numeric_limits<float>::infinity();
  CHECK(!session.observe(optim::hessian_diagonal{estimate}));
  CHECK_THROWS_AS(session.observe(optim::hessian_diagonal{std::span(estimate).first(3)}), argument_error);
}
auto const observing = [](auto const& r, auto& p, auto& state, optim::hessian_diagonal d) {
  return r.observe(p, state, d);
};
}  // namespace

TEST_CASE("an estimate of the curvature reaches the rule through groups, formats, names and ranks") {
  optim::sophia const sophia{.lr = 0.01f, .gamma = 0.7f};
  optim::adahessian const adahessian{.lr = 0.01f, .average = optim::spatial::row};
  auto const plain = after_an_estimate(sophia, observing);
  auto const averaged = after_an_estimate(adahessian, observing);
  CHECK(plain != after_an_estimate(sophia, [](auto const&, auto&, auto&, auto) { return true; }));
  CHECK(after_an_estimate(optim::any_optimizer(sophia), observing) == plain);
  CHECK(after_an_estimate(optim::any_optimizer(adahessian), observing) == averaged);
  CHECK(after_an_estimate(optim::chain{optim::skip_non_finite{}, sophia}, observing) == plain);
  optim::group const biases{optim::name_matches{"*.bias"}, sophia};
  CHECK(after_an_estimate(optim::param_groups{sophia, biases}, observing) == plain);
  CHECK(after_an_estimate(optim::partition{sophia, biases}, observing) == plain);
  // Each group has its own share of what was there before.
  optim::group const slow{optim::name_matches{"*.bias"}, optim::sophia{.lr = 0.01f, .beta2 = 0.5f, .gamma = 0.7f}};
  CHECK(after_an_estimate(optim::param_groups{sophia, slow}, observing) ==
        after_an_estimate(optim::partition{sophia, slow}, observing));
  CHECK(after_an_estimate(optim::param_groups{sophia, slow}, observing) != plain);
  // Only those that want one.
  optim::group const others{optim::name_matches{"*.bias"}, optim::adamw{}};
  CHECK(after_an_estimate(optim::partition{sophia, others}, observing) != plain);
  // Packed slots: near, and packed weights: the same as packed weights of the rule in groups.
  auto const bf16 = after_an_estimate(optim::low_precision_state{sophia, optim::bf16_slots{}}, observing);
  double worst = 0;
  for (std::size_t i = 0; i < bf16.size(); ++i)
    worst = std::max(worst, static_cast<double>(std::abs(bf16[i] - plain[i])));
  CHECK(worst > 0);
  CHECK(worst < 2e-3);
  CHECK(after_an_estimate(optim::low_precision_state{optim::param_groups{sophia, biases}, optim::bf16_slots{}},
                          observing) == bf16);
  // Ranks that have parts: the weights of one rank, whatever their number.
  for (int const ranks : {1, 2, 3}) {
    std::vector<float> weights;
    comm::threads{ranks}.run([&](auto& c) {
      auto const mine = after_an_estimate(sync::shard(sophia, c), observing);
      if (c.rank() == 0) weights = mine;
    });
    CHECK(weights == plain);
  }
  // A session of two ranks, whose mean of estimates it is: exact, as one is twice the other.
  std::vector<float> one, two;
  for (int const ranks : {1, 2})
    comm::threads{ranks}.run([&](auto& c) {
      arena a(awkward_sizes());
      fill(a.weights(), 1);
      auto session = sync::all_reduce{}.join(a.parameters(), sophia, c);
      for (int t = 0; t < 2; ++t) {
        session.begin();
        std::vector<float> estimate(a.parameters().flat_size(), 0.75f);
        if (ranks == 2) estimate.assign(estimate.size(), c.rank() ? 1 : 0.5f);
        CHECK(session.observe(optim::hessian_diagonal{estimate}));
        fill(a.gradients(), static_cast<std::uint32_t>(t), c.rank() ? 0 : 1);
        session.step();
      }
      estimate_not_finite(session, a, c);
      if (c.rank() == 0) (ranks == 1 ? one : two).assign(a.weights().begin(), a.weights().end());
    });
  CHECK(one == two);
  // Averages over rows that are cut: refused, with the way out.
  comm::threads{2}.run([&](auto& c) {
    arena a({{"w", {2, 5}}});
    auto const divided = sync::shard(adahessian, c, {0, 3, 10});
    auto state = divided.init(a.parameters());
    std::vector<float> const estimate(10, 1);
    CHECK_THROWS_WITH_AS(divided.observe(a.parameters(), state, optim::hessian_diagonal{estimate}),
                         doctest::Contains("multiples of 5"), argument_error);
  });
  // A rule that wants none, chosen when the program runs.
  arena a({{"w", {3}}});
  optim::any_optimizer const chosen = optim::adamw{};
  auto state = chosen.init(a.parameters());
  std::vector<float> const estimate(3, 1);
  CHECK_THROWS_WITH_AS(chosen.observe(a.parameters(), state, optim::hessian_diagonal{estimate}),
                       doctest::Contains("adamw"), argument_error);
}

namespace {
/// Without the weight, and what it measures has slots and the gradient in it: u <- u s, with s the sum of u g slot.
struct scale_by_agreement {
  using kind = optim::reducing;
  static constexpr optim::reduction needs{.per_tensor = true};
  static constexpr bool reads_gradient = true;
  static constexpr std::array slots{"both"};
  struct kernel {
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T g, T& both) const {
      both = both + u + g;
    }
    template <class T>
    DOVETAIL_INLINE constexpr std::array<optim::product<T>, 1> measure(T, T u, T g, T both) const {
      return {{{u * g, both}}};
    }
    DOVETAIL_HD float factor(std::array<double, 1> sum) const { return static_cast<float>(sum[0]); }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T, T, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
}  // namespace

TEST_CASE("a reduction behind a stored update measures gradient and slots, too") {
  arena a({{"w", {5}}});
  for (float& w : a.weights()) w = 0;
  for (float& g : a.gradients()) g = 1;
  optim::chain const opt{times_two{}, scale_by_agreement{}, optim::scale_by_learning_rate{1}};
  auto state = opt.init(a.parameters());
  opt.step(a.parameters(), state);
  for (float const x : state.slot(0)) CHECK(x == 3);  // 2 + 1
  for (float const w : a.weights()) CHECK(w == -60);  // 5 times 2 * 1 * 3, times 2
  auto const after = [](auto const& rule) {
    return weights_after(rule, 2, [](auto const& r, arena& b, auto& s, int) { r.step(b.parameters(), s); });
  };
  // Twice the update agrees where the update does.
  CHECK(after(optim::chain{times_two{}, optim::cautious{}, optim::scale_by_learning_rate{0.5f}}) ==
        after(optim::chain{optim::scale{2}, optim::cautious{}, optim::scale_by_learning_rate{0.5f}}));
}

TEST_CASE("a session steps a divided optimizer that is chosen when the program runs, and refuses memory elsewhere") {
  std::vector<float> one, two;
  for (int const ranks : {1, 2})
    comm::threads{ranks}.run([&](auto& c) {
      arena a(awkward_sizes());
      fill(a.weights(), 1);
      auto session = sync::all_reduce{}.join(a.parameters(), sync::shard(optim::any_optimizer(optim::adamw{}), c), c);
      for (int t = 0; t < 3; ++t) {
        session.begin();
        fill(a.gradients(), static_cast<std::uint32_t>(t), c.rank() ? 0 : 1);
        session.step();
      }
      if (c.rank() == 0) (ranks == 1 ? one : two).assign(a.weights().begin(), a.weights().end());
    });
  CHECK(one == two);
  comm::threads{2}.run([&](auto& c) {
    parameter_list p;
    p.add_opaque("w", {4});
    CHECK_THROWS_WITH_AS(static_cast<void>(sync::all_reduce{}.join(p, optim::adamw{}, c)),
                         doctest::Contains("elsewhere"), argument_error);
  });
  // An estimate while gradients are exchanged would mix two steps.
  comm::threads{2}.run([&](auto& c) {
    arena a({{"w", {4}}});
    auto session = sync::all_reduce{}.join(a.parameters(), optim::sophia{}, c);
    session.begin();
    fill(a.gradients(), 1);
    session.ready(0);
    std::vector<float> const estimate(4, 1);
    CHECK_THROWS_WITH_AS(session.observe(optim::hessian_diagonal{estimate}), doctest::Contains("behind step"),
                         argument_error);
    session.step();
    CHECK(session.observe(optim::hessian_diagonal{estimate}));
    auto apart = sync::local_sgd{}.join(a.parameters(), optim::sophia{}, c);
    CHECK(apart.observe(optim::hessian_diagonal{estimate}));
  });
}

TEST_CASE("frozen parameters count no step that another rule of the partition refuses") {
  auto const refused = [](auto const& rule, auto const& parameters, auto const& prepare, auto const& source,
                          optim::step_context const& context, char const* why) {
    optim::partition const opt{optim::frozen{}, optim::group{optim::name_matches{"b"}, rule}};
    auto s = opt.init(parameters);
    prepare(s);
    auto const before = s;
    CHECK_THROWS_WITH_AS(opt.step(parameters, s, source, context), doctest::Contains(why), argument_error);
    CHECK(s == before);
  };
  auto const as_made = [](auto&) {};
  optim::gradient::dense const dense;
  arena a({{"w", {3}}, {"b", {2}}});
  basic_arena<double> doubles({{"w", {3}}, {"b", {2}}});
  optim::step_context const divided{.preconditioning = {.ranks = 2}};
  refused(optim::sgd{}, doubles.parameters(), as_made, dense, divided, "ranks divide the work");

  parameter_list elsewhere;
  for (auto const& p : a.parameters()) elsewhere.add_opaque(p.name, p.shape);
  std::vector<bf16> gradients(5);
  std::array<std::span<bf16 const>, 2> const spans{std::span(gradients).first(3), std::span(gradients).last(2)};
  optim::gradient::half<bf16> const half{spans};
  char const* const no_memory = "weights of this parameter list are elsewhere";
  refused(optim::sgd{}, elsewhere, as_made, half, {}, no_memory);
  refused(optim::param_groups{optim::sgd{}}, elsewhere, as_made, half, {}, no_memory);
  refused(optim::stochastic_lbfgs{}, elsewhere, as_made, half, {}, no_memory);

  auto const at_the_end = [](auto& all) {
    auto& s = std::get<1>(all.parts).state;
    if constexpr (requires { s.base(); })
      s.base().set_steps(largest_count - 1);
    else
      s.set_steps(largest_count - 1);
  };
  char const* const no_number = "number of this step";
  refused(optim::sgd{}, a.parameters(), at_the_end, dense, {}, no_number);
  refused(optim::param_groups{optim::sgd{}}, a.parameters(), at_the_end, dense, {}, no_number);
  refused(optim::any_optimizer(optim::sgd{}), a.parameters(), at_the_end, dense, {}, no_number);
  refused(optim::stochastic_lbfgs{}, a.parameters(), at_the_end, dense, {}, no_number);
  refused(optim::low_precision_state{optim::sgd{}, optim::bf16_slots{}}, a.parameters(), at_the_end, dense, {},
          no_number);
  refused(
      optim::frozen{}, a.parameters(), [](auto& s) { std::get<1>(s.parts).state.steps = largest_count - 1; }, dense, {},
      no_number);

  optim::step_context const large{.gradient_factor = 1e30f};
  refused(optim::sgd{}, a.parameters(), as_made, optim::gradient::scaled{1e30f}, large, "factor is inf");
}

TEST_CASE("a partition checks all of its rules before one of them changes anything") {
  arena a({{"w", {3}}, {"b", {2}}}), other({{"b", {2}}, {"w", {3}}});
  optim::partition const opt{optim::frozen{}, optim::group{optim::name_matches{"w"}, optim::sophia{}}};
  auto state = opt.init(a.parameters());
  auto const before = state;
  CHECK_THROWS_AS(
      opt.step(a.parameters(), state, optim::step_context{.gradient_factor = std::numeric_limits<float>::quiet_NaN()}),
      argument_error);
  std::vector<float> const estimate(5, 1);
  CHECK_THROWS_AS(opt.observe(other.parameters(), state, optim::hessian_diagonal{estimate}), argument_error);
  CHECK(state == before);
  // Whatever the rules are: one of them refuses its step, and none has made one.
  for (float& g : a.gradients()) g = 1;
  auto const refused = [&a](auto const& made, auto const& stepped, char const* why) {
    auto s = made.init(a.parameters());
    auto const unchanged = s;
    std::vector<float> const w(a.weights().begin(), a.weights().end());
    CHECK_THROWS_WITH_AS(stepped.step(a.parameters(), s), doctest::Contains(why), argument_error);
    CHECK(s == unchanged);
    CHECK(std::equal(w.begin(), w.end(), a.weights().begin()));
  };
  auto const beside = [](auto const& rule) {
    return optim::partition{optim::sgd{.lr = 1}, optim::group{optim::name_matches{"b"}, rule}};
  };
  auto const bad = [](std::int64_t) { return -1.0f; };
  auto const groups = [](optim::schedule const& rate) {
    return optim::param_groups{optim::sgd{}, optim::group{optim::name_matches{"b"}, optim::sgd{.lr = rate}}};
  };
  using optim::stochastic_lbfgs;
  refused(beside(stochastic_lbfgs{}), beside(stochastic_lbfgs{.lr = bad}), "rate of step 1 is -1");
  refused(beside(stochastic_lbfgs{}), beside(stochastic_lbfgs{.history = 3}), "history of 10 pairs");
  refused(beside(groups(0.1f)), beside(groups(bad)), "rate of step 1 is -1");
  refused(beside(optim::any_optimizer(groups(0.1f))), beside(optim::any_optimizer(groups(bad))),
          "rate of step 1 is -1");
  refused(beside(beside(optim::sgd{})), beside(beside(optim::sgd{.lr = bad})), "rate of step 1 is -1");
  std::vector<bf16> fitting(2), longer(5);
  auto const low = [&](std::vector<bf16>& half) {
    return optim::low_precision_state{optim::sgd{.lr = 1}, optim::fp32_slots{},
                                      optim::master_weights<bf16>{{std::span(half)}}};
  };
  refused(beside(low(fitting)), beside(low(longer)), "'b' has 2 elements, its half 5");
  optim::partition const none{optim::any_optimizer(optim::adamw{}),
                              optim::group{optim::name_matches{"w"}, optim::frozen{}}};
  auto no_curvature = none.init(a.parameters());
  CHECK_THROWS_WITH_AS(none.observe(a.parameters(), no_curvature, optim::hessian_diagonal{estimate}),
                       doctest::Contains("none of its rules"), argument_error);
}

}  // namespace optim_context
