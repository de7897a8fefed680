// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/error.hpp>
#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

namespace detail {

/// out(j, m, v) with v, the sums over rows of term(row, j, m), in double precision, for each vector of m columns from
/// j on. Eight rows are added as a tree in float.
template <class Term, class Out>
DOVETAIL_HOST_INLINE void sum_columns(std::size_t rows, std::size_t begin, std::size_t end, Term const& term,
                                      Out const& out) {
  for (std::size_t j = begin; j < end; j += lanes) {
    std::size_t const m = std::min<std::size_t>(lanes, end - j);
    std::array<double, std::size_t{lanes}> sums{};
    auto const add = [&](f32s v) {
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<double>(v[i]);
    };
    std::size_t r = 0;
    for (; r + 8 <= rows; r += 8)
      add(((term(r, j, m) + term(r + 1, j, m)) + (term(r + 2, j, m) + term(r + 3, j, m))) +
          ((term(r + 4, j, m) + term(r + 5, j, m)) + (term(r + 6, j, m) + term(r + 7, j, m))));
    for (; r < rows; ++r) add(term(r, j, m));
    for (std::size_t i = 0; i < m; ++i) out(j + i, sums[i]);
  }
}
DOVETAIL_HOST_INLINE f32s load_some(float const* p, std::size_t m) {
  return m == std::size_t{lanes} ? load(p) : load_part(p, m);
}

/// Mean and 1 / sqrt(variance + epsilon) of the columns [begin, end) of x; with `running`, running means and behind
/// them running variances move towards those of this batch.
DOVETAIL_NOINLINE inline void batch_statistics(float const* x, std::size_t rows, std::size_t width, std::size_t begin,
                                               std::size_t end, float epsilon, float momentum, float* mean,
                                               float* scale, float* running) {
  auto const n = static_cast<double>(rows);
  sum_columns(
      rows, begin, end, [=](std::size_t r, std::size_t j, std::size_t m) { return load_some(x + r * width + j, m); },
      [=](std::size_t j, double sum) { mean[j] = static_cast<float>(sum / n); });
  auto const move = [=](float& towards, double value) {
    towards += static_cast<float>(static_cast<double>(momentum) * (value - static_cast<double>(towards)));
  };
  sum_columns(
      rows, begin, end,
      [=](std::size_t r, std::size_t j, std::size_t m) {
        f32s const d = load_some(x + r * width + j, m) - load_some(mean + j, m);
        return d * d;
      },
      [=](std::size_t j, double sum) {
        scale[j] = static_cast<float>(1 / std::sqrt(sum / n + static_cast<double>(epsilon)));
        if (!running) return;
        move(running[j], static_cast<double>(mean[j]));
        move(running[width + j], sum / (n - 1));
      });
}

}  // namespace detail

/// Each feature, and each channel of an image, is shifted and scaled to mean 0 and variance 1 over the batch, and then
/// learns another mean and scale: y = (x - mean) / sqrt(variance + Epsilon) * weight + bias. {F}, {T, F} (over steps as
/// well) and {C, H, W} (over pixels as well); the shape stays. Tensors: weight {F} of ones, bias {F}. While training
/// the statistics are those of the batch, of this rank's share of it and with the masked predictions of sequences, and
/// running_mean, running_var move by Momentum towards them: running += Momentum * (batch's - running), of the unbiased
/// variance. Without training they are used. A training batch of one value per feature throws argument_error.
/// Ioffe & Szegedy, Batch normalization, ICML 2015; defaults are those of PyTorch's BatchNorm1d and BatchNorm2d.
template <float Momentum = 0.1f, float Epsilon = 1e-5f>
struct batch_norm {
  static constexpr bool keeps_output = false;

  template <class At>
  static constexpr void check() {
    DOVETAIL_REQUIRE(Momentum >= 0 && Momentum <= 1 && Epsilon > 0,
                     "batch_norm<Momentum, Epsilon> needs a momentum in [0, 1] and a positive epsilon", batch_norm, At);
    DOVETAIL_REQUIRE(At::input.rank >= 1 && At::input.rank <= 3,
                     "batch_norm reads {features}, {steps, features} or {channels, height, width}", batch_norm, At);
  }
  static constexpr shape output(shape const& in) { return in; }
  static constexpr auto parameters(shape const& in) {
    return std::array{tensor_plan{"weight", {width(in)}, initial::one},
                      tensor_plan{"bias", {width(in)}, initial::zero}};
  }
  static constexpr auto buffers(shape const& in) {
    return std::array{tensor_plan{"running_mean", {width(in)}, initial::zero},
                      tensor_plan{"running_var", {width(in)}, initial::one}};
  }
  /// Mean, 1 / standard deviation, and of backward the sums of the gradient, and of the gradient times x.
  static constexpr scratch_plan scratch(shape const& in) { return {0, 4 * width(in)}; }
  static constexpr std::int64_t flops(shape const& in) { return 8 * in.size(); }

  template <class Backend>
  static void forward(layer_call<Backend> const& c) {
    auto const n = static_cast<std::size_t>(rows(c.in, c.batch)), w = static_cast<std::size_t>(width(c.in));
    float* const mean = c.scratch;
    float* const scale = c.scratch + w;
    if (c.training) {
      require(n > 1, "batch_norm: a training batch of ", c.batch, " sample of shape ", c.in,
              " has 1 value per channel, and statistics need more than 1 value per channel: train with batches of at "
              "least 2 samples on every rank, the last batch of an epoch included");
      by_columns(c, [&](std::size_t begin, std::size_t end) {
        detail::batch_statistics(c.x, n, w, begin, end, Epsilon, Momentum, mean, scale,
                                 c.updates_buffers ? c.buffers : nullptr);
      });
    } else {
      float const epsilon = Epsilon;
      for (std::size_t j = 0; j < w; ++j) {
        mean[j] = c.buffers[j];
        scale[j] =
            static_cast<float>(1 / std::sqrt(static_cast<double>(c.buffers[w + j]) + static_cast<double>(epsilon)));
      }
    }
    by_rows(c, [&](std::size_t r) {
      float const* const x = c.x + r * w;
      detail::map(
          w, c.y + r * w,
          [](detail::f32s v, detail::f32s m, detail::f32s s, detail::f32s g, detail::f32s b) {
            return (v - m) * s * g + b;
          },
          x, mean, scale, c.weights, c.weights + w);
    });
  }

  /// With x̂ = (x - mean) / deviation and g = dy weight / deviation: dx = g - mean(g) - x̂ mean(g x̂).
  template <class Backend>
  static void backward(layer_call<Backend> const& c) {
    auto const n = static_cast<std::size_t>(rows(c.in, c.batch)), w = static_cast<std::size_t>(width(c.in));
    float const* const mean = c.scratch;
    float const* const scale = c.scratch + w;
    float* const means = c.scratch + 2 * w;
    by_columns(c, [&](std::size_t begin, std::size_t end) {
      auto const add = [&](float& to, double sum) {
        to = static_cast<float>(sum + (c.accumulate ? static_cast<double>(to) : 0.0));
      };
      detail::sum_columns(
          n, begin, end,
          [&](std::size_t r, std::size_t j, std::size_t m) {
            return (detail::load_some(c.x + r * w + j, m) - detail::load_some(mean + j, m)) *
                   detail::load_some(scale + j, m) * detail::load_some(c.dy + r * w + j, m);
          },
          [&](std::size_t j, double sum) {
            add(c.dw[j], sum);
            means[w + j] = static_cast<float>(sum / static_cast<double>(n));
          });
      detail::sum_columns(
          n, begin, end,
          [&](std::size_t r, std::size_t j, std::size_t m) { return detail::load_some(c.dy + r * w + j, m); },
          [&](std::size_t j, double sum) {
            add(c.dw[w + j], sum);
            means[j] = static_cast<float>(sum / static_cast<double>(n));
          });
    });
    if (!c.dx) return;
    by_rows(c, [&](std::size_t r) {
      detail::map(
          w, c.dx + r * w,
          [](detail::f32s dy, detail::f32s x, detail::f32s m, detail::f32s s, detail::f32s g, detail::f32s of_dy,
             detail::f32s of_product) { return (dy - of_dy - (x - m) * s * of_product) * (s * g); },
          c.dy + r * w, c.x + r * w, mean, scale, c.weights, means, means + w);
    });
  }

 private:
  /// f(begin, end) on columns: whoever adds up one does so alone, so that the sums do not depend on the threads.
  static void by_columns(auto const& c, auto const& f) {
    constexpr std::size_t strip = 16;  // 64 bytes
    auto const n = static_cast<std::size_t>(rows(c.in, c.batch)), w = static_cast<std::size_t>(width(c.in));
    c.backend.parallel((w + strip - 1) / strip, n * strip,
                       [&](std::size_t begin, std::size_t end) { f(begin * strip, std::min(end * strip, w)); });
  }
  static void by_rows(auto const& c, auto const& f) {
    auto const n = static_cast<std::size_t>(rows(c.in, c.batch));
    c.backend.parallel(n, static_cast<std::size_t>(width(c.in)), [&](std::size_t begin, std::size_t end) {
      for (std::size_t r = begin; r < end; ++r) f(r);
    });
  }
};

}  // namespace dovetail::nn
