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
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/tensor_layout.hpp>
#include <dovetail/optim/conjugate_gradient.hpp>
#include <dovetail/optim/curvature_product.hpp>
#include <dovetail/optim/flat_vectors.hpp>
#include <dovetail/optim/minimize.hpp>
#include <dovetail/optim/step_options.hpp>

namespace dovetail::optim {

/// What one step of hessian_free did.
struct hessian_free_result {
  bool accepted = false;        ///< otherwise no lower loss was found, and the weights are as before
  double before = 0, loss = 0;  ///< the loss at the weights of before and of now
  double gradient_norm = 0;     ///< before
  double ratio = 0;             ///< of the decrease of the loss to that of the quadratic model, for the whole step
  double length = 0;            ///< share of the step that was made
  double damping = 0;           ///< for the next step
  int products = 0, evaluations = 0;  ///< of the curvature product and of the objective
};

/// Hessian-free optimisation, a truncated Newton method (Martens, Deep learning via Hessian-free optimization, ICML
/// 2010): each step minimises the model q(d) = g·d + d·(A + damping I) d / 2 by conjugate gradients from `decay` times
/// the direction of before, goes back to the earlier iterate whose loss is lowest (section 4.6), and then shortens the
/// step until the loss falls by `decrease` of what the slope promises, or doubles it while the loss falls if the model
/// bends down along it. The damping follows Levenberg and Marquardt (section 4.1): the ratio of the loss's decrease to
/// the undamped model's, below 1/4: damping × 3/2, above 3/4: × 2/3.
///
///     auto state = hf.init(parameters);
///     auto const done = hf.step(loss, product, parameters, state);
///
/// A is what the product says: the Hessian (hessian_product; conjugate gradients stop where it bends down) or a
/// Gauss-Newton matrix (nn::gauss_newton), which never does. Loss and product must be of the same data, as much of them
/// as memory and time allow; ranks with parts of the data wrap both in sync::summed. A first loss or gradient that is
/// not finite is a numeric_error, a trial that is not finite a failed one.
struct hessian_free {
  double damping = 1;  ///< of the first step
  double decay = 0.95;
  double preconditioner_power = 0.75;
  double decrease = 1e-2;
  int backtracks = 60;
  conjugate_gradient solver{};

  /// Damping and the last direction: copyable, comparable, saved by name.
  class state_type {
   public:
    state_type() = default;
    state_type(parameter_list const& parameters, double damping)
        : layout_(parameters), damping_(damping), direction_(parameters.flat_size()) {}
    std::int64_t steps() const { return step_; }
    double damping() const { return damping_; }
    /// "<prefix><parameter>.direction" with the parameter's shape, "<prefix>step" and "<prefix>damping".
    std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> list{make_named_count(prefix + "step", step_),
                                     make_named_tensor(prefix + "damping", damping_)};
      std::size_t at = 0;
      for (auto const& [name, shape] : layout_) {
        auto const n = static_cast<std::size_t>(shape.size());
        list.push_back(make_named_tensor(message(prefix, name, ".direction"), direction_.span().subspan(at, n), shape));
        at += n;
      }
      return list;
    }
    friend bool operator==(state_type const&, state_type const&) = default;

   private:
    friend hessian_free;
    tensor_layout layout_;
    std::int64_t step_ = 0;
    double damping_ = 1;
    buffer<float> direction_;
  };

  state_type init(parameter_list const& parameters) const {
    require(damping >= 0 && decay >= 0 && decay <= 1 && solver.products > 0, "hessian_free: damping ", damping,
            ", decay ", decay, ", ", solver.products, " products: damping cannot be negative, decay is in [0, 1]");
    return {parameters, damping};
  }

  /// One step. `diagonal`, where given, estimates A's diagonal: conjugate gradients are preconditioned by
  /// (|diagonal| + damping)^preconditioner_power (section 4.7).
  template <objective F, curvature_product Product>
  hessian_free_result step(F&& f, Product&& product, parameter_list& parameters, state_type& state,
                           std::span<float const> diagonal = {}, step_options const& options = {}) const {
    state.layout_.check(parameters, "hessian_free: the state");
    check_count(state.step_, "hessian_free: the number of steps");
    require(diagonal.empty() || diagonal.size() == parameters.flat_size(), "hessian_free: a diagonal of ",
            diagonal.size(), " elements for ", parameters.flat_size(), " parameters");
    trials<std::remove_reference_t<F>> t(f, parameters, options);
    t.begin();
    if (t.r.gradient_norm > 0) {
      try {
        auto const kept = solve(product, t, state, diagonal);
        choose(t, kept, state.damping_);
      } catch (...) {
        t.go_back();
        throw;
      }
      if (!t.r.accepted) std::fill(state.direction_.begin(), state.direction_.end(), 0.0f);
      if (!(t.r.ratio >= 0.25)) state.damping_ *= 1.5;
      if (t.r.ratio > 0.75) state.damping_ *= 2.0 / 3.0;
    }
    t.r.damping = state.damping_;
    ++state.step_;
    return t.r;
  }

 private:
  /// An iterate of conjugate gradients, and the damped model's value there; 0: it is the gradient instead.
  struct iterate {
    buffer<float> x;
    double value;
  };
  struct iterates {
    std::vector<iterate> list;
    bool bends_down = false;  ///< negative curvature ended them
  };

  /// The weights that a step starts from, and the loss elsewhere.
  template <class F>
  struct trials {
    F& f;
    parameter_list& p;
    step_options const& options;
    buffer<float> weights{p.flat_size()}, downhill{p.flat_size()};
    hessian_free_result r{};

    trials(F& objective, parameter_list& list, step_options const& o) : f(objective), p(list), options(o) {}

    void begin() {
      detail::gather(p, &parameter::weight, weights.span());
      r.before = r.loss = f(p);
      r.evaluations = 1;
      detail::gather(p, &parameter::gradient, downhill.span());
      detail::map_vectors(
          options, downhill.span(), [](simd::pack u) { return -u; }, downhill.span());
      r.gradient_norm = std::sqrt(detail::inner_product(downhill.span(), downhill.span(), options));
      require<numeric_error>(std::isfinite(r.loss) && std::isfinite(r.gradient_norm), "hessian_free: the loss is ",
                             r.loss, " and the gradient's norm ", r.gradient_norm, ": nothing was changed");
    }
    double at(double length, std::span<float const> d) {
      detail::move_to(p, weights.span(), length, d, options);
      ++r.evaluations;
      double const loss = f(p);
      return std::isfinite(loss) ? loss : std::numeric_limits<double>::infinity();
    }
    void go_back() { detail::scatter(weights.span(), p, &parameter::weight); }
  };

  static buffer<float> inverted(std::span<float const> diagonal, double damping, double power) {
    buffer<float> inverse(diagonal.size());
    for (std::size_t i = 0; i < inverse.size(); ++i) {
      double const m = std::pow(std::abs(static_cast<double>(diagonal[i])) + damping, power);
      inverse[i] = m > 1e-30 ? static_cast<float>(1 / m) : 1.0f;
    }
    return inverse;
  }

  /// Conjugate gradients from the direction of before, which the last iterate replaces. Of the iterates, 1, 2, 3, 4, 6,
  /// 8, 11, … and the last one are kept.
  template <class Product, class F>
  iterates solve(Product&& product, trials<F>& t, state_type& state, std::span<float const> diagonal) const {
    auto const lambda = static_cast<float>(state.damping_), start = static_cast<float>(decay);
    auto const damped = [&](std::span<float const> v, std::span<float> out) {
      product(v, out);
      detail::map_vectors(
          t.options, out, [lambda](simd::pack u, simd::pack w) { return u + lambda * w; }, out, v);
    };
    auto const x = state.direction_.span();
    detail::map_vectors(
        t.options, x, [start](simd::pack u) { return start * u; }, x);
    iterates kept;
    auto const keep = [&](std::span<float const> at, double value) {
      kept.list.push_back({buffer<float>(at.size()), value});
      std::copy(at.begin(), at.end(), kept.list.back().x.begin());
    };
    int made = 0, next = 1;
    auto const inverse = inverted(diagonal, state.damping_, preconditioner_power);
    auto const s = solver.solve(damped, t.downhill.span(), inverse.span(), x, t.options,
                                [&](int i, std::span<float const> at, double value) {
                                  made = i;
                                  if (i < next) return;
                                  next = static_cast<int>(std::ceil(1.3 * i));
                                  keep(at, value);
                                });
    t.r.products = s.products;
    kept.bends_down = s.negative_curvature;
    if (!(s.value < 0) || (s.negative_curvature && made == 0)) {
      // The model gives no new step: along the gradient, with more damping next time.
      kept.list.clear();
      keep(t.downhill.span(), 0);
      std::fill(x.begin(), x.end(), 0.0f);
    } else if (kept.list.empty() || kept.list.back().value != s.value) {
      keep(x, s.value);
    }
    return kept;
  }

  /// Goes to the best of the iterates and along it, or back.
  template <class F>
  void choose(trials<F>& t, iterates const& kept, double lambda) const {
    std::size_t last = kept.list.size() - 1;
    double loss = t.at(1, kept.list[last].x.span());
    for (; last > 0; --last) {  // while an earlier one is better
      double const earlier = t.at(1, kept.list[last - 1].x.span());
      if (!(earlier < loss || std::isinf(loss))) break;
      loss = earlier;
    }
    auto const d = kept.list[last].x.span();
    double const model = kept.list[last].value;
    double const slope = -detail::inner_product(t.downhill.span(), d, t.options);
    double const undamped = model - 0.5 * lambda * detail::inner_product(d, d, t.options);
    t.r.ratio = model < 0 ? (loss - t.r.before) / undamped : 0;
    double length = 1;
    for (int k = 0; k < backtracks && !(loss <= t.r.before + decrease * length * slope && loss < t.r.before); ++k)
      loss = t.at(length *= std::isfinite(loss) ? 0.8 : 0.1, d);
    // Where the model bends down, nothing says how far: twice as far as long as that is better.
    if (kept.bends_down && length == 1 && loss < t.r.before)
      for (double further; length < 1e3 && (further = t.at(2 * length, d)) < loss; length *= 2) loss = further;
    t.r.accepted = loss < t.r.before;
    if (!t.r.accepted) return t.go_back();
    detail::move_to(t.p, t.weights.span(), length, d, t.options);
    t.r.loss = loss;
    t.r.length = length;
  }
};

}  // namespace dovetail::optim
