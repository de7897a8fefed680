// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
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
template <class F, class T = float>
concept objective = requires(F& f, basic_parameter_list<T>& p) {
  { f(p) } -> std::convertible_to<double>;
};

/// Gives descent directions. `init(parameters)` makes its memory for a list's numbers; `direction` writes a direction
/// for gradient g into d; `learn` is told the change of the weights s and of the gradient y of each accepted step;
/// `forget` empties the memory and says whether there was anything in it. Two of them: steepest_descent here, lbfgs in
/// lbfgs.hpp.
template <class M, class T = float>
concept descent_method = std::copyable<M> && requires(M const m, basic_parameter_list<T> const& p,
                                                      std::span<T const> in, std::span<T> out, step_context const& o) {
  requires requires(decltype(m.init(p))& memory) {
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
  template <class T>
  static memory init(basic_parameter_list<T> const&) {
    return {};
  }
  template <class T>
  static void direction(memory&, std::span<T const> g, std::span<T> d, step_context const& context) {
    detail::map_vectors(
        context, d, [](auto x) { return -x; }, g);
  }
  template <class T>
  static void learn(memory&, std::span<T const>, std::span<T const>, step_context const&) {}
  static bool forget(memory&) { return false; }
};

/// When minimize ends, whichever comes first.
struct stop_when {
  double gradient_norm = 1e-6;       ///< the gradient's L2 norm is at most this share of the first one
  double change = 1e-10;             ///< an accepted step changes the loss by at most this share of its size; 0 on
                                     ///< doubles: by 1e-14, and the gradient's norm does not fall
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
template <class T, class F, class Method>
class minimization {
  using item = basic_parameter<T>;
  /// Gradients have digits that tell more than the loss's last ones.
  static constexpr bool exact = std::is_same_v<T, double>;
  F& f_;
  basic_parameter_list<T>& p_;
  Method const& method_;
  step_context const& context_;
  // Losses and gradients are kept in units of a power of two near the first gradient's norm: no product of them
  // overflows or vanishes, and a loss multiplied by a constant gives the same steps.
  double unit_ = 1;
  double first_norm_ = 0;
  buffer<T> x_, g_, d_, trial_x_, trial_g_;
  decltype(std::declval<Method const&>().init(std::declval<basic_parameter_list<T> const&>())) memory_;
  minimize_result r_;

 public:
  minimization(F& f, basic_parameter_list<T>& p, Method const& method, step_context const& context)
      : f_(f),
        p_(p),
        method_(method),
        context_(context),
        x_(p.flat_size()),
        g_(p.flat_size()),
        d_(p.flat_size()),
        trial_x_(p.flat_size()),
        trial_g_(p.flat_size()),
        memory_(method.init(p)) {}

  minimize_result run(stop_when const& stop) {
    gather(p_, &item::weight, x_.span());
    try {
      begin();
      descend(stop);
    } catch (...) {
      scatter(x_.span(), p_, &item::weight);  // the objective threw: the best weights so far stay
      throw;
    }
    times(unit_, g_.span());
    scatter(g_.span(), p_, &item::gradient);
    r_.loss *= unit_;
    r_.gradient_norm *= unit_;
    return r_;
  }

 private:
  double evaluate(std::span<T> gradient) {
    ++r_.evaluations;
    double const loss = f_(p_);
    gather(p_, &item::gradient, gradient);
    times(1 / unit_, gradient);
    return loss / unit_;
  }
  void times(double factor, std::span<T> v) {
    if (factor == 1) return;
    map_vectors(
        context_, v, [c = static_cast<T>(factor)](auto u) { return c * u; }, v);
  }
  void begin() {
    r_.loss = evaluate(g_.span());
    r_.gradient_norm = norm_of(std::span<T const>(g_.span()), context_);
    require<numeric_error>(is_finite(r_.loss) && is_finite(r_.gradient_norm), "minimize: at the first weights ",
                           "the loss is ", r_.loss, " and the gradient's norm ", r_.gradient_norm,
                           ": nothing was changed; start from weights where both are finite");
    if (!(r_.gradient_norm > 0)) return;
    unit_ = unit_of<T>(r_.gradient_norm, r_.loss);
    times(1 / unit_, g_.span());
    r_.loss /= unit_;
    first_norm_ = r_.gradient_norm /= unit_;
  }
  void descend(stop_when const& stop) {
    bool fresh = true;  // nothing says how long a first step should be
    while (!ends(stop)) {
      method_.direction(memory_, std::span<T const>(g_.span()), d_.span(), context_);
      double slope = inner_product(g_.span(), d_.span(), context_);
      if (!(slope < 0) && method_.forget(memory_)) {
        fresh = true;
        continue;
      }
      line_point const start{0, r_.loss, slope};
      auto found = slope < 0 ? search(start, fresh ? std::min(1.0, 1 / r_.gradient_norm) : 1.0) : line_result{start};
      if (found.at.step == 0) {
        scatter(x_.span(), p_, &item::weight);
        if (method_.forget(memory_)) {  // once more, along the gradient
          fresh = true;
          continue;
        }
        r_.why = stopped::line_search;
        return;
      }
      double const before = r_.loss, steeper = r_.gradient_norm;
      accept(found.at.value);
      fresh = false;
      bool const unchanged =
          exact && stop.change == 0
              ? same_loss(before, r_.loss) && r_.gradient_norm >= steeper
              : std::abs(before - r_.loss) <= stop.change * std::max(std::abs(before), std::abs(r_.loss));
      if (unchanged) {
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
      move_to(p_, x_.span(), step, d_.span(), context_);
      double const loss = evaluate(trial_g_.span());
      return line_point{step, loss, inner_product(trial_g_.span(), d_.span(), context_)};
    };
    auto const found = method_.line_search.search(at, start, first, exact);
    if (found.at.step != last && found.at.step != 0) at(found.at.step);  // weights and gradient of the best point
    return found;
  }
  void accept(double loss) {
    gather(p_, &item::weight, trial_x_.span());
    auto const minus = [](auto a, auto b) { return a - b; };
    map_vectors(context_, d_.span(), minus, trial_x_.span(), x_.span());
    map_vectors(context_, x_.span(), minus, trial_g_.span(), g_.span());
    method_.learn(memory_, std::span<T const>(d_.span()), std::span<T const>(x_.span()), context_);
    std::swap(x_, trial_x_);
    std::swap(g_, trial_g_);
    r_.loss = loss;
    r_.gradient_norm = norm_of(std::span<T const>(g_.span()), context_);
    ++r_.steps;
  }
};

}  // namespace detail

/// Minimizes f over all weights of `parameters`, and leaves the best weights that it accepted, with their gradients:
/// also when the line search fails, and when the objective throws.
///
///     auto const done = optim::minimize(loss, parameters, optim::lbfgs{.history = 10}, {.steps = 200});
///
/// A loss multiplied by a constant is minimized by the same steps, as far as its gradients fit into the list's numbers.
/// A trial whose loss or gradient is not finite shortens the step; at the first weights it is a numeric_error. An empty
/// list is an argument_error. Memory: 5 numbers per parameter and the method's.
///
/// Ranks that hold parts of the parameters give `context.all_reduce_sums`, which adds their sums, and an objective with
/// the loss of the whole; ranks that hold parts of the data a sync::summed objective. All of them then decide alike.
template <class F, class T, class Method>
requires objective<F, T> && descent_method<Method, T> minimize_result minimize(F&& f,
                                                                               basic_parameter_list<T>& parameters,
                                                                               Method const& method,
                                                                               stop_when const& stop = {},
                                                                               step_context const& context = {}) {
  require(parameters.flat_size() > 0 || context.all_reduce_sums,
          "minimize: there are no parameters: add some to the list");
  detail::check_objective_context("minimize", context);
  check_policy(method);
  check_policy(static_cast<strong_wolfe const&>(method.line_search));
  check_policy(stop);
  return detail::minimization<T, std::remove_reference_t<F>, Method>(f, parameters, method, context).run(stop);
}

}  // namespace dovetail::optim
