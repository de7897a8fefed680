// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cuda_runtime.h>

namespace cub {

/// Sums over the threads before one of a block of BlockDimX threads. The storage can be used again behind a
/// __syncthreads.
template <class T, int BlockDimX>
class BlockScan {
 public:
  struct TempStorage {
    T value[BlockDimX];
  };
  explicit BlockScan(TempStorage& storage) : storage_(storage) {}

  void ExclusiveSum(T own, T& before, T& all, char const* file = __builtin_FILE(), int line = __builtin_LINE()) {
    if (blockDim.x != BlockDimX || blockDim.y != 1 || blockDim.z != 1)
      emulated::fail("%s:%d: a scan of %d threads in a block of %u x %u x %u", file, line, BlockDimX, blockDim.x,
                     blockDim.y, blockDim.z);
    storage_.value[threadIdx.x] = own;
    emulated::wait_for_block({file, line});
    T sum{};
    for (unsigned i = 0; i < threadIdx.x; ++i) sum += storage_.value[i];
    before = sum;
    for (unsigned i = threadIdx.x; i < BlockDimX; ++i) sum += storage_.value[i];
    all = sum;
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
