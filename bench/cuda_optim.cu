// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>
#include <dovetail/optim/cuda/engine.cuh>

#include "cuda_program.hpp"

// Steps on a device, each repetition next to a copy from device memory to device memory of as many bytes. JSON goes to
// the file of --benchmark_out=FILE, or to $OUT/bench_cuda_optim.json. Exit code 77: no device here.

using namespace dovetail;
using bench::median;
namespace gpu = dovetail::cuda;

namespace {

constexpr int repetitions = 20, warm_ups = 3;

struct figure {
  std::string name;
  std::size_t parameters = 0, tensors = 0;
  double bytes = 0;                ///< necessary bytes of one step
  std::vector<double> step, copy;  ///< seconds
};

template <class Rule>
figure measure(std::string name, Rule const& rule, std::vector<std::size_t> const& sizes, bool graph, gpu::device d) {
  figure f;
  f.name = std::move(name);
  f.tensors = sizes.size();
  for (auto const n : sizes) f.parameters += n;
  f.bytes = double(Rule::bytes_per_parameter) * double(f.parameters);
  gpu::device_buffer<float> weight(f.parameters), gradient(f.parameters);
  gpu::check(cudaMemset(gradient.data(), 0x3c, f.parameters * sizeof(float)), "cudaMemset");  // 0.0115 everywhere
  parameter_list p;
  std::size_t at = 0;
  for (std::size_t i = 0; i < sizes.size(); at += sizes[i++])
    p.add("p" + std::to_string(i), {weight.data() + at, sizes[i]}, {gradient.data() + at, sizes[i]});
  auto state = optim::cuda::init(rule, p, d);

  cudaGraph_t recorded{};
  cudaGraphExec_t executable{};
  if (graph) {
    gpu::check(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    optim::cuda::step(rule, p, state);
    gpu::check(cudaStreamEndCapture(d.stream, &recorded), "cudaStreamEndCapture");
    gpu::check(cudaGraphInstantiate(&executable, recorded, 0), "cudaGraphInstantiate");
  }
  // A copy reads and writes each of its bytes. Never larger than 2 GiB: what it measures is a rate.
  std::size_t const copied = std::min<std::size_t>(std::size_t(f.bytes / 2), std::size_t{1} << 31);
  gpu::device_buffer<std::byte> from(copied), to(copied);
  double const whole = f.bytes / 2 / double(copied);
  bench::stopwatch watch;
  for (int r = -warm_ups; r < repetitions; ++r) {
    double const step = watch.seconds(d.stream, [&] {
      if (graph)
        gpu::check(cudaGraphLaunch(executable, d.stream), "cudaGraphLaunch");
      else
        optim::cuda::step(rule, p, state);
    });
    double const copy = watch.seconds(d.stream, [&] {
      gpu::check(cudaMemcpyAsync(to.data(), from.data(), copied, cudaMemcpyDeviceToDevice, d.stream), "a copy");
    });
    if (r < 0) continue;
    f.step.push_back(step);
    f.copy.push_back(copy * whole);
  }
  if (optim::cuda::result(state).step != repetitions + warm_ups) throw numeric_error("a measured step was not applied");
  if (graph) {
    gpu::check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
    gpu::check(cudaGraphDestroy(recorded), "cudaGraphDestroy");
  }
  std::printf("%-34s %11zu %6zu %10.1f %8.1f %8.1f %7.1f%%\n", f.name.c_str(), f.parameters, f.tensors,
              1e6 * median(f.step), 1e-9 * f.bytes / median(f.step), 1e-9 * f.bytes / median(f.copy),
              100 * median(f.copy) / median(f.step));
  std::fflush(stdout);
  return f;
}

void write(std::string const& path, std::vector<figure> const& figures, gpu::device d) {
  cudaDeviceProp device{};
  int driver = 0, clock_khz = 0, memory_khz = 0;
  gpu::check(cudaGetDeviceProperties(&device, d.index), "cudaGetDeviceProperties");
  gpu::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  gpu::check(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, d.index), "cudaDeviceGetAttribute");
  gpu::check(cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, d.index), "cudaDeviceGetAttribute");
  std::FILE* const out = std::fopen(path.c_str(), "w");
  if (!out) throw input_error(path + " cannot be written");
  std::fprintf(out,
               "{\"context\": {\"device\": \"%s\", \"driver\": %d, \"runtime\": %d, \"clock_mhz\": %d, "
               "\"memory_clock_mhz\": %d, \"repetitions\": %d},\n \"benchmarks\": [",
               device.name, driver, CUDART_VERSION, clock_khz / 1000, memory_khz / 1000, repetitions);
  for (std::size_t i = 0; i < figures.size(); ++i) {
    auto const& f = figures[i];
    auto const [fastest, slowest] = std::minmax_element(f.step.begin(), f.step.end());
    std::fprintf(out,
                 "%s\n  {\"name\": \"%s\", \"parameters\": %zu, \"tensors\": %zu, \"bytes\": %.0f, "
                 "\"step_s\": {\"median\": %.9g, \"min\": %.9g, \"max\": %.9g}, \"copy_s\": %.9g, "
                 "\"step_GBps\": %.1f, \"copy_GBps\": %.1f, \"percent_of_copy\": %.1f}",
                 i ? "," : "", f.name.c_str(), f.parameters, f.tensors, f.bytes, median(f.step), *fastest, *slowest,
                 median(f.copy), 1e-9 * f.bytes / median(f.step), 1e-9 * f.bytes / median(f.copy),
                 100 * median(f.copy) / median(f.step));
  }
  std::fprintf(out, "\n]}\n");
  if (std::fclose(out) != 0) throw input_error(path + " was not written completely");
}

/// 1000 tensors as a network has them: mostly small and odd, some large; 90 million parameters or so.
std::vector<std::size_t> mixed() {
  std::vector<std::size_t> sizes;
  for (std::size_t i = 0; i < 1000; ++i) sizes.push_back(i % 10 == 0 ? 786432 + i : i % 3 == 0 ? 3 + i % 61 : 4096 + i);
  return sizes;
}

int run(std::string const& path) {
  gpu::device const d{};
  std::printf("%-34s %11s %6s %10s %8s %8s %8s\n", "step", "parameters", "tensors", "time(us)", "GB/s", "copy",
              "of copy");
  std::vector<figure> figures;
  for (int const power : {20, 26, 27, 28})
    figures.push_back(measure("adamw/2^" + std::to_string(power), optim::adamw{}, {std::size_t{1} << power}, false, d));
  figures.push_back(measure("adamw/1000 tensors", optim::adamw{}, mixed(), false, d));
  figures.push_back(measure("adamw/1000 tensors/graph", optim::adamw{}, mixed(), true, d));
  figures.push_back(measure("lamb/1000 tensors", optim::lamb{}, mixed(), false, d));
  figures.push_back(measure("lamb/1000 tensors/graph", optim::lamb{}, mixed(), true, d));
  if (!path.empty()) write(path, figures, d);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return bench::main_of("bench_cuda_optim", argc, argv, run); }
