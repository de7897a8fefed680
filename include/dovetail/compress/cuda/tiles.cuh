// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include <dovetail/compress/blocks.hpp>
#include <dovetail/compress/chunk_sums.hpp>
#include <dovetail/compress/cuda/elements.cuh>
#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>

// How a bucket that is coded in blocks is divided among the thread blocks of a kernel, and what the threads of a warp
// find out of a block together, in the order of compress/chunk_sums.hpp.
namespace dovetail::compress::cuda::detail {

using compress::detail::sum_chunk;

/// A tile is what a thread block has in shared memory: as many whole blocks as have up to 4096 elements together, or a
/// chunk of a longer block. A segment is a block, or that chunk.
struct tiling {
  std::size_t n, length;  ///< of the bucket, of a block
  std::size_t blocks;     ///< of a tile; 0: a tile is a chunk
  std::size_t chunks;     ///< of a whole block

  /// `group`: elements that share bytes; tiles of blocks end with a group. `blocks` is then 0 also where that many
  /// elements are too many.
  static tiling of(compress::detail::block_count const& b, std::size_t group) {
    std::size_t const length = std::min(b.length(), b.n), least = std::lcm(length, group);
    return {b.n, length, least <= sum_chunk ? sum_chunk / least * (least / length) : 0, chunks_of(length)};
  }
  DOVETAIL_HD static constexpr std::size_t chunks_of(std::size_t n) { return (n + sum_chunk - 1) / sum_chunk; }

  std::size_t tiles() const {
    if (blocks) return (n + blocks * length - 1) / (blocks * length);
    return n / length * chunks + chunks_of(n % length);
  }
  DOVETAIL_HD std::size_t begin(std::size_t tile) const {
    return blocks ? tile * blocks * length : tile / chunks * length + tile % chunks * sum_chunk;
  }
  DOVETAIL_HD std::uint32_t size(std::size_t tile) const {
    std::size_t const from = begin(tile);
    std::size_t const most = blocks ? blocks * length : sum_chunk;
    std::size_t const end = blocks ? n : smaller((tile / chunks + 1) * length, n);
    return static_cast<std::uint32_t>(smaller(most, end - from));
  }
  /// The first block of a tile, and the elements of its segments but the last one.
  DOVETAIL_HD std::size_t first_block(std::size_t tile) const { return blocks ? tile * blocks : tile / chunks; }
  DOVETAIL_HD std::uint32_t segment() const { return static_cast<std::uint32_t>(blocks ? length : sum_chunk); }
  /// Chunks of a block, by their number.
  DOVETAIL_HD std::size_t chunks_in(std::size_t block) const { return chunks_of(smaller(length, n - block * length)); }

 private:
  DOVETAIL_HD static constexpr std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }
};

// ---- by the 32 threads of a warp, all of which get the result

/// The bits of the largest magnitude: as integers, so that NaN is largest, infinity next.
__device__ inline std::int32_t largest_in(float const* x, unsigned n) {
  std::int32_t most = 0;
  for (unsigned i = lane(); i < n; i += warp) {
    auto const u = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu);
    most = u > most ? u : most;
  }
  for (int step = warp / 2; step; step /= 2) {
    std::int32_t const other = __shfl_xor_sync(~0u, most, step);
    most = other > most ? other : most;
  }
  return most;
}
/// The sum of f(element) over a chunk.
template <class F>
__device__ double chunk_sum(float const* x, unsigned n, F const& f) {
  constexpr unsigned lanes = compress::detail::sum_lanes;
  float own = 0;
  if (lane() < lanes)
    for (unsigned i = lane(); i < n; i += lanes) own = sum_of(own, f(x[i]));
  double total = 0;
  for (unsigned j = 0; j < lanes; ++j) total += static_cast<double>(__shfl_sync(~0u, own, static_cast<int>(j)));
  return total;
}
/// The sum of the sums of a block's chunks.
__device__ inline double block_sum(double const* chunk, std::size_t count) {
  static_assert(compress::detail::chunk_lanes == warp);
  double own = 0;
  for (std::size_t c = lane(); c < count; c += warp) own += chunk[c];
  double total = 0;
  for (unsigned j = 0; j < warp; ++j) total += __shfl_sync(~0u, own, static_cast<int>(j));
  return total;
}

struct magnitude {
  __device__ float operator()(float x) const {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0x7fffffffu);
  }
};
/// Of `power` times the elements, or of the squares of that.
struct scaled_power {
  float power;
  bool squares;
  __device__ float operator()(float x) const {
    float const y = product_of(x, power);
    return squares ? product_of(y, y) : magnitude{}(y);
  }
};

}  // namespace dovetail::compress::cuda::detail
