// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The least layer and the least loss, through everything that takes one: networks of both backends, models, products
// with curvature. What such a type cannot do, its concept says, and not an error somewhere inside.
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <dovetail/nn.hpp>
#include <dovetail/nn/gauss_newton.hpp>

#include <doctest/doctest.h>

#include "least.hpp"

namespace nn_archetypes {

using namespace dovetail;

namespace {

using test::least_layer, test::least_loss;
using least = nn::layer_traits<least_layer>;
static_assert(nn::layer<least_layer> && !least::in_place && least::keeps_output && !least::takes_tokens);
static_assert(least::parameters(nn::shape{3}).empty() && least::scratch(nn::shape{3}).per_sample == 0);
static_assert(least::flops(nn::shape{3, 4}) == 12);
static_assert(!least::has_check<nn::at<0, nn::shape{1}>> && !least::has_factors<nn::plain>);

/// Each member in a form that is as good: inherited, with default arguments, a template, a reference, a constant of a
/// type of its own, overloaded, in a final class.
struct inherited {
  static constexpr std::int64_t flops(nn::shape const& in, std::int64_t each = 3) { return each * in.size(); }
  static constexpr int flops() { return 0; }
  enum : bool { keeps_output = false };
};
struct unusual final : inherited {
  static constexpr std::true_type in_place{};
  static constexpr std::array<nn::tensor_plan, 1> tensors{nn::tensor_plan{"gain", {1}, nn::initial::one}};
  static constexpr auto output(auto const& in) { return in; }
  static constexpr auto const& parameters(nn::shape) { return tensors; }
  template <class Shape>
  static constexpr nn::scratch_plan scratch(Shape const&) {
    return {.fixed = 1};
  }
  template <class At, bool Refuses = false>
  static constexpr void check() {
    static_assert(!Refuses);
  }
  static int forward(auto c) {  // what it returns is nobody's business
    for (std::int64_t i = 0; i < c.out_size(); ++i) c.y[i] = c.weights[0] * c.x[i];
    return 1;
  }
  static void backward(auto&& c) {
    if (!c.accumulate) c.dw[0] = 0;
    for (std::int64_t i = 0; i < c.out_size(); ++i) {
      c.dw[0] += c.dy[i] * c.y[i] / c.weights[0];
      if (c.dx) c.dx[i] = c.dy[i] * c.weights[0];
    }
  }
  template <class F>
  static void factors(auto const& c, F f) {
    f(kfac_statistics{.rows = c.batch, .in = 1, .out = 1, .inputs = c.x, .output_gradients = c.dy});
  }
};
using odd = nn::layer_traits<unusual>;
static_assert(odd::in_place && !odd::keeps_output && odd::flops(nn::shape{2}) == 6);
static_assert(odd::parameters(nn::shape{2}).size() == 1 && odd::scratch(nn::shape{2}).fixed == 1);
static_assert(odd::has_check<nn::at<0, nn::shape{1}>> && odd::has_factors<nn::plain> && odd::has_factors<nn::host>);

static_assert(nn::loss<least_loss> && !nn::curved_loss<least_loss>);
static_assert(!nn::loss_traits<least_loss>::has_fits && !nn::loss_traits<least_loss>::is_log_likelihood);
struct least_curved_loss : least_loss {
  static void curvature(nn::predictions const& p, float scale, float const* v, float* out) {
    for (std::int64_t i = 0; i < p.rows() * p.classes; ++i) out[i] = scale * v[i];
  }
};
static_assert(nn::curved_loss<least_curved_loss>);

std::vector<float> some(std::size_t n) {
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>((7 * i) % 11) / 8 - 0.5f;
  return x;
}

/// Everything of a model with the least layer, which has the same weights in front of it and twice those behind it in
/// one without: products with powers of two are exact.
template <class Backend>
void check_against_twice_the_weights() {
  using with = nn::basic_network<Backend, nn::shape{3}, nn::dense<4>, nn::relu, least_layer, nn::relu, nn::dense<2>>;
  using without = nn::basic_network<Backend, nn::shape{3}, nn::dense<4>, nn::relu, nn::dense<2>>;
  static_assert(with::parameter_count == without::parameter_count);
  static_assert(with::flops_per_sample == without::flops_per_sample + 8);
  nn::with_loss a{with{}, least_loss{}};
  nn::with_loss b{without{}, least_loss{}};
  for (std::size_t i = 0; i < 4; ++i) {
    auto const from = a.parameters()[i].weight;
    auto const to = b.parameters()[i].weight;
    for (std::size_t j = 0; j < to.size(); ++j) to[j] = i == 2 ? 2 * from[j] : from[j];
  }
  auto const x = some(15);
  std::vector<std::int32_t> const targets(5);
  data::batch const five{.size = 5, .values = x, .tokens = {}, .targets = targets};
  CHECK(a.evaluate(five) == b.evaluate(five));
  for (bool const accumulate : {false, true}) {
    CHECK(a.gradients(five, {.scale = 0.5f, .accumulate = accumulate}) ==
          b.gradients(five, {.scale = 0.5f, .accumulate = accumulate}));
    for (std::size_t i = 0; i < 4; ++i)
      for (std::size_t j = 0; j < a.parameters()[i].size(); ++j)
        CHECK(a.parameters()[i].gradient[j] == (i == 2 ? 2 : 1) * b.parameters()[i].gradient[j]);
  }
  auto const p = a.predict(five);
  std::vector<float> const predicted(p.begin(), p.end());
  auto const q = b.predict(five);
  CHECK(predicted == std::vector<float>(q.begin(), q.end()));
  auto copy = a;  // with memory of its own
  CHECK(copy.evaluate(five) == a.evaluate(five));
}

template <class Backend>
void check_every_place_and_shape() {
  auto const x = some(24);
  auto const doubled = [&](auto network, std::int64_t n) {
    auto const y = network.predict({.size = n, .values = x, .tokens = {}, .targets = {}});
    REQUIRE(y.size() == x.size());
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(y[i] == 2 * x[i]);
  };
  doubled(nn::basic_network<Backend, nn::shape{6}, least_layer>{}, 4);
  doubled(nn::basic_network<Backend, nn::shape{3, 2}, least_layer>{}, 4);
  doubled(nn::basic_network<Backend, nn::shape{2, 3, 2}, least_layer>{}, 2);
  // In front of all weights nobody asks for the gradient of its input.
  nn::with_loss first{nn::basic_network<Backend, nn::shape{6}, least_layer, nn::dense<2>>{}, least_loss{}};
  std::vector<std::int32_t> const targets(4);
  CHECK(first.gradients({.size = 4, .values = x, .tokens = {}, .targets = targets}, {}).count == 4);
}

}  // namespace

TEST_CASE("the least layer is computed by both backends, bit for bit as weights that are twice as large") {
  check_against_twice_the_weights<nn::plain>();
  check_against_twice_the_weights<nn::host>();
}

TEST_CASE("the least layer stands at every place of a network, for every shape") {
  check_every_place_and_shape<nn::plain>();
  check_every_place_and_shape<nn::host>();
}

TEST_CASE("members of a layer in an unusual form are used, and not taken for defaults") {
  nn::with_loss model{nn::basic_network<nn::plain, nn::shape{2}, nn::dense<2>, unusual>{}, least_loss{}};
  auto& list = model.parameters();
  REQUIRE(list.size() == 3);
  CHECK(list[2].name == "1.gain");
  CHECK(list[2].weight[0] == 1);
  CHECK(decltype(model.network)::flops_per_sample == 8 + 6);
  std::vector<float> const x{1, 2};
  std::vector<std::int32_t> const target(1);
  int layers = 0;
  gradient_pass pass;
  pass.observe = [&](kfac_statistics const&) { ++layers; };
  model.gradients({.size = 1, .values = x, .tokens = {}, .targets = target}, pass);
  CHECK(layers == 2);
  auto const y = model.predict({.size = 1, .values = x, .tokens = {}, .targets = {}});
  CHECK(list[2].gradient[0] == (y[0] - 1) * y[0] + (y[1] - 1) * y[1]);
}

TEST_CASE("the least loss with a curvature has products with its Gauss-Newton matrix") {
  // Of a model that is linear in its weights and a loss whose curvature is 1: G v = sum over samples of x xᵀ v.
  nn::with_loss model{nn::basic_network<nn::plain, nn::shape{2}, least_layer, nn::dense<1>>{}, least_curved_loss{}};
  std::vector<float> const x{1, 2};
  std::vector<std::int32_t> const target(1);
  nn::gauss_newton product{model, {.size = 1, .values = x, .tokens = {}, .targets = target}};
  std::vector<float> const v{1, 0, 0};
  std::vector<float> out(3);
  product(v, out);
  std::array const expected{4.f, 8.f, 2.f};  // the layer doubles x
  for (std::size_t i = 0; i < 3; ++i) CHECK(out[i] == doctest::Approx(expected[i]).epsilon(1e-3));
}

}  // namespace nn_archetypes
