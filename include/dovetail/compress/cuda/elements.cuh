// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <dovetail/compress/cuda/codec.cuh>
#include <dovetail/core/cuda.hpp>
#include <dovetail/core/cuda_access.cuh>
#include <dovetail/core/cuda_launch.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/simd_element.hpp>

// What the kernels of codecs share. Every operation on an element is rounded by itself, as on the host.
namespace dovetail::compress::cuda::detail {

inline constexpr unsigned threads = 256, warp = 32;

/// Thread blocks for n things, one a thread; of more, a thread takes several.
inline unsigned blocks_for(std::size_t n) {
  return static_cast<unsigned>(std::min((n + threads - 1) / threads, std::size_t{1} << 20));
}
__device__ __forceinline__ std::size_t first_thing() { return std::size_t{blockIdx.x} * threads + threadIdx.x; }
__device__ __forceinline__ std::size_t all_threads() { return std::size_t{gridDim.x} * threads; }
__device__ __forceinline__ unsigned lane() { return threadIdx.x % warp; }

// Payloads lie one behind another, at any address.
template <class T>
__device__ __forceinline__ bool is_aligned(void const* p) {
  return reinterpret_cast<std::uintptr_t>(p) % sizeof(T) == 0;
}
template <class T>
__device__ __forceinline__ T get(std::byte const* from) {
  if (is_aligned<T>(from)) return *reinterpret_cast<T const*>(from);
  T x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
template <class T>
__device__ __forceinline__ void put(std::byte* to, std::type_identity_t<T> x) {
  if (is_aligned<T>(to))
    *reinterpret_cast<T*>(to) = x;
  else
    std::memcpy(to, &x, sizeof x);
}

__device__ __forceinline__ float sum_of(float a, float b) { return (simd::element(a) + simd::element(b)).v; }
__device__ __forceinline__ float product_of(float a, float b) { return (simd::element(a) * simd::element(b)).v; }

/// Marks a payload as damaged. Of several faults the first one stays, so that a message does not depend on the order.
__device__ inline void mark_fault(fault_word* mark, fault what, std::size_t at) {
  atomicMin(mark, fault_word{static_cast<std::uint8_t>(what)} << 56 | fault_word{at});
}

/// out += what decode(first, count, four) finds of up to four consecutive elements, unless a payload was damaged;
/// `mark` is null where none can be.
template <class Decode>
__global__ __launch_bounds__(threads) void add_decoded(Decode decode, std::size_t n, float* out,
                                                       fault_word const* mark) {
  if (mark && *mark != intact) return;
  bool const fours = is_aligned<float4>(out);
  for (std::size_t i = 4 * first_thing(); i < n; i += 4 * all_threads()) {
    unsigned const count = n - i < 4 ? static_cast<unsigned>(n - i) : 4;
    float x[4];
    decode(i, count, x);
    if (fours && count == 4) {
      auto sum = dovetail::cuda::detail::load_four(static_cast<float const*>(out + i));
      sum.x = sum_of(sum.x, x[0]), sum.y = sum_of(sum.y, x[1]);
      sum.z = sum_of(sum.z, x[2]), sum.w = sum_of(sum.w, x[3]);
      dovetail::cuda::detail::store_four(out + i, sum);
    } else {
      for (unsigned j = 0; j < count; ++j) out[i + j] = sum_of(out[i + j], x[j]);
    }
  }
}
template <class Decode>
void queue_add(dovetail::cuda::device const& d, Decode const& decode, device_span<float> out,
               fault_word const* mark = nullptr) {
  dovetail::cuda::launch("a codec's sum", d, blocks_for((out.size() + 3) / 4), threads, add_decoded<Decode>, decode,
                         out.size(), out.data(), mark);
}

/// *found becomes 1 if an element is not finite.
template <class T>
__global__ __launch_bounds__(threads) void find_non_finite(T const* x, std::size_t n, std::uint32_t* found) {
  bool bad = false;
  for (std::size_t i = first_thing(); i < n; i += all_threads()) bad = bad || !is_finite(x[i]);
  if (bad) *found = 1;
}

/// Scales, which are not negative, and bits behind the last element, of which there are none. `used`: bits of the last
/// byte of `bytes` that are codes', 0: all.
template <class T>
__global__ __launch_bounds__(threads) void check_blocks(std::byte const* scales, std::size_t count,
                                                        std::byte const* last, unsigned used, T* mark) {
  for (std::size_t i = first_thing(); i < count; i += all_threads())
    if (get<std::uint32_t>(scales + 4 * i) >> 31) mark_fault(mark, fault::scale, i);
  if (first_thing() == 0 && used && static_cast<unsigned>(*last) >> used) mark_fault(mark, fault::tail, 0);
}

}  // namespace dovetail::compress::cuda::detail
