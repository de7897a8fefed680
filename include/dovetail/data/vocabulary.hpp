// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <dovetail/core/error.hpp>

namespace dovetail::data {

/// Bytes <-> tokens. The bytes that occur get tokens 0, 1, … in byte order; when there are more than `most`, or some
/// occur fewer than `rare` times, the most frequent keep a token (ties: the smaller byte) and the others share the
/// last one, the unknown token. The default maps nothing.
class vocabulary {
 public:
  vocabulary() { token_of_.fill(0); }
  vocabulary(std::span<std::uint8_t const> text, int most, std::uint64_t rare) {
    std::array<std::uint64_t, 256> count{};
    for (auto const b : text) ++count[b];
    std::vector<int> bytes;
    for (int b = 0; b < 256; ++b)
      if (count[static_cast<std::size_t>(b)]) bytes.push_back(b);
    std::sort(bytes.begin(), bytes.end(), [&](int a, int b) {
      auto const na = count[static_cast<std::size_t>(a)], nb = count[static_cast<std::size_t>(b)];
      return na != nb ? na > nb : a < b;
    });
    std::size_t const found = bytes.size();
    while (!bytes.empty() && count[static_cast<std::size_t>(bytes.back())] < rare) bytes.pop_back();
    // One token is given up for the unknown one, unless every byte that occurs keeps its own.
    if (auto const room = static_cast<std::size_t>(most); bytes.size() > room || (bytes.size() == room && found > room))
      bytes.resize(room - 1);
    std::sort(bytes.begin(), bytes.end());
    unknown_ = bytes.size() < found ? static_cast<std::int32_t>(bytes.size()) : -1;
    token_of_.fill(unknown_);
    for (std::size_t t = 0; t < bytes.size(); ++t) {
      token_of_[static_cast<std::size_t>(bytes[t])] = static_cast<std::int32_t>(t);
      byte_of_.push_back(static_cast<char>(bytes[t]));
    }
    if (unknown_ >= 0) byte_of_.push_back('?');
  }

  /// Tokens, the unknown one included.
  int size() const { return static_cast<int>(byte_of_.size()); }
  /// The token of all bytes without one of their own; -1 if every byte of the text has one.
  std::int32_t unknown() const { return unknown_; }
  /// The token of a byte; unknown() for one that has none.
  std::int32_t encode(std::uint8_t byte) const { return token_of_[byte]; }
  /// Throws argument_error for a byte that did not occur when there is no unknown token.
  std::vector<std::int32_t> encode(std::string_view text) const {
    std::vector<std::int32_t> tokens;
    for (char const c : text) {
      tokens.push_back(encode(static_cast<std::uint8_t>(c)));
      require(tokens.back() >= 0, "vocabulary: byte ", static_cast<int>(static_cast<std::uint8_t>(c)),
              " does not occur in the corpus and has no token");
    }
    return tokens;
  }
  /// The byte of a token, '?' for the unknown token. Throws argument_error outside [0, size()).
  char decode(std::int32_t token) const {
    require(token >= 0 && token < size(), "vocabulary: there is no token ", token, ", they run from 0 to ", size() - 1);
    return byte_of_[static_cast<std::size_t>(token)];
  }
  std::string decode(std::span<std::int32_t const> tokens) const {
    std::string text;
    for (auto const t : tokens) text.push_back(decode(t));
    return text;
  }

 private:
  std::array<std::int32_t, 256> token_of_;
  std::vector<char> byte_of_;
  std::int32_t unknown_ = -1;
};

}  // namespace dovetail::data
