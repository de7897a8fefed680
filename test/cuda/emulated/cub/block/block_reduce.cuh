// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <limits>

#include <cuda_runtime.h>

namespace cub {

/// Sums and the like over a block of BlockDimX threads, in the order of the threads. Only thread 0 gets the result, the
/// others get what nobody should use. The storage can be used again behind a __syncthreads.
template <class T, int BlockDimX>
class BlockReduce {
 public:
  struct TempStorage {
    T value[BlockDimX];
  };
  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}

  template <class Op>
  T Reduce(T own, Op op, char const* file = __builtin_FILE(), int line = __builtin_LINE()) {
    if (blockDim.x != BlockDimX || blockDim.y != 1 || blockDim.z != 1)
      emulated::fail("%s:%d: a reduction of %d threads in a block of %u x %u x %u", file, line, BlockDimX, blockDim.x,
                     blockDim.y, blockDim.z);
    storage_.value[threadIdx.x] = own;
    emulated::wait_for_block({file, line});
    if (threadIdx.x != 0) return std::numeric_limits<T>::has_quiet_NaN ? std::numeric_limits<T>::quiet_NaN() : T(-1);
    T total = storage_.value[0];
    for (int i = 1; i < BlockDimX; ++i) total = op(total, storage_.value[i]);
    return total;
  }
  T Sum(T own, char const* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return Reduce(
        own, [](T a, T b) { return a + b; }, file, line);
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
