// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <math.h>  // device code calls sqrt, pow, isfinite without std::

#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include <cuda_runtime_api.h>

#include "block.hpp"
#include "runtime.hpp"
#include "warp.hpp"

// What nvcc gives to kernels, for the host's compiler. Shared memory is static: blocks run one after another.

/// For tests: nothing is fused here, so that bits may be compared.
#define DOVETAIL_EMULATED_CUDA 1

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
/// Loads and stores in one access, which fail as a device's do where the address is not aligned.
template <class T>
T __ldca(T const* p) {
  emulated::check_alignment(p, alignof(T));
  return *p;
}
template <class T>
void __stwb(T* p, T x) {
  emulated::check_alignment(p, alignof(T));
  *p = x;
}

// Threads run one at a time.
inline unsigned atomicAdd(unsigned* p, unsigned x) {
  unsigned const before = *p;
  *p += x;
  return before;
}
inline unsigned long long atomicMin(unsigned long long* p, unsigned long long x) {
  unsigned long long const before = *p;
  if (x < before) *p = x;
  return before;
}

inline void __syncthreads(char const* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulated::wait_for_block({file, line});
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(cudaLaunchConfig_t const* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  std::tuple<Parameters...> const copied(std::forward<Arguments>(arguments)...);
  return emulated::launch(*config, [kernel, copied] { std::apply(kernel, copied); });
}
