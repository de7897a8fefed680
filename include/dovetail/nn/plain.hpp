// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/nn/convolution_size.hpp>
#include <dovetail/nn/long_sums.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

/// A backend of simple loops, on one core whatever it is offered, for machines without oneDNN and as the second opinion
/// of the tests. Some ten times slower. Using it is said, never guessed:
///   nn::basic_network<nn::plain, nn::shape{1, 28, 28}, nn::conv<32, 3>, …>
/// Its member functions are what a backend is: `use`, `parallel`, `gemm`, `repeated_gemm` and the three passes of a
/// convolution.
struct plain {
  struct scope {
    ~scope() {}  // a scope is kept for its end, even if nothing happens there
  };
  [[nodiscard]] scope use(int threads) {
    require(threads > 0, "nn: ", threads, " threads: a rank computes on at least one core");
    return {};
  }

  /// f(begin, end) over [0, n).
  template <class F>
  void parallel(std::size_t n, std::size_t /*floats_per_item*/, F const& f) {
    if (n) f(std::size_t{0}, n);
  }
  template <class F>
  void parallel(std::size_t n, F const& f) {
    parallel(n, 1, f);
  }

  /// C = A B + beta C, all row-major without gaps: A is m × k (stored k × m if a_transposed), B is k × n (n × k).
  void gemm(bool a_transposed, bool b_transposed, std::int64_t m, std::int64_t n, std::int64_t k, float const* a,
            float const* b, float beta, float* c) {
    multiply(a_transposed, m, n, k, a, b_transposed ? by_rows(b, n, k, transposed_) : b, beta, c);
  }

  /// f(a, c) does C = A B, or C += A B where `adds`, for many A of m rows and one B, both as gemm takes them. B must
  /// stay what it is, and f is used before the next call of repeated_gemm.
  auto repeated_gemm(bool b_transposed, std::int64_t m, std::int64_t n, std::int64_t k, float const* b, bool adds) {
    float const* const rows = b_transposed ? by_rows(b, n, k, repeated_) : b;
    return [=, this](float const* a, float* c) { multiply(false, m, n, k, a, rows, adds ? 1.f : 0.f, c); };
  }

  void conv_forward(convolution_size const& s, float const* x, float const* w, float const* bias, float* y) {
    for (std::int64_t i = 0; i < s.batch * s.out_height() * s.out_width(); ++i)
      std::copy_n(bias, s.filters, y + i * s.filters);
    each_tap(s, [&](std::int64_t in, std::int64_t out, std::int64_t tap) {
      for (std::int64_t f = 0; f < s.filters; ++f)
        for (std::int64_t c = 0; c < s.channels; ++c) y[out + f] += w[weight(s, f, c, tap)] * x[in + c];
    });
  }
  void conv_backward_data(convolution_size const& s, float const* w, float const* dy, float* dx) {
    std::fill_n(dx, s.batch * s.height * s.width * s.channels, 0.f);
    each_tap(s, [&](std::int64_t in, std::int64_t out, std::int64_t tap) {
      for (std::int64_t f = 0; f < s.filters; ++f)
        for (std::int64_t c = 0; c < s.channels; ++c) dx[in + c] += w[weight(s, f, c, tap)] * dy[out + f];
    });
  }
  void conv_backward_weights(convolution_size const& s, float const* x, float const* dy, float* dw, float* dbias,
                             bool accumulate) {
    std::int64_t const pixels = s.batch * s.out_height() * s.out_width();
    detail::sum_rows(dbias, dy, static_cast<std::size_t>(pixels), static_cast<std::size_t>(s.filters), accumulate);
    if (!accumulate) std::fill_n(dw, s.weight_count(), 0.f);
    // The sums over many pixels are cut as those of gemm are.
    auto const size = static_cast<std::size_t>(pixels > longest_sum ? s.weight_count() : 0);
    buffer<float> part(size);
    buffer<double> totals(size);
    float* const to = size ? part.data() : dw;
    auto const add_block = [&] {
      for (std::size_t i = 0; i < size; ++i) totals[i] += static_cast<double>(std::exchange(part[i], 0.f));
    };
    std::int64_t begun = 0;
    each_tap(s, [&](std::int64_t in, std::int64_t out, std::int64_t tap) {
      if (auto const block = out / s.filters / longest_sum; block != begun) {
        add_block();
        begun = block;
      }
      for (std::int64_t f = 0; f < s.filters; ++f)
        for (std::int64_t c = 0; c < s.channels; ++c) to[weight(s, f, c, tap)] += x[in + c] * dy[out + f];
    });
    add_block();
    for (std::size_t i = 0; i < size; ++i) dw[i] = static_cast<float>(totals[i] + static_cast<double>(dw[i]));
  }

 private:
  /// B as k × n, of b as n × k: the loops below add row to row, and columns of a large matrix are ten times slower to
  /// read.
  static float const* by_rows(float const* b, std::int64_t n, std::int64_t k, buffer<float>& to) {
    auto const rows = static_cast<std::size_t>(n), columns = static_cast<std::size_t>(k);
    if (to.size() < rows * columns) to = buffer<float>(rows * columns);
    detail::transpose(to.data(), b, rows, columns);
    return to.data();
  }
  /// gemm, of a B that is stored k × n.
  void multiply(bool a_transposed, std::int64_t m, std::int64_t n, std::int64_t k, float const* a, float const* b,
                float beta, float* c) {
    detail::long_sums sums;
    sums.gemm(
        longest_sum, a_transposed, false, m, n, k, a, b, beta, c,
        [this](std::size_t count, auto const& f) { parallel(count, f); },
        [&](std::int64_t rows, std::int64_t depth, float const* x, std::int64_t ldx, float const* y, std::int64_t ldy,
            float keep, float* to) {
          for (std::int64_t i = 0; i < rows; ++i) {
            float* const row = to + i * n;
            if (keep == 0.f)
              std::fill_n(row, n, 0.f);
            else if (keep != 1.f)
              add_scaled(row, keep - 1.f, row, n);
            for (std::int64_t p = 0; p < depth; ++p) {
              float const factor = a_transposed ? x[p * ldx + i] : x[i * ldx + p];
              add_scaled(row, factor, y + p * ldy, n);
            }
          }
        });
  }

  static constexpr std::int64_t longest_sum = 256;  // terms that are added one after the other in float
  static void add_scaled(float* to, float factor, float const* from, std::int64_t n) {
    detail::map(
        static_cast<std::size_t>(n), to, [factor](detail::f32s a, detail::f32s b) { return a + b * factor; }, to, from);
  }
  static std::int64_t weight(convolution_size const& s, std::int64_t f, std::int64_t c, std::int64_t tap) {
    return (f * s.channels + c) * s.kernel * s.kernel + tap;
  }
  /// visit(first channel of the input pixel, first filter of the output pixel, position in the kernel) for every pair
  /// of pixels that the kernel joins.
  template <class F>
  static void each_tap(convolution_size const& s, F const& visit) {
    for (std::int64_t b = 0; b < s.batch; ++b)
      for (std::int64_t oy = 0; oy < s.out_height(); ++oy)
        for (std::int64_t ox = 0; ox < s.out_width(); ++ox)
          for (std::int64_t tap = 0; tap < s.kernel * s.kernel; ++tap) {
            auto const y = oy * s.stride + tap / s.kernel - s.padding, x = ox * s.stride + tap % s.kernel - s.padding;
            if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
            visit(((b * s.height + y) * s.width + x) * s.channels,
                  ((b * s.out_height() + oy) * s.out_width() + ox) * s.filters, tap);
          }
  }

  buffer<float> transposed_, repeated_;  // what gemm and repeated_gemm were given, by rows
};

}  // namespace dovetail::nn
