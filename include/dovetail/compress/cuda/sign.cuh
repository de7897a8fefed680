// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include <dovetail/compress/blocks.hpp>
#include <dovetail/compress/chunk_sums.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/cuda/codec.cuh>
#include <dovetail/compress/cuda/elements.cuh>
#include <dovetail/compress/cuda/tiles.cuh>
#include <dovetail/compress/sign.hpp>
#include <dovetail/core/cuda_launch.hpp>
#include <dovetail/core/finite.hpp>

// compress::sign on a device. Gradients are read once; the sums of magnitudes have the host's order, and its bits.
namespace dovetail::compress::cuda {
namespace detail {

/// The signs of a tile, and the scales of its blocks; of a chunk its sum, in `sums`.
template <class T>
__global__ __launch_bounds__(threads) void signs_of_tile(T const* x, tiling cut, std::byte* scales, std::byte* bits,
                                                         double* sums) {
  __shared__ float value[sum_chunk];
  std::size_t const tile = blockIdx.x, begin = cut.begin(tile);
  unsigned const n = cut.size(tile);
  for (unsigned i = threadIdx.x; i < (n + warp - 1) / warp * warp; i += threads) {
    bool negative = false;
    if (i < n) {
      float const v = x[begin + i];
      value[i] = v;
      auto const u = std::bit_cast<std::uint32_t>(v);
      negative = u << 1 ? u >> 31 != 0 : i % 2 != 0;  // zeros alternate with their position
    }
    unsigned const signs = __ballot_sync(~0u, negative);
    unsigned const first = i - lane();
    if (lane() < 4 && first + 8 * lane() < n)
      bits[(begin + first) / 8 + lane()] = static_cast<std::byte>(signs >> (8 * lane()));
  }
  __syncthreads();
  unsigned const length = cut.segment();
  for (unsigned s = threadIdx.x / warp; s * length < n; s += threads / warp) {
    float const* const part = value + s * length;
    unsigned const count = n - s * length < length ? n - s * length : length;
    double sum = chunk_sum(part, count, magnitude{});
    if (lane() != 0) continue;
    if (!is_finite(sum)) {  // fp32 has overflowed, or an element is not finite
      sum = 0;
      for (unsigned i = 0; i < count; ++i) sum += static_cast<double>(magnitude{}(part[i]));
    }
    if (cut.blocks)
      put<float>(scales + 4 * (cut.first_block(tile) + s), compress::detail::mean_of(sum, count));
    else
      sums[tile] = sum;
  }
}
/// A warp a block: the scales of blocks of several chunks.
template <class T>
__global__ __launch_bounds__(threads) void means_of_blocks(T const* sums, tiling cut, std::size_t count,
                                                           std::byte* scales) {
  for (std::size_t b = first_thing() / warp; b < count; b += all_threads() / warp) {
    double const sum = block_sum(sums + b * cut.chunks, cut.chunks_in(b));
    std::size_t const begin = b * cut.length, left = cut.n - begin;
    if (lane() == 0) put<float>(scales + 4 * b, compress::detail::mean_of(sum, left < cut.length ? left : cut.length));
  }
}

struct signed_scales {
  std::byte const *scales, *bits;
  std::size_t length;
  float weight;
  __device__ void operator()(std::size_t first, unsigned count, float (&x)[4]) const {
    float const value = product_of(weight, get<float>(scales + 4 * (first / length)));
    unsigned const signs = static_cast<unsigned>(bits[first / 8]) >> (first % 8);
    for (unsigned j = 0; j < count; ++j)
      x[j] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ (signs >> j & 1u) << 31);
  }
};

}  // namespace detail

template <>
struct form<sign> {
  using state = workspace;
  static std::size_t scratch(sign const& codec, std::size_t n) {
    auto const cut = tiles_of(codec, n);
    return n == 0 || cut.blocks ? 0 : sizeof(double) * cut.tiles();
  }
  static void encode(sign const& codec, device_span<float const> values, workspace& s, std::byte* out, context const&) {
    using dovetail::cuda::launch;
    std::size_t const n = values.size();
    compress::detail::block_count const blocks{n, codec.block};
    auto const cut = tiles_of(codec, n);
    std::size_t const count = blocks.blocks();
    auto* const sums = s.scratch<double>();
    launch("signs of a bucket", s.device(), static_cast<unsigned>(cut.tiles()), detail::threads,
           detail::signs_of_tile<float>, values.data(), cut, out, out + 4 * count, sums);
    if (!cut.blocks)
      launch("scales of signs", s.device(), detail::blocks_for(detail::warp * count), detail::threads,
             detail::means_of_blocks<double>, sums, cut, count, out);
  }
  static void decode_add(sign const& codec, std::byte const* payload, device_span<float> out, float weight,
                         workspace& s, context const&) {
    compress::detail::block_count const blocks{out.size(), codec.block};
    std::size_t const count = blocks.blocks();
    std::byte const* const bits = payload + 4 * count;
    dovetail::cuda::launch("a check of signs", s.device(), detail::blocks_for(count), detail::threads,
                           detail::check_blocks<fault_word>, payload, count, bits + (out.size() - 1) / 8,
                           static_cast<unsigned>(out.size() % 8), s.fault_at());
    detail::queue_add(s.device(), detail::signed_scales{payload, bits, blocks.length(), weight}, out, s.fault_at());
  }

 private:
  static detail::tiling tiles_of(sign const& codec, std::size_t n) {
    if (n == 0) return {};
    return detail::tiling::of({n, codec.block}, 16);
  }
};

}  // namespace dovetail::compress::cuda
