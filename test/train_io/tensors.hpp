// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <dovetail/io/checkpoint.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace fixture {

/// One tensor of every width, a scalar and an empty one.
struct everything {
  std::vector<float> weight{1, 2, 3, 4, 5, 6};
  std::vector<dovetail::bf16> half = std::vector<dovetail::bf16>(3, dovetail::bf16(1.5f));
  std::vector<std::uint8_t> bytes{7, 8, 9};
  std::vector<float> none;
  std::uint64_t step = 42;

  std::vector<dovetail::named_tensor> tensors() {
    using dovetail::make_named_tensor;
    return {make_named_tensor("bytes", std::span(bytes)), make_named_tensor("0.weight", std::span(weight), {2, 3}),
            make_named_tensor("half", std::span(half)), make_named_tensor("none", std::span(none)),
            make_named_tensor("step", step)};
  }
  /// The same shapes, other contents.
  static everything other() {
    everything e;
    for (auto& w : e.weight) w = -1;
    for (auto& h : e.half) h = dovetail::bf16(0.f);
    for (auto& b : e.bytes) b = 0;
    e.step = 0;
    return e;
  }
  friend bool operator==(everything const&, everything const&) = default;
};

/// A safetensors file made by hand: the length, the header as it stands, the data.
inline std::string raw_file(std::string const& header, std::string const& data) {
  std::string out(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
  return out + header + data;
}

}  // namespace fixture
