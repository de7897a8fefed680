// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

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
/// With label smoothing ε (Szegedy et al., Rethinking the Inception architecture, CVPR 2016, section 7) the target is
/// the distribution (1 - ε) one-hot + ε / classes. Both members are those of PyTorch's CrossEntropyLoss.
struct softmax_cross_entropy {
  float label_smoothing = 0;                   ///< in [0, 1]
  std::optional<std::int32_t> ignore_index{};  ///< a target that is no prediction, such as -100; none by default

  static constexpr bool fits(shape const& output) { return output.rank == 1 || output.rank == 2; }

  loss_sums operator()(predictions const& p, float scale) const {
    require(label_smoothing >= 0 && label_smoothing <= 1, "softmax_cross_entropy: label_smoothing is ", label_smoothing,
            ": it is a part of a target, from 0 to 1");
    loss_sums sums;
    for (std::int64_t r = 0; r < p.rows(); ++r) {
      float const weight = weight_of(p, r);
      float* const gradient = p.gradients ? p.gradient(r).data() : nullptr;
      auto const x = p.row(r);
      if (weight == 0) {
        if (gradient) std::fill_n(gradient, x.size(), 0.f);
        continue;
      }
      auto const target = p.target(r);
      require<input_error>(target >= 0 && target < p.classes, "softmax_cross_entropy: target ", target, " of sample ",
                           p.sample(r), ", position ", p.position(r), " is outside [0, ", p.classes,
                           "): check the labels against the network's last layer");
      auto const t = static_cast<std::size_t>(target);
      std::size_t best = 0;
      for (std::size_t j = 1; j < x.size(); ++j)
        if (x[j] > x[best]) best = j;
      double const sum = detail::sum_exp(x.data(), x.size(), x[best], gradient);
      double loss = std::log(sum) + static_cast<double>(x[best]) - static_cast<double>(x[t]);
      if (label_smoothing != 0) loss += static_cast<double>(label_smoothing) * (static_cast<double>(x[t]) - mean(x));
      sums.loss += static_cast<double>(weight) * loss;
      sums.correct += best == t && is_finite(sum);  // not finite where one of the logits is NaN
      ++sums.count;
      if (gradient) {
        float const whole = scale * weight;
        auto const factor = static_cast<float>(static_cast<double>(whole) / sum);
        float const everywhere = whole * label_smoothing / static_cast<float>(p.classes);
        detail::map(
            x.size(), gradient, [factor, everywhere](detail::f32s e) { return e * factor - everywhere; }, gradient);
        gradient[t] -= whole * (1 - label_smoothing);
      }
    }
    return sums;
  }

  /// The gradient of -log softmax(z)[target], with the target drawn from softmax(z), has the Hessian of the loss as its
  /// covariance: the Fisher information of the model is its Gauss-Newton matrix.
  static constexpr bool is_log_likelihood = true;

  /// out = scale H v, row by row: H = diag(s) - s sᵀ is the Hessian of a prediction's loss in its logits, s = softmax.
  /// v and out are rows × classes, as p.logits; they may be the same.
  void curvature(predictions const& p, float scale, float const* v, float* out) const {
    for (std::int64_t r = 0; r < p.rows(); ++r) {
      double const whole = static_cast<double>(scale) * static_cast<double>(weight_of(p, r));
      if (whole == 0) {
        std::fill_n(out + r * p.classes, p.classes, 0.f);
        continue;
      }
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
        to[j] = static_cast<float>(whole * s * (static_cast<double>(from[j]) - mean));
      }
    }
  }

 private:
  float weight_of(predictions const& p, std::int64_t r) const {
    return ignore_index && p.target(r) == *ignore_index ? 0.f : p.weight(r);
  }
  static double mean(std::span<float const> x) {
    double sum = 0;
    for (float const v : x) sum += static_cast<double>(v);
    return sum / static_cast<double>(x.size());
  }
};

}  // namespace dovetail::nn
