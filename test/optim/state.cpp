// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "reference.hpp"

#include <cmath>
#include <cstring>

#include <dovetail/concepts.hpp>
#include <dovetail/io/saved_state.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/optim/second_order/hessian_free.hpp>
#include <dovetail/optim/second_order/stochastic_lbfgs.hpp>

#include <doctest/doctest.h>

namespace optim_state {

using namespace dovetail;

namespace {
/// A reader of a program's own.
struct small_integers {
  std::span<std::int8_t const> values;
  float unit;
  std::size_t size() const { return values.size(); }
  std::size_t bytes() const { return values.size(); }
  void add(std::size_t first, std::span<float> out) const {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += unit * static_cast<float>(values[first + i]);
  }
};
struct sum_of_squares {  // Adagrad (Duchi et al., 2011), with PyTorch's initial accumulator
  using kind = optim::elementwise;
  float start = 0.5f;
  static constexpr std::array slots{"sum"};
  struct kernel {
    template <class T>
    constexpr void advance(T u, T& s) const {
      s = s + u * u;
    }
    template <class T>
    constexpr T emit(T, T u, T s) const {
      return u / simd::sqrt(s);
    }
  };
  kernel prepare(std::int64_t) const { return {}; }
  float initial_value(std::size_t) const { return start; }
};

std::vector<float> weights_of(arena& a) { return {a.weights().begin(), a.weights().end()}; }
}  // namespace

TEST_CASE("state is a value: copies train on alone and equal the original, moves and self-assignment keep it") {
  arena a(test::awkward_sizes());
  test::fill(a.weights(), 1);
  optim::lamb const opt{.lr = 0.01f};
  auto s = opt.init(a.parameters());
  test::make_gradients(a, 1);
  opt.step(a.parameters(), s);
  arena b = a;
  auto copy = s;
  CHECK(copy == s);
  test::make_gradients(a, 2);
  opt.step(a.parameters(), s);
  CHECK_FALSE(copy == s);
  test::make_gradients(b, 2);
  opt.step(b.parameters(), copy);
  CHECK(copy == s);
  CHECK(weights_of(a) == weights_of(b));
  auto moved = std::move(copy);
  CHECK(moved == s);
  auto& self = moved;
  moved = self;
  CHECK(moved == s);
  test::make_gradients(b, 3);
  opt.step(b.parameters(), moved);
  CHECK(moved.steps() == 3);
}

TEST_CASE("a list may be a temporary: states, and steps, keep what it views and nothing of itself") {
  auto const check = [](auto const& rule) {
    arena one(test::awkward_sizes()), two(test::awkward_sizes());
    test::fill(one.weights(), 1);
    test::fill(two.weights(), 1);
    auto const list_of = [](arena& a) {  // another object each time
      parameter_list list;
      for (auto& p : a.parameters()) list.add(p.name, p.weight, p.gradient, p.shape);
      return list;
    };
    auto kept = rule.init(one.parameters());
    auto state = rule.init(list_of(two));
    for (int i = 0; i < 4; ++i) {
      test::make_gradients(one, static_cast<std::uint32_t>(i + 1));
      test::make_gradients(two, static_cast<std::uint32_t>(i + 1));
      auto const a = rule.step(one.parameters(), kept);
      auto const b = rule.step(list_of(two), state, optim::gradient::dense{});
      CHECK(a.step == b.step);
    }
    CHECK(weights_of(one) == weights_of(two));
  };
  check(optim::adamw{.lr = 0.01f});
  check(optim::lamb{.lr = 0.01f});
  check(optim::chain{optim::scale_by_adam{}, optim::scale_by_learning_rate{0.01f}});
  check(optim::param_groups{optim::adamw{}, optim::group{optim::name_matches{"*"}, optim::adamw{.lr = 0.1f}}});
  check(optim::partition{optim::adamw{}, optim::group{optim::name_matches{"t1*"}, optim::lamb{}}});
  check(optim::low_precision_state{optim::adamw{}, optim::blockwise_8bit{}});
  check(optim::stochastic_lbfgs{});
}

TEST_CASE("state is listed by parameter name, and what is saved and loaded trains on bit for bit") {
  arena a(test::awkward_sizes());
  test::fill(a.weights(), 1);
  optim::adamw const opt{.lr = 0.01f};
  auto s = opt.init(a.parameters());
  for (std::uint32_t t = 1; t <= 3; ++t) {
    test::make_gradients(a, t);
    opt.step(a.parameters(), s);
  }
  std::map<std::string, std::vector<std::byte>> file;
  for (auto const& t : s.tensors("optimizer.")) {
    CHECK(t.bytes.size() == size_of(t.type) * static_cast<std::size_t>(t.shape.size()));
    CHECK(file.emplace(t.name, std::vector<std::byte>(t.bytes.begin(), t.bytes.end())).second);
  }
  CHECK(file.size() == 1 + 2 * a.parameters().size());
  CHECK(file.contains("optimizer.step"));
  CHECK(file.contains("optimizer.b.weight.exp_avg"));
  CHECK(file.at("optimizer.b.bias.exp_avg_sq").size() == 4000);

  arena b = a;
  auto loaded = opt.init(b.parameters());
  for (auto const& t : loaded.tensors("optimizer."))
    std::copy(file.at(t.name).begin(), file.at(t.name).end(), t.bytes.begin());
  CHECK(loaded == s);
  test::make_gradients(a, 4);
  test::make_gradients(b, 4);
  CHECK(opt.step(a.parameters(), s).step == 4);
  CHECK(opt.step(b.parameters(), loaded).step == 4);
  CHECK(weights_of(a) == weights_of(b));
  CHECK(loaded == s);
}

TEST_CASE("two stages with the same slot name keep apart in a listing") {
  arena a({{"w", {4}}});
  optim::chain const opt{optim::accumulate_momentum{}, optim::accumulate_momentum{0.5f}, optim::sgd{}};
  auto s = opt.init(a.parameters());
  auto const list = s.tensors("");
  REQUIRE(list.size() == 3);
  CHECK(list[1].name == "w.momentum_buffer");
  CHECK(list[2].name == "w.momentum_buffer_1");
}

TEST_CASE("a state made for other parameters or another rule is refused, and nothing is changed") {
  arena a({{"w", {4}}, {"b", {2}}}), renamed({{"w", {4}}, {"c", {2}}}), resized({{"w", {4}}, {"b", {3}}}),
      shorter({{"w", {4}}});
  optim::adamw const opt;
  auto s = opt.init(a.parameters());
  CHECK_THROWS_WITH_AS(
      opt.step(renamed.parameters(), s),
      "optimizer state: parameter 1 was 'b' at init() and is 'c' now: state is kept by name and order, "
      "call init() again",
      argument_error);
  CHECK_THROWS_AS(opt.step(resized.parameters(), s), argument_error);
  CHECK_THROWS_AS(opt.step(shorter.parameters(), s), argument_error);
  CHECK_THROWS_AS(optim::momentum{}.step(a.parameters(), s), argument_error);
  CHECK_THROWS_AS(optim::lamb{}.step(a.parameters(), s), argument_error);  // same slots, other passes
  optim::state empty;
  CHECK_THROWS_AS(opt.step(a.parameters(), empty), argument_error);
  CHECK(s == opt.init(a.parameters()));
}

namespace {
/// Every rule's step, init's state of `made` given to `used` with the list of another arena: refused with `words`, and
/// neither the weights nor the state change.
template <class Made, class Used>
void check_refused(Made const& made, std::vector<arena::tensor> const& before, Used const& used,
                   std::vector<arena::tensor> const& now, std::vector<std::string> const& words) {
  arena a(before), b(now);
  for (float& g : b.gradients()) g = 1;
  auto s = made.init(a.parameters());
  auto const kept = s;
  auto const weights = weights_of(b);
  try {
    used.step(b.parameters(), s);
    FAIL_CHECK("not refused: ", words[0]);
  } catch (argument_error const& e) {
    for (auto const& w : words)
      CHECK_MESSAGE(std::string(e.what()).find(w) != std::string::npos, std::string(e.what()), " has no ", w);
  }
  CHECK(s == kept);
  CHECK(weights_of(b) == weights);
}

/// Keeps as many arrays as its hyperparameter says, of as many numbers.
struct sized_stage {
  using kind = optim::tensorwise;
  std::int64_t count = 1, numbers = 4;
  std::vector<named_shape> arrays(shape const&) const {
    std::vector<named_shape> all;
    for (std::int64_t i = 0; i < count; ++i) all.push_back({message("piece", i), shape{numbers}});
    return all;
  }
  void apply(optim::tensor_update const& t) const {
    for (std::int64_t i = 0; i < count; ++i)
      for (float& x : t.array(static_cast<std::size_t>(i)).first(static_cast<std::size_t>(numbers))) x += 1;
  }
};
/// Remembers one number, of all tensors together or of each.
template <bool PerTensor>
struct counted {
  using kind = optim::reducing;
  static constexpr optim::reduction needs{.per_tensor = PerTensor};
  static constexpr std::array scalars{"calls"};
  struct kernel {
    float factor(optim::norms, double& calls) const { return static_cast<float>(++calls); }
    template <class T>
    constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  kernel prepare(std::int64_t) const { return {}; }
};
auto sized(std::int64_t count, std::int64_t numbers) {
  return optim::chain{sized_stage{count, numbers}, optim::sgd{.lr = 0.1f}};
}
}  // namespace

TEST_CASE("a state is refused for tensors of other shapes than sized it, whatever the rule") {
  std::vector<arena::tensor> const tall{{"b", {3}}, {"w", {2, 100}}}, wide{{"b", {3}}, {"w", {100, 2}}};
  auto const refused = [&](auto const& rule) {
    check_refused(rule, tall, rule, wide, {"'w'", "{2, 100}", "{100, 2}"});
  };
  refused(optim::adafactor{});
  refused(optim::sm3{});
  refused(optim::row_wise_adagrad{});
  refused(optim::adamw{});
  refused(optim::lamb{});
  refused(optim::sgd{});
  refused(optim::param_groups{optim::adafactor{},
                              optim::group{optim::name_matches{"b"}, optim::adafactor{.decay = -0.5f}}});
  refused(optim::low_precision_state{optim::adamw{}, optim::blockwise_8bit{}});
  refused(optim::partition{optim::adamw{}, optim::group{optim::name_matches{"w"}, optim::adafactor{}}});
  refused(optim::stochastic_lbfgs{});
  check_refused(optim::adamw{}, {{"w", {4}}}, optim::adamw{}, {{"w", {4, 1}}}, {"'w'", "{4}", "{4, 1}"});
}

TEST_CASE("a state is refused when hyperparameters that size it have changed") {
  std::vector<arena::tensor> const w{{"b", {3}}, {"w", {4, 4}}};
  check_refused(sized(1, 4), w, sized(2, 4), w, {"'b' {3}", "piece0 {4}, but", "needs piece0 {4}, piece1 {4}"});
  check_refused(sized(2, 4), w, sized(1, 4), w, {"'b' {3}", "piece1 {4}"});
  check_refused(sized(1, 4), w, sized(1, 1000), w, {"'b' {3}", "piece0 {4}", "piece0 {1000}"});
  check_refused(optim::partition{optim::adamw{}, optim::group{optim::name_matches{"w"}, sized(1, 4)}}, w,
                optim::partition{optim::adamw{}, optim::group{optim::name_matches{"w"}, sized(1, 1000)}}, w,
                {"'w' {4, 4}", "piece0 {4}", "piece0 {1000}"});
  using rule = decltype(sized(1, 1));
  auto const by_group = [](std::int64_t first, std::int64_t second) {
    return optim::param_groups{rule(sized(1, first)), optim::group{optim::name_matches{"w"}, rule(sized(1, second))}};
  };
  check_refused(by_group(4, 4), w, by_group(4, 1000), w, {"'w' {4, 4}", "piece0 {4}", "piece0 {1000}"});
  check_refused(optim::stochastic_lbfgs{.history = 2}, w, optim::stochastic_lbfgs{.history = 20}, w,
                {"a history of 2 pairs", "one of 20"});
  // Each group's tensors have what their own hyperparameters say.
  arena a(w);
  auto const opt = by_group(4, 1000);
  auto s = opt.init(a.parameters());
  opt.step(a.parameters(), s);
  CHECK(s.arrays(0, 0)[0].shape == shape{4});
  CHECK(s.arrays(0, 1)[0].shape == shape{1000});
  CHECK(s.arrays(0, 1)[0].values[999] == 1);
}

TEST_CASE("a state is refused by another rule: other slots, scalars, arrays or room") {
  std::vector<arena::tensor> const w{{"b", {3}}, {"w", {4, 40}}};
  check_refused(optim::adamw{}, w, optim::lion{}, w, {"2 slots", "needs 1"});
  check_refused(optim::momentum{}, w, optim::lion{}, w, {"'momentum_buffer'", "'exp_avg'"});
  optim::chain const row_wise{optim::scale_by_row_wise_adagrad{}, optim::sgd{}};
  optim::chain const adafactor{optim::scale_by_adafactor{}, optim::sgd{}};
  optim::chain const sm3{optim::scale_by_sm3{}, optim::sgd{}};
  check_refused(row_wise, w, adafactor, w, {"'b' {3}", "sum {1}", "variance {3}"});
  check_refused(adafactor, w, sm3, w, {"'b' {3}", "variance {3}", "accumulator {3}"});
  check_refused(optim::dog{}, w, optim::dowg{}, w, {"scalar 'distance', one", "'distance_sq'"});
  check_refused(optim::chain{counted<false>{}, optim::sgd{}}, w, optim::chain{counted<true>{}, optim::sgd{}}, w,
                {"scalar 'calls', one, where the rule needs 'calls', per tensor"});
  // The room between passes: as large as the largest tensor, or as all of them.
  optim::chain const by_tensor{sized_stage{}, optim::sgd{}};
  auto const by_norm = optim::chain{sized_stage{}, optim::scale_by_trust_ratio{}, optim::sgd{}};
  check_refused(by_tensor, w, by_norm, w, {"a rule of other passes"});

  arena a(w);
  auto s = optim::adamw{}.init(a.parameters());
  auto const taken = std::move(s);
  CHECK_THROWS_AS(optim::adamw{}.step(a.parameters(), s), argument_error);  // NOLINT: moved from on purpose
  optim::low_precision_state const packed{optim::adamw{}, optim::bf16_slots{}};
  auto in_bf16 = packed.init(a.parameters());
  CHECK_THROWS_WITH_AS(optim::adamw{}.step(a.parameters(), in_bf16.base()),
                       doctest::Contains("optim::low_precision_state"), argument_error);
  std::vector<bf16> halves(a.parameters().flat_size());
  std::vector<std::span<bf16>> const spans{std::span(halves).first(3), std::span(halves).subspan(3)};
  std::vector<std::span<bf16 const>> const read(spans.begin(), spans.end());
  parameter_list elsewhere;
  for (auto const& t : w) elsewhere.add_opaque(t.name, t.shape);
  optim::low_precision_state const rounded{optim::sgd{}, optim::fp32_slots{}, optim::rounded_weights{spans}};
  optim::low_precision_state const split{optim::sgd{}, optim::fp32_slots{}, optim::split_weights{spans}};
  auto without = rounded.init(elsewhere);
  CHECK_THROWS_WITH_AS(split.step(elsewhere, without, optim::gradient::half<bf16>{read}),
                       doctest::Contains("lower halves of 0 weights, this rule needs those of 163"), argument_error);
  CHECK_THROWS_WITH_AS((optim::adamw{}.stages().init(a.parameters(), {0})), doctest::Contains("1 groups"),
                       argument_error);
  std::vector<float> out(163);
  optim::chain const averaging{optim::adamw{}, optim::ema_weights{}};
  auto of_adam = optim::adamw{}.init(a.parameters());
  of_adam.set_steps(1);
  CHECK_THROWS_AS(optim::averaged_weights(averaging, a.parameters(), of_adam, out), argument_error);
}

TEST_CASE("numbers of steps that cannot be are refused, set, stepped or loaded") {
  arena a({{"w", {4}}});
  auto& p = a.parameters();
  optim::adamw const opt;
  auto s = opt.init(p);
  for (std::int64_t const bad : {std::int64_t{-1}, std::int64_t{INT64_MIN}, std::int64_t{INT64_MAX}, largest_count}) {
    CAPTURE(bad);
    CHECK_THROWS_WITH_AS(s.set_steps(bad), doctest::Contains(message(" is ", bad).c_str()), argument_error);
    auto const load = [bad](auto& state, std::string const& name) {
      for (auto const& t : state.tensors(""))
        if (t.name == name) {
          CHECK(t.counts);
          std::memcpy(t.bytes.data(), &bad, sizeof bad);
        }
    };
    auto loaded = s;
    load(loaded, "step");
    CHECK_THROWS_WITH_AS(opt.step(p, loaded), doctest::Contains(message(" is ", bad).c_str()), argument_error);
    optim::low_precision_state const packed{opt, optim::blockwise_8bit{}};
    auto codes = packed.init(p);
    load(codes, "step");
    CHECK_THROWS_AS(packed.step(p, codes), argument_error);
    for (auto const* name : {"step", "pairs"}) {
      optim::stochastic_lbfgs const second;
      auto history = second.init(p);
      load(history, name);
      CHECK_THROWS_AS(second.step(p, history), argument_error);
    }
    optim::partition const rest{opt, optim::group{optim::name_matches{"w"}, optim::frozen{}}};
    auto parts = rest.init(p);
    load(parts, "group1.step");
    CHECK_THROWS_AS(rest.step(p, parts), argument_error);
    io::saved_state saved(s.tensors(""));
    io::saved_state damaged;
    for (auto const& [name, piece] : saved.pieces()) {
      auto copy = piece;
      if (name == "step") std::memcpy(copy.bytes.data(), &bad, sizeof bad);
      damaged.add(name, copy);
    }
    auto into = opt.init(p);
    CHECK_THROWS_WITH_AS(damaged.restore(into.tensors("")), doctest::Contains("saved state: 'step' is"),
                         checkpoint_error);
    CHECK(into == s);
  }
  s.set_steps(largest_count - 2);
  CHECK(opt.step(p, s).step == largest_count - 1);
  // As many numbers as the shape says, or nothing is copied.
  io::saved_state longer;
  longer.add("w.exp_avg", {dtype::f32, {4}, std::vector<std::byte>(400)});
  std::vector<named_tensor> one;
  for (auto& t : s.tensors(""))
    if (t.name == "w.exp_avg") one.push_back(t);
  CHECK_THROWS_WITH_AS(longer.restore(one), doctest::Contains("has 400 bytes, expected 16"), checkpoint_error);
}

TEST_CASE("a stage may start its slots elsewhere than at 0") {
  CHECK(test::largest_difference(optim::chain{sum_of_squares{}, optim::scale_by_learning_rate{0.1f}},
                                 [](test::tensor& x, test::vec g, int t) {
                                   for (std::size_t i = 0; i < g.size(); ++i) {
                                     if (t == 1) x.v[i] = 0.5;
                                     x.v[i] += g[i] * g[i];
                                     x.w[i] -= static_cast<double>(0.1f) * g[i] / std::sqrt(x.v[i]);
                                   }
                                 }) < 2e-5);
}

TEST_CASE("groups are found by name and shape, the first that fits, and each has its own hyperparameters") {
  optim::name_matches const star{"*.bias"}, middle{"layer*.w?ight"}, all{"*"}, none{""}, two{"*a*b"};
  CHECK(star("0.bias", {3}));
  CHECK_FALSE(star("0.bias2", {3}));
  CHECK(middle("layer.12.weight", {}));
  CHECK_FALSE(middle("layer.12.wight", {}));
  CHECK(all("", {}));
  CHECK(none("", {}));
  CHECK_FALSE(none("x", {}));
  CHECK(two("xaxbxb", {}));
  CHECK_FALSE(two("xaxbx", {}));
  CHECK(optim::rank_below{2}("x", {7}));
  CHECK_FALSE(optim::rank_below{2}("x", {7, 1}));

  optim::param_groups const opt{
      optim::adamw{.lr = 0.02f, .weight_decay = 0.5f},
      optim::group{optim::name_matches{"*.bias"}, optim::adamw{.lr = 0.02f, .weight_decay = 0}},
      optim::group{optim::rank_below{2}, optim::adamw{.lr = 0.005f, .beta1 = 0.5f}}};
  static_assert(optimizer<std::remove_const_t<decltype(opt)>>);
  static_assert(decltype(opt)::bytes_per_parameter == 28);
  arena a(test::awkward_sizes());
  test::fill(a.weights(), 1);
  auto& p = a.parameters();
  auto s = opt.init(p);
  std::vector<test::tensor> ref(p.size());
  for (std::size_t i = 0; i < p.size(); ++i)
    ref[i] = {{p[i].weight.begin(), p[i].weight.end()}, test::vec(p[i].size()), test::vec(p[i].size())};
  double worst = 0;
  for (int t = 1; t <= 60; ++t) {
    test::make_gradients(a, static_cast<std::uint32_t>(t));
    CHECK(opt.step(p, s).lr == 0.02f);
    CHECK(s.steps() == t);  // once per step, however many tensors and groups
    for (std::size_t i = 0; i < p.size(); ++i) {
      bool const bias = p[i].name.ends_with(".bias"), vector = p[i].shape.rank < 2;
      auto const rule = bias     ? test::adam(0.02f, 0.9f, 0.999f, 1e-8f, 0, 0)
                        : vector ? test::adam(0.005f, 0.5f, 0.999f, 1e-8f, 0, 0.01f)
                                 : test::adam(0.02f, 0.9f, 0.999f, 1e-8f, 0, 0.5f);
      rule(ref[i], {p[i].gradient.begin(), p[i].gradient.end()}, t);
      for (std::size_t k = 0; k < p[i].size(); ++k)
        worst = std::max(worst, std::abs(ref[i].w[k] - static_cast<double>(p[i].weight[k])));
    }
  }
  CHECK(worst < 2e-5);
  CHECK_THROWS_AS(optim::adamw{}.step(p, s), argument_error);  // knows nothing of three groups
}

TEST_CASE("several rules: each has its own tensors, and what one refuses no other has stepped") {
  std::vector<arena::tensor> const tensors{{"0.weight", {5, 3}}, {"0.bias", {5}}, {"head.weight", {2, 5}}};
  arena together(tensors), apart(tensors);
  auto const fill = [](arena& a, int t) {
    for (std::size_t i = 0; i < a.gradients().size(); ++i)
      a.gradients()[i] = std::sin(static_cast<float>(i) + static_cast<float>(t));
  };
  std::fill(together.weights().begin(), together.weights().end(), 0.5f);
  std::fill(apart.weights().begin(), apart.weights().end(), 0.5f);
  auto& p = apart.parameters();
  parameter_list weights, biases;
  weights.add(p[0].name, p[0].weight, p[0].gradient, p[0].shape);
  biases.add(p[1].name, p[1].weight, p[1].gradient, p[1].shape);

  optim::adamw const adamw{.lr = 0.02f};
  optim::momentum const momentum{.lr = 0.1f};
  optim::partition const rule{adamw, optim::group{optim::name_matches{"*.bias"}, momentum},
                              optim::group{optim::name_matches{"head.*"}, optim::frozen{}}};
  auto state = rule.init(together.parameters());
  auto first = adamw.init(weights);
  auto second = momentum.init(biases);
  for (int t = 0; t < 5; ++t) {
    fill(together, t), fill(apart, t);
    auto const r = rule.step(together.parameters(), state);
    CHECK((r.step == t + 1 && r.lr == 0.02f && !r.skipped));
    adamw.step(weights, first);
    momentum.step(biases, second);
  }
  CHECK(std::equal(together.weights().begin(), together.weights().end(), apart.weights().begin()));
  CHECK(together.parameters()[2].weight[0] == 0.5f);

  auto const kept = state;
  std::vector<float> const before(together.weights().begin(), together.weights().end());
  optim::partition const broken{adamw, optim::group{optim::name_matches{"*.bias"}, optim::momentum{.lr = NAN}},
                                optim::group{optim::name_matches{"head.*"}, optim::frozen{}}};
  CHECK_THROWS_WITH_AS(broken.step(together.parameters(), state), doctest::Contains("momentum: lr is nan"),
                       argument_error);
  auto longer = together.parameters();
  float more = 0, its = 0;
  longer.add("more", {&more, 1}, {&its, 1});
  CHECK_THROWS_WITH_AS(rule.step(longer, state), doctest::Contains("made for 3 parameters, the list has 4"),
                       argument_error);
  CHECK(state == kept);
  CHECK(std::equal(before.begin(), before.end(), together.weights().begin()));
}

TEST_CASE("a partition refuses names that its parts' states would share in a file") {
  arena a({{"w", {3}}, {"group1.w", {3}}});
  auto const parts = [](char const* pattern) {
    return optim::partition{optim::momentum{}, optim::group{optim::name_matches{pattern}, optim::momentum{}}};
  };
  CHECK_THROWS_WITH_AS(parts("w").init(a.parameters()), doctest::Contains("saved as 'group1.w.momentum_buffer'"),
                       argument_error);
  for (auto const* both : {"*w", "nothing", "group1.*"}) parts(both).init(a.parameters());
}

TEST_CASE("a step that could not be counted changes nothing") {
  arena a({{"w", {3}}});
  for (float& g : a.gradients()) g = 1;
  optim::sgd const opt{.lr = 1};
  auto s = opt.init(a.parameters());
  s.set_steps(largest_count - 1);
  CHECK_THROWS_WITH_AS(opt.step(a.parameters(), s), doctest::Contains("number of this step"), argument_error);

  optim::stochastic_lbfgs const second;
  auto history = second.init(a.parameters());
  history.set_steps(largest_count - 1);
  CHECK_THROWS_WITH_AS(second.step(a.parameters(), history), doctest::Contains("number of this step"), argument_error);

  optim::frozen::state_type frozen{.steps = largest_count - 1};
  CHECK_THROWS_WITH_AS(optim::frozen{}.step(a.parameters(), frozen), doctest::Contains("number of this step"),
                       argument_error);
  CHECK(frozen.steps == largest_count - 1);

  optim::hessian_free const newton;
  auto memory = newton.init(a.parameters());
  for (auto const& t : memory.tensors(""))
    if (t.name == "step") {
      std::int64_t const last = largest_count - 1;
      std::memcpy(t.bytes.data(), &last, sizeof last);
    }
  auto const flat = [](parameter_list&) { return 0.0; };
  auto const product = [](std::span<float const>, std::span<float>) {};
  CHECK_THROWS_WITH_AS(newton.step(flat, product, a.parameters(), memory), doctest::Contains("number of this step"),
                       argument_error);
  CHECK(memory.steps() == largest_count - 1);
  CHECK(a.weights()[0] == 0);
}

TEST_CASE("a global norm spans all groups") {
  using rule = decltype(optim::chain{optim::clip_by_global_norm{1}, optim::sgd{}});
  optim::param_groups const opt{
      rule{optim::clip_by_global_norm{1}, optim::sgd{.lr = 1}},
      optim::group{optim::name_matches{"b"}, rule{optim::clip_by_global_norm{1}, optim::sgd{.lr = 2}}}};
  arena a({{"a", {9}}, {"b", {7}}});
  for (float& g : a.gradients()) g = 1;
  auto s = opt.init(a.parameters());
  CHECK(opt.step(a.parameters(), s).gradient_norm == doctest::Approx(4));
  CHECK(a.weights()[0] == -0.25f);
  CHECK(a.weights()[15] == -0.5f);
}

TEST_CASE("a source of gradients is read in place: scaled, half and encoded ones equal their dense form") {
  auto const step_dense = [](arena a, std::span<float const> g) {
    std::copy(g.begin(), g.end(), a.gradients().begin());
    optim::chain const opt{optim::clip_by_global_norm{3}, optim::momentum{.lr = 0.1f}};
    auto s = opt.init(a.parameters());
    opt.step(a.parameters(), s);
    return weights_of(a);
  };
  arena a(test::awkward_sizes());
  test::fill(a.weights(), 1);
  test::fill(a.gradients(), 2);
  auto& p = a.parameters();
  std::size_t const n = p.flat_size();
  optim::chain const opt{optim::clip_by_global_norm{3}, optim::momentum{.lr = 0.1f}};
  std::vector<float> g(n);
  {
    for (std::size_t i = 0; i < n; ++i) g[i] = 0.25f * a.gradients()[i];
    arena b = a;
    auto s = opt.init(b.parameters());
    opt.step(b.parameters(), s, optim::gradient::scaled{0.25f});
    CHECK(weights_of(b) == step_dense(a, g));
  }
  auto const check_half = [&]<class Half>(Half) {
    std::vector<Half> h(n);
    for (std::size_t i = 0; i < n; ++i) h[i] = Half(a.gradients()[i]), g[i] = 0.5f * static_cast<float>(h[i]);
    std::vector<std::span<Half const>> spans;
    for (std::size_t i = 0; i < p.size(); ++i) spans.emplace_back(h.data() + p.offset(i), p[i].size());
    arena b = a;
    auto s = opt.init(b.parameters());
    opt.step(b.parameters(), s, optim::gradient::half<Half>{spans, 0.5f});
    CHECK(weights_of(b) == step_dense(a, g));
    spans.pop_back();
    CHECK_THROWS_AS(opt.step(b.parameters(), s, optim::gradient::half<Half>{spans, 0.5f}), argument_error);
  };
  check_half(fp16{});
  check_half(bf16{});
  {
    std::vector<std::vector<std::int8_t>> sent(3, std::vector<std::int8_t>(n));
    std::vector<optim::gradient::encoded_part<small_integers>> parts;
    float const scales[] = {0.5f, 0.25f, 1.0f};
    std::fill(g.begin(), g.end(), 0.0f);
    for (std::uint32_t r = 0; r < 3; ++r) {
      for (std::size_t i = 0; i < n; ++i) {
        sent[r][i] = static_cast<std::int8_t>(random_stream{5, r}.word(i) % 255 - 127);
        g[i] += scales[r] * static_cast<float>(sent[r][i]);
      }
      parts.push_back({0, {sent[r], scales[r]}});
    }
    for (float& x : g) x *= 0.5f;
    for (int threads : {1, 3}) {
      arena b = a;
      auto s = opt.init(b.parameters());
      opt.step(b.parameters(), s, optim::gradient::decoded{std::span(parts), 0.5f}, {.threads = threads});
      CHECK(weights_of(b) == step_dense(a, g));
    }
    auto s = opt.init(p);
    CHECK(optim::adamw::bytes_per_parameter_with(optim::gradient::decoded{std::span(parts)}) == 27);
    parts[1].reader.values = parts[1].reader.values.first(n - 1);
    CHECK_THROWS_AS(opt.step(p, s, optim::gradient::decoded{std::span(parts)}), argument_error);
    CHECK_THROWS_WITH_AS(opt.step(p, s, optim::gradient::scaled{std::numeric_limits<float>::quiet_NaN()}),
                         doctest::Contains("gradient::scaled: factor is nan"), argument_error);
  }
}

TEST_CASE("schedules: values at their corners") {
  CHECK(optim::schedule(0.5)(123) == 0.5f);
  CHECK(optim::schedule(1)(0) == 1.0f);
  CHECK(optim::constant{0.25f}(7) == 0.25f);
  optim::step_decay const d{.initial = 1, .factor = 0.1f, .every = 30};
  CHECK(d(0) == 1.0f);
  CHECK(d(29) == 1.0f);
  CHECK(d(30) == 0.1f);
  CHECK(d(60) == doctest::Approx(0.01));
  optim::linear const l{.from = 2, .to = 1, .steps = 4};
  CHECK(l(0) == 2.0f);
  CHECK(l(3) == 1.25f);
  CHECK(l(4) == 1.0f);
  CHECK(l(99) == 1.0f);
  optim::cosine const c{.initial = 1, .steps = 100, .final = 0.2f};
  CHECK(c(0) == 1.0f);
  CHECK(c(50) == doctest::Approx(0.6));
  CHECK(c(25) == doctest::Approx(0.2 + 0.4 * (1 + std::sqrt(0.5))));
  CHECK(c(100) == 0.2f);
  CHECK(c(1000) == 0.2f);
  optim::warmup const w{.steps = 4, .then = optim::cosine{.initial = 1, .steps = 100}};
  CHECK(w(0) == 0.25f);
  CHECK(w(3) == 1.0f);
  CHECK(w(4) == 1.0f);
  CHECK(w(54) == doctest::Approx(0.5));
  CHECK(optim::warmup{0, optim::constant{3}}(0) == 3.0f);
  optim::constant_warmup const low{.steps = 4, .then = optim::cosine{.initial = 1, .steps = 100}, .rate = 0.01f};
  CHECK(low(0) == 0.01f);
  CHECK(low(3) == 0.01f);
  CHECK(low(4) == 1.0f);
  CHECK(low(54) == doctest::Approx(0.5));
  CHECK(optim::schedule(low)(0) == 0.01f);
  optim::piecewise const p{{0, 0.1f}, {10, optim::linear{.from = 1, .to = 0, .steps = 10}}, {30, w}};
  CHECK(p(9) == 0.1f);
  CHECK(p(10) == 1.0f);
  CHECK(p(15) == 0.5f);
  CHECK(p(29) == 0.0f);
  CHECK(p(30) == 0.25f);
  CHECK_THROWS_AS((optim::piecewise{{1, 0.1f}}), argument_error);
  CHECK_THROWS_AS((optim::piecewise{{0, 0.1f}, {5, 1}, {5, 2}}), argument_error);

  // A rise that is over before the first step: the first rate is the peak.
  optim::one_cycle const steep{.peak = 2, .steps = 4, .rise = 0.25f};
  CHECK(steep(0) == 2.0f);
  CHECK(steep(3) == doctest::Approx(2.0 / 25 / 1e4));
  for (int t = 0; t < 5; ++t) CHECK(std::isfinite(optim::one_cycle{.steps = 3, .rise = 0}(t)));
  // Waves that would be longer than there are steps.
  CHECK(optim::warm_restarts{.initial = 1, .steps = 2, .growth = std::int64_t{1} << 62}(2) == 1.0f);
  CHECK(optim::warm_restarts{.initial = 1, .steps = 10, .growth = 10}(std::numeric_limits<std::int64_t>::max()) <= 1);
}

TEST_CASE("a rate tuned at one batch size is scaled to another as its paper says") {
  static_assert(optim::linear_scaling{.rate = 0.5f, .batch = 256}(1024) == 2);
  static_assert(optim::linear_scaling{.rate = 0.5f, .batch = 256}(64) == 0.125f);
  CHECK(optim::sqrt_scaling{.rate = 0.5f, .batch = 256}(1024) == 1);
  CHECK(optim::sqrt_scaling{.rate = 0.5f, .batch = 256}(512) == doctest::Approx(std::sqrt(0.5)));
  // Goyal et al.: 0.1 at 256 images is 3.2 at 8192. LEGW for LSTMs on MNIST: 128 images to 8192, sqrt(64) = 8.
  CHECK(optim::linear_scaling{.rate = 0.1f, .batch = 256}(8192) == doctest::Approx(3.2));
  optim::legw const tuned{.rate = 0.01f, .batch = 128, .epochs = 0.25};
  CHECK(tuned(128) == 0.01f);
  CHECK(tuned(8192) == doctest::Approx(0.08));
  CHECK(tuned.epochs_at(8192) == 16);
  CHECK(tuned.steps(128, 65536) == 128);
  CHECK(tuned.steps(8192, 65536) == 128);  // the same number of steps at every batch,
  CHECK(tuned.steps(8192, 60000) == 128);  // but for the last batches of epochs
  CHECK(tuned.steps(128, 60000) == 117);
  CHECK_THROWS_WITH_AS(tuned(0), doctest::Contains("tuned at a batch of 128, asked for one of 0"), argument_error);
  CHECK_THROWS_AS((optim::linear_scaling{.rate = 1, .batch = 0}(8)), argument_error);
  CHECK_THROWS_AS((void)tuned.steps(-1, 10), argument_error);
}

TEST_CASE("a schedule is a value, whether its function lies inside or is shared") {
  static constexpr optim::schedule fixed = 0.5f;
  static_assert(fixed(3) == 0.5f);
  optim::schedule inside = [](std::int64_t step) { return static_cast<float>(step); };
  std::vector<float> const table{1, 2, 3};
  optim::schedule shared = [table](std::int64_t step) { return table[static_cast<std::size_t>(step)]; };
  auto copy = shared;
  CHECK(copy(2) == 3.0f);
  copy = inside;
  CHECK(copy(7) == 7.0f);
  inside = shared;
  shared = 4.0f;
  CHECK(inside(1) == 2.0f);
  CHECK(shared(1) == 4.0f);
  auto& self = inside;
  inside = self;
  CHECK(inside(0) == 1.0f);
  auto moved = std::move(inside);
  CHECK(moved(0) == 1.0f);
  optim::adamw const opt{.lr = moved};
  arena a({{"w", {1}}});
  auto s = opt.init(a.parameters());
  CHECK(opt.step(a.parameters(), s).lr == 1.0f);
  CHECK(opt.step(a.parameters(), s).lr == 2.0f);
}

}  // namespace optim_state
