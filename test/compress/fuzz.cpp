// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What libFuzzer calls (./run fuzz). The first two bytes of an input say which codec of the registry, by a hash of its
// label, so that inputs stay what they are when the registry grows; the next two how many elements, the fifth what is
// done with the rest:
//   bit 0 is 0: it is a payload, which is decoded: it throws input_error and leaves everything as it was, or it is
//   added bit 0 is 1: it is gradients, of any bits: what is encoded of them must be decoded without an error
// One more "codec" is bit_reader, which is asked for the numbers that the input itself asks for.
//   --write_corpus=DIR writes valid inputs of every codec, to begin with, and ends.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/bits.hpp>
#include <dovetail/core/error.hpp>

#include "inputs.hpp"
#include "known.hpp"

namespace compress_fuzz {

using namespace dovetail;
using test::sample;

constexpr std::size_t most = 600, head = 5;

[[noreturn]] void fail(char const* what, std::string const& about) {
  std::fprintf(stderr, "%s: %s\n", about.c_str(), what);
  std::abort();
}

/// Number of the codec that two bytes name; that of all codecs for bit_reader.
std::size_t hash_of(std::string const& label) {
  std::uint32_t h = 2166136261u;  // FNV-1a
  for (char const c : label) h = (h ^ static_cast<std::uint8_t>(c)) * 16777619u;
  return (h ^ h >> 16) & 0xffffu;
}
std::size_t codec_of(std::size_t hash) {
  static auto const known = [] {
    std::map<std::size_t, std::size_t> all;
    for (std::size_t i = 0; i < test::known_codecs().size(); ++i)
      all.emplace(hash_of(test::known_codecs()[i]->label), i);
    all.emplace(hash_of("bit_reader"), test::known_codecs().size());
    return all;
  }();
  auto const found = known.find(hash);
  return found != known.end() ? found->second : hash % (test::known_codecs().size() + 1);
}

compress::context at_step(std::int64_t step) { return {.step = step, .seed = 42}; }

/// States are made once: what is decoded is taken back.
test::known_state& state_of(std::size_t codec, std::size_t n) {
  static std::map<std::pair<std::size_t, std::size_t>, std::unique_ptr<test::known_state>> states;
  auto& s = states[{codec, n}];
  if (!s) s = test::known_codecs()[codec]->init(sample(std::vector<float>(n)).bucket());
  return *s;
}

std::vector<std::byte> bytes_of(test::known_state& s) {
  std::vector<std::byte> all;
  for (auto const& t : s.tensors()) all.insert(all.end(), t.bytes.begin(), t.bytes.end());
  return all;
}

void decode(std::size_t codec, std::size_t n, std::int64_t step, std::span<std::byte const> payload) {
  auto const& c = *test::known_codecs()[codec];
  auto& s = state_of(codec, n);
  auto where = at_step(step);
  where.round = c.rounds - 1;
  if (c.rounds > 1) where.rank = compress::context::sum_of_ranks;
  std::vector<float> out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<float>(i) - 7.5f;
  auto const were = out;
  auto const before = bytes_of(s);
  s.begin();
  // A sum of the last round is decoded behind what a rank has encoded itself, in all of them.
  sample const own(std::vector<float>(n, 0.5f));
  for (int round = 0; c.rounds > 1 && round < c.rounds; ++round) {
    auto encoding = at_step(step);
    encoding.round = round;
    std::vector<std::byte> mine(c.wire_size(own.bucket(), round));
    mine.resize(s.encode(own.bucket(), mine, encoding));
    if (round + 1 < c.rounds) s.absorb(mine, encoding);
  }
  auto const encoded = bytes_of(s);
  try {
    s.decode_add(payload, out, 0.5f, where);
  } catch (input_error const&) {
    if (!test::same_bits(out, were)) fail("threw, and had added something", c.label);
    if (bytes_of(s) != encoded) fail("threw, and had changed the state", c.label);
  }
  s.rollback();
  if (bytes_of(s) != before) fail("is not as it was when it is taken back", c.label);
}

void encode(std::size_t codec, std::int64_t step, std::span<std::byte const> gradients) {
  auto const& c = *test::known_codecs()[codec];
  std::vector<float> x(std::min(most, gradients.size() / sizeof(float)));
  if (!x.empty()) std::memcpy(x.data(), gradients.data(), x.size() * sizeof(float));
  sample const given(std::move(x));
  auto const b = given.bucket();
  auto& s = state_of(codec, b.size());
  auto const before = bytes_of(s);
  auto where = at_step(step);
  s.begin();
  std::vector<std::byte> payload;
  for (where.round = 0; where.round < c.rounds; ++where.round) {
    payload = std::vector<std::byte>(c.wire_size(b, where.round));
    std::size_t const bytes = s.encode(b, payload, where);
    if (bytes > payload.size() || (c.fixed_size && bytes < payload.size())) fail("wrote another size", c.label);
    payload.resize(bytes);
    if (where.round + 1 < c.rounds) s.absorb(payload, where);
  }
  where.round = c.rounds - 1;
  if (c.rounds > 1) where.rank = compress::context::sum_of_ranks;
  std::vector<float> out(b.size());
  s.decode_add(payload, out, 1, where);
  s.rollback();
  if (bytes_of(s) != before) fail("is not as it was when it is taken back", c.label);
}

void read_bits(std::span<std::byte const> in) {
  compress::bit_reader reader(in);
  std::size_t read = 0;
  try {
    for (auto const width : in) {
      int const w = std::to_integer<int>(width) % 64 + 1;
      auto const value = reader.get(w);
      read += static_cast<std::size_t>(w);
      if (w < 64 && value >> w) fail("gave more bits than it was asked for", "bit_reader");
      if (read > 8 * in.size()) fail("read behind the end", "bit_reader");
    }
    reader.require_end();
  } catch (input_error const&) {
  }
}

void run(std::span<std::byte const> in) {
  if (in.size() < head) return;
  auto const byte = [&](std::size_t i) { return std::to_integer<std::size_t>(in[i]); };
  std::size_t const codec = codec_of(byte(0) | byte(1) << 8), n = (byte(2) | byte(3) << 8) % (most + 1);
  auto const step = static_cast<std::int64_t>(byte(4) >> 1 & 7);
  // Memory of exactly the right size, that begins where it begins: what lies before the rest is not to be read either.
  std::vector<std::byte> rest(in.begin() + head, in.end());
  if (codec == test::known_codecs().size()) return read_bits(rest);
  if (byte(4) & 1) return encode(codec, step, rest);
  if (!(byte(4) & 16)) {
    auto const& c = *test::known_codecs()[codec];
    std::size_t const size = c.wire_size(sample(std::vector<float>(n)).bucket(), c.rounds - 1);
    rest.resize(c.fixed_size ? size : std::min(size, rest.size()));
    rest.shrink_to_fit();
  }
  decode(codec, n, step, rest);
}

void write_corpus(std::string const& folder) {
  auto const write = [&](std::string const& label, std::size_t n, std::size_t what, std::span<std::byte const> rest) {
    auto const name = message(label, '.', n, '.', what);
    auto const hash = hash_of(label);
    std::ofstream out(folder + "/" + name, std::ios::binary);
    for (auto const v : {hash & 255, hash >> 8, n & 255, n >> 8, what}) out.put(static_cast<char>(v));
    out.write(reinterpret_cast<char const*>(rest.data()), static_cast<std::streamsize>(rest.size()));
    if (!out.flush()) fail("cannot be written", folder + "/" + name);
  };
  auto const& all = test::known_codecs();
  for (std::size_t k = 0; k < all.size(); ++k) {
    auto const& c = *all[k];
    for (std::size_t const n : {std::size_t{1}, std::size_t{33}, std::size_t{131}})
      for (std::size_t const step : {std::size_t{1}, std::size_t{5}}) {
        if (step != 1 && n != 33) continue;  // the step matters to few
        sample const x(test::normal(n, k));
        auto const state = c.init(x.bucket());
        std::vector<std::byte> payload;
        auto where = at_step(static_cast<std::int64_t>(step));
        for (where.round = 0; where.round < c.rounds; ++where.round) {
          payload = std::vector<std::byte>(c.wire_size(x.bucket(), where.round));
          payload.resize(state->encode(x.bucket(), payload, where));
          if (where.round + 1 < c.rounds) state->absorb(payload, where);
        }
        write(c.label, n, 2 * step, payload);
      }
  }
  auto const x = test::any_bits(33, 1);
  write("identity", 0, 1, std::as_bytes(std::span(x)));
  write("bit_reader", 0, 0, std::as_bytes(std::span(x)));
}

}  // namespace compress_fuzz

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  for (int i = 1; i < *argc; ++i)
    if (std::string const word = (*argv)[i]; word.starts_with("--write_corpus=")) {
      compress_fuzz::write_corpus(word.substr(15));
      std::exit(0);
    }
  return 0;
}
extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  compress_fuzz::run(std::as_bytes(std::span(data, size)));
  return 0;
}
