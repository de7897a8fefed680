// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every rule whose slots may be stored in 8 bits, on blocks whose gradients are far apart; and with a gradient whose
// square overflows.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include "rules/known.hpp"
#include "training.hpp"

using namespace conformance;

namespace {

/// Gradients of a block are from 1 down to 1 / spread, and pause for 20 steps twice.
enum class gradients { any_sign, one_sign };

/// The largest step of all elements and steps.
template <class Optimizer>
double largest_step(Optimizer const& opt, float spread, gradients of) {
  arena a({{"w", {2, 256}}, {"b", {100}}});
  fill(a.weights(), 1);
  auto state = opt.init(a.parameters());
  double largest = 0;
  std::size_t const n = a.weights().size();
  std::vector<float> scale(n), before(n);
  for (std::size_t i = 0; i < n; ++i) scale[i] = std::pow(spread, -random_stream{5, 77}.uniform(i));
  for (std::size_t first : {0u, 256u, 512u}) scale[first] = 1, scale[first + 1] = 1 / spread;
  for (std::uint32_t t = 1; t <= 150; ++t) {
    bool const pause = (t > 40 && t <= 60) || (t > 100 && t <= 120);
    fill(a.gradients(), 100 + t, pause ? 0.0f : of == gradients::any_sign ? 1.0f : 0.1f);
    for (std::size_t i = 0; i < n; ++i) {
      float& g = a.gradients()[i];
      if (of == gradients::one_sign && !pause) g = i % 2 ? g - 1 : g + 1;
      g *= scale[i];
    }
    std::copy(a.weights().begin(), a.weights().end(), before.begin());
    opt.step(a.parameters(), state, with_loss(t));
    for (std::size_t i = 0; i < n; ++i)
      largest = std::max(largest, std::abs(static_cast<double>(a.weights()[i]) - static_cast<double>(before[i])));
    REQUIRE(finite(a.weights()));
  }
  return largest;
}

/// One gradient whose square overflows a float, among ordinary ones: no slot is infinite, as none of PyTorch's is,
/// which multiplies ((1 - beta2) g) g. Sums of squares overflow there, too.
void check_square(optim::any_optimizer const& rule) {
  arena a({{"w", {2, 16}}, {"b", {3}}});
  fill(a.weights(), 1);
  auto state = rule.init(a.parameters());
  for (std::uint32_t t = 1; t <= 30; ++t) {
    fill(a.gradients(), 100 + t);
    if (t == 20) a.gradients()[5] = a.gradients()[33] = 3e19f;
    rule.step(a.parameters(), state, with_loss(t));
  }
  CHECK(finite(a.weights()));
  for (std::size_t s = 0; s < state.slots(); ++s) {
    CAPTURE(state.slot_name(s));
    CHECK(finite(state.slot(s)));
  }
}

void check(known::rule const& r) {
  CAPTURE(r.name);
  std::set<std::string> const sums{"adagrad", "wngrad", "ftrl"};
  if (!sums.contains(r.name)) check_square(r.any());
  double worst = 0;
  for (auto const of : {gradients::any_sign, gradients::one_sign})
    for (float const spread : {1e2f, 1e3f, 1e4f, 1e5f, 1e6f, 1e7f, 1e8f}) {
      double const exact = largest_step(r.any(), spread, of);
      for (std::uint64_t const seed : {0u, 1u, 2u}) {
        double const packed = largest_step(r.packed({}, seed), spread, of);
        worst = std::max(worst, packed / exact);
        CHECK_MESSAGE(packed <= 2 * exact, "spread ", spread, of == gradients::one_sign ? ", one sign: " : ": ", packed,
                      " instead of ", exact);
      }
    }
  MESSAGE(r.name, ": the largest step in 8 bits is ", worst, " times fp32's");
}

}  // namespace

#define DOVETAIL_RULE(family, name)                                                             \
  TEST_CASE("8 bits do not lengthen steps: " #name* doctest::skip(!known::find(#name).packs)) { \
    check(known::find(#name));                                                                  \
  }
#include <dovetail/optim/rules/list.inc.hpp>
