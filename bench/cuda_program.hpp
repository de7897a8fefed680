// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "../test/cuda/on_device.hpp"
#include "figures_file.hpp"

// What the device's benchmarks share. They are plain programs: machines with a GPU may have no Google Benchmark.

namespace bench {

inline double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return 0.5 * (v[(v.size() - 1) / 2] + v[v.size() / 2]);
}

/// A stream of one's own.
class stream {
 public:
  stream() { dovetail::cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  stream(stream const&) = delete;
  ~stream() { static_cast<void>(cudaStreamDestroy(stream_)); }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_{};
};

/// Seconds of what is queued on a stream.
struct stopwatch {
  cudaEvent_t begin{}, end{};
  stopwatch() {
    dovetail::cuda::check(cudaEventCreate(&begin), "cudaEventCreate");
    dovetail::cuda::check(cudaEventCreate(&end), "cudaEventCreate");
  }
  stopwatch(stopwatch const&) = delete;
  ~stopwatch() {
    static_cast<void>(cudaEventDestroy(begin));
    static_cast<void>(cudaEventDestroy(end));
  }
  double seconds(cudaStream_t stream, std::function<void()> const& work) {
    dovetail::cuda::check(cudaEventRecord(begin, stream), "cudaEventRecord");
    work();
    dovetail::cuda::check(cudaEventRecord(end, stream), "cudaEventRecord");
    dovetail::cuda::check(cudaEventSynchronize(end), "a measured run");
    float ms = 0;
    dovetail::cuda::check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    return 1e-3 * static_cast<double>(ms);
  }
};

/// What a device's figures are to be read with, as JSON.
inline std::string context_of(dovetail::cuda::device const& d, int repetitions) {
  cudaDeviceProp device{};
  int driver = 0, clock_khz = 0, memory_khz = 0;
  dovetail::cuda::check(cudaGetDeviceProperties(&device, d.index), "cudaGetDeviceProperties");
  dovetail::cuda::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  dovetail::cuda::check(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, d.index), "cudaDeviceGetAttribute");
  dovetail::cuda::check(cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, d.index),
                        "cudaDeviceGetAttribute");
  return dovetail::message("{\"device\": \"", device.name, "\", \"multiprocessors\": ", device.multiProcessorCount,
                           ", \"driver\": ", driver, ", \"runtime\": ", CUDART_VERSION,
                           ", \"clock_mhz\": ", clock_khz / 1000, ", \"memory_clock_mhz\": ", memory_khz / 1000,
                           ", \"repetitions\": ", repetitions, '}');
}

/// main() of a benchmark: run(path), where JSON goes to the file of --benchmark_out=FILE, or to $OUT/<name>.json.
template <class F>
int main_of(char const* name, int argc, char** argv, F const& run) {
  std::string path;
  if (char const* const out = std::getenv("OUT")) path = std::string(out) + '/' + name + ".json";
  for (int i = 1; i < argc; ++i)
    if (std::strncmp(argv[i], "--benchmark_out=", 16) == 0) path = argv[i] + 16;
  return dovetail::on_device([&] { return run(path); });
}

}  // namespace bench
