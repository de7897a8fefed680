// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>
#include <functional>

#include <cuda_runtime_api.h>

// What a kernel's threads do together on the emulated device.

namespace emulated {

/// Where a thread waits. Threads that should wait for each other wait at the same line.
struct place {
  char const* file;
  int line;
};

inline constexpr unsigned warp_size = 32;

/// Runs `thread` once for every thread of the grid, block by block. Between two places where its threads wait for
/// each other, a block's threads run one after the other in an order that changes from time to time, and so do the
/// blocks: what depends on an order gives other results.
void run_grid(dim3 blocks, dim3 threads, std::function<void()> const& thread);

/// Waits for all threads of the block.
void wait_for_block(place);
/// Waits for the lanes in `mask`, this thread's among them, which all bring a value; returns the values by lane.
std::uint64_t const* wait_for_lanes(unsigned mask, std::uint64_t own, place);
/// This thread's index in its block, and in its warp.
unsigned thread_rank();
inline unsigned lane() { return thread_rank() % warp_size; }

}  // namespace emulated
