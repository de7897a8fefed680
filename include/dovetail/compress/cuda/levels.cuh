// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include <dovetail/compress/blocks.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/cuda/codec.cuh>
#include <dovetail/compress/cuda/elements.cuh>
#include <dovetail/compress/cuda/tiles.cuh>
#include <dovetail/compress/levels.hpp>
#include <dovetail/compress/quantize_kernels.hpp>
#include <dovetail/core/cuda_launch.hpp>
#include <dovetail/core/simd_element.hpp>

// compress::int8, int4, qsgd and terngrad on a device. Where whole blocks fit into a tile, gradients are read once;
// longer blocks, and those that end within a byte, take a pass for the scales and one for the codes.
namespace dovetail::compress::cuda {
namespace detail {

using compress::detail::block_scale;

/// detail::equal_levels as kernels need it.
struct level_codes {
  int levels, width;  ///< width 0: five digits of base 3 a byte
  norm of;
  bool random;
  element_random key;

  /// Elements that share bytes, and how many of these.
  DOVETAIL_HD std::uint32_t group() const { return width ? 8 : 5; }
  DOVETAIL_HD std::uint32_t group_bytes() const { return width ? static_cast<std::uint32_t>(width) : 1; }

  __device__ std::uint32_t code(float x, block_scale const& s, std::uint32_t index) const {
    if (s.empty()) return static_cast<std::uint32_t>(levels);
    auto const share = random ? key.uniform(index) : 0.5f;
    auto const inverse = product_of(static_cast<float>(levels), s.inverse);
    auto q = static_cast<int>(sum_of(product_of(product_of(magnitude{}(x), s.power), inverse), share));
    q = q > levels ? levels : q;
    return static_cast<std::uint32_t>(levels + (std::bit_cast<std::uint32_t>(x) >> 31 ? -q : q));
  }
  __device__ std::uint32_t read(std::byte const* codes, std::size_t i) const {
    if (width == 0) {
      auto byte = static_cast<std::uint32_t>(codes[i / 5]);
      for (std::size_t j = i % 5; j; --j) byte /= 3;
      return byte % 3;
    }
    auto const w = static_cast<std::uint32_t>(width);
    std::size_t const bit = i * w;
    std::uint32_t const used = bit % 8;
    auto word = static_cast<std::uint32_t>(codes[bit / 8]);
    if (used + w > 8) word |= static_cast<std::uint32_t>(codes[bit / 8 + 1]) << 8;
    return word >> used & ((1u << w) - 1);
  }
  /// A group of codes, or the last ones of a payload.
  __device__ void write(std::byte* out, std::uint32_t const (&codes)[8], std::uint32_t count) const {
    if (width == 0) {
      std::uint32_t byte = 0;
      for (std::uint32_t j = count; j-- > 0;) byte = 3 * byte + codes[j];
      *out = static_cast<std::byte>(byte);
      return;
    }
    std::uint64_t word = 0;
    for (std::uint32_t j = 0; j < count; ++j) word |= std::uint64_t{codes[j]} << j * group_bytes();
    std::uint32_t const bytes = (count * group_bytes() + 7) / 8;
    std::uint32_t at = 0;
    for (; at + 4 <= bytes; at += 4, word >>= 32) put<std::uint32_t>(out + at, static_cast<std::uint32_t>(word));
    for (; at < bytes; ++at, word >>= 8) out[at] = static_cast<std::byte>(word);
  }
};

/// By a warp, of which the first thread gets it: the scale of a block, which lies in shared memory.
__device__ inline block_scale scale_in(float const* x, unsigned n, norm of) {
  std::int32_t const largest = largest_in(x, n);
  double sum = 0;
  if (compress::detail::needs_sum(largest, of))
    sum = chunk_sum(x, n, scaled_power{compress::detail::power_for(largest), of == norm::l2});
  return lane() == 0 ? compress::detail::scale_from(largest, of, sum) : block_scale{};
}

__device__ inline unsigned load_tile(float const* x, tiling const& cut, std::size_t tile, float* value) {
  std::size_t const begin = cut.begin(tile);
  unsigned const n = cut.size(tile);
  for (unsigned i = threadIdx.x; i < n; i += threads) value[i] = x[begin + i];
  __syncthreads();
  return n;
}

/// Blocks of a tile that get their scales and codes at once, at least 16 elements each.
inline constexpr std::size_t shortest_block = 16;

/// Scales and codes of a tile of whole blocks.
template <class T>
__global__ __launch_bounds__(threads) void code_tile(T const* x, tiling cut, level_codes f, std::byte* scales,
                                                     std::byte* codes) {
  __shared__ float value[sum_chunk];
  __shared__ float stored[sum_chunk / shortest_block], power[sum_chunk / shortest_block],
      inverse[sum_chunk / shortest_block];
  std::size_t const tile = blockIdx.x, begin = cut.begin(tile);
  unsigned const n = load_tile(x, cut, tile, value), length = cut.segment();
  for (unsigned s = threadIdx.x / warp; s * length < n; s += threads / warp) {
    block_scale const b = scale_in(value + s * length, n - s * length < length ? n - s * length : length, f.of);
    if (lane() != 0) continue;
    stored[s] = b.stored, power[s] = b.power, inverse[s] = b.inverse;
    put<float>(scales + 4 * (cut.first_block(tile) + s), b.stored);
  }
  __syncthreads();
  unsigned const each = f.group();
  std::byte* const to = codes + begin / each * f.group_bytes();
  for (unsigned g = threadIdx.x; g * each < n; g += threads) {
    unsigned const first = g * each, count = n - first < each ? n - first : each;
    std::uint32_t c[8] = {};
    for (unsigned j = 0, s = first / length, at = first - s * length; j < count; ++j, ++at) {
      if (at == length) ++s, at = 0;
      c[j] = f.code(value[first + j], {stored[s], power[s], inverse[s]}, static_cast<std::uint32_t>(begin) + first + j);
    }
    f.write(to + std::size_t{g} * f.group_bytes(), c, count);
  }
}

// ---- blocks of any length: `largest` and `sums` are of chunks, `found` of blocks

/// The largest magnitudes of a tile's chunks; or their sums, with the block's largest one.
template <class T>
__global__ __launch_bounds__(threads) void look_at_chunk(T const* x, tiling cut, norm of, bool sum,
                                                         std::int32_t* largest, double* sums,
                                                         std::int32_t const* found) {
  __shared__ float value[sum_chunk];
  std::size_t const tile = blockIdx.x;
  unsigned const n = load_tile(x, cut, tile, value);
  if (threadIdx.x >= warp) return;
  if (!sum) {
    std::int32_t const most = largest_in(value, n);
    if (lane() == 0) largest[tile] = most;
    return;
  }
  std::int32_t const most = found[cut.first_block(tile)];
  if (!compress::detail::needs_sum(most, of)) return;
  double const all = chunk_sum(value, n, scaled_power{compress::detail::power_for(most), of == norm::l2});
  if (lane() == 0) sums[tile] = all;
}
/// A warp a block.
template <class T>
__global__ __launch_bounds__(threads) void largest_of_blocks(T const* largest, tiling cut, std::size_t count,
                                                             std::int32_t* found) {
  for (std::size_t b = first_thing() / warp; b < count; b += all_threads() / warp) {
    std::int32_t most = 0;
    for (std::size_t c = lane(); c < cut.chunks_in(b); c += warp) {
      std::int32_t const next = largest[b * cut.chunks + c];
      most = next > most ? next : most;
    }
    for (int step = warp / 2; step; step /= 2) {
      std::int32_t const other = __shfl_xor_sync(~0u, most, step);
      most = other > most ? other : most;
    }
    if (lane() == 0) found[b] = most;
  }
}
template <class T>
__global__ __launch_bounds__(threads) void scale_blocks(std::int32_t const* found, T const* sums, tiling cut, norm of,
                                                        std::size_t count, block_scale* blocks, std::byte* scales) {
  for (std::size_t b = first_thing() / warp; b < count; b += all_threads() / warp) {
    double sum = 0;
    if (compress::detail::needs_sum(found[b], of)) sum = block_sum(sums + b * cut.chunks, cut.chunks_in(b));
    if (lane() != 0) continue;
    blocks[b] = compress::detail::scale_from(found[b], of, sum);
    put<float>(scales + 4 * b, blocks[b].stored);
  }
}
template <class T>
__global__ __launch_bounds__(threads) void code_groups(T const* x, tiling cut, level_codes f, block_scale const* blocks,
                                                       std::byte* codes) {
  std::size_t const each = f.group();
  for (std::size_t g = first_thing(); g * each < cut.n; g += all_threads()) {
    std::size_t const first = g * each;
    auto const count = static_cast<std::uint32_t>(cut.n - first < each ? cut.n - first : each);
    std::uint32_t c[8] = {};
    std::size_t b = first / cut.length, at = first - b * cut.length;
    for (std::uint32_t j = 0; j < count; ++j, ++at) {
      if (at == cut.length) ++b, at = 0;
      c[j] = f.code(x[first + j], blocks[b], static_cast<std::uint32_t>(first) + j);
    }
    f.write(codes + g * f.group_bytes(), c, count);
  }
}

// ---- decoding

struct weighted_levels {
  std::byte const *scales, *codes;
  std::size_t length;
  level_codes f;
  float weight;
  __device__ void operator()(std::size_t first, unsigned count, float (&x)[4]) const {
    std::size_t b = first / length, at = first - b * length;
    for (unsigned j = 0; j < count; ++j, ++at) {
      if (at == length) ++b, at = 0;
      float const scale = get<float>(scales + 4 * b);
      float const unit = product_of(weight, (simd::element(scale) / static_cast<float>(f.levels)).v);
      auto const q = static_cast<int>(f.read(codes, first + j)) - f.levels;
      x[j] = product_of(static_cast<float>(q), unit);
    }
  }
};
/// Bytes of five digits of base 3 are below 243, and the last one has no digits behind the last element.
template <class T>
__global__ __launch_bounds__(threads) void check_digits(std::byte const* codes, std::size_t n, T* mark) {
  std::size_t const bytes = (n + 4) / 5;
  for (std::size_t i = first_thing(); i < bytes; i += all_threads()) {
    auto const byte = static_cast<std::uint32_t>(codes[i]);
    std::uint32_t below = 1;
    for (std::size_t j = 5 * i; j < n && j < 5 * i + 5; ++j) below *= 3;
    if (byte >= below) mark_fault(mark, byte > 242 ? fault::digits : fault::tail, i);
  }
}

/// A codec that has detail::equal_levels, and random numbers or none.
template <class Codec>
struct level_form {
  using state = workspace;

  static std::size_t scratch(Codec const& codec, std::size_t n) {
    if (n == 0) return 0;
    auto const format = codec.format();
    auto const cut = tiles_of(format, n);
    return at_once(cut) ? 0 : scratch_of(cut, blocks_of(format, n)).end;
  }
  static void encode(Codec const& codec, device_span<float const> values, workspace& s, std::byte* out,
                     context const& where) {
    using dovetail::cuda::launch;
    std::size_t const n = values.size();
    auto const format = codec.format();
    auto cut = tiles_of(format, n);
    std::size_t const count = blocks_of(format, n);
    auto f = codes_of(format);
    if constexpr (codec_traits<Codec>::takes_context) f.random = true, f.key = element_random(where.own_random());
    std::byte* const codes = out + 4 * count;
    auto const tiles = [&] { return static_cast<unsigned>(cut.tiles()); };
    if (at_once(cut)) {
      launch("codes of a bucket", s.device(), tiles(), threads, code_tile<float>, values.data(), cut, f, out, codes);
      return;
    }
    cut.blocks = 0;
    auto const at = scratch_of(cut, count);
    auto* const sums = s.scratch<double>(0);
    auto* const largest = s.scratch<std::int32_t>(at.largest);
    auto* const found = s.scratch<std::int32_t>(at.found);
    auto* const blocks = s.scratch<block_scale>(at.blocks);
    launch("magnitudes of chunks", s.device(), tiles(), threads, look_at_chunk<float>, values.data(), cut, f.of, false,
           largest, sums, found);
    launch("magnitudes of blocks", s.device(), blocks_for(warp * count), threads, largest_of_blocks<std::int32_t>,
           largest, cut, count, found);
    if (f.of != norm::max)
      launch("sums of chunks", s.device(), tiles(), threads, look_at_chunk<float>, values.data(), cut, f.of, true,
             largest, sums, found);
    launch("scales of blocks", s.device(), blocks_for(warp * count), threads, scale_blocks<double>, found, sums, cut,
           f.of, count, blocks, out);
    launch("codes of a bucket", s.device(), blocks_for((n + f.group() - 1) / f.group()), threads, code_groups<float>,
           values.data(), cut, f, blocks, codes);
  }
  static void decode_add(Codec const& codec, std::byte const* payload, device_span<float> out, float weight,
                         workspace& s, context const&) {
    using dovetail::cuda::launch;
    std::size_t const n = out.size();
    auto const format = codec.format();
    std::size_t const count = blocks_of(format, n), bytes = format.codes().bytes(n);
    auto const f = codes_of(format);
    std::byte const* const codes = payload + 4 * count;
    auto const used = static_cast<unsigned>(n % 8 * static_cast<std::size_t>(f.width) % 8);
    launch("a check of scales", s.device(), blocks_for(count), threads, check_blocks<fault_word>, payload, count,
           codes + bytes - 1, used, s.fault_at());
    if (f.width == 0)
      launch("a check of digits", s.device(), blocks_for(bytes), threads, check_digits<fault_word>, codes, n,
             s.fault_at());
    std::size_t const length = compress::detail::block_count{n, format.block}.length();
    queue_add(s.device(), weighted_levels{payload, codes, length, f, weight}, out, s.fault_at());
  }

 private:
  using format_type = compress::detail::equal_levels;
  static level_codes codes_of(format_type const& format) {
    return {format.levels, format.codes().width, format.of, false, {}};
  }
  static std::size_t blocks_of(format_type const& format, std::size_t n) {
    return compress::detail::block_count{n, format.block}.blocks();
  }
  static tiling tiles_of(format_type const& format, std::size_t n) {
    return tiling::of({n, format.block}, codes_of(format).group());
  }
  static bool at_once(tiling const& cut) { return cut.blocks && cut.length >= shortest_block; }
  /// Where things lie in the scratch memory, behind the sums.
  struct places {
    std::size_t largest, found, blocks, end;
  };
  static places scratch_of(tiling cut, std::size_t count) {
    cut.blocks = 0;
    places p{};
    p.largest = sizeof(double) * cut.tiles();
    p.found = p.largest + sizeof(std::int32_t) * cut.tiles();
    p.blocks = p.found + sizeof(std::int32_t) * count;
    p.end = p.blocks + sizeof(block_scale) * count;
    return p;
  }
};

}  // namespace detail

template <int Levels>
struct form<integers<Levels>> : detail::level_form<integers<Levels>> {};
template <>
struct form<qsgd> : detail::level_form<qsgd> {};
template <>
struct form<terngrad> : detail::level_form<terngrad> {};

}  // namespace dovetail::compress::cuda
