// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/sync/bucket_exchange.hpp>

#include <doctest/doctest.h>

#include "sync/gradients.hpp"
#include "tools.hpp"

// What the tests of all sparsifiers share: inputs of several kinds, encoding in a context, damaged payloads, and ranks.
namespace test {

struct input {
  char const* name;
  std::vector<float> values;
};
/// Gaussian, one element in a hundred, heavy-tailed (Student's t of two degrees), all equal, alternating.
inline std::vector<input> inputs(std::size_t n, std::uint64_t seed = 1) {
  auto const g = normal(n, seed);
  random_stream const random{seed + 77};
  std::vector<input> all{{"gaussian", g}, {"sparse", g}, {"heavy", g}, {"equal", g}, {"alternating", g}};
  for (std::size_t i = 0; i < n; ++i) {
    if (i % 100 != 7) all[1].values[i] = 0;
    all[2].values[i] /= std::sqrt(-std::log(1 - random.uniform(i)) + 1e-6f);
    all[3].values[i] = -0.37f;
    all[4].values[i] = i % 2 ? -1.25f : 1.25f;
  }
  return all;
}

inline double squared(std::span<float const> x) {
  double sum = 0;
  for (float const v : x) sum += static_cast<double>(v) * static_cast<double>(v);
  return sum;
}
inline double distance(std::span<float const> a, std::span<float const> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double const d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += d * d;
  }
  return sum;
}

template <class Codec>
using state_type = typename compress::codec_traits<Codec>::state_type;

template <class Codec>
std::vector<std::byte> encode_in(Codec const& codec, compress::bucket const& b, state_type<Codec>& state,
                                 compress::context const& where) {
  std::vector<std::byte> payload(compress::wire_size(codec, b));
  payload.resize(compress::encode(codec, b, state, payload, where));
  return payload;
}
template <class Codec>
std::vector<std::byte> encode_in(Codec const& codec, std::span<float const> x, compress::context const& where) {
  compress::bucket const b{x, {}};
  auto state = compress::init(codec, b, where);
  return encode_in(codec, b, state, where);
}
template <class Codec>
std::vector<float> decode_in(Codec const& codec, std::span<std::byte const> payload, std::size_t n,
                             compress::context const& where, float weight = 1) {
  std::vector<float> out(n);
  auto state = compress::init(codec, compress::bucket{out, {}}, where);
  compress::decode_add(codec, payload, out, weight, state, where);
  return out;
}

/// Random bytes, truncated and longer payloads, and one bit flipped: an input_error that has changed nothing, or a
/// result that changes nothing outside of the bucket. Returns how many were refused.
template <class Codec>
int damage(Codec const& codec, std::span<float const> x, int times = 400) {
  compress::context const where{.step = 3, .seed = 5};
  auto const good = encode_in(codec, x, where);
  random_stream const random{99};
  std::size_t const n = x.size(), margin = 64;
  int refused = 0;
  auto const attempt = [&](std::vector<std::byte> bytes) {
    bytes.shrink_to_fit();  // so that a sanitizer sees a read behind the end
    std::vector<float> memory(n + 2 * margin, 0.5f);
    auto state = compress::init(codec, compress::bucket{x, {}}, where);
    bool threw = false;
    try {
      compress::decode_add(codec, bytes, std::span(memory).subspan(margin, n), 1.0f, state, where);
    } catch (input_error const&) {
      threw = true;
    }
    refused += threw;
    for (std::size_t i = 0; i < memory.size(); ++i)
      if (threw || i < margin || i >= margin + n) REQUIRE(memory[i] == 0.5f);
  };
  for (std::size_t size = 0; size < std::min<std::size_t>(good.size(), 200); ++size)
    attempt({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)});
  if (!good.empty()) attempt({good.begin(), good.end() - 1});
  CHECK(refused > 0);
  auto longer = good;
  longer.push_back(std::byte{0});
  attempt(longer);
  longer.insert(longer.end(), 70, std::byte{0xff});
  attempt(longer);
  for (int t = 0; t < times; ++t) {
    auto const at = static_cast<std::uint64_t>(t);
    auto bytes = good;
    std::size_t const bit = random.word(at) % (8 * bytes.size());
    bytes[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    attempt(bytes);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(random.word(at * 131 + i) >> 7);
    attempt(bytes);
    bytes = good;  // a beginning that is likely, and a random rest
    for (std::size_t i = std::min<std::size_t>(bytes.size(), 4 + at % 16); i < bytes.size(); ++i)
      bytes[i] = static_cast<std::byte>(random.word(at * 137 + i) >> 9);
    attempt(bytes);
  }
  return refused;
}

/// Sums over 1 to 4 thread ranks: the same bits on all of them, and as many bytes as were predicted (at most, if the
/// size varies). Returns the sums of the last step on `ranks` ranks.
template <class Codec>
std::map<int, std::vector<float>> sums_of_ranks(Codec const& codec, int steps = 3) {
  std::map<int, std::vector<float>> sums;
  for (int ranks = 1; ranks <= 4; ++ranks) {
    CAPTURE(ranks);
    std::map<int, std::vector<float>> values;
    std::map<int, comm::traffic> counted, predicted;
    std::mutex mutex;
    comm::threads(ranks).run([&](auto& c) {
      auto a = odd_arena();
      auto& p = a.parameters();
      range const whole{0, p.flat_size()};
      auto const tensors = sync::tensors_in(p, whole);
      auto const plan = sync::exchange::choose<sync::exchange::automatic>(codec, {a.gradients(), tensors}, c.size());
      sync::bucket_exchange<Codec> bucket(codec, plan, p, whole, a.gradients(), c.size(), c.rank());
      auto const before = c.traffic();
      std::vector<float> last;
      for (int s = 0; s < steps; ++s) {
        fill(a.gradients(), c.rank(), static_cast<std::uint64_t>(s));
        bucket.run(c, a.gradients(), {.step = s, .seed = 9});
        if (s + 1 == steps) {  // a step that is skipped and made again is the same step
          last.assign(a.gradients().begin(), a.gradients().end());
          bucket.rollback();
          fill(a.gradients(), c.rank(), static_cast<std::uint64_t>(s));
          bucket.run(c, a.gradients(), {.step = s, .seed = 9});
        }
        bucket.commit();
      }
      auto expected = bucket.predicted();
      expected.bytes_sent *= static_cast<std::uint64_t>(steps + 1);
      expected.bytes_received *= static_cast<std::uint64_t>(steps + 1);
      std::lock_guard const lock(mutex);
      CHECK(same_bits(last, a.gradients()));
      values[c.rank()] = {a.gradients().begin(), a.gradients().end()};
      counted[c.rank()] = c.traffic() - before;
      predicted[c.rank()] = expected;
    });
    for (int r = 0; r < ranks; ++r) {
      CHECK(same_bits(values[r], values[0]));
      if constexpr (Codec::fixed_size) {
        CHECK(counted[r].bytes_sent == predicted[r].bytes_sent);
        CHECK(counted[r].bytes_received == predicted[r].bytes_received);
      } else {
        CHECK(counted[r].bytes_sent <= predicted[r].bytes_sent + 64u * static_cast<unsigned>(steps + 1));
      }
    }
    sums[ranks] = values[0];
  }
  return sums;
}

/// A state that is saved and loaded into a new one in the middle goes on as if nothing had been.
template <class Codec>
void restart(Codec const& codec, std::size_t n) {
  std::vector<float> x(n);
  compress::bucket const b{x, {}};
  auto state = compress::init(codec, b, {}), other = compress::init(codec, b, {});
  for (int step = 0; step < 12; ++step) {
    compress::context const where{.step = step, .seed = 4};
    x = normal(n, 50 + static_cast<std::uint64_t>(step));
    compress::bucket const now{x, {}};
    if (step == 5) {
      auto from = state.tensors("s."), to = other.tensors("s.");
      REQUIRE(from.size() == to.size());
      REQUIRE_FALSE(from.empty());
      for (std::size_t i = 0; i < from.size(); ++i) {
        REQUIRE(from[i].name == to[i].name);
        std::memcpy(to[i].bytes.data(), from[i].bytes.data(), from[i].bytes.size());
      }
    }
    auto const payload = encode_in(codec, now, state, where);
    if (step >= 5) REQUIRE(encode_in(codec, now, other, where) == payload);
  }
  CHECK(state == other);
}

}  // namespace test
