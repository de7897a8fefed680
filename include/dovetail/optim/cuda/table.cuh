// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

// How a list of tensors becomes the blocks of one launch.

namespace dovetail::optim::cuda {

/// Elements of the longest piece: one block's work, and the unit of partial sums. 256 threads take it in two rounds;
/// longer ones are slower (bench_cuda_copy_rate: by 3 % at 2^28 elements on an H100).
inline constexpr std::size_t plain_piece = 2048;
/// The same in a list of `total` elements whose slots are packed: what a warp knows before its first block serves for
/// several, but not where long pieces would leave most of a device idle. A function of the list alone: sums have the
/// same bits on every device.
constexpr std::size_t packed_piece(std::size_t total) { return total < (std::size_t{1} << 24) ? plain_piece : 16384; }

/// Where a tensor's numbers are in device memory.
struct place {
  float* weight;
  std::byte const* gradient;
  std::size_t size;
  std::uint32_t group;  ///< of hyperparameters
};

/// A run of elements that one block takes, contiguous in every array.
struct piece {
  float* weight;
  std::byte const* gradient;
  std::size_t slot;  ///< where the run begins in every slot array
  std::uint32_t count;
  std::uint32_t tensor;  ///< the tensor that it belongs to, or begins in
  std::uint32_t group;
};

/// The pieces of a list.
struct piece_table {
  std::vector<piece> pieces;
  std::vector<std::size_t> first;  ///< per tensor its first piece, then their number; for unmerged tables
};

/// Elements from the last 16-byte boundary to `p`.
inline std::size_t misalignment(float const* p) { return reinterpret_cast<std::uintptr_t>(p) / sizeof(float) % 4; }

/// Where each tensor begins in a slot array; the last entry is the array's size. Tensors that are neighbors in memory
/// are neighbors here, others begin with their weights' alignment, so that 16-byte accesses fit all arrays at once.
/// `gradient_size`: bytes of a gradient's element.
inline std::vector<std::size_t> slot_layout(std::vector<place> const& places, std::size_t gradient_size) {
  std::vector<std::size_t> begin;
  std::size_t end = 0;
  float const* weight = nullptr;
  std::byte const* gradient = nullptr;
  for (auto const& x : places) {
    if (x.size && (x.weight != weight || x.gradient != gradient)) {
      end = (end + 3) / 4 * 4 + misalignment(x.weight);
      weight = x.weight;
      gradient = x.gradient;
    }
    begin.push_back(end);
    end += x.size;
    weight += x.size;
    gradient += x.size * gradient_size;
  }
  begin.push_back(end);
  return begin;
}

/// The same with every tensor at a multiple of `block`.
inline std::vector<std::size_t> block_layout(std::vector<place> const& places, std::size_t block) {
  std::vector<std::size_t> begin{0};
  for (auto const& x : places) begin.push_back(begin.back() + (x.size + block - 1) / block * block);
  return begin;
}

/// f(i, n) for runs of tensors that are neighbors in two arrays at once: n elements from tensor i on. One copy each.
template <class Size, class Here, class There, class F>
void each_run(std::size_t tensors, Size const& size, Here const& here, There const& there, F const& f) {
  for (std::size_t i = 0; i < tensors;) {
    std::size_t const first = i;
    std::size_t n = size(i++);
    while (i < tensors && here(i) == here(first) + n && there(i) == there(first) + n) n += size(i++);
    if (n) f(first, n);
  }
}

/// Pieces of at most `longest`, each within one tensor or, with `merge`, in runs that are as long as memory allows.
inline piece_table make_pieces(std::vector<place> const& places, std::size_t gradient_size,
                               std::vector<std::size_t> const& slots, std::size_t longest, bool merge) {
  piece_table t;
  t.first.push_back(0);
  for (std::size_t i = 0; i < places.size();) {
    auto const& x = places[i];
    std::size_t n = x.size, next = i + 1;
    for (; merge && next < places.size(); ++next) {
      auto const& y = places[next];
      if (y.size == 0) continue;
      if (n == 0 || y.weight != x.weight + n || y.gradient != x.gradient + n * gradient_size ||
          slots[next] != slots[i] + n || y.group != x.group)
        break;
      n += y.size;
    }
    for (std::size_t at = 0; at < n;) {
      // The first piece is shorter by its misalignment: all others then begin at 16-byte boundaries.
      std::size_t const most = at ? longest : longest - slots[i] % 4;
      auto const count = std::min(n - at, most);
      t.pieces.push_back({x.weight ? x.weight + at : nullptr, x.gradient + at * gradient_size, slots[i] + at,
                          static_cast<std::uint32_t>(count), static_cast<std::uint32_t>(i), x.group});
      at += count;
    }
    for (; i < next; ++i) t.first.push_back(t.pieces.size());
  }
  return t;
}

}  // namespace dovetail::optim::cuda
