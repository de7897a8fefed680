// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>

#include <dovetail/core/cuda_access.cuh>

// How a thread reads and writes its elements: four in one access where alignment permits.

namespace dovetail::optim::cuda {

/// Elements of a storage block (optim/low_precision/storage.hpp) that one thread of a warp has.
inline constexpr int block_share = 8;

namespace detail {
using dovetail::cuda::detail::four_of, dovetail::cuda::detail::load_four, dovetail::cuda::detail::store_four;

__device__ __forceinline__ std::uint32_t warp_lane() { return threadIdx.x % 32; }
/// Element k of a thread's share, counted from the block's beginning.
__device__ __forceinline__ std::uint32_t place_of(int k) {
  return static_cast<std::uint32_t>(k / 4) * 128 + 4 * warp_lane() + static_cast<std::uint32_t>(k % 4);
}
/// A thread's share of the block of n elements at p; zeros behind the end. `whole` where it is known, and a constant
/// behind inlining: the block has all 256 elements and p is a multiple of four of them. Then no load waits for a
/// branch, and those of all arrays are on their way together.
template <class T>
__device__ __forceinline__ void load_share(T const* p, std::uint32_t n, T (&x)[block_share], bool whole = false) {
  bool const fours = whole || reinterpret_cast<std::uintptr_t>(p) % (4 * sizeof(T)) == 0;
#pragma unroll
  for (int k = 0; k < block_share; k += 4) {
    std::uint32_t const at = place_of(k);
    if (whole || (fours && at + 4 <= n)) {
      auto const v = load_four(p + at);
      x[k] = v.x, x[k + 1] = v.y, x[k + 2] = v.z, x[k + 3] = v.w;
    } else {
#pragma unroll
      for (std::uint32_t j = 0; j < 4; ++j) x[k + static_cast<int>(j)] = at + j < n ? p[at + j] : T{};
    }
  }
}
template <class T>
__device__ __forceinline__ void store_share(T* p, std::uint32_t n, T const (&x)[block_share], bool whole = false) {
  bool const fours = whole || reinterpret_cast<std::uintptr_t>(p) % (4 * sizeof(T)) == 0;
#pragma unroll
  for (int k = 0; k < block_share; k += 4) {
    std::uint32_t const at = place_of(k);
    if (whole || (fours && at + 4 <= n)) {
      store_four(p + at, four_of<T>{x[k], x[k + 1], x[k + 2], x[k + 3]});
    } else {
#pragma unroll
      for (std::uint32_t j = 0; j < 4; ++j)
        if (at + j < n) p[at + j] = x[k + static_cast<int>(j)];
    }
  }
}

}  // namespace detail

}  // namespace dovetail::optim::cuda
