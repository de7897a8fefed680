// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/comm/envelope.hpp>
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
template <class T>
void check_all_gather(T const* in, std::size_t in_size, T const* out, std::size_t out_size, int ranks, int rank) {
  auto const n = static_cast<std::size_t>(ranks);
  require(out_size == in_size * n, "all_gather on ", n, " ranks: ", in_size, " elements in and ", out_size,
          " out: out must have ", in_size * n);
  require(in_size == 0 || in + in_size <= out || out + out_size <= in ||
              in == out + in_size * static_cast<std::size_t>(rank),
          "all_gather of ", in_size,
          " elements: in lies in out, but not at this rank's place, which begins at element ",
          in_size * static_cast<std::size_t>(rank), ": use two buffers, or that place");
}
template <class T>
void check_all_to_all(T const* in, std::size_t in_size, T const* out, std::size_t out_size, int ranks) {
  require(in_size == out_size && in_size % static_cast<std::size_t>(ranks) == 0, "all_to_all on ", ranks,
          " ranks: ", in_size, " elements in and ", out_size,
          " out: both must be the same multiple of the number of ranks");
  require(in_size == 0 || in + in_size <= out || out + out_size <= in, "all_to_all of ", in_size,
          " elements: in and out overlap: use two buffers");
}

}  // namespace dovetail::comm::detail
