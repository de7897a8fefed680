// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <dnnl.h>

#include <dovetail/core/error.hpp>
#include <dovetail/nn/convolution_size.hpp>
#include <dovetail/nn/long_sums.hpp>
#include <dovetail/nn/onednn/computation.hpp>
#include <dovetail/nn/onednn/convolution.hpp>
#include <dovetail/nn/onednn/product.hpp>
#include <dovetail/nn/onednn/threads.hpp>

namespace dovetail::nn::onednn {

/// The dense arithmetic of layers by oneDNN 2 or 3 (link dovetail::onednn). One instance belongs to one network and one
/// thread at a time; it keeps the primitives it has made. The same input gives the same bits for a given thread count.
class host {
 public:
  /// While the result lives, oneDNN uses `threads` cores of the calling thread's.
  [[nodiscard]] thread_scope use(int threads) {
    require(threads > 0, "nn: ", threads, " threads: a rank computes on at least one core");
    return thread_scope(threads);
  }

  /// f(begin, end) over pieces of [0, n), possibly on several cores; an item is `floats_per_item` floats of work.
  template <class F>
  void parallel(std::size_t n, std::size_t floats_per_item, F const& f) {
    onednn::parallel(n, floats_per_item, f);
  }
  template <class F>
  void parallel(std::size_t n, F const& f) {
    onednn::parallel(n, 1, f);
  }

  /// C = A B + beta C, all row-major without gaps: A is m × k (stored k × m if a_transposed), B is k × n (n × k).
  void gemm(bool a_transposed, bool b_transposed, std::int64_t m, std::int64_t n, std::int64_t k, float const* a,
            float const* b, float beta, float* c) {
    if (m == 0 || n == 0) return;
    if (k == 0) {
      if (beta == 0.f) std::fill_n(c, m * n, 0.f);
      return;
    }
    // dnnl_sgemm adds the terms of a vector one after the other where it scales rows or columns.
    bool const scales = (m == 1 && !b_transposed) || (n == 1 && a_transposed);
    std::int64_t const block = scales ? 256 : longest_sum;
    sums_.gemm(
        block, a_transposed, b_transposed, m, n, k, a, b, beta, c,
        [this](std::size_t count, auto const& f) { parallel(count, f); },
        [&](std::int64_t rows, std::int64_t depth, float const* x, std::int64_t ldx, float const* y, std::int64_t ldy,
            float keep, float* to) {
          auto const status = dnnl_sgemm(a_transposed ? 'T' : 'N', b_transposed ? 'T' : 'N', rows, n, depth, 1.f, x,
                                         ldx, y, ldy, keep, to, n);
          require<error>(status == dnnl_success, "oneDNN: gemm of ", rows, " x ", n, " x ", depth,
                         " failed with status ", static_cast<int>(status));
        });
  }

  /// f(a, c) does C = A B, or C += A B where `adds`, for many A of m rows and one B, both as gemm takes them. B must
  /// stay what it is, and f is used before the next call of repeated_gemm.
  auto repeated_gemm(bool b_transposed, std::int64_t m, std::int64_t n, std::int64_t k, float const* b, bool adds) {
    auto& p = products_.find({m, n, k, b_transposed, adds});
    bool const packed = p.packs() && k <= longest_sum;
    float const* rows = nullptr;
    if (packed)
      p.pack(b);
    else
      rows = p.row_major(b);
    return [=, this, &p](float const* a, float* c) {
      if (packed)
        p.multiply(a, c);
      else
        gemm(false, false, m, n, k, a, rows, adds ? 1.f : 0.f, c);
    };
  }

  void conv_forward(convolution_size const& s, float const* x, float const* w, float const* bias, float* y) {
    convolutions_.find(s).forward(x, w, bias, y);
  }
  void conv_backward_data(convolution_size const& s, float const* w, float const* dy, float* dx) {
    convolutions_.find(s).backward_data(w, dy, dx);
  }
  void conv_backward_weights(convolution_size const& s, float const* x, float const* dy, float* dw, float* dbias,
                             bool accumulate) {
    convolutions_.find(s).backward_weights(x, dy, dw, dbias, accumulate);
  }

 private:
  /// Terms of one product that oneDNN is given: it adds them in pieces of some hundreds, and the pieces in float.
  static constexpr std::int64_t longest_sum = 4096;

  computation_cache<convolution_size, convolution> convolutions_;
  computation_cache<product_size, product> products_;
  detail::long_sums sums_;
};

}  // namespace dovetail::nn::onednn
