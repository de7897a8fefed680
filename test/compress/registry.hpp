// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <tuple>

#include <dovetail/compress.hpp>

#include "known.hpp"

// Every codec of the library, in settings that are worth a test: one line enters it into the suite that all codecs go
// through (suite.cpp, exchanges.cpp), the fuzzer (fuzz.cpp), the large test (large.cpp) and `./run bench codecs`.
namespace test {

template <class Codec>
struct entry {
  char const* label;  ///< for tables, options and file names: letters, digits and _
  Codec codec;
  promise promised;
};
template <class Codec>
entry(char const*, Codec, promise) -> entry<Codec>;

/// n numbers of so many bits, packed.
template <int Bits>
std::size_t packed(std::size_t n) {
  return (n * Bits + 7) / 8;
}
/// The scales of blocks, and a bit an element.
template <std::size_t Block>
std::size_t signs(std::size_t n) {
  std::size_t const length = Block ? Block : std::max<std::size_t>(n, 1);
  return 4 * ((n + length - 1) / length) + packed<1>(n);
}
/// Index and value of one in so many elements, at least of one.
template <std::size_t N>
std::size_t pairs(std::size_t n) {
  return 8 * ((n + N - 1) / N);
}
inline double nothing(std::span<float const>) { return 0; }
inline double everything(std::span<float const>) { return 1; }
/// Rounding to nearest loses at most half a unit of the last of Bits bits. Of fp16, where the range holds.
template <int Bits>
double rounds_to(std::span<float const>) {
  return 1 - std::ldexp(1, -2 * Bits);
}
/// At least one in so many elements is sent.
template <int N>
double one_in(std::span<float const>) {
  return 1.0 / N;
}
/// |x|₁² / (n |x|₂²), block by block.
template <std::size_t Block>
double mean_magnitude(std::span<float const> x) {
  std::size_t const length = Block ? Block : x.size();
  double kept = 0, all = 0;
  for (std::size_t at = 0; at < x.size(); at += length) {
    auto const part = x.subspan(at, std::min(length, x.size() - at));
    double sum = 0;
    for (float const v : part) {
      sum += std::fabs(static_cast<double>(v));
      all += static_cast<double>(v) * static_cast<double>(v);
    }
    kept += sum * sum / static_cast<double>(part.size());
  }
  return all > 0 ? kept / all : 1;
}

/// Codecs with what they promise. Whoever adds one says what its page says, and no more.
inline auto codec_registry() {
  return std::tuple{
      entry{"identity",
            compress::identity{},
            {.bytes = packed<32>, .omega = nothing, .delta = everything, .conserves = true, .keeps_zeros = true}},
      entry{"fp16",
            compress::fp16{},
            {.bytes = packed<16>, .delta = rounds_to<11>, .keeps_zeros = true, .overflows = true}},
      entry{"bf16",
            compress::bf16{},
            {.bytes = packed<16>, .delta = rounds_to<8>, .keeps_zeros = true, .overflows = true}},
      entry{"sign", compress::sign{}, {.bytes = signs<0>, .delta = mean_magnitude<0>}},
      entry{"sign_64", compress::sign{.block = 64}, {.bytes = signs<64>, .delta = mean_magnitude<64>, .block = 64}},
      entry{"sign_4096",
            compress::sign{.block = 4096},
            {.bytes = signs<4096>, .delta = mean_magnitude<4096>, .block = 4096}},
      entry{"top_k_1",
            compress::top_k{},
            {.bytes = pairs<100>, .delta = one_in<100>, .conserves = true, .keeps_zeros = true}},
      entry{"top_k_10", compress::top_k{.ratio = 0.1f}, {.delta = one_in<10>, .conserves = true, .keeps_zeros = true}},
      entry{"ef_fp16",
            compress::error_feedback{compress::fp16{}},
            {.bytes = packed<16>, .keeps_zeros = true, .overflows = true}},
      entry{"ef21_top_k_5", compress::ef21{compress::top_k{.ratio = 0.05f}}, {.keeps_zeros = true}},
      entry{
          "ef21_fp16", compress::ef21{compress::fp16{}}, {.bytes = packed<16>, .keeps_zeros = true, .overflows = true}},
      entry{"after_3", compress::after{3, compress::identity{}, compress::error_feedback{compress::sign{}}}, {}},
  };
}

}  // namespace test
