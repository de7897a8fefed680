// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/buffer.hpp>

namespace dovetail::nn::detail {

/// Matrix products with long sums. A float that has taken in a hundred thousand terms loses a thousandth of the next
/// ones, and the sums of a weight gradient are as long as the batch has rows. They are cut into blocks: a backend
/// multiplies one block in float, and blocks are added in double precision. One instance keeps its memory.
class long_sums {
 public:
  /// C = A B + beta C, all row-major without gaps: A is m × k (stored k × m if a_transposed), B is k × n (n × k).
  /// `multiply(m, k, a, lda, b, ldb, beta, c)` does it for some rows of C and some of the k, lda and ldb apart;
  /// `parallel(n, f)` calls f(begin, end) on pieces of [0, n). At most `block` terms: one call of `multiply`.
  template <class Parallel, class Multiply>
  void gemm(std::int64_t block, bool a_transposed, bool b_transposed, std::int64_t m, std::int64_t n, std::int64_t k,
            float const* a, float const* b, float beta, float* c, Parallel const& parallel, Multiply const& multiply) {
    std::int64_t const lda = a_transposed ? m : k, ldb = b_transposed ? k : n;
    if (k <= block) return multiply(m, k, a, lda, b, ldb, beta, c);
    // So many rows of C at once that their sums stay in the second cache.
    std::int64_t const strip = std::clamp<std::int64_t>(strip_size / n, 1, m);
    reserve(static_cast<std::size_t>(strip * n));
    for (std::int64_t i = 0; i < m; i += strip) {
      std::int64_t const rows = std::min(strip, m - i);
      float* const to = c + i * n;
      auto const each = [&](auto const& f) {
        parallel(static_cast<std::size_t>(rows * n), [&](std::size_t begin, std::size_t end) {
          for (std::size_t j = begin; j < end; ++j) f(j);
        });
      };
      each([&](std::size_t j) {
        totals_[j] = beta == 0.f ? 0.0 : static_cast<double>(beta) * static_cast<double>(to[j]);
      });
      for (std::int64_t p = 0; p < k; p += block) {
        multiply(rows, std::min(block, k - p), a_transposed ? a + p * m + i : a + i * k + p, lda,
                 b_transposed ? b + p : b + p * n, ldb, 0.f, part_.data());
        each([&](std::size_t j) { totals_[j] += static_cast<double>(part_[j]); });
      }
      each([&](std::size_t j) { to[j] = static_cast<float>(totals_[j]); });
    }
  }

 private:
  static constexpr std::int64_t strip_size = 1 << 16;
  void reserve(std::size_t n) {
    if (part_.size() >= n) return;
    part_ = buffer<float>(n);
    totals_ = buffer<double>(n);
  }

  buffer<float> part_;
  buffer<double> totals_;
};

}  // namespace dovetail::nn::detail
