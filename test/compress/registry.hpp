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

/// The codes of all elements and the scales of their blocks.
template <int Bits, std::size_t Block>
std::size_t coded(std::size_t n) {
  std::size_t const length = Block ? Block : std::max<std::size_t>(n, 1);
  return 4 * ((n + length - 1) / length) + packed<Bits>(n);
}
/// The largest element is sent as it is, and no other moves by more than its magnitude.
inline double largest_of_all(std::span<float const> x) {
  return 0.99 / static_cast<double>(std::max<std::size_t>(x.size(), 1));
}
/// The largest element moves by three quarters of itself.
inline double third_of_largest(std::span<float const> x) { return 0.43 * largest_of_all(x); }
template <int Percent>
double at_most(std::span<float const>) {
  return Percent / 100.0;
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
      entry{"ef21_sgdm_top_k_5", compress::ef21{compress::top_k{.ratio = 0.05f}, 0.8f}, {.keeps_zeros = true}},
      entry{"fp16_scaled",
            compress::fp16{.scale = 0.25f},
            {.bytes = packed<16>, .delta = rounds_to<11>, .keeps_zeros = true, .overflows = true}},
      entry{"stochastic_bf16",
            compress::stochastic_bf16{},
            {.bytes = packed<16>, .omega = at_most<1>, .keeps_zeros = true}},
      entry{"fp8_e4m3",
            compress::fp8_e4m3{},
            {.bytes = coded<8, 0>, .delta = largest_of_all, .keeps_zeros = true, .overflows = true}},
      entry{"fp8_e5m2",
            compress::fp8_e5m2{.block = 64},
            {.bytes = coded<8, 64>, .delta = one_in<65>, .keeps_zeros = true, .overflows = true, .block = 64}},
      entry{"int8",
            compress::int8{},
            {.bytes = coded<8, 512>, .delta = one_in<513>, .keeps_zeros = true, .overflows = true, .block = 512}},
      entry{"int4",
            compress::int4{.block = 32},
            {.bytes = coded<4, 32>, .delta = one_in<33>, .keeps_zeros = true, .overflows = true, .block = 32}},
      // 512 / s² and 512^½ / s times the square; of the largest magnitude 512 / (4 s²).
      entry{
          "qsgd_7", compress::qsgd{}, {.bytes = coded<4, 512>, .omega = at_most<324>, .overflows = true, .block = 512}},
      entry{"qsgd_127_max",
            compress::qsgd{.levels = 127, .norm = compress::norm::max},
            {.bytes = coded<8, 512>, .omega = at_most<1>, .keeps_zeros = true, .overflows = true, .block = 512}},
      entry{"qsgd_2_l1",
            compress::qsgd{.levels = 2, .block = 8, .norm = compress::norm::l1},
            {.bytes = coded<3, 8>, .omega = at_most<400>, .overflows = true, .block = 8}},
      entry{"terngrad",
            compress::terngrad{},
            {.bytes = coded<2, 512>, .omega = at_most<2263>, .keeps_zeros = true, .block = 512}},
      entry{"terngrad_base3",
            compress::terngrad{.block = 64, .packing = compress::packing::base3},
            {.omega = at_most<800>, .keeps_zeros = true, .block = 64}},
      entry{"natural",
            compress::natural{},
            {.bytes = [](std::size_t n) { return n + packed<1>(n); }, .omega = at_most<13>, .keeps_zeros = true}},
      entry{"natural_dithering",
            compress::natural_dithering{},
            {.bytes = coded<4, 512>, .omega = at_most<26>, .keeps_zeros = true, .block = 512}},
      entry{"one_bit", compress::one_bit{}, {.delta = mean_magnitude<512>, .keeps_zeros = false, .block = 512}},
      entry{"three_lc", compress::three_lc{}, {.delta = largest_of_all, .keeps_zeros = true}},
      entry{"three_lc_175", compress::three_lc{.sparsity = 1.75f}, {.delta = third_of_largest, .overflows = true}},
      entry{"dynamic8",
            compress::dynamic8{},
            {.bytes = coded<8, 512>, .delta = one_in<513>, .keeps_zeros = true, .block = 512}},
      entry{"majority_vote", compress::majority_vote{.momentum = 0.5f}, {}},
      // Of what is drawn, delta is an expectation.
      entry{"random_k_1",
            compress::random_k{},
            {.delta = nothing, .conserves = true, .keeps_zeros = true, .seen_in_place = false}},
      entry{"scaled_random_k_10",
            compress::scaled_random_k{.ratio = 0.1f},
            {.omega = at_most<1000>, .keeps_zeros = true, .overflows = true, .seen_in_place = false}},
      entry{"block_random_k_10",
            compress::block_random_k{.ratio = 0.1f},
            {.delta = nothing, .conserves = true, .keeps_zeros = true, .seen_in_place = false}},
      entry{"packed_top_k_1", compress::packed_top_k{}, {.delta = one_in<100>, .conserves = true, .keeps_zeros = true}},
      entry{
          "chunked_top_k_1", compress::chunked_top_k{}, {.delta = one_in<100>, .conserves = true, .keeps_zeros = true}},
      entry{
          "sampled_top_k_1", compress::sampled_top_k{}, {.delta = one_in<126>, .conserves = true, .keeps_zeros = true}},
      entry{"threshold", compress::threshold{}, {.keeps_zeros = true, .seen_in_place = false}},
      entry{"adacomp", compress::adacomp{}, {.keeps_zeros = true, .seen_in_place = false}},
      entry{"wangni_10",
            compress::wangni{.ratio = 0.1f},
            {.omega = at_most<1000>, .overflows = true, .seen_in_place = false}},
      entry{"dgc", compress::dgc{.ratio = 0.01f}, {.keeps_zeros = true, .seen_in_place = false}},
      entry{"powersgd_2", compress::powersgd{.rank = 2}, {.overflows = true, .seen_in_place = false}},
      // Of matrices of 7 columns, 7 / 2 − 1 times the square.
      entry{"atomo_2", compress::atomo{.rank = 2, .min_rate = 1}, {.omega = at_most<250>, .overflows = true}},
      entry{"count_sketch",
            compress::count_sketch{.rows = 3, .columns = 8},
            {.omega = at_most<100000>, .overflows = true, .seen_in_place = false, .largest = 3001}},
      entry{"fetch_sgd",
            compress::fetch_sgd{.rows = 3, .columns = 64},
            {.overflows = true, .seen_in_place = false, .largest = 3001}},
      entry{"demo", compress::demo{}, {.overflows = true, .seen_in_place = false, .largest = 3001}},
      entry{"by_size",
            compress::by_size{100, compress::identity{}, compress::error_feedback{compress::int4{}}},
            {.keeps_zeros = true, .overflows = true, .regroups = false}},
      entry{"adaptive_ef_top_k",
            compress::adaptive_ratio{compress::error_feedback{compress::top_k{.ratio = 0.01f}}, 0.1f, 2, 0.3f},
            {.keeps_zeros = true}},
      entry{"adaptive_random_k",
            compress::adaptive_ratio{compress::error_feedback{compress::random_k{.ratio = 0.01f}}, 0.1f, 2, 0.3f},
            {.keeps_zeros = true, .seen_in_place = false}},
      entry{"after_3", compress::after{3, compress::identity{}, compress::error_feedback{compress::sign{}}}, {}},
  };
}

}  // namespace test
