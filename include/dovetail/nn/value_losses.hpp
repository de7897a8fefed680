// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include <dovetail/core/error.hpp>
#include <dovetail/nn/loss.hpp>

// Losses of targets that are numbers: each output of the network has one, and each is a prediction of its own. The mean
// over predictions is then PyTorch's with reduction="mean". Computed in double precision.
namespace dovetail::nn {

namespace detail {

/// A loss of one output, and its derivatives in the output.
struct of_output {
  double loss = 0, slope = 0;
  bool correct = false;
};

/// f(x, y) -> of_output, over all outputs x and their targets y.
template <class F>
loss_sums sum_over_outputs(predictions const& p, float scale, F const& f) {
  loss_sums sums;
  for (std::int64_t r = 0; r < p.rows(); ++r)
    for (std::int64_t j = 0; j < p.classes; ++j) {
      float const weight = p.weight(r, j);
      float* const gradient = p.gradients ? p.gradients + r * p.classes + j : nullptr;
      if (weight == 0) {
        if (gradient) *gradient = 0;
        continue;
      }
      auto const w = static_cast<double>(weight);
      of_output const o =
          f(static_cast<double>(p.logits[r * p.classes + j]), static_cast<double>(p.target_value(r, j)));
      sums.loss += w * o.loss;
      sums.correct += o.correct;
      ++sums.count;
      if (gradient) *gradient = static_cast<float>(static_cast<double>(scale) * w * o.slope);
    }
  return sums;
}

/// out = scale × weight × f(x, y) × v, of second derivatives f.
template <class F>
void scale_by_curvature(predictions const& p, float scale, float const* v, float* out, F const& f) {
  for (std::int64_t r = 0; r < p.rows(); ++r)
    for (std::int64_t j = 0; j < p.classes; ++j) {
      auto const i = r * p.classes + j;
      double const w = static_cast<double>(scale) * static_cast<double>(p.weight(r, j));
      out[i] =
          w == 0
              ? 0.f
              : static_cast<float>(w * f(static_cast<double>(p.logits[i]), static_cast<double>(p.target_value(r, j))) *
                                   static_cast<double>(v[i]));
    }
}

/// 1 / (1 + e^-x), of any x.
inline double logistic(double x) {
  double const e = std::exp(x < 0 ? x : -x);  // at most 1
  return (x < 0 ? e : 1) / (1 + e);
}

}  // namespace detail

/// (x - y)² of each output x and its target y, as PyTorch's MSELoss. -log of the density of normal distributions around
/// x of variance 1/2, up to a constant.
struct mean_squared_error {
  static constexpr bool takes_values = true;
  static constexpr bool is_log_likelihood = true;
  static constexpr bool fits(shape const& output) { return output.rank == 1 || output.rank == 2; }

  loss_sums operator()(predictions const& p, float scale) const {
    return detail::sum_over_outputs(p, scale, [](double x, double y) {
      double const error = x - y;
      return detail::of_output{error * error, 2 * error};
    });
  }
  void curvature(predictions const& p, float scale, float const* v, float* out) const {
    detail::scale_by_curvature(p, scale, v, out, [](double, double) { return 2.; });
  }
};

/// -y log σ(x) - (1 - y) log(1 - σ(x)) of each logit x and its target y in [0, 1], a class or a probability, as
/// PyTorch's BCEWithLogitsLoss; in nats. Evaluated as max(x, 0) - x y + log(1 + e^-|x|), which cannot overflow.
/// Accuracy counts the logits on their target's side. A target outside [0, 1] throws input_error.
struct binary_cross_entropy {
  static constexpr bool takes_values = true;
  static constexpr bool is_log_likelihood = true;
  static constexpr bool fits(shape const& output) { return output.rank == 1 || output.rank == 2; }

  loss_sums operator()(predictions const& p, float scale) const {
    return detail::sum_over_outputs(p, scale, [](double x, double y) {
      require<input_error>(y >= 0 && y <= 1, "binary_cross_entropy: a target is ", y,
                           ", outside [0, 1]: it is a class, 0 or 1, or a probability");
      double const loss = (x > 0 ? x : 0.) - x * y + std::log1p(std::exp(-std::abs(x)));
      return detail::of_output{loss, detail::logistic(x) - y, x > 0 ? y > 0.5 : x <= 0 && y <= 0.5};
    });
  }
  void curvature(predictions const& p, float scale, float const* v, float* out) const {
    detail::scale_by_curvature(p, scale, v, out,
                               [](double x, double) { return detail::logistic(x) * detail::logistic(-x); });
  }
};

/// Of an error e = x - y: e²/2 up to |e| = delta, delta (|e| - delta/2) beyond, as PyTorch's HuberLoss: an error's pull
/// is bounded. Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 1964.
struct huber {
  float delta = 1;

  static constexpr bool takes_values = true;
  static constexpr bool fits(shape const& output) { return output.rank == 1 || output.rank == 2; }

  /// Throws argument_error unless delta is positive.
  loss_sums operator()(predictions const& p, float scale) const {
    require(delta > 0, "huber: delta is ", delta, ": it must be positive");
    auto const d = static_cast<double>(delta);
    return detail::sum_over_outputs(p, scale, [d](double x, double y) {
      double const error = x - y, size = std::abs(error);
      if (size > d) return detail::of_output{d * (size - d / 2), error < 0 ? -d : d};
      return detail::of_output{error * error / 2, error};  // a NaN stays one
    });
  }
  void curvature(predictions const& p, float scale, float const* v, float* out) const {
    auto const d = static_cast<double>(delta);
    detail::scale_by_curvature(p, scale, v, out, [d](double x, double y) { return std::abs(x - y) > d ? 0. : 1.; });
  }
};

}  // namespace dovetail::nn
