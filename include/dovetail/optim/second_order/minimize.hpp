// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/second_order/flat_vectors.hpp>
#include <dovetail/optim/second_order/line_search.hpp>
#include <dovetail/optim/step.hpp>

// Minimization of a function of all parameters, evaluated on all data.

namespace dovetail::optim {

/// A function of the weights: called with a parameter list, it returns the loss at its weights and writes the loss's
/// gradients into it. The same weights must give the same values: no other batch, no other noise.
template <class F>
concept objective = requires(F& f, parameter_list& p) {
  { f(p) } -> std::convertible_to<double>;
};

/// Gives descent directions. `init(n)` makes its memory for n parameters; `direction` writes a direction for gradient g
/// into d; `learn` is told the change of the weights s and of the gradient y of each accepted step; `forget` empties
/// the memory and says whether there was anything in it. Two of them: steepest_descent here, lbfgs in lbfgs.hpp.
template <class M>
concept descent_method = std::copyable<M> &&
    requires(M const m, std::size_t n, std::span<float const> in, std::span<float> out, step_context const& o) {
  requires requires(decltype(m.init(n))& memory) {
    m.direction(memory, in, out, o);
    m.learn(memory, in, in, o);
    { m.forget(memory) } -> std::same_as<bool>;
    { m.line_search } -> std::convertible_to<strong_wolfe>;
  };
};

/// d = -g.
struct steepest_descent {
  strong_wolfe line_search{.curvature = 0.1};

  struct memory {};
  static memory init(std::size_t) { return {}; }
  static void direction(memory&, std::span<float const> g, std::span<float> d, step_context const& options) {
    detail::map_vectors(
        options, d, [](simd::pack x) { return -x; }, g);
  }
  static void learn(memory&, std::span<float const>, std::span<float const>, step_context const&) {}
  static bool forget(memory&) { return false; }
};

/// When minimize ends, whichever comes first.
struct stop_when {
  double gradient_norm = 1e-6;       ///< the gradient's L2 norm is at most this share of the first one
  double change = 1e-10;             ///< an accepted step changes the loss by at most this share of its size
  std::int64_t steps = 1000;         ///< accepted steps
  std::int64_t evaluations = 10000;  ///< of the objective; the line search that is under way is finished
  static constexpr auto describe() {
    return policy{"stop_when", field{"gradient_norm", &stop_when::gradient_norm, ranges::not_negative},
                  field{"change", &stop_when::change, ranges::not_negative},
                  field{"steps", &stop_when::steps, ranges::not_negative},
                  field{"evaluations", &stop_when::evaluations, ranges::not_negative}};
  }
};

/// Why minimize ended.
enum class stopped : std::uint8_t { gradient_norm, change, steps, evaluations, line_search };

constexpr char const* name_of(stopped s) {
  constexpr char const* names[]{"the gradient is small enough", "the loss no longer changes", "all steps were made",
                                "all evaluations were made", "the line search found no lower point"};
  return names[static_cast<std::size_t>(s)];
}

/// What minimize did. Loss and norm are those of the weights that it left.
struct minimize_result {
  stopped why = stopped::steps;
  std::int64_t steps = 0, evaluations = 0;
  double loss = 0, gradient_norm = 0;
};

namespace detail {

/// One call of minimize: the vectors that every method needs.
template <class F, class Method>
class minimization {
  F& f_;
  parameter_list& p_;
  Method const& method_;
  step_context const& options_;
  // Losses and gradients are kept in units of a power of two near the first gradient's norm: no product of them
  // overflows or vanishes, and a loss multiplied by a constant gives the same steps.
  double unit_ = 1;
  double first_norm_ = 0;
  buffer<float> x_, g_, d_, trial_x_, trial_g_;
  decltype(std::declval<Method const&>().init(std::size_t{})) memory_;
  minimize_result r_;

 public:
  minimization(F& f, parameter_list& p, Method const& method, step_context const& options)
      : f_(f),
        p_(p),
        method_(method),
        options_(options),
        x_(p.flat_size()),
        g_(p.flat_size()),
        d_(p.flat_size()),
        trial_x_(p.flat_size()),
        trial_g_(p.flat_size()),
        memory_(method.init(p.flat_size())) {}

  minimize_result run(stop_when const& stop) {
    gather(p_, &parameter::weight, x_.span());
    try {
      begin();
      descend(stop);
    } catch (...) {
      scatter(x_.span(), p_, &parameter::weight);  // the objective threw: the best weights so far stay
      throw;
    }
    times(unit_, g_.span());
    scatter(g_.span(), p_, &parameter::gradient);
    r_.loss *= unit_;
    r_.gradient_norm *= unit_;
    return r_;
  }

 private:
  double evaluate(std::span<float> gradient) {
    ++r_.evaluations;
    double const loss = f_(p_);
    gather(p_, &parameter::gradient, gradient);
    times(1 / unit_, gradient);
    return loss / unit_;
  }
  void times(double factor, std::span<float> v) {
    if (factor == 1) return;
    map_vectors(
        options_, v, [c = static_cast<float>(factor)](simd::pack u) { return c * u; }, v);
  }
  void begin() {
    r_.loss = evaluate(g_.span());
    r_.gradient_norm = std::sqrt(inner_product(g_.span(), g_.span(), options_));
    require<numeric_error>(is_finite(r_.loss) && is_finite(r_.gradient_norm), "minimize: at the first weights ",
                           "the loss is ", r_.loss, " and the gradient's norm ", r_.gradient_norm,
                           ": nothing was changed; start from weights where both are finite");
    if (!(r_.gradient_norm > 0)) return;
    unit_ = std::exp2(std::clamp(std::ilogb(r_.gradient_norm), -126, 126));
    times(1 / unit_, g_.span());
    r_.loss /= unit_;
    first_norm_ = r_.gradient_norm /= unit_;
  }
  void descend(stop_when const& stop) {
    bool fresh = true;  // nothing says how long a first step should be
    while (!ends(stop)) {
      method_.direction(memory_, g_.span(), d_.span(), options_);
      double slope = inner_product(g_.span(), d_.span(), options_);
      if (!(slope < 0) && method_.forget(memory_)) {
        fresh = true;
        continue;
      }
      line_point const start{0, r_.loss, slope};
      auto found = slope < 0 ? search(start, fresh ? std::min(1.0, 1 / r_.gradient_norm) : 1.0) : line_result{start};
      if (found.at.step == 0) {
        scatter(x_.span(), p_, &parameter::weight);
        if (method_.forget(memory_)) {  // once more, along the gradient
          fresh = true;
          continue;
        }
        r_.why = stopped::line_search;
        return;
      }
      double const before = r_.loss;
      accept(found.at.value);
      fresh = false;
      if (std::abs(before - r_.loss) <= stop.change * std::max(std::abs(before), std::abs(r_.loss))) {
        r_.why = small_enough(stop) ? stopped::gradient_norm : stopped::change;
        return;
      }
    }
  }
  bool small_enough(stop_when const& stop) const { return r_.gradient_norm <= stop.gradient_norm * first_norm_; }
  bool ends(stop_when const& stop) {
    if (small_enough(stop))
      r_.why = stopped::gradient_norm;
    else if (r_.steps >= stop.steps)
      r_.why = stopped::steps;
    else if (r_.evaluations >= stop.evaluations)
      r_.why = stopped::evaluations;
    else
      return false;
    return true;
  }
  line_result search(line_point const& start, double first) {
    double last = 0;
    auto const at = [&](double step) {
      last = step;
      move_to(p_, x_.span(), step, d_.span(), options_);
      double const loss = evaluate(trial_g_.span());
      return line_point{step, loss, inner_product(trial_g_.span(), d_.span(), options_)};
    };
    auto const found = method_.line_search.search(at, start, first);
    if (found.at.step != last && found.at.step != 0) at(found.at.step);  // weights and gradient of the best point
    return found;
  }
  void accept(double loss) {
    gather(p_, &parameter::weight, trial_x_.span());
    auto const minus = [](simd::pack a, simd::pack b) { return a - b; };
    map_vectors(options_, d_.span(), minus, trial_x_.span(), x_.span());
    map_vectors(options_, x_.span(), minus, trial_g_.span(), g_.span());
    method_.learn(memory_, d_.span(), x_.span(), options_);
    std::swap(x_, trial_x_);
    std::swap(g_, trial_g_);
    r_.loss = loss;
    r_.gradient_norm = std::sqrt(inner_product(g_.span(), g_.span(), options_));
    ++r_.steps;
  }
};

}  // namespace detail

/// Minimizes f over all weights of `parameters`, and leaves the best weights that it accepted, with their gradients:
/// also when the line search fails, and when the objective throws.
///
///     auto const done = optim::minimize(loss, parameters, optim::lbfgs{.history = 10}, {.steps = 200});
///
/// A loss multiplied by a constant is minimized by the same steps, as far as its gradients fit into float. A trial
/// whose loss or gradient is not finite shortens the step; at the first weights it is a numeric_error. An empty list is
/// an argument_error. Memory: 5 floats per parameter and the method's.
///
/// Ranks that hold parts of the parameters give `options.all_reduce_sums`, which adds their sums, and an objective with
/// the loss of the whole; ranks that hold parts of the data a sync::summed objective. All of them then decide alike.
template <objective F, descent_method Method>
minimize_result minimize(F&& f, parameter_list& parameters, Method const& method, stop_when const& stop = {},
                         step_context const& options = {}) {
  require(parameters.flat_size() > 0 || options.all_reduce_sums,
          "minimize: there are no parameters: add some to the list");
  check_policy(method);
  check_policy(static_cast<strong_wolfe const&>(method.line_search));
  check_policy(stop);
  return detail::minimization<std::remove_reference_t<F>, Method>(f, parameters, method, options).run(stop);
}

}  // namespace dovetail::optim
