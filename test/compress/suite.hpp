// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "inputs.hpp"
#include "known.hpp"

// What the tests that go through all codecs share.
namespace test {

/// DOVETAIL_CODEC in the environment: those alone whose label contains it.
inline bool is_asked_for(known_codec const& c) {
  char const* const only = std::getenv("DOVETAIL_CODEC");
  return !only || c.label.find(only) != std::string::npos;
}
/// Every entry of the registry.
template <class F>
void each_codec(F&& f) {
  for (auto const& c : known_codecs())
    if (is_asked_for(*c)) {
      INFO("codec: ", c->label);
      f(*c);
    }
}
/// Every entry, and every one within error_feedback that may be.
template <class F>
void each_codec_and_feedback(F&& f) {
  each_codec([&](known_codec const& c) {
    f(c);
    if (!c.feedback) return;
    INFO("within error_feedback");
    f(*c.feedback);
  });
}

/// What one rank of one sends in a step: the last payload of all rounds.
inline std::vector<std::byte> encode(known_codec const& c, known_state& s, compress::bucket const& b,
                                     compress::context where = {}) {
  std::vector<std::byte> payload;
  for (where.round = 0; where.round < c.rounds; ++where.round) {
    // Memory of exactly the right size: the address sanitizer sees every step out of bounds.
    payload = std::vector<std::byte>(c.wire_size(b, where.round), std::byte{0xa5});
    payload.resize(s.encode(b, payload, where));
    if (where.round + 1 < c.rounds) s.absorb(payload, where);
  }
  return payload;
}
/// The context in which it is decoded.
inline compress::context decoding(known_codec const& c, compress::context where = {}) {
  where.round = c.rounds - 1;
  if (c.rounds > 1) where.rank = compress::context::sum_of_ranks;
  return where;
}
inline std::vector<float> decode(known_codec const& c, known_state& s, std::span<std::byte const> payload,
                                 std::size_t n, compress::context const& where = {}) {
  std::vector<float> out(n);
  s.decode_add(payload, out, 1, decoding(c, where));
  return out;
}
/// One step of one rank alone: what comes out of it.
inline std::vector<float> step(known_codec const& c, known_state& s, compress::bucket const& b,
                               compress::context const& where = {}) {
  s.begin();
  auto out = decode(c, s, encode(c, s, b, where), b.size(), where);
  s.commit();
  return out;
}

inline std::vector<std::byte> bytes_of(std::vector<named_tensor> const& tensors) {
  std::vector<std::byte> all;
  for (auto const& t : tensors) {
    auto const name = std::as_bytes(std::span(t.name));
    all.insert(all.end(), name.begin(), name.end());
    all.insert(all.end(), t.bytes.begin(), t.bytes.end());
  }
  return all;
}
/// All that a state would be saved with.
inline std::vector<std::byte> bytes_of(known_state& s) { return bytes_of(s.tensors()); }

/// Of a codec within error_feedback.
inline std::vector<float> residual_of(known_state& s) {
  for (auto const& t : s.tensors())
    if (t.name == "residual") {
      std::vector<float> residual(t.bytes.size() / sizeof(float));
      if (!residual.empty()) std::memcpy(residual.data(), t.bytes.data(), t.bytes.size());
      return residual;
    }
  FAIL("there is no residual");
  return {};
}

}  // namespace test
