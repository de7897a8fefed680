// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>

#include <dovetail/compress/chunk_sums.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/vectors.hpp>

// The loops of the quantisers, compiled once per cpu_level (quantize_kernels.inc.hpp) and chosen at run time.
namespace dovetail::compress {

/// Random bits of the elements of one encoding, cheaper than Philox for each: Philox makes the key, from all that
/// tells one encoding from another, and a hash with two multiplications makes an element's number of its flat index.
struct element_random {
  std::uint32_t start = 0, middle = 0, end = 0;

  element_random() = default;
  explicit element_random(random_numbers const& r) {
    // Indices of 2^32 elements are told apart by the hash, what is beyond that by the key.
    auto const words = r.stream.words(static_cast<std::uint32_t>(r.offset >> 32));
    start = words[0] + static_cast<std::uint32_t>(r.offset);
    middle = words[1];
    end = words[2];
  }
  /// 32 random bits for element i of the bucket.
  DOVETAIL_HD constexpr std::uint32_t word(std::uint32_t i) const {
    std::uint32_t h = (i + start) * 0x9E3779B9u;
    h = ((h ^ (h >> 16)) * 0x85EBCA6Bu) ^ middle;
    h = ((h ^ (h >> 13)) * 0xC2B2AE35u) + end;
    return h ^ (h >> 16);
  }
  /// Uniform in [0, 1), 24 bits.
  DOVETAIL_HD constexpr float uniform(std::uint32_t i) const { return random_stream::to_uniform(word(i)); }
};

namespace quantize {

/// Of a block in two halves: its elements below 0, and the others.
struct two_sums {
  double negative = 0, others = 0;
  std::size_t below = 0;  ///< how many
};

#define DOVETAIL_KERNELS <dovetail/compress/quantize_kernels.inc.hpp>
#include <dovetail/core/kernel_levels.inc.hpp>

/// One level's loops (kernels::kernel_set of kernels.hpp, for quantisers).
struct kernel_set {
  cpu_level level;

  /// The bits of the largest magnitude; at least 0x7f800000 where something is not finite.
  DOVETAIL_NOINLINE std::int32_t largest_magnitude(float const* x, std::size_t n) const {
    DOVETAIL_BY_LEVEL(largest_magnitude(x, n));
  }
  /// Of scale · x.
  DOVETAIL_NOINLINE double sum_squares(float const* x, std::size_t n, float scale) const {
    DOVETAIL_BY_LEVEL(sum_squares(x, n, scale));
  }
  DOVETAIL_NOINLINE double sum_magnitudes(float const* x, std::size_t n, float scale) const {
    DOVETAIL_BY_LEVEL(sum_magnitudes(x, n, scale));
  }
  /// codes = levels + sign(x) · min(levels, |x| · scale · inverse, rounded)
  DOVETAIL_NOINLINE void quantize_nearest(float const* x, std::size_t n, float scale, float inverse, int levels,
                                          std::uint8_t* codes) const {
    DOVETAIL_BY_LEVEL(quantize_nearest(x, n, scale, inverse, levels, codes));
  }
  /// `first`: the element that x begins with, by which its random numbers are drawn.
  DOVETAIL_NOINLINE void quantize_random(float const* x, std::size_t n, float scale, float inverse, int levels,
                                         element_random const& key, std::uint32_t first, std::uint8_t* codes) const {
    DOVETAIL_BY_LEVEL(quantize_random(x, n, scale, inverse, levels, key, first, codes));
  }
  DOVETAIL_NOINLINE void add_levels(std::uint8_t const* codes, std::size_t n, float unit, int zero, float* out) const {
    DOVETAIL_BY_LEVEL(add_levels(codes, n, unit, zero, out));
  }
  /// `values` has 256 numbers.
  DOVETAIL_NOINLINE void add_values(std::uint8_t const* codes, std::size_t n, float unit, float const* values,
                                    float* out) const {
    DOVETAIL_BY_LEVEL(add_values(codes, n, unit, values, out));
  }
  DOVETAIL_NOINLINE void to_powers(float const* x, std::size_t n, element_random const& key, std::uint32_t first,
                                   std::byte* exponents, std::byte* bits) const {
    DOVETAIL_BY_LEVEL(to_powers(x, n, key, first, exponents, bits));
  }
  DOVETAIL_NOINLINE void add_powers(std::byte const* exponents, std::byte const* bits, std::size_t n, float weight,
                                    float* out) const {
    DOVETAIL_BY_LEVEL(add_powers(exponents, bits, n, weight, out));
  }
  DOVETAIL_NOINLINE void to_bf16_random(float const* x, std::size_t n, element_random const& key, std::uint32_t first,
                                        std::byte* out) const {
    DOVETAIL_BY_LEVEL(to_bf16_random(x, n, key, first, out));
  }
  /// ceil(n/8) bytes of bits, 1 = below 0; a NaN is one of the others.
  DOVETAIL_NOINLINE two_sums to_halves(float const* x, std::size_t n, std::byte* bits) const {
    DOVETAIL_BY_LEVEL(to_halves(x, n, bits));
  }
  DOVETAIL_NOINLINE void add_halves(std::byte const* bits, std::size_t n, float zero, float one, float* out) const {
    DOVETAIL_BY_LEVEL(add_halves(bits, n, zero, one, out));
  }
  DOVETAIL_NOINLINE void to_e4m3(float const* x, std::size_t n, float scale, float inverse, std::uint8_t* codes) const {
    DOVETAIL_BY_LEVEL(to_e4m3(x, n, scale, inverse, codes));
  }
  DOVETAIL_NOINLINE void to_e5m2(float const* x, std::size_t n, float scale, float inverse, std::uint8_t* codes) const {
    DOVETAIL_BY_LEVEL(to_e5m2(x, n, scale, inverse, codes));
  }
  DOVETAIL_NOINLINE void add_e4m3(std::uint8_t const* codes, std::size_t n, float unit, float* out) const {
    DOVETAIL_BY_LEVEL(add_e4m3(codes, n, unit, out));
  }
  DOVETAIL_NOINLINE void add_e5m2(std::uint8_t const* codes, std::size_t n, float unit, float* out) const {
    DOVETAIL_BY_LEVEL(add_e5m2(codes, n, unit, out));
  }
  /// `levels` at most 100.
  DOVETAIL_NOINLINE void quantize_powers(float const* x, std::size_t n, float scale, float inverse, int levels,
                                         element_random const& key, std::uint32_t first, std::uint8_t* codes) const {
    DOVETAIL_BY_LEVEL(quantize_powers(x, n, scale, inverse, levels, key, first, codes));
  }
  DOVETAIL_NOINLINE void add_level_powers(std::uint8_t const* codes, std::size_t n, float unit, int levels,
                                          float* out) const {
    DOVETAIL_BY_LEVEL(add_level_powers(codes, n, unit, levels, out));
  }
  /// Bytes of n codes, of `width` bits each; `codes` may be read and written in steps of 8.
  DOVETAIL_NOINLINE void pack_bits(std::uint8_t const* codes, std::size_t n, int width, std::byte* out) const {
    DOVETAIL_BY_LEVEL(pack_bits(codes, n, width, out));
  }
  DOVETAIL_NOINLINE void unpack_bits(std::byte const* in, std::size_t n, int width, std::uint8_t* codes) const {
    DOVETAIL_BY_LEVEL(unpack_bits(in, n, width, codes));
  }
};

/// The loops compiled for `level`, which the processor must support.
inline kernel_set at(cpu_level level) { return {level}; }

/// The loops for this processor.
inline kernel_set best() { return at(supported_cpu_level()); }

}  // namespace quantize
}  // namespace dovetail::compress
