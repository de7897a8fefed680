// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a codec costs, on one core: time to encode and to decode 25 M floats (more than any cache) beside a copy of the
// same floats, and what is claimed of that. GB/s are of the fp32 gradient, read once: an encoder that is slower than
// the wire is no gain, whatever its ratio. What codecs lose, and where they pay, is in the table of bench_codecs.
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <dovetail/compress.hpp>
#include <dovetail/core/philox.hpp>

#include "claims.hpp"
#include "peer_process.hpp"

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

/// One tensor, for codecs that look at shapes.
compress::bucket bucket() {
  static compress::bucket_tensor const square{0, shape{5000, 5000}};
  static_assert(n == 5000 * 5000);
  return {gradient().span(), {&square, 1}};
}
/// All rounds, with the own payload in place of the ranks' sum.
template <class Codec, class State>
std::size_t encode_all(Codec const& codec, State& memory) {
  std::size_t bytes = 0;
  for (int round = 0; round < compress::rounds_of<Codec>; ++round) {
    compress::context const where{.round = round};
    bytes = compress::encode(codec, bucket(), memory, payload(), where);
    if constexpr (compress::rounds_of < Codec >> 1)
      if (round + 1 < compress::rounds_of<Codec>)
        codec.absorb(std::span<std::byte const>(payload()).first(bytes), memory, where);
  }
  return bytes;
}
template <class Codec>
void encode(benchmark::State& state, Codec const& codec) {
  auto memory = compress::init(codec, bucket(), {});
  encode_all(codec, memory);
  for (auto _ : state) benchmark::DoNotOptimize(encode_all(codec, memory));
  count_bytes(state);
}
template <class Codec>
void decode(benchmark::State& state, Codec const& codec) {
  auto memory = compress::init(codec, bucket(), {});
  auto const bytes = std::span<std::byte const>(payload()).first(encode_all(codec, memory));
  for (auto _ : state) {
    compress::decode_add(codec, bytes, output().span(), 0.5f, memory, {});
    benchmark::ClobberMemory();
  }
  count_bytes(state);
}

/// What PyTorch's hook for DistributedDataParallel does of one rank.
void power_sgd_step(benchmark::State& state) {
  compress::powersgd const codec{.rank = 4};
  auto memory = compress::init(codec, bucket(), {});
  encode_all(codec, memory);
  for (auto _ : state) {
    auto const bytes = std::span<std::byte const>(payload()).first(encode_all(codec, memory));
    std::memset(output().data(), 0, 4 * n);
    compress::decode_add(codec, bytes, output().span(), 1.0f, memory, {});
    benchmark::ClobberMemory();
  }
  count_bytes(state);
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
  add("int8", compress::int8{});
  add("int4", compress::int4{});
  add("fp8", compress::fp8_e4m3{});
  add("QSGD 4 bits", compress::qsgd{});
  add("TernGrad", compress::terngrad{});
  add("natural", compress::natural{});
  add("3LC", compress::three_lc{});
  add("random-k 1%", compress::random_k{});
  add("PowerSGD 4", compress::powersgd{});
  benchmark::RegisterBenchmark("step PowerSGD 4", power_sgd_step)->Unit(benchmark::kMillisecond)->MinTime(0.03);
  std::signal(SIGPIPE, SIG_IGN);  // a peer that dies is an error of its benchmark
  std::unique_ptr<bench::peer_process> peer;
  if (auto const python = bench::python_with_torch(); !python.empty()) {
    std::vector<std::string> const command{python, DOVETAIL_BENCH_SOURCE "/compress_powersgd.py", "4", "1", "5000",
                                           "5000"};
    peer = std::make_unique<bench::peer_process>(command);
    benchmark::AddCustomContext("peer", peer->version);
    bench::register_peer("PyTorch PowerSGD 4", *peer);
  }
  return bench::run(
      argc, argv,
      {{"top-k of 1 % is at least 10 times as fast as std::nth_element", "encode top-k 1%", "nth_element", 0.1},
       {"top-k of 1 % takes at most 1.5 copies", "encode top-k 1%", "copy", 1.5},
       {"fp16 encodes within 1.3 copies", "encode fp16", "copy", 1.3},
       {"bf16 encodes within 1.3 copies", "encode bf16", "copy", 1.3},
       {"sign encodes within 1.2 copies", "encode sign", "copy", 1.2},
       {"fp16 decodes and adds within 1.4 copies", "decode fp16", "copy", 1.4},
       {"sign decodes and adds within 1.2 copies", "decode sign", "copy", 1.2},
       {"error feedback with top-k takes at most 3 copies", "encode EF top-k 1%", "copy", 3},
       {"int8 encodes within 1.6 copies", "encode int8", "copy", 1.6},
       {"int8 decodes and adds within 1.6 copies", "decode int8", "copy", 1.6},
       {"int4 encodes within 1.6 copies", "encode int4", "copy", 1.6},
       {"int4 decodes and adds within 1.6 copies", "decode int4", "copy", 1.6},
       {"QSGD of 4 bits encodes within 2.5 copies", "encode QSGD 4 bits", "copy", 2.5},
       {"TernGrad encodes within 2.5 copies", "encode TernGrad", "copy", 2.5},
       {"natural compression encodes within 2.5 copies", "encode natural", "copy", 2.5},
       {"3LC encodes within 4 copies", "encode 3LC", "copy", 4},
       // It reads all elements, to show one that is not finite: half a copy.
       {"random-k of 1 % encodes within 0.9 copies", "encode random-k 1%", "copy", 0.9},
       {"random-k of 1 % decodes and adds within 0.3 copies", "decode random-k 1%", "copy", 0.3},
       {"PowerSGD of rank 4 with its residual encodes within 5 copies", "encode PowerSGD 4", "copy", 5},
       {"PowerSGD of rank 4 is at least 1.5 times as fast as PyTorch's hook", "step PowerSGD 4", "PyTorch PowerSGD 4",
        1 / 1.5}});
}
