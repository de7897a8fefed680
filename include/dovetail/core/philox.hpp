// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>

#include <dovetail/core/config.hpp>

namespace dovetail {

/// Philox4x32-10 (Salmon et al., SC 2011): four random words as a pure function of a counter and a key.
DOVETAIL_HD constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                              std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const a = 0xD2511F53ull * counter[0], b = 0xCD9E8D57ull * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// One stream of random numbers, named by (seed, tensor, step, rank). Element i is a pure function of the
/// name and i: there is no state to save, and the same numbers come on every device and thread count.
struct random_stream {
  std::uint64_t seed = 0;
  std::uint32_t tensor = 0;
  std::uint64_t step = 0;  ///< 48 bits
  std::uint32_t rank = 0;  ///< 16 bits

  /// Words 4·block … 4·block+3 of the stream.
  DOVETAIL_HD constexpr std::array<std::uint32_t, 4> words(std::uint32_t block) const {
    return philox4x32({block, static_cast<std::uint32_t>(step), tensor,
                       (rank << 16) | static_cast<std::uint32_t>((step >> 32) & 0xffffu)},
                      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  }
  DOVETAIL_HD constexpr std::uint32_t word(std::uint64_t i) const {
    return words(static_cast<std::uint32_t>(i / 4))[i % 4];
  }
  /// Uniform in [0, 1), 24 bits.
  DOVETAIL_HD constexpr float uniform(std::uint64_t i) const { return to_uniform(word(i)); }
  DOVETAIL_HD static constexpr float to_uniform(std::uint32_t w) { return static_cast<float>(w >> 8) * 0x1p-24f; }
};

}  // namespace dovetail
