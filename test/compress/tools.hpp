// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <dovetail/compress.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/philox.hpp>

// Inputs and shortcuts of the codec tests.
namespace test {

using namespace dovetail;

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

inline std::vector<float> normal(std::size_t n, std::uint64_t seed) {
  random_stream const random{seed};
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    float const u = 1 - random.uniform(2 * i), v = random.uniform(2 * i + 1);
    x[i] = std::sqrt(-2 * std::log(u)) * std::cos(6.2831853f * v);
  }
  return x;
}

/// Every bit pattern is as likely as any other: NaN, infinities and denormals among them.
inline std::vector<float> any_bits(std::size_t n, std::uint64_t seed) {
  random_stream const random{seed};
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = std::bit_cast<float>(random.word(i));
  return x;
}

inline bool same_bits(std::span<float const> a, std::span<float const> b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) return false;
  return true;
}

inline double norm(std::span<float const> x) {
  double sum = 0;
  for (float const v : x) sum += static_cast<double>(v) * static_cast<double>(v);
  return std::sqrt(sum);
}
inline std::vector<float> difference(std::span<float const> a, std::span<float const> b) {
  std::vector<float> d(a.begin(), a.end());
  for (std::size_t i = 0; i < d.size(); ++i) d[i] -= b[i];
  return d;
}

template <class Codec>
using state_of = decltype(std::declval<Codec const&>().init(std::declval<compress::bucket const&>()));

template <class Codec, class State>
std::vector<std::byte> encode(Codec const& codec, std::span<float const> x, State& state) {
  compress::bucket const b{x, {}};
  std::vector<std::byte> payload(compress::wire_size(codec, b));
  payload.resize(codec.encode(b, state, payload));
  return payload;
}
template <class Codec>
std::vector<std::byte> encode(Codec const& codec, std::span<float const> x) {
  auto state = codec.init(compress::bucket{x, {}});
  return encode(codec, x, state);
}
template <class Codec>
std::vector<float> decode(Codec const& codec, std::span<std::byte const> payload, std::size_t n) {
  std::vector<float> out(n);
  codec.decode_add(payload, out);
  return out;
}

}  // namespace test
