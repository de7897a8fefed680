// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>

#include <cuda_runtime.h>

// Four elements in one access of device memory.

namespace dovetail::cuda::detail {

// Spelled as intrinsics with the default caching, because the compiler takes plain accesses apart and does not always
// put them together again.

template <std::size_t Bytes>
struct access_of;
template <>
struct access_of<4> {
  using type = unsigned;
};
template <>
struct access_of<8> {
  using type = uint2;
};
template <>
struct access_of<16> {
  using type = uint4;
};
template <class T>
struct four_of {
  T x, y, z, w;
};
/// From and to an address that is a multiple of four elements.
template <class T>
__device__ __forceinline__ four_of<T> load_four(T const* p) {
  using access = typename access_of<4 * sizeof(T)>::type;
  return std::bit_cast<four_of<T>>(__ldca(reinterpret_cast<access const*>(p)));
}
template <class T>
__device__ __forceinline__ void store_four(T* p, four_of<T> x) {
  using access = typename access_of<4 * sizeof(T)>::type;
  __stwb(reinterpret_cast<access*>(p), std::bit_cast<access>(x));
}

}  // namespace dovetail::cuda::detail
