// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <dovetail/core/half.hpp>
#include <dovetail/optim/cuda/access.cuh>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/optim/low_precision/storage.hpp>
#include <dovetail/optim/low_precision/storage_codes.hpp>

// How slots and weights are kept between steps (optim/low_precision/storage.hpp), on a device: a warp has a block of
// 256 elements, each of its threads eight of them, in two rows of four. The codes are those of the host, bit for bit.

namespace dovetail::optim::cuda {

static_assert(storage_block == 32 * block_share);

namespace detail {

// Over a whole warp; every thread gets the result.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800  // in one instruction
__device__ __forceinline__ std::uint32_t warp_max(std::uint32_t x) { return __reduce_max_sync(0xffffffffu, x); }
__device__ __forceinline__ std::uint32_t warp_min(std::uint32_t x) { return __reduce_min_sync(0xffffffffu, x); }
__device__ __forceinline__ std::uint32_t warp_or(std::uint32_t x) { return __reduce_or_sync(0xffffffffu, x); }
#else
template <class F>
__device__ __forceinline__ std::uint32_t over_warp(std::uint32_t x, F const& f) {
  for (int step = 16; step > 0; step /= 2) x = f(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
__device__ __forceinline__ std::uint32_t warp_max(std::uint32_t x) {
  return over_warp(x, [](std::uint32_t a, std::uint32_t b) { return a > b ? a : b; });
}
__device__ __forceinline__ std::uint32_t warp_min(std::uint32_t x) {
  return over_warp(x, [](std::uint32_t a, std::uint32_t b) { return a < b ? a : b; });
}
__device__ __forceinline__ std::uint32_t warp_or(std::uint32_t x) {
  return over_warp(x, [](std::uint32_t a, std::uint32_t b) { return a | b; });
}
#endif

}  // namespace detail

// ---- slots. A policy of your own: specialize slot_format for it.

/// What a policy for slots does on a device; `word` is random, and the block's own. All threads of a warp call it
/// together, each with its share of the block; encode's result is the block's scale.
template <class Slots>
struct slot_format;

template <>
struct slot_format<optim::detail::copied_slots> {
  __device__ static float encode(float const (&x)[block_share], std::uint32_t, float (&packed)[block_share]) {
#pragma unroll
    for (int k = 0; k < block_share; ++k) packed[k] = x[k];
    return 1;
  }
  __device__ static void decode(float const (&packed)[block_share], float, float (&x)[block_share]) {
#pragma unroll
    for (int k = 0; k < block_share; ++k) x[k] = packed[k];
  }
};

template <>
struct slot_format<bf16_slots> {
  __device__ static float encode(float const (&x)[block_share], std::uint32_t word, bf16 (&packed)[block_share]) {
#pragma unroll
    for (int k = 0; k < block_share; ++k)
      packed[k].bits = codes::rounded_half(x[k], codes::random_bits(word, detail::place_of(k)));
    return 1;
  }
  __device__ static void decode(bf16 const (&packed)[block_share], float, float (&x)[block_share]) {
#pragma unroll
    for (int k = 0; k < block_share; ++k) x[k] = static_cast<float>(packed[k]);
  }
};

template <>
struct slot_format<blockwise_8bit> {
  __device__ static float encode(float const (&x)[block_share], std::uint32_t word,
                                 std::uint8_t (&packed)[block_share]) {
    codes::block_range range;
    for (int k = 0; k < block_share; ++k) range.take(x[k]);
    range.largest = detail::warp_max(range.largest);
    range.smallest = detail::warp_min(range.smallest);
    range.signs = detail::warp_or(range.signs);
    for (int k = 0; k < block_share; ++k) packed[k] = range.code(x[k], codes::random_bits(word, detail::place_of(k)));
    return range.scale();
  }
  __device__ static void decode(std::uint8_t const (&packed)[block_share], float scale, float (&x)[block_share]) {
#pragma unroll
    for (int k = 0; k < block_share; ++k) x[k] = codes::from_8bit(packed[k], scale);
  }
};

// ---- weights. A policy of your own: specialize weight_format for it.

/// Where a block's weights are; what a policy does not keep is null.
struct weight_block {
  float* full;  ///< of the parameter list
  void* half;   ///< of the policy's `values`
  std::uint16_t* low;
  std::uint32_t count;
  bool whole;  ///< as load_share takes it: all 256 elements, and all of these arrays aligned
};

/// What a policy for weights does on a device, for one thread's share of a block.
template <class Weights>
struct weight_format;

template <>
struct weight_format<fp32_weights> {
  __device__ static void load(weight_block const& b, float (&w)[block_share]) {
    detail::load_share(static_cast<float const*>(b.full), b.count, w, b.whole);
  }
  __device__ static void store(weight_block const& b, float const (&w)[block_share], std::uint32_t) {
    detail::store_share(b.full, b.count, w, b.whole);
  }
};

template <class Half>
struct weight_format<master_weights<Half>> {
  __device__ static void load(weight_block const& b, float (&w)[block_share]) {
    weight_format<fp32_weights>::load(b, w);
  }
  __device__ static void store(weight_block const& b, float const (&w)[block_share], std::uint32_t word) {
    weight_format<fp32_weights>::store(b, w, word);
    Half h[block_share];
    for (int k = 0; k < block_share; ++k) h[k] = Half(w[k]);
    detail::store_share(static_cast<Half*>(b.half), b.count, h, b.whole);
  }
};

template <>
struct weight_format<split_weights> {
  __device__ static void load(weight_block const& b, float (&w)[block_share]) {
    bf16 high[block_share];
    std::uint16_t low[block_share];
    detail::load_share(static_cast<bf16 const*>(b.half), b.count, high, b.whole);
    detail::load_share(static_cast<std::uint16_t const*>(b.low), b.count, low, b.whole);
    for (int k = 0; k < block_share; ++k)
      w[k] = std::bit_cast<float>((static_cast<std::uint32_t>(high[k].bits) << 16) | low[k]);
  }
  __device__ static void store(weight_block const& b, float const (&w)[block_share], std::uint32_t) {
    bf16 high[block_share];
    std::uint16_t low[block_share];
    for (int k = 0; k < block_share; ++k) {
      auto const u = std::bit_cast<std::uint32_t>(w[k]);
      high[k].bits = static_cast<std::uint16_t>(u >> 16);
      low[k] = static_cast<std::uint16_t>(u);
    }
    detail::store_share(static_cast<bf16*>(b.half), b.count, high, b.whole);
    detail::store_share(b.low, b.count, low, b.whole);
  }
};

template <>
struct weight_format<rounded_weights> {
  __device__ static void load(weight_block const& b, float (&w)[block_share]) {
    bf16 h[block_share];
    detail::load_share(static_cast<bf16 const*>(b.half), b.count, h, b.whole);
    slot_format<bf16_slots>::decode(h, 1, w);
  }
  __device__ static void store(weight_block const& b, float const (&w)[block_share], std::uint32_t word) {
    bf16 h[block_share];
    slot_format<bf16_slots>::encode(w, word, h);
    detail::store_share(static_cast<bf16*>(b.half), b.count, h, b.whole);
  }
};

}  // namespace dovetail::optim::cuda
