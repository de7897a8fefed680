// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/tensor_layout.hpp>
#include <dovetail/optim/second_order/conjugate_gradient.hpp>
#include <dovetail/optim/second_order/flat_vectors.hpp>
#include <dovetail/optim/second_order/hvp.hpp>
#include <dovetail/optim/second_order/line_search.hpp>
#include <dovetail/optim/second_order/minimize.hpp>
#include <dovetail/optim/step.hpp>

namespace dovetail::optim {

/// What one step of hessian_free did.
struct hessian_free_result {
  bool accepted = false;        ///< otherwise no lower loss was found, and the weights are as before
  double before = 0, loss = 0;  ///< the loss at the weights of before and of now
  double gradient_norm = 0;     ///< before
  double ratio = 0;             ///< of the decrease of the loss to that of the quadratic model, for the whole step
  double length = 0;            ///< of the step, as a multiple of what conjugate gradients found
  double damping = 0;           ///< for the next step
  int products = 0, evaluations = 0;  ///< of the curvature product and of the objective
};

/// Hessian-free optimization, a truncated Newton method (Martens, Deep learning via Hessian-free optimization, ICML
/// 2010): each step minimizes the model q(d) = g·d + d·(A + lambda I) d / 2 by conjugate gradients, until their
/// residual is below min(forcing, sqrt(|g| / |first g|)) |g| (Dembo & Steihaug, Math. Programming 1983: rough solutions
/// far from the minimum, fast convergence near it) or `solver` ends them. Solutions that were cut short begin at
/// `decay` times themselves in the next step. Where the last iterate does not lower the loss enough, the step goes back
/// to the earlier one whose loss is lowest (section 4.6); a line search along it follows. lambda = damping |g·A g| /
/// g·g, of the gradient when it was measured last; damping follows Levenberg and Marquardt (section 4.1): the ratio of
/// the loss's decrease to the undamped model's, below 1/4: damping × 3/2, above 3/4: × 2/3.
///
///     auto state = hf.init(parameters);
///     auto const done = hf.step(loss, product, parameters, state);
///
/// A is what the product says: the Hessian (hessian_product; conjugate gradients stop where it bends down) or a
/// Gauss-Newton matrix (nn::gauss_newton), which never does. Loss and product must be of the same data, as much of them
/// as memory and time allow; ranks with parts of the data wrap both in sync::summed. A first loss or gradient that is
/// not finite is a numeric_error, a trial that is not finite a failed one. A loss multiplied by a constant gives the
/// same steps.
struct hessian_free {
  double damping = 1e-5;  ///< of the first step, as a share of the curvature along its gradient
  double decay = 0.95;
  double preconditioner_power = 0.75;
  double forcing = 0.5;  ///< 0: conjugate gradients end as `solver` says, in every step
  double decrease = 1e-4;
  int backtracks = 60;
  conjugate_gradient solver{};

  /// Damping and the last direction: copyable, comparable, saved by name.
  template <class T>
  class basic_state {
   public:
    basic_state() = default;
    basic_state(basic_parameter_list<T> const& parameters, double damping)
        : layout_(parameters), damping_(damping), direction_(parameters.flat_size()) {}
    std::int64_t steps() const { return step_; }
    double damping() const { return damping_; }
    /// What is added to the curvature's diagonal.
    double lambda() const { return damping_ * std::abs(curvature_); }
    /// "<prefix><parameter>.direction" with the parameter's shape, "<prefix>step", "<prefix>damping",
    /// "<prefix>curvature" and "<prefix>first_norm".
    std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> list{
          make_named_count(prefix + "step", step_), make_named_tensor(prefix + "damping", damping_),
          make_named_tensor(prefix + "curvature", curvature_), make_named_tensor(prefix + "first_norm", first_norm_)};
      std::size_t at = 0;
      for (auto const& [name, shape] : layout_) {
        auto const n = static_cast<std::size_t>(shape.size());
        list.push_back(make_named_tensor(message(prefix, name, ".direction"), direction_.span().subspan(at, n), shape));
        at += n;
      }
      return list;
    }
    friend bool operator==(basic_state const&, basic_state const&) = default;

   private:
    friend hessian_free;
    tensor_layout layout_;
    std::int64_t step_ = 0;
    double damping_ = 1;     // a share of …
    double curvature_ = 0;   // … the curvature along the gradient, as it was measured last
    double first_norm_ = 0;  // of the first gradient
    buffer<T> direction_;
  };
  using state_type = basic_state<float>;

  /// Throws argument_error for hyperparameters that it cannot work with. Called by init, and by every step.
  void check() const {
    require(is_finite(damping) && damping >= 0 && is_finite(decay) && decay >= 0 && decay <= 1 && is_finite(forcing) &&
                forcing >= 0 && forcing < 1 && is_finite(decrease) && decrease > 0 && decrease < 0.5 &&
                backtracks > 0 && is_finite(preconditioner_power),
            "hessian_free: damping ", damping, ", decay ", decay, ", forcing ", forcing, ", decrease ", decrease, ", ",
            backtracks, " backtracks, preconditioner_power ", preconditioner_power,
            ": damping is finite and not negative, decay in [0, 1], forcing in [0, 1), decrease in (0, 1/2), "
            "and counts are positive");
    check_policy(solver);
  }
  template <class T>
  basic_state<T> init(basic_parameter_list<T> const& parameters) const {
    check();
    return {parameters, damping};
  }

  /// One step. `diagonal`, where given, estimates A's diagonal: conjugate gradients are preconditioned by
  /// (|diagonal| + damping)^preconditioner_power (section 4.7).
  template <class F, class Product, class T>
  requires objective<F, T> && hvp<Product, T> hessian_free_result
  step(F&& f, Product&& product, basic_parameter_list<T>& parameters, basic_state<T>& memory,
       std::type_identity_t<std::span<T const>> diagonal = {}, step_context const& context = {})
  const {
    check();
    detail::check_objective_context("hessian_free", context);
    memory.layout_.check(parameters, "hessian_free: the state");
    check_count(memory.step_, "hessian_free: the number of steps");
    check_count(memory.step_ + 1, "hessian_free: the number of this step");
    require(is_finite(memory.damping_) && memory.damping_ >= 0 && is_finite(memory.curvature_) &&
                is_finite(memory.first_norm_) && memory.first_norm_ >= 0,
            "hessian_free: a state whose damping is ", memory.damping_, ", curvature ", memory.curvature_,
            " and first gradient's norm ", memory.first_norm_, " was not saved by it: call init() again");
    require(diagonal.empty() || diagonal.size() == parameters.flat_size(), "hessian_free: a diagonal of ",
            diagonal.size(), " elements for ", parameters.flat_size(), " parameters");
    trials<T, std::remove_reference_t<F>> t(f, parameters, context);
    t.begin();
    if (t.r.gradient_norm > 0) {
      try {
        detail::lent_gradient const lent(product, t.gradient.span());
        auto const kept = solve(product, t, memory, diagonal);
        choose(t, kept, memory);
      } catch (...) {
        t.go_back();
        throw;
      }
      if (!t.r.accepted) std::fill(memory.direction_.begin(), memory.direction_.end(), T{0});
      adapt(memory.damping_, t.r.ratio);
    }
    t.r.damping = memory.damping_;
    ++memory.step_;
    return t.r;
  }

 private:
  /// An iterate of conjugate gradients, and the damped model's value there; 0: it is the gradient instead.
  template <class T>
  struct iterate {
    buffer<T> x;
    double value;
  };
  template <class T>
  struct iterates {
    std::vector<iterate<T>> list;
  };

  /// The weights that a step starts from, and the loss elsewhere.
  template <class T, class F>
  struct trials {
    using item = basic_parameter<T>;
    F& f;
    basic_parameter_list<T>& p;
    step_context const& context;
    buffer<T> weights{p.flat_size()}, gradient{p.flat_size()}, downhill{p.flat_size()}, trial_gradient{p.flat_size()};
    double unit = 1;  // a power of two near |g|: what is divided by it neither overflows nor underflows
    hessian_free_result r{};

    trials(F& objective, basic_parameter_list<T>& list, step_context const& o) : f(objective), p(list), context(o) {}

    void begin() {
      detail::gather(p, &item::weight, weights.span());
      r.before = r.loss = f(p);
      r.evaluations = 1;
      detail::gather(p, &item::gradient, gradient.span());
      r.gradient_norm = detail::norm_of(std::span<T const>(gradient.span()), context);
      require<numeric_error>(is_finite(r.loss) && is_finite(r.gradient_norm), "hessian_free: the loss is ", r.loss,
                             " and the gradient's norm ", r.gradient_norm, ": nothing was changed");
      unit = detail::unit_of<T>(r.gradient_norm, r.loss);
      auto const factor = static_cast<T>(-1 / unit);
      detail::map_vectors(
          context, downhill.span(), [factor](auto u) { return factor * u; }, gradient.span());
    }
    line_point at(double length, std::span<T const> d) {
      detail::move_to(p, weights.span(), length, d, context);
      ++r.evaluations;
      double const loss = f(p);
      detail::gather(p, &item::gradient, trial_gradient.span());
      return {length, loss / unit, detail::inner_product(trial_gradient.span(), d, context) / unit};
    }
    /// Whether the gradient is smaller there.
    bool flatter(double length, std::span<T const> d) {
      at(length, d);
      return detail::norm_of(std::span<T const>(trial_gradient.span()), context) < r.gradient_norm;
    }
    double downhill_norm() const { return r.gradient_norm / unit; }
    void go_back() { detail::scatter(weights.span(), p, &item::weight); }
  };

  /// The preconditioner's inverse: of |diagonal| and damping, in units of the diagonal's mean.
  template <class T>
  buffer<T> inverted(std::span<T const> diagonal, double damped, step_context const& context) const {
    buffer<T> inverse(diagonal.size());
    double sums[]{0, static_cast<double>(diagonal.size())};
    for (T const d : diagonal) sums[0] += std::abs(static_cast<double>(d));
    if (context.all_reduce_sums) context.all_reduce_sums(sums);
    require<numeric_error>(is_finite(sums[0]), "hessian_free: the diagonal's elements add up to ", sums[0],
                           ": nothing was changed; give an estimate that is finite");
    double const mean = sums[0] > 0 ? sums[0] / sums[1] : 1;
    for (std::size_t i = 0; i < inverse.size(); ++i) {
      double const m = std::abs(static_cast<double>(diagonal[i])) / mean + std::max(damped, 1e-8);
      inverse[i] = static_cast<T>(std::pow(m, -preconditioner_power));
    }
    return inverse;
  }
  static void adapt(double& damping, double ratio) {
    constexpr double smallest = 1e-8;  // that grows again in a few steps, also from 0
    if (!(ratio >= 0.25)) damping = std::max(1.5 * damping, smallest);
    if (ratio > 0.75) damping *= 2.0 / 3.0;
  }

  /// Conjugate gradients from the direction of before, which the last iterate replaces. Of the iterates, 1, 2, 3, 4, 6,
  /// 8, 11, … and the last one are kept.
  template <class Product, class T, class F>
  iterates<T> solve(Product&& product, trials<T, F>& t, basic_state<T>& memory, std::span<T const> diagonal) const {
    auto const x = memory.direction_.span();
    auto const start = static_cast<T>(decay), share = static_cast<T>(1 / t.unit);
    detail::map_vectors(
        t.context, x, [start](auto u) { return start * u; }, x);
    bool measured = detail::inner_product(x, x, t.context) > 0;  // else the first product is along the gradient
    auto const damped = [&](std::span<T const> v, std::span<T> out) {
      product(v, out);
      if (!measured) measure(v, std::span<T const>(out), memory, t.context);
      measured = true;
      auto const lambda = static_cast<T>(memory.lambda() / t.unit);
      detail::map_vectors(
          t.context, out, [lambda, share](auto u, auto w) { return share * u + lambda * w; }, out, v);
    };
    iterates<T> kept;
    auto const keep = [&](std::span<T const> at, double value) {
      kept.list.push_back({buffer<T>(at.size()), value});
      std::copy(at.begin(), at.end(), kept.list.back().x.begin());
    };
    if (!(memory.first_norm_ > 0)) memory.first_norm_ = t.r.gradient_norm;
    auto cg = solver;
    cg.residual = std::max(cg.residual, std::min(forcing, std::sqrt(t.r.gradient_norm / memory.first_norm_)));
    int made = 0, next = 1;
    auto const inverse = inverted(diagonal, memory.damping_, t.context);
    auto const s = cg.solve(damped, t.downhill.span(), inverse.span(), x, t.context,
                            [&](int i, std::span<T const> at, double value) {
                              made = i;
                              if (i < next) return;
                              next = static_cast<int>(std::ceil(1.3 * i));
                              keep(at, value);
                            });
    t.r.products = s.products;
    if (!(s.value < 0) || (s.negative_curvature && made == 0)) {
      // The model gives no new step: along the gradient, as far as if its curvature were positive.
      double const k = std::abs(memory.curvature_) / t.unit;
      auto const length = static_cast<T>(k > 0 ? 1 / k : 1 / t.downhill_norm());
      detail::map_vectors(
          t.context, x, [length](auto u) { return length * u; }, t.downhill.span());
      kept.list.clear();
      keep(x, 0);
      std::fill(x.begin(), x.end(), T{0});
    } else {
      if (kept.list.empty() || kept.list.back().value != s.value) keep(x, s.value);
      // What was solved needs no second try from where it ended.
      if (s.converged) std::fill(x.begin(), x.end(), T{0});
    }
    return kept;
  }
  template <class T>
  static void measure(std::span<T const> v, std::span<T const> av, basic_state<T>& memory,
                      step_context const& context) {
    detail::basic_vector_pair<T> const wanted[]{{v.data(), av.data()}, {v.data(), v.data()}};
    double sums[2];
    detail::inner_products(v.size(), wanted, sums, context);
    if (double const k = sums[0] / sums[1]; is_finite(k)) memory.curvature_ = k;
  }

  /// Goes to the last of the iterates, or to an earlier one if the last is no good, and along it, or back.
  template <class T, class F>
  void choose(trials<T, F>& t, iterates<T> const& kept, basic_state<T> const& memory) const {
    double const before = t.r.before / t.unit;
    std::size_t last = kept.list.size() - 1;
    auto const slope_at = [&](std::size_t i) {
      return -detail::inner_product(t.downhill.span(), kept.list[i].x.span(), t.context);
    };
    auto now = t.at(1, kept.list[last].x.span());
    if (!(now.value <= before + decrease * slope_at(last)))
      for (; last > 0; --last) {  // while an earlier one is better
        auto const earlier = t.at(1, kept.list[last - 1].x.span());
        if (now.finite() && !(earlier.value < now.value)) break;
        now = earlier;
      }
    auto const d = kept.list[last].x.span();
    double const model = kept.list[last].value;
    double const undamped = model - 0.5 * memory.lambda() / t.unit * detail::inner_product(d, d, t.context);
    // What the model promises may be less than the loss's last digits: then it is as good as they can tell.
    constexpr bool exact = std::is_same_v<T, double>;
    bool const hidden = exact && std::abs(undamped) < 1e-14 * std::abs(before);
    t.r.ratio = model < 0 ? (hidden ? 0.5 : (now.value - before) / undamped) : 0;
    line_result found{};
    if (double const slope = slope_at(last); slope < 0) {
      bool known = true;  // the first trial
      strong_wolfe const search{.decrease = decrease, .trials = backtracks};
      found = search.search([&](double length) { return std::exchange(known, false) ? now : now = t.at(length, d); },
                            {0, before, slope}, 1, exact);
    }
    t.r.accepted =
        found.at.step > 0 && (found.at.value < before ||
                              (exact && detail::same_loss(found.at.value, before) && t.flatter(found.at.step, d)));
    if (!t.r.accepted) return t.go_back();
    detail::move_to(t.p, t.weights.span(), found.at.step, d, t.context);
    t.r.loss = found.at.value * t.unit;
    t.r.length = found.at.step;
  }
};

}  // namespace dovetail::optim
