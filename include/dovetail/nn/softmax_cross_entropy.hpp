// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/nn/loss.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

namespace detail {

/// sum over j of e^(x[j] - m), each term also written to `terms` unless that is null. Of many classes, blocks are added
/// in double precision.
DOVETAIL_NOINLINE inline double sum_exp(float const* x, std::size_t n, float m, float* terms) {
  double sum = 0;
  std::size_t j = 0;
  while (j + lanes <= n) {
    f32s sums{};
    for (std::size_t const end = n - j < 256 ? n : j + 256; j + lanes <= end; j += lanes) {
      f32s const e = detail::exp(load(x + j) - m);
      if (terms) store(terms + j, e);
      sums += e;
    }
    sum += static_cast<double>((sums[0] + sums[2]) + (sums[1] + sums[3]));
  }
  if (j < n) {
    f32s const e = detail::exp(load_part(x + j, n - j) - m);
    for (std::size_t i = 0; j + i < n; ++i) {
      if (terms) terms[j + i] = e[i];
      sum += static_cast<double>(e[i]);
    }
  }
  return sum;
}

}  // namespace detail

/// -log softmax(logits)[target], summed over predictions, in nats; the gradient is softmax - one-hot.
/// Evaluated as log Σ e^(x - max) + max - x[target], which cannot overflow. One target per sample for a network that
/// ends in {classes}, one per position for {steps, classes}; a target outside [0, classes) throws input_error.
struct softmax_cross_entropy {
  static constexpr bool fits(shape const& output) { return output.rank == 1 || output.rank == 2; }

  loss_sums operator()(predictions const& p, float scale) const {
    loss_sums sums;
    for (std::int64_t r = 0; r < p.rows(); ++r) {
      auto const target = p.target(r);
      require<input_error>(target >= 0 && target < p.classes, "softmax_cross_entropy: target ", target, " of sample ",
                           p.sample(r), ", position ", p.position(r), " is outside [0, ", p.classes,
                           "): check the labels against the network's last layer");
      auto const x = p.row(r);
      auto const t = static_cast<std::size_t>(target);
      std::size_t best = 0;
      for (std::size_t j = 1; j < x.size(); ++j)
        if (x[j] > x[best]) best = j;
      float* const gradient = p.gradients ? p.gradient(r).data() : nullptr;
      double const sum = detail::sum_exp(x.data(), x.size(), x[best], gradient);
      sums.loss += std::log(sum) + static_cast<double>(x[best]) - static_cast<double>(x[t]);
      sums.correct += best == t && is_finite(sum);  // not finite where one of the logits is NaN
      if (gradient) {
        auto const factor = static_cast<float>(static_cast<double>(scale) / sum);
        detail::map(
            x.size(), gradient, [factor](detail::f32s e) { return e * factor; }, gradient);
        gradient[t] -= scale;
      }
    }
    sums.count = p.rows();
    return sums;
  }

  /// The gradient of -log softmax(z)[target], with the target drawn from softmax(z), has the Hessian of the loss as its
  /// covariance: the Fisher information of the model is its Gauss-Newton matrix.
  static constexpr bool is_log_likelihood = true;

  /// out = scale H v, row by row: H = diag(s) - s sᵀ is the Hessian of a prediction's loss in its logits, s = softmax.
  /// v and out are rows × classes, as p.logits; they may be the same.
  void curvature(predictions const& p, float scale, float const* v, float* out) const {
    for (std::int64_t r = 0; r < p.rows(); ++r) {
      auto const x = p.row(r);
      float const* const from = v + r * p.classes;
      float* const to = out + r * p.classes;
      double const most = static_cast<double>(*std::max_element(x.begin(), x.end()));
      double sum = 0, mean = 0;
      for (std::size_t j = 0; j < x.size(); ++j) {
        double const e = std::exp(static_cast<double>(x[j]) - most);
        sum += e;
        mean += e * static_cast<double>(from[j]);
      }
      mean /= sum;
      for (std::size_t j = 0; j < x.size(); ++j) {
        double const s = std::exp(static_cast<double>(x[j]) - most) / sum;
        to[j] = static_cast<float>(static_cast<double>(scale) * s * (static_cast<double>(from[j]) - mean));
      }
    }
  }
};

}  // namespace dovetail::nn
