// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

// The emulated device's memory: an arena that can be accessed only while a kernel or a copy runs. Host code that
// follows a device pointer ends the program, and so does a kernel that touches what was freed.

namespace emulated {

/// Ends the program. What a device does wrong in silence is an error here.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(char const* format, ...);

/// Every byte of fresh memory and of the gaps around it comes from this word: a NaN as a float and in doubles.
inline constexpr unsigned untouched = 0xFFF8DEADu;

/// Memory aligned to 256 bytes and to no more; nullptr if there is no room left.
void* allocate(std::size_t bytes);
/// False unless p came from allocate. Ends the program if something was written around the memory. Its addresses are
/// never given out again.
bool release(void* p);
/// True if all of the bytes lie in one piece of memory from allocate.
bool holds(void const* p, std::size_t bytes);
/// True if one of the bytes lies in the arena.
bool in_arena(void const* p, std::size_t bytes);
std::size_t live_allocations();

/// memset on the device; the memory is open.
void set_bytes(void* p, int value, std::size_t bytes);

/// While one lives, device memory can be accessed, by this thread's kernels: others wait for their turn.
class open_memory {
 public:
  open_memory();
  ~open_memory();
  open_memory(open_memory const&) = delete;
};

}  // namespace emulated
