// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a codec costs and loses, on one core: time to encode and to decode 25 M floats (more than any cache) beside a
// copy of the same floats, and the quality of what comes out. GB/s are of the fp32 gradient, read once: an encoder that
// is slower than the wire is no gain, whatever its ratio.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <dovetail/compress.hpp>
#include <dovetail/core/philox.hpp>

#include "claims.hpp"

using namespace dovetail;
using compress::error_feedback;

namespace {

constexpr std::size_t n = 25'000'000;

/// A gradient: normal, and its magnitude differs from one 4096-element "tensor" to the next, as layers' do.
buffer<float> const& gradient() {
  static buffer<float> const values = [] {
    buffer<float> x(n);
    random_stream const random{1};
    for (std::size_t i = 0; i < n; i += 4) {
      auto const w = random.words(static_cast<std::uint32_t>(i / 4));
      float const scale = 1e-3f * static_cast<float>(1 + (i / 4096) % 5);
      for (std::size_t j = 0; j < 4; j += 2) {
        float const r = scale * std::sqrt(-2 * std::log(1 - random_stream::to_uniform(w[j])));
        float const angle = 6.2831853f * random_stream::to_uniform(w[j + 1]);
        x[i + j] = r * std::cos(angle);
        x[i + j + 1] = r * std::sin(angle);
      }
    }
    return x;
  }();
  return values;
}
std::vector<std::byte>& payload() {
  static std::vector<std::byte> bytes(4 * n);
  return bytes;
}
buffer<float>& output() {
  static buffer<float> values(n);
  return values;
}
void count_bytes(benchmark::State& state) {
  state.counters["GB/s"] = benchmark::Counter(4e-9 * static_cast<double>(n) * static_cast<double>(state.iterations()),
                                              benchmark::Counter::kIsRate);
}

void copy(benchmark::State& state) {
  gradient();
  for (auto _ : state) {
    std::memcpy(output().data(), gradient().data(), 4 * n);
    benchmark::ClobberMemory();
  }
  count_bytes(state);
}
void nth_element(benchmark::State& state) {
  std::vector<float> magnitudes(n);
  for (auto _ : state) {
    for (std::size_t i = 0; i < n; ++i) magnitudes[i] = std::fabs(gradient()[i]);
    std::nth_element(magnitudes.begin(), magnitudes.begin() + n / 100 - 1, magnitudes.end(), std::greater<>{});
    benchmark::DoNotOptimize(magnitudes[n / 100 - 1]);
  }
  count_bytes(state);
}

template <class Codec>
void encode(benchmark::State& state, Codec const& codec) {
  compress::bucket const b{gradient().span(), {}};
  auto memory = codec.init(b);
  codec.encode(b, memory, payload());
  for (auto _ : state) benchmark::DoNotOptimize(codec.encode(b, memory, payload()));
  count_bytes(state);
}
template <class Codec>
void decode(benchmark::State& state, Codec const& codec) {
  compress::bucket const b{gradient().span(), {}};
  auto memory = codec.init(b);
  auto const bytes = std::span(payload()).first(codec.encode(b, memory, payload()));
  for (auto _ : state) {
    codec.decode_add(bytes, output().span(), 0.5f);
    benchmark::ClobberMemory();
  }
  count_bytes(state);
}

/// One row of the table: sizes, speed of one quick run, and quality of one encode without error feedback.
template <class Codec>
void row(char const* label, char const* type, Codec const& codec) {
  auto const seconds = [](auto&& work) {
    std::vector<double> times;
    for (int i = 0; i < 5; ++i) {
      auto const start = std::chrono::steady_clock::now();
      work();
      times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return bench::median(times);
  };
  auto const& x = gradient();
  auto& y = output();
  compress::bucket const b{x.span(), {}};
  auto memory = codec.init(b);
  std::size_t const bytes = codec.encode(b, memory, payload());
  auto const sent = std::span(payload()).first(bytes);
  std::fill(y.begin(), y.end(), 0.0f);
  codec.decode_add(sent, y.span());
  double error = 0, norm = 0, dot = 0, other = 0, bias = 0, magnitude = 0;
  for (std::size_t i = 0; i < n; ++i) {
    double const u = static_cast<double>(x[i]), v = static_cast<double>(y[i]);
    error += (v - u) * (v - u);
    norm += u * u;
    dot += u * v;
    other += v * v;
    bias += (v - u) * (u < 0 ? -1 : 1);  // shrinks (negative) or grows the gradient along its own sign
    magnitude += std::fabs(u);
  }
  double const encoding = seconds([&] { codec.encode(b, memory, payload()); });
  double const decoding = seconds([&] { codec.decode_add(sent, y.span(), 0.5f); });
  double const logical = 4 * static_cast<double>(n), wire = static_cast<double>(bytes);
  std::printf("%-12s %zu %-5s %10.0f %10.0f %8.2f %8.2f %8.2f %8.2f %9.2e %9.2e %7.4f\n", label, n, type, logical, wire,
              logical / wire, logical / 2 / wire, logical * 1e-9 / encoding, logical * 1e-9 / decoding,
              std::sqrt(error / norm), bias / magnitude, dot / std::sqrt(norm * other));
}

template <class Codec>
void add(std::string const& name, Codec const& codec) {
  for (auto const& [what, function] : {std::pair{"encode ", &encode<Codec>}, std::pair{"decode ", &decode<Codec>}})
    benchmark::RegisterBenchmark((what + name).c_str(), *function, codec)->Unit(benchmark::kMillisecond)->MinTime(0.03);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::RegisterBenchmark("copy", copy)->Unit(benchmark::kMillisecond)->MinTime(0.03);
  benchmark::RegisterBenchmark("nth_element", nth_element)->Unit(benchmark::kMillisecond)->Iterations(1);
  add("identity", compress::identity{});
  add("fp16", compress::fp16{});
  add("bf16", compress::bf16{});
  add("sign", compress::sign{});
  add("sign 4096", compress::sign{.block = 4096});
  add("top-k 1%", compress::top_k{.ratio = 0.01f});
  add("top-k 0.1%", compress::top_k{.ratio = 0.001f});
  add("EF top-k 1%", error_feedback{compress::top_k{.ratio = 0.01f}});
  add("EF sign", error_feedback{compress::sign{}});
  int const failed = bench::run(
      argc, argv,
      {{"top-k of 1 % is at least 10 times as fast as std::nth_element", "encode top-k 1%", "nth_element", 0.1},
       {"top-k of 1 % takes at most 1.5 copies", "encode top-k 1%", "copy", 1.5},
       {"fp16 encodes within 1.3 copies", "encode fp16", "copy", 1.3},
       {"bf16 encodes within 1.3 copies", "encode bf16", "copy", 1.3},
       {"sign encodes within 1.2 copies", "encode sign", "copy", 1.2},
       {"fp16 decodes and adds within 1.4 copies", "decode fp16", "copy", 1.4},
       {"sign decodes and adds within 1.2 copies", "decode sign", "copy", 1.2},
       {"error feedback with top-k takes at most 3 copies", "encode EF top-k 1%", "copy", 3}});

  std::printf(
      "\ncodec        n        dtype  logical_B     wire_B ratio_32 ratio_16 enc_GB/s dec_GB/s    "
      "rel_L2      bias  cosine\n");
  row("identity", "fp32", compress::identity{});
  row("fp16", "fp16", compress::fp16{});
  row("bf16", "bf16", compress::bf16{});
  row("sign", "fp32", compress::sign{});
  row("sign 4096", "fp32", compress::sign{.block = 4096});
  row("top-k 1%", "fp32", compress::top_k{.ratio = 0.01f});
  row("top-k 0.1%", "fp32", compress::top_k{.ratio = 0.001f});
  row("EF top-k 1%", "fp32", error_feedback{compress::top_k{.ratio = 0.01f}});
  return failed;
}
