// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block.hpp"
#include "memory.hpp"

// The functions of 32 threads together. A lane that is asked for a value must be in the mask.

namespace emulated {

template <class T>
T value_of_lane(unsigned mask, T own, unsigned from, place at) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &own, sizeof own);
  auto const* const all = wait_for_lanes(mask, bits, at);
  if (!(mask >> from & 1))
    fail("%s:%d: a lane asks lane %u, which is not in the mask %#x", at.file, at.line, from, mask);
  std::memcpy(&own, &all[from], sizeof own);
  return own;
}
/// Bit l is set if lane l brought something that is not zero.
inline unsigned ballot(unsigned mask, bool own, place at) {
  auto const* const all = wait_for_lanes(mask, own, at);
  unsigned bits = 0;
  for (unsigned l = 0; l < warp_size; ++l)
    if (mask >> l & 1 && all[l]) bits |= 1u << l;
  return bits;
}
/// The first lane of this one's group of `width`.
inline unsigned group(int width) { return lane() / static_cast<unsigned>(width) * static_cast<unsigned>(width); }

}  // namespace emulated

template <class T>
T __shfl_sync(unsigned mask, T own, int from, int width = 32, char const* file = __builtin_FILE(),
              int line = __builtin_LINE()) {
  auto const within = static_cast<unsigned>(from) % static_cast<unsigned>(width);
  return emulated::value_of_lane(mask, own, emulated::group(width) + within, {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T own, int with, int width = 32, char const* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  unsigned const other = emulated::lane() ^ static_cast<unsigned>(with);
  bool const inside = other < emulated::group(width) + static_cast<unsigned>(width);
  return emulated::value_of_lane(mask, own, inside ? other : emulated::lane(), {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T own, unsigned by, int width = 32, char const* file = __builtin_FILE(),
                   int line = __builtin_LINE()) {
  unsigned const other = emulated::lane() + by;
  bool const inside = other < emulated::group(width) + static_cast<unsigned>(width);
  return emulated::value_of_lane(mask, own, inside ? other : emulated::lane(), {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int own, char const* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
  return emulated::ballot(mask, own != 0, {file, line});
}
inline int __any_sync(unsigned mask, int own, char const* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return emulated::ballot(mask, own != 0, {file, line}) != 0;
}
inline void __syncwarp(unsigned mask = ~0u, char const* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulated::wait_for_lanes(mask, 0, {file, line});
}
