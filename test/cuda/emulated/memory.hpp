// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

// The emulated devices' memory: an arena each, which can be accessed only while a kernel or a copy of that device runs.
// Host code that follows a device pointer ends the program, and so does a kernel that touches what was freed, or
// another device's memory.

namespace emulated {

/// Ends the program. What a device does wrong in silence is an error here.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(char const* format, ...);

/// Every byte of fresh memory and of the gaps around it comes from this word: a NaN as a float and in doubles.
inline constexpr unsigned untouched = 0xFFF8DEADu;

inline constexpr int devices = 2;
inline constexpr int all_devices = -1;

/// Memory of a device, aligned to 256 bytes and to no more; nullptr if there is no room left.
void* allocate(std::size_t bytes, int device);
/// False unless p came from allocate. Ends the program if something was written around the memory. Its addresses are
/// never given out again.
bool release(void* p);
/// True if p came from allocate.
bool is_allocation(void const* p);
/// The device whose memory p is in.
int device_of(void const* p);
/// True if all of the bytes lie in one piece of memory from allocate.
bool holds(void const* p, std::size_t bytes);
/// True if one of the bytes lies in the arena.
bool in_arena(void const* p, std::size_t bytes);
std::size_t live_allocations();

/// memset on the device; the memory is open.
void set_bytes(void* p, int value, std::size_t bytes);

/// While one lives, a device's memory, or all devices', can be accessed, by this thread's kernels: others wait for
/// their turn.
class open_memory {
 public:
  explicit open_memory(int device);
  ~open_memory();
  open_memory(open_memory const&) = delete;

 private:
  int device_;
};

}  // namespace emulated
