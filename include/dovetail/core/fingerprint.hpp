// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace dovetail {

/// A 64-bit hash of a sequence of values, to notice that two things are not the same: no defence against somebody who
/// wants them to collide. The same in every process of one machine type; never 0, which stands for "unknown".
class fingerprint {
 public:
  fingerprint& add(std::span<std::byte const> bytes) {
    mix(bytes.size());
    while (bytes.size() >= sizeof(std::uint64_t)) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data(), sizeof word);
      mix(word);
      bytes = bytes.subspan(sizeof word);
    }
    std::uint64_t rest = 0;
    if (!bytes.empty()) std::memcpy(&rest, bytes.data(), bytes.size());
    mix(rest);
    return *this;
  }
  fingerprint& add(std::string_view text) { return add(std::as_bytes(std::span(text))); }
  fingerprint& add(char const* text) { return add(std::string_view(text)); }
  template <std::integral T>
  fingerprint& add(T value) {
    mix(static_cast<std::uint64_t>(value));
    return *this;
  }

  std::uint64_t value() const {
    // The finalizer of MurmurHash3: every bit of what was added reaches every bit of the result.
    std::uint64_t h = hash_;
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    h ^= h >> 33;
    return h ? h : 1;
  }

 private:
  void mix(std::uint64_t word) {
    hash_ = (hash_ ^ word) * 0x9e3779b97f4a7c15u;
    hash_ ^= hash_ >> 29;  // or the high bits of a word would never reach the low ones of the hash
  }
  std::uint64_t hash_ = 0x243f6a8885a308d3u;
};

}  // namespace dovetail
