// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/comm/envelope.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>

// What arguments of operations must be, on every communicator: throw argument_error.
namespace dovetail::comm::detail {

inline void check_rank(char const* what, int r, int ranks) {
  require(r >= 0 && r < ranks, what, r, ": there are ranks 0 to ", ranks - 1);
}
inline void check_tag(int tag) { require(tag >= 0 && tag <= 32767, "tag ", tag, ": tags lie in 0 to 32767"); }
inline void check_message(int from, int tag, int ranks) {
  if (from != any_rank) check_rank("a message from rank ", from, ranks);
  if (tag != any_tag) check_tag(tag);
}
/// Two arrays, of elements of one type.
struct array_pair {
  template <class T>
  array_pair(T const* i, std::size_t in_elements, T const* o, std::size_t out_elements)
      : in(i), out(o), in_size(in_elements), out_size(out_elements), width(sizeof(T)) {}
  bool apart() const {
    auto const *const i = static_cast<std::byte const*>(in), *const o = static_cast<std::byte const*>(out);
    return in_size == 0 || i + in_size * width <= o || o + out_size * width <= i;
  }
  /// Whether `in` begins at element n of `out`.
  bool in_at(std::size_t n) const { return in == static_cast<std::byte const*>(out) + n * width; }
  void const *in, *out;
  std::size_t in_size, out_size, width;
};
DOVETAIL_NOINLINE inline void check_all_gather(array_pair const& a, int ranks, int rank) {
  auto const n = static_cast<std::size_t>(ranks), place = a.in_size * static_cast<std::size_t>(rank);
  require(a.out_size == a.in_size * n, "all_gather on ", n, " ranks: ", a.in_size, " elements in and ", a.out_size,
          " out: out must have ", a.in_size * n);
  require(a.apart() || a.in_at(place), "all_gather of ", a.in_size,
          " elements: in lies in out, but not at this rank's place, which begins at element ", place,
          ": use two buffers, or that place");
}
DOVETAIL_NOINLINE inline void check_all_to_all(array_pair const& a, int ranks) {
  require(a.in_size == a.out_size && a.in_size % static_cast<std::size_t>(ranks) == 0, "all_to_all on ", ranks,
          " ranks: ", a.in_size, " elements in and ", a.out_size,
          " out: both must be the same multiple of the number of ranks");
  require(a.apart(), "all_to_all of ", a.in_size, " elements: in and out overlap: use two buffers");
}

}  // namespace dovetail::comm::detail
