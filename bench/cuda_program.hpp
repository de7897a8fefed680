// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "../test/cuda/on_device.hpp"

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

/// Figures as JSON, which are in the file as soon as they are known: a run that is cut short has what it measured.
class figures_file {
 public:
  /// Without a path, nothing is written.
  figures_file(std::string const& path, dovetail::cuda::device const& d, int repetitions) : path_(path) {
    if (path.empty()) return;
    cudaDeviceProp device{};
    int driver = 0, clock_khz = 0, memory_khz = 0;
    dovetail::cuda::check(cudaGetDeviceProperties(&device, d.index), "cudaGetDeviceProperties");
    dovetail::cuda::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    dovetail::cuda::check(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, d.index), "cudaDeviceGetAttribute");
    dovetail::cuda::check(cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, d.index),
                          "cudaDeviceGetAttribute");
    file_ = std::fopen(path.c_str(), "w");
    if (!file_) throw dovetail::input_error(path + " cannot be written");
    std::fprintf(file_,
                 "{\"context\": {\"device\": \"%s\", \"multiprocessors\": %d, \"driver\": %d, \"runtime\": %d, "
                 "\"clock_mhz\": %d, \"memory_clock_mhz\": %d, \"repetitions\": %d},\n \"benchmarks\": [",
                 device.name, device.multiProcessorCount, driver, CUDART_VERSION, clock_khz / 1000, memory_khz / 1000,
                 repetitions);
    finish();
  }
  figures_file(figures_file const&) = delete;
  ~figures_file() {
    if (file_) std::fclose(file_);
  }

  /// One figure's object, by printf's rules.
  [[gnu::format(printf, 2, 3)]] void add(char const* format, ...) {
    if (!file_) return;
    if (std::fseek(file_, -static_cast<long>(sizeof end - 1), SEEK_CUR) != 0)
      throw dovetail::input_error(path_ + " cannot be written twice in one place: give a regular file");
    std::fputs(first_ ? "\n  " : ",\n  ", file_);
    first_ = false;
    std::va_list arguments;
    va_start(arguments, format);
    std::vfprintf(file_, format, arguments);
    va_end(arguments);
    finish();
  }

 private:
  static constexpr char end[] = "\n]}\n";
  void finish() {
    std::fputs(end, file_);
    if (std::fflush(file_) != 0) throw dovetail::input_error(path_ + " was not written completely");
  }
  std::string path_;
  std::FILE* file_ = nullptr;
  bool first_ = true;
};

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
