// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/philox.hpp>

namespace dovetail::compress {

/// Random numbers of one encoding, by the flat index of an element: the number of an element is the same however the
/// gradients are cut into buckets and shards.
struct random_numbers {
  random_stream stream;
  std::size_t offset = 0;  ///< flat index of element 0

  /// 32 random bits for element i of the bucket.
  DOVETAIL_HD constexpr std::uint32_t word(std::size_t i) const { return stream.word(offset + i); }
  /// Uniform in [0, 1), 24 bits.
  DOVETAIL_HD constexpr float uniform(std::size_t i) const { return random_stream::to_uniform(word(i)); }
};

/// Where and when a bucket is encoded: what an encoding may depend on beside the gradients and its state. Who decodes
/// a payload is told the context that it was encoded in, so what follows from the context (random indices) need not be
/// sent.
struct context {
  enum class inputs : std::uint8_t {
    gradient,  ///< of `rank` alone
    sum        ///< over all ranks, of a shard that `rank` owns: the second encoding of an exchange in two phases
  };

  std::int64_t step = 0;   ///< of the session: grows with every step, also one that is skipped
  std::uint64_t seed = 0;  ///< of the synchronizer
  int rank = 0;            ///< who encodes; sum_of_ranks where payloads were added up on the wire
  int ranks = 1;
  int bucket = 0;
  int shard = -1;  ///< of the bucket, where shards are encoded by themselves; -1: the whole bucket
  int round = 0;   ///< of a codec of several rounds
  inputs input = inputs::gradient;
  bool first = true, last = true;  ///< of the payloads that one sum is decoded from, as they come
  std::size_t offset = 0;          ///< flat index of the bucket's first element
  float rate = 0;                  ///< learning rate of the step before; 0 where there was none
  void* stream = nullptr;          ///< of a device that encodes: its cudaStream_t

  static constexpr int sum_of_ranks = -1;

  /// Numbers that no other rank (of 65,535), step, round (of 64) or input has. A codec that needs several numbers for
  /// one element tells them apart by `use`, below 65536.
  constexpr random_numbers own_random(std::uint32_t use = 0) const {
    return numbers(use, static_cast<std::uint32_t>(rank) & 0xffffu);
  }
  /// Numbers that all ranks draw alike.
  constexpr random_numbers common_random(std::uint32_t use = 0) const { return numbers(use, 0xffffu); }

 private:
  /// The highest bit keeps these apart from streams that a network numbers by its layers.
  constexpr random_numbers numbers(std::uint32_t use, std::uint32_t who) const {
    auto const kind = static_cast<std::uint32_t>(round & 0x3f) << 1 | (input == inputs::sum ? 1u : 0u);
    return {{seed, 0x80000000u | (use & 0xffffu) << 7 | kind, static_cast<std::uint64_t>(step), who}, offset};
  }
};

}  // namespace dovetail::compress
