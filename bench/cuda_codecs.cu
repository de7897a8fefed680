// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Codecs on a device: GB/s of gradients (4 bytes an element) encoded, and decoded and added, beside the driver's copy
// of as many bytes. A codec pays where this is well above the wire's rate.
#include <cstddef>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <dovetail/compress/cuda/codecs.cuh>

#include "cuda_program.hpp"

using namespace dovetail;
using bench::median;
namespace gpu = dovetail::cuda;  // CCCL has a global namespace cuda

namespace {

constexpr int repetitions = 10, warm_ups = 3;

class table {
 public:
  table(std::string const& path, gpu::device const& d)
      : file_(path, path.empty() ? "" : bench::context_of(d, repetitions)), device_(d) {
    std::printf("%-24s %11s %12s %10s %12s %10s\n", "codec", "elements", "encode us", "GB/s", "decode us", "GB/s");
  }
  void row(std::string const& name, std::size_t n, std::function<void()> const& encode,
           std::function<void()> const& decode) {
    double const there = seconds(n, encode), back = seconds(n, decode), gigabytes = 4e-9 * static_cast<double>(n);
    std::printf("%-24s %11zu %12.1f %10.1f %12.1f %10.1f\n", name.c_str(), n, 1e6 * there, gigabytes / there,
                1e6 * back, gigabytes / back);
    std::fflush(stdout);
    file_.add("{\"name\": \"%s\", \"elements\": %zu, \"encode_seconds\": %.9g, \"decode_seconds\": %.9g}", name.c_str(),
              n, there, back);
  }

 private:
  double seconds(std::size_t n, std::function<void()> const& work) {
    int const times = n < (std::size_t{1} << 24) ? 20 : 2;  // what takes microseconds, several times
    std::vector<double> all;
    for (int r = -warm_ups; r < repetitions; ++r) {
      double const s = watch_.seconds(device_.stream, [&] {
        for (int k = 0; k < times; ++k) work();
      });
      if (r >= 0) all.push_back(s / times);
    }
    return median(all);
  }
  bench::figures_file file_;
  gpu::device device_;
  bench::stopwatch watch_;
};

struct arrays {
  gpu::device_buffer<float> gradient, sum;
  gpu::device_buffer<std::byte> payload;
  arrays(std::size_t n, gpu::device const& d) : gradient(n, d), sum(n, d), payload(8 * n, d) {
    std::vector<float> x(n);
    std::uint32_t random = 1;
    for (float& v : x) {  // the sum of two uniform numbers: with zeros, and without runs of equal ones
      random = random * 1664525u + 1013904223u;
      v = static_cast<float>(random >> 16) * 0x1p-16f + static_cast<float>(random & 0xffffu) * 0x1p-16f - 1.0f;
    }
    gradient.upload(d, x);
  }
};
template <class Codec>
void measure(table& t, arrays& a, gpu::device const& d, std::string const& name, Codec const& codec) {
  std::size_t const n = a.gradient.size();
  namespace coding = compress::cuda;
  auto state = coding::init(codec, a.gradient, d);
  gpu::device_span<std::byte> const payload{a.payload.data(), codec.wire_size(n)};
  compress::context const where{.step = 1, .seed = 2};
  t.row(
      name, n, [&] { coding::encode(codec, a.gradient, state, payload, where); },
      [&] { coding::decode_add(codec, payload, a.sum, 1e-3f, state, where); });
  coding::require_intact(codec, state);
}

int run(std::string const& path) {
  bench::stream const own;
  gpu::device const d{.index = 0, .stream = own.get()};
  table t(path, d);
  for (int const power : {20, 24, 26}) {
    std::size_t const n = std::size_t{1} << power;
    arrays a(n, d);
    auto const copy = [&] {
      gpu::check(cudaMemcpyAsync(a.sum.data(), a.gradient.data(), 4 * n, cudaMemcpyDeviceToDevice, d.stream), "a copy");
    };
    t.row("the driver's copy", n, copy, copy);
    measure(t, a, d, "fp16", compress::fp16{});
    measure(t, a, d, "bf16", compress::bf16{});
    measure(t, a, d, "stochastic bf16", compress::stochastic_bf16{});
    measure(t, a, d, "sign, blocks of 512", compress::sign{.block = 512});
    measure(t, a, d, "sign, one block", compress::sign{});
    measure(t, a, d, "int8", compress::int8{});
    measure(t, a, d, "int8, one block", compress::int8{.block = 0});
    measure(t, a, d, "int4", compress::int4{});
    measure(t, a, d, "int8 at random", compress::qsgd{.levels = 127, .norm = compress::norm::max});
    measure(t, a, d, "QSGD", compress::qsgd{});
    measure(t, a, d, "TernGrad, base 3", compress::terngrad{.block = 640, .packing = compress::packing::base3});
    measure(t, a, d, "top-k of 1 %", compress::top_k{});
    measure(t, a, d, "random-k of 1 %", compress::random_k{});
    measure(t, a, d, "block random-k of 1 %", compress::block_random_k{});
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return bench::main_of("bench_cuda_codecs", argc, argv, run); }
