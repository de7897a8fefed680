// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>

#include <dovetail/core/parameters.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/linalg/span_math.hpp>
#include <dovetail/optim/step.hpp>

// What optimizers share that have ranks agree on the average of gradients (sync/one_bit_adam.hpp, one_bit_lamb.hpp).

namespace dovetail::sync::detail {

/// g <- scale (beta m / ranks + (1 - beta) g): over ranks with equal m these add up to scale times the next average.
template <class T>
void contribute_average(std::span<T> g, std::span<T const> m, float beta, int ranks, double scale = 1) {
  using pack = simd::pack_of<T>;
  auto const of_average = static_cast<T>(scale * static_cast<double>(beta) / ranks);
  auto const of_gradient = static_cast<T>(scale * (1 - static_cast<double>(beta)));
  optim::detail::map(
      g, [=](pack average, pack x) { return of_average * average + of_gradient * x; }, m, std::span<T const>(g));
}

/// Before a step without a session: makes of the gradients, times the context's factor, what a single rank contributes.
/// Throws argument_error for a state that does not fit and for a factor that is no number, before anything changes.
template <class Rule, class T, class State>
void contribute_alone(Rule const& rule, basic_parameter_list<T> const& parameters, State const& s,
                      optim::step_context& context) {
  if (context.contributed) return;
  rule.check_state(parameters, s);
  optim::detail::check_factor("step_context", context.gradient_factor);
  std::size_t first = 0;
  for (auto const& p : parameters) {
    for (T& g : p.gradient) g *= static_cast<T>(context.gradient_factor);
    rule.contribute(parameters, s, first, p.gradient, 1);
    first += p.size();
  }
  context.gradient_factor = 1;
}

}  // namespace dovetail::sync::detail
