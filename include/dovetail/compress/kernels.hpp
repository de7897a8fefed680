// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include <dovetail/compress/chunk_sums.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/vectors.hpp>

// The loops of the codecs, compiled once per cpu_level (kernels.inc.hpp) and chosen at run time.
namespace dovetail::compress::kernels {

#define DOVETAIL_KERNELS <dovetail/compress/kernels.inc.hpp>
#include <dovetail/core/kernel_levels.inc.hpp>

/// One level's loops. Payload bytes need no alignment; n may be anything. Not inlined: a call is made once per bucket,
/// and where GCC knows the size of a short payload it warns of the loop that a long one would take.
struct kernel_set {
  cpu_level level;

  DOVETAIL_NOINLINE void to_fp16(float const* x, std::size_t n, std::byte* out) const {
    DOVETAIL_BY_LEVEL(to_fp16(x, n, out));
  }
  DOVETAIL_NOINLINE void add_fp16(std::byte const* in, std::size_t n, float weight, float* out) const {
    DOVETAIL_BY_LEVEL(add_fp16(in, n, weight, out));
  }
  DOVETAIL_NOINLINE void to_bf16(float const* x, std::size_t n, std::byte* out) const {
    DOVETAIL_BY_LEVEL(to_bf16(x, n, out));
  }
  DOVETAIL_NOINLINE void add_bf16(std::byte const* in, std::size_t n, float weight, float* out) const {
    DOVETAIL_BY_LEVEL(add_bf16(in, n, weight, out));
  }
  DOVETAIL_NOINLINE void add_float(std::byte const* in, std::size_t n, float weight, float* out) const {
    DOVETAIL_BY_LEVEL(add_float(in, n, weight, out));
  }
  /// out = a + b; out may be either.
  DOVETAIL_NOINLINE void add_to(float const* a, float const* b, std::size_t n, float* out) const {
    DOVETAIL_BY_LEVEL(add_to(a, b, n, out));
  }
  DOVETAIL_NOINLINE bool all_finite(float const* x, std::size_t n) const { DOVETAIL_BY_LEVEL(all_finite(x, n)); }
  /// ceil(n/8) bytes of signs; returns the sum of magnitudes.
  DOVETAIL_NOINLINE double to_signs(float const* x, std::size_t n, std::byte* bits) const {
    DOVETAIL_BY_LEVEL(to_signs(x, n, bits));
  }
  DOVETAIL_NOINLINE void add_signs(std::byte const* bits, std::size_t n, float value, float* out) const {
    DOVETAIL_BY_LEVEL(add_signs(bits, n, value, out));
  }
  /// Appends index and bits of every element whose magnitude, as an integer, is at least `least`; room for n + 16.
  DOVETAIL_NOINLINE std::size_t compact(float const* x, std::size_t n, std::int32_t least, std::uint32_t first,
                                        std::uint32_t* indices, std::uint32_t* values) const {
    DOVETAIL_BY_LEVEL(compact(x, n, least, first, indices, values));
  }
  /// The same for gradient + residual, which `sum` becomes; it may be the residual.
  DOVETAIL_NOINLINE std::size_t add_compact(float const* gradient, float const* residual, float* sum, std::size_t n,
                                            std::int32_t least, std::uint32_t first, std::uint32_t* indices,
                                            std::uint32_t* values) const {
    DOVETAIL_BY_LEVEL(add_compact(gradient, residual, sum, n, least, first, indices, values));
  }
};

/// The loops compiled for `level`, which the processor must support.
inline kernel_set at(cpu_level level) { return {level}; }

/// The loops for this processor.
inline kernel_set best() { return at(supported_cpu_level()); }

}  // namespace dovetail::compress::kernels

namespace dovetail::compress {

/// Where a sum of gradient and residual is not finite, error feedback begins again at 0, in `next` and in the residual
/// that it comes from.
DOVETAIL_COLD inline void restart_overflowed(std::span<float> residual, std::span<float> next) {
  for (std::size_t i = 0; i < next.size(); ++i)
    if (!is_finite(next[i])) residual[i] = next[i] = 0;
}

}  // namespace dovetail::compress
