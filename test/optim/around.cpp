// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What goes around a rule: sharpness-aware gradients, a rate that falls on a plateau.
#include <cmath>
#include <limits>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/plateau.hpp>
#include <dovetail/optim/sharpness.hpp>
#include <dovetail/sync.hpp>

#include <doctest/doctest.h>

using namespace dovetail;

namespace {

/// Half of the weighted squares of all weights, once for each sample of a batch: its gradient is curvature × w.
struct bowl {
  arena a{{{"w", {3}}, {"b", {5}}}};
  int evaluations = 0;
  bool fails = false;

  parameter_list& parameters() { return a.parameters(); }
  static float curvature(std::size_t i) { return 1.0f + static_cast<float>(i); }
  loss_sums gradients(batch const& b, gradient_pass const& pass) {
    if (++evaluations % 2 == 0 && fails) throw input_error("the second evaluation fails");
    loss_sums sums{.count = b.size};
    for (std::size_t i = 0; i < a.weights().size(); ++i) {
      float const w = a.weights()[i], g = pass.scale * static_cast<float>(b.size) * curvature(i) * w;
      a.gradients()[i] = pass.accumulate ? a.gradients()[i] + g : g;
      sums.loss += 0.5 * static_cast<double>(b.size) * static_cast<double>(curvature(i) * w * w);
    }
    if (pass.ready) pass.ready(0);
    return sums;
  }
};
batch samples(std::int64_t n) { return {n, {}, {}, {}}; }
static_assert(model<optim::sharpness_aware<bowl>>);

}  // namespace

TEST_CASE("sharpness-aware gradients are those of the place that is rho further up; losses are those at the weights") {
  for (bool const adaptive : {false, true}) {
    CAPTURE(adaptive);
    optim::sharpness_aware sam{bowl{}, 0.1f, adaptive, 0.02f};
    auto const w = sam.model.a.weights();
    for (std::size_t i = 0; i < 8; ++i) w[i] = 0.3f * static_cast<float>(i) - 1;
    std::vector<float> const before(w.begin(), w.end());
    batch const b = samples(4);
    double plain = 0;
    for (std::size_t i = 0; i < 8; ++i) plain += 2 * static_cast<double>(bowl::curvature(i) * w[i] * w[i]);
    std::size_t ready = 0;
    gradient_pass pass{.scale = 0.25f};
    pass.ready = [&](std::size_t) { ++ready; };
    CHECK(sam.gradients(b, pass).loss == doctest::Approx(plain));
    CHECK(ready == 1);  // of the second evaluation only
    CHECK(sam.model.evaluations == 2);
    CHECK(std::vector<float>(w.begin(), w.end()) == before);
    double norm = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      double const t = adaptive ? std::abs(double{before[i]}) + 0.02 : 1;
      norm += std::pow(t * bowl::curvature(i) * before[i], 2);
    }
    for (std::size_t i = 0; i < 8; ++i) {
      double const t = adaptive ? std::abs(double{before[i]}) + 0.02 : 1, c = bowl::curvature(i);
      double const climbed = before[i] + 0.1 * t * t * c * before[i] / std::sqrt(norm);
      CHECK(sam.model.a.gradients()[i] == doctest::Approx(c * climbed).epsilon(1e-5));
    }
    // Accumulated gradients: what was there, and that.
    std::vector<float> const once(sam.model.a.gradients().begin(), sam.model.a.gradients().end());
    pass.accumulate = true;
    sam.gradients(b, pass);
    for (std::size_t i = 0; i < 8; ++i) CHECK(sam.model.a.gradients()[i] == doctest::Approx(2 * once[i]));
  }
}

TEST_CASE("sharpness-aware: rho 0 is the model itself; nothing is lost when the second evaluation throws") {
  optim::sharpness_aware sam{bowl{}, 0.0f};
  bowl alone;
  for (std::size_t i = 0; i < 8; ++i) sam.model.a.weights()[i] = alone.a.weights()[i] = static_cast<float>(i) - 3;
  sam.gradients(samples(2), gradient_pass{});
  alone.gradients(samples(2), gradient_pass{});
  for (std::size_t i = 0; i < 8; ++i) CHECK(sam.model.a.gradients()[i] == alone.a.gradients()[i]);
  sam.rho = 1;
  sam.model.fails = true;
  CHECK_THROWS_AS(sam.gradients(samples(2), gradient_pass{}), input_error);
  for (std::size_t i = 0; i < 8; ++i) CHECK(sam.model.a.weights()[i] == static_cast<float>(i) - 3);
  sam.model.fails = false;
  for (float& x : sam.model.a.weights()) x = 0;  // no way up: the gradient is zero
  sam.gradients(samples(2), gradient_pass{});
  for (float const g : sam.model.a.gradients()) CHECK(g == 0);
  for (float& x : sam.model.a.weights()) x = std::numeric_limits<float>::quiet_NaN();
  sam.gradients(samples(2), gradient_pass{});
  CHECK(std::isnan(sam.model.a.gradients()[0]));  // for the optimizer to see
}

TEST_CASE("a rate that falls on a plateau is shared by its copies, saved, and refuses what could not fall") {
  optim::reduce_on_plateau rate{{.initial = 1, .factor = 0.5f, .patience = 1}};
  optim::sgd const rule{.lr = rate};
  arena a({{"w", {1}}});
  auto state = rule.init(a.parameters());
  a.gradients()[0] = 1;
  rule.step(a.parameters(), state);
  CHECK(a.weights()[0] == -1);
  CHECK(!rate.observe(2));
  CHECK(!rate.observe(2));
  CHECK(rate.observe(std::numeric_limits<double>::quiet_NaN()));
  rule.step(a.parameters(), state);
  CHECK(a.weights()[0] == -1.5f);
  optim::reduce_on_plateau other{{.initial = 1, .factor = 0.5f, .patience = 1}};
  auto const from = rate.tensors("p."), to = other.tensors("p.");
  for (std::size_t i = 0; i < from.size(); ++i)
    std::copy(from[i].bytes.begin(), from[i].bytes.end(), to[i].bytes.begin());
  CHECK(other(0) == 0.5f);
  optim::reduce_on_plateau higher{{.initial = 1, .patience = 0, .direction = optim::better::higher}};
  CHECK(!higher.observe(0.5));
  CHECK(!higher.observe(0.6));
  CHECK(higher.observe(0.6));
  CHECK_THROWS_AS(optim::reduce_on_plateau({.factor = 1}), argument_error);
}
