// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <string_view>
#include <vector>

#include <dovetail/core/parallel.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/span_math.hpp>
#include <dovetail/optim/tensorwise.hpp>

// Stages that work row by row. A row is what belongs to one output: of a dense weight {out, in} its row, of a
// convolution {out, in, height, width} its filter, of an embedding the vector of a word; a vector (a bias) is one row.
// u is the update that arrives, w the weight; |x| is the L2 norm.

namespace dovetail::optim {

namespace detail {
/// Calls f(row) for every row, on several cores if there is enough to do.
template <class F>
void each_row(tensor_update const& t, F const& f) {
  std::size_t const least = (std::size_t{1} << 16) / std::max<std::size_t>(1, t.columns()) + 1;
  parallel_for(t.threads, t.rows(), least, [&](range part) {
    for (std::size_t r = part.begin; r < part.end; ++r) f(r);
  });
}
inline void scale(std::span<float> x, double factor) {
  auto const f = static_cast<float>(factor);
  map(
      x, [f](simd::pack u) { return f * u; }, x);
}
}  // namespace detail

/// Adaptive gradient clipping (Brock et al., High-Performance Large-Scale Image Recognition Without Normalization, ICML
/// 2021, equation 3): a row with |u| > clipping max(|w|, epsilon) is scaled down to that norm.
struct clip_adaptively {
  float clipping = 0.01f;  ///< the largest norm of a row's update, as a share of its weights' norm
  float epsilon = 1e-3f;   ///< the least norm that weights are taken to have
  static constexpr bool tensorwise = true;

  void apply(tensor_update const& t) const {
    detail::each_row(t, [&](std::size_t r) {
      double const u = std::sqrt(detail::sum_of_squares(t.row(r)));
      double const w = std::sqrt(detail::sum_of_squares(t.weight_row(r)));
      double const limit = static_cast<double>(clipping) * std::max(w, static_cast<double>(epsilon));
      if (u > limit) detail::scale(t.row(r), limit / u);
    });
  }
};

/// Gradient centralisation (Yong et al., ECCV 2020, equation 1): u <- u - mean(u) in each row; vectors stay.
struct centralize {
  static constexpr bool tensorwise = true;

  void apply(tensor_update const& t) const {
    if (t.shape.rank < 2) return;
    detail::each_row(t, [&](std::size_t r) {
      auto const mean = static_cast<float>(detail::sum(t.row(r)) / static_cast<double>(t.columns()));
      detail::map(
          t.row(r), [mean](simd::pack u) { return u - mean; }, t.row(r));
    });
  }
};

/// AdaGrad with one number per row (Mudigere et al., Software-Hardware Co-design for Fast and Scalable Training of Deep
/// Learning Recommendation Models, ISCA 2022, section 4.1.4): s <- s + mean(u^2); u <- u / (sqrt(s) + epsilon).
struct scale_by_row_wise_adagrad {
  float epsilon = 1e-8f;
  static constexpr bool tensorwise = true;

  std::vector<named_shape> arrays(shape const& s) const {
    return {{"sum", shape{static_cast<std::int64_t>(tensor_update::rows_of(s))}}};
  }
  void apply(tensor_update const& t) const {
    detail::each_row(t, [&](std::size_t r) {
      float& s = t.array(0)[r];
      s += static_cast<float>(detail::sum_of_squares(t.row(r)) / static_cast<double>(t.columns()));
      if (s > 0) detail::scale(t.row(r), 1 / (std::sqrt(static_cast<double>(s)) + static_cast<double>(epsilon)));
    });
  }
};

/// Gaussian noise of variance eta / (1 + t)^gamma on every element, t the step from 0 (Neelakantan et al., Adding
/// Gradient Noise Improves Learning for Very Deep Networks, 2015, equation 1). The same numbers on every rank and
/// thread count.
struct add_noise {
  float eta = 0.01f;       ///< variance in the first step
  float gamma = 0.55f;     ///< how fast it falls
  std::uint64_t seed = 0;  ///< of the numbers, which also depend on the tensor's name and the step
  static constexpr bool tensorwise = true;

  void apply(tensor_update const& t) const {
    double const n = static_cast<double>(t.step);  // 1 + t
    auto const deviation = static_cast<float>(std::sqrt(static_cast<double>(eta) * std::pow(n, -double{gamma})));
    random_stream const stream{seed, hash(t.name), static_cast<std::uint64_t>(t.step)};
    std::size_t const count = t.update.size();
    parallel_for(t.threads, (count + 3) / 4, 4096, [&](range blocks) {
      for (std::size_t b = blocks.begin; b < blocks.end; ++b) {
        auto const words = stream.words(static_cast<std::uint32_t>(b));
        for (std::size_t k = 0; k < 4 && 4 * b + k < count; ++k) {  // two pairs of Box and Muller
          float const radius = std::sqrt(-2 * std::log(1 - random_stream::to_uniform(words[k & 2])));
          float const angle = 2 * std::numbers::pi_v<float> * random_stream::to_uniform(words[(k & 2) + 1]);
          t.update[4 * b + k] += deviation * radius * (k & 1 ? std::sin(angle) : std::cos(angle));
        }
      }
    });
  }

 private:
  /// FNV-1a: a tensor's noise depends on its name, not on its place in a list.
  static std::uint32_t hash(std::string_view name) {
    std::uint32_t h = 2166136261u;
    for (char const c : name) h = (h ^ static_cast<unsigned char>(c)) * 16777619u;
    return h;
  }
};

}  // namespace dovetail::optim
