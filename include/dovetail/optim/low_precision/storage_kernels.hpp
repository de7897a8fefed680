// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/vectors.hpp>
#include <dovetail/optim/low_precision/storage_codes.hpp>

// The loops that pack and unpack slots, compiled once per cpu_level (storage_kernels.inc.hpp) and chosen at run time.
namespace dovetail::optim::kernels {

/// One level's loops, over blocks of 256 elements.
struct kernel_set {
  void (*pack_bf16)(float const* x, std::uint32_t word, std::uint16_t* codes);
  void (*unpack_bf16)(std::uint16_t const* codes, float* x);
  float (*pack_8bit)(float const* x, std::uint32_t word, std::uint8_t* codes);
  void (*unpack_8bit)(std::uint8_t const* codes, float scale, float* x);
};

/// The loops for this processor, once a file of the program has them; until then those of storage_codes.hpp, which give
/// the same bits. One variable, so that functions that use it are the same in files that nvcc compiles: it has no
/// vectors of numbers, and so none of what follows.
inline constinit kernel_set chosen{codes::pack_bf16, codes::unpack_bf16, codes::pack_8bit, codes::unpack_8bit};

inline kernel_set const& best() { return chosen; }

#if !defined(__CUDACC__)
#define DOVETAIL_KERNELS <dovetail/optim/low_precision/storage_kernels.inc.hpp>
#include <dovetail/core/kernel_levels.inc.hpp>

/// The loops compiled for `level`, which the processor must support.
inline kernel_set const& at(cpu_level level) {
#if DOVETAIL_X86_LEVELS
  if (level == cpu_level::avx512) return avx512::set;
  if (level == cpu_level::avx2) return avx2::set;
#endif
  (void)level;
  return baseline::set;
}

namespace detail {
inline bool const known = (chosen = at(supported_cpu_level()), true);
}
#endif

}  // namespace dovetail::optim::kernels
