// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <dovetail/comm/threads.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/half.hpp>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/levels.hpp>
#include <dovetail/compress/random_k.hpp>
#include <dovetail/compress/sign.hpp>
#include <dovetail/compress/top_k.hpp>
#include <dovetail/core/philox.hpp>

// The codecs that a device has kernels of, what they are given, and what the host makes of it.
namespace test {

using namespace dovetail;

/// f(number, name, codec) for all of them. Types are written in full: CUDA has a global int4. No tuple: nvcc takes
/// minutes for one of as many types.
template <class F>
void each_codec(F const& f) {
  std::size_t number = 0;
  f(number++, "identity", compress::identity{});
  f(number++, "fp16", compress::fp16{});
  f(number++, "fp16_scaled", compress::fp16{.scale = 48.0f});
  f(number++, "bf16", compress::bf16{});
  f(number++, "bf16_scaled", compress::bf16{.scale = 0.3f});
  f(number++, "stochastic_bf16", compress::stochastic_bf16{});
  f(number++, "sign", compress::sign{});
  f(number++, "sign_16", compress::sign{.block = 16});
  f(number++, "sign_512", compress::sign{.block = 512});
  f(number++, "sign_4112", compress::sign{.block = 4112});
  f(number++, "sign_long", compress::sign{.block = std::size_t{1} << 40});
  f(number++, "int8", compress::int8{});
  f(number++, "int8_32", compress::int8{.block = 32});
  f(number++, "int8_whole", compress::int8{.block = 0});
  f(number++, "int8_13", compress::int8{.block = 13});
  f(number++, "int4", compress::int4{});
  f(number++, "int4_40", compress::int4{.block = 40});
  f(number++, "int4_4999", compress::int4{.block = 4999});
  f(number++, "int4_1", compress::int4{.block = 1});
  f(number++, "integers_3_bits", compress::integers<3>{.block = 100});
  f(number++, "random_int8", compress::qsgd{.levels = 127, .block = 512, .norm = compress::norm::max});
  f(number++, "random_int4", compress::qsgd{.levels = 7, .block = 64, .norm = compress::norm::max});
  f(number++, "qsgd", compress::qsgd{});
  f(number++, "qsgd_l1_whole", compress::qsgd{.levels = 100, .block = 0, .norm = compress::norm::l1});
  f(number++, "qsgd_l2_long", compress::qsgd{.levels = 15, .block = 70000, .norm = compress::norm::l2});
  f(number++, "terngrad", compress::terngrad{});
  f(number++, "terngrad_base3", compress::terngrad{.block = 60, .packing = compress::packing::base3});
  f(number++, "terngrad_base3_whole", compress::terngrad{.block = 0, .packing = compress::packing::base3});
  f(number++, "top_k", compress::top_k{});
  f(number++, "top_k_third", compress::top_k{.ratio = 0.3f});
  f(number++, "top_k_all", compress::top_k{.ratio = 1.0f});
  f(number++, "random_k", compress::random_k{});
  f(number++, "scaled_random_k", compress::scaled_random_k{.ratio = 0.25f});
  f(number++, "block_random_k", compress::block_random_k{.ratio = 0.1f});
  f(number++, "scaled_block_random_k", compress::scaled_block_random_k{.ratio = 0.2f, .block = 7});
}

inline constexpr std::array<std::size_t, 20> codec_sizes{0,  1,  2,   7,   8,   9,    15,   16,   31,    32,
                                                         33, 39, 511, 512, 513, 4095, 4096, 4097, 12345, 100'003};

/// What gradients are, and what they should not be.
inline constexpr std::array<char const*, 6> codec_inputs{"ordinary", "any bits", "zeros", "ties", "huge", "tiny"};
inline std::vector<float> codec_input(std::size_t kind, std::size_t n) {
  random_stream const random{.seed = 7, .tensor = static_cast<std::uint32_t>(kind), .step = n};
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    float const u = 2 * random.uniform(i) - 1;
    switch (kind) {
      case 0:
        x[i] = u * u * u;
        break;
      case 1:
        x[i] = std::bit_cast<float>(random.word(i));
        break;
      case 2:
        x[i] = random.word(i) % 2 ? -0.0f : 0.0f;
        break;
      case 3:
        x[i] = static_cast<float>(random.word(i) % 5) - 2;
        break;
      case 4:
        x[i] = u * 0x1p127f;
        break;
      default:
        x[i] = u * 0x1p-130f;
    }
  }
  // One element that is not finite in a block of ordinary ones.
  if (kind == 1 && n > 600)
    for (std::size_t i = 0; i < n; ++i)
      if (i / 512 % 2) x[i] = i % 1024 == 700 ? x[i] : 1e-3f * static_cast<float>(i % 77);
  return x;
}
inline compress::context codec_context(std::size_t n) {
  return {.step = static_cast<std::int64_t>(n) + 5, .seed = 99, .rank = 3, .ranks = 4, .offset = n % 11};
}

struct coded {
  std::vector<std::byte> payload;
  std::vector<float> sum;  ///< of what it was and what was decoded
};
inline constexpr float codec_weight = 0.3f;

/// Of the case with this number, by the host.
coded code_on_host(std::size_t number, std::vector<float> const& x, std::vector<float> sum);
/// Adds a payload that may be damaged; false if it was refused.
bool decode_on_host(std::size_t number, std::vector<std::byte> const& payload, std::vector<float>& sum);
/// Steps of error feedback: ordinary ones, skipped ones, gradients that are not finite, sums that overflow.
struct feedback_step {
  std::size_t input;
  bool skipped;
};
inline constexpr std::array<feedback_step, 10> feedback_steps{{{0, false},
                                                               {3, false},
                                                               {0, true},
                                                               {0, false},
                                                               {1, true},
                                                               {0, false},
                                                               {4, false},
                                                               {4, false},
                                                               {4, true},
                                                               {0, false}}};
inline std::vector<float> feedback_gradient(std::size_t step, std::size_t n) {
  auto x = codec_input(feedback_steps[step].input, n + step);
  x.resize(n);
  return x;
}
inline compress::context feedback_context(std::size_t step) {
  return {.step = static_cast<std::int64_t>(step), .seed = 5, .rank = 1, .ranks = 2};
}
/// Payload and residual behind each of the steps.
std::vector<coded> feedback_on_host(std::size_t number, std::size_t n);
/// What sync::bucket_exchange makes of a rank's values: an all-reduce of what is summable, else an all-gather.
std::vector<float> exchange_on_host(std::size_t number, comm::threads::communicator& c, std::vector<float> values);

}  // namespace test
