// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decode, average and AdamW in one pass over the payloads of four ranks, on one core: against touching once the bytes
// that it cannot avoid (three arrays read and written, and the payloads read), and against decoding into the gradient,
// which a step then reads.
#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/decoded_gradients.hpp>

#include "claims.hpp"

using namespace dovetail;

namespace {

constexpr std::size_t n = 25'000'000;
constexpr std::size_t ranks = 4;

arena& memory() {
  static arena a({{"w", {5000, 5000}}});
  return a;
}

/// What four ranks have sent.
template <class Codec>
struct sent {
  Codec codec;
  std::vector<std::vector<std::byte>> payloads;
  using reader = decltype(compress::read(std::declval<Codec const&>(), std::span<std::byte const>{}, n));
  std::vector<optim::gradient::encoded_part<reader>> parts;
  optim::state state;

  explicit sent(Codec const& c) : codec(c), state(optim::adamw{}.init(memory().parameters())) {
    buffer<float> x(n);
    for (std::uint32_t r = 0; r < ranks; ++r) {
      random_stream const random{1, r};
      for (std::size_t i = 0; i < n; ++i) x[i] = random.uniform(i) - 0.5f;
      compress::bucket const b{x.span(), {}};
      auto s = compress::init(codec, b, {});
      payloads.emplace_back(compress::wire_size(codec, b));
      compress::encode(codec, b, s, payloads.back(), {.rank = static_cast<int>(r)});
    }
  }
  void fused() {
    parts.clear();
    for (auto const& p : payloads) parts.push_back({0, compress::read(codec, p, n)});
    optim::gradient::decoded<reader> const source{parts, 1.0f / ranks};
    optim::adamw{}.step(memory().parameters(), state, source);
  }
  void apart() {
    auto const g = memory().gradients();
    std::memset(g.data(), 0, g.size_bytes());
    auto s = compress::init(codec, {g, {}}, {});
    for (auto const& p : payloads) compress::decode_add(codec, p, g, 1, s, {});
    optim::adamw{}.step(memory().parameters(), state, optim::gradient::scaled{1.0f / ranks});
  }
  /// Weights and both averages += what the payloads' bytes are, which is as much memory and no arithmetic.
  void touch() {
    float *const w = memory().weights().data(), *const m = state.slot(0).data(), *const v = state.slot(1).data();
    std::size_t const bytes = payloads[0].size();
    std::uint64_t seen = 0;
    std::size_t next = 0;
    for (std::size_t i = 0; i < n; i += 16) {
      std::size_t const upto =
          static_cast<std::size_t>(static_cast<double>(bytes) / static_cast<double>(n) * static_cast<double>(i + 16));
      for (; next + 8 <= upto && next + 8 <= bytes; next += 8)
        for (auto const& p : payloads) {
          std::uint64_t word;
          std::memcpy(&word, p.data() + next, 8);
          seen ^= word;
        }
      for (std::size_t j = i; j < i + 16; j += simd::pack::lanes)
        for (float* const a : {w, m, v}) (simd::pack::load(a + j) + 1e-9f).store(a + j);
    }
    benchmark::DoNotOptimize(seen);
  }
};

template <class Codec>
void add(std::string const& name, Codec const& codec) {
  auto const made = std::make_shared<std::unique_ptr<sent<Codec>>>();
  using how = void (sent<Codec>::*)();
  for (auto const& [what, f] : {std::pair<char const*, how>{"touch ", &sent<Codec>::touch},
                                {"fused ", &sent<Codec>::fused},
                                {"decode, then step ", &sent<Codec>::apart}})
    benchmark::RegisterBenchmark((what + name).c_str(),
                                 [=, f = f](benchmark::State& state) {
                                   if (!*made) *made = std::make_unique<sent<Codec>>(codec);
                                   for (auto _ : state) ((**made).*f)();
                                   state.counters["GB/s"] = benchmark::Counter(
                                       4e-9 * static_cast<double>(n) * static_cast<double>(state.iterations()),
                                       benchmark::Counter::kIsRate);
                                 })
        ->Unit(benchmark::kMillisecond)
        ->Iterations(3)
        ->UseRealTime();
}

}  // namespace

int main(int argc, char** argv) {
  add("int8", compress::int8{});
  add("int4", compress::int4{});
  add("fp16", compress::fp16{});
  add("sign", compress::sign{});
  add("top-k 1%", compress::top_k{});
  std::vector<bench::claim> claims;
  claims.push_back({"decoding 4 ranks' int8, averaging and AdamW take at most 1.3 times touching their bytes once",
                    "fused int8", "touch int8", 1.3});
  for (std::string const codec : {"int8", "sign", "top-k 1%"})
    claims.push_back(
        {message("decoding 4 ranks' ", codec, " within the step takes at most 1 / 1.5 of decoding it before"),
         message("fused ", codec), message("decode, then step ", codec), 1 / 1.5});
  return bench::run(argc, argv, claims);
}
