// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>
#include <dovetail/optim/cuda/engine.cuh>
#include <dovetail/optim/cuda/stored.cuh>

#include "cuda_program.hpp"
#include "peer_process.hpp"

// Steps on a device, each repetition next to a copy from device memory to device memory of as many bytes, and, where
// Python has a PyTorch that finds the GPU, next to a step of its fused AdamW. JSON goes to the file of
// --benchmark_out=FILE, or to $OUT/bench_cuda_optim.json. Exit code 77: no device here.

using namespace dovetail;
using bench::median;
namespace gpu = dovetail::cuda;

namespace {

constexpr int repetitions = 20, warm_ups = 3;

struct figure {
  std::string name;
  std::size_t parameters = 0, tensors = 0;
  double bytes = 0;                      ///< necessary bytes of one step
  std::vector<double> step, copy, peer;  ///< seconds; the peer's are empty without one
};

/// Tensors one after the other, and the same in halves.
struct memory {
  gpu::device_buffer<float> weight, gradient;
  gpu::device_buffer<bf16> half, half_gradient;
  parameter_list list;
  std::vector<std::span<bf16>> halves;
  std::vector<std::span<bf16 const>> half_gradients;

  explicit memory(std::vector<std::size_t> const& sizes) {
    std::size_t all = 0, at = 0;
    for (auto const n : sizes) all += n;
    weight = gpu::device_buffer<float>(all);
    gradient = gpu::device_buffer<float>(all);
    half = gpu::device_buffer<bf16>(all);
    half_gradient = gpu::device_buffer<bf16>(all);
    gpu::check(cudaMemset(gradient.data(), 0x3c, all * sizeof(float)), "cudaMemset");      // 0.0115 everywhere
    gpu::check(cudaMemset(half_gradient.data(), 0x3c, all * sizeof(bf16)), "cudaMemset");  // the same
    gpu::check(cudaDeviceSynchronize(), "cudaMemset");  // another stream does not wait for it
    for (std::size_t i = 0; i < sizes.size(); at += sizes[i++]) {
      list.add(message("p", i), {weight.data() + at, sizes[i]}, {gradient.data() + at, sizes[i]});
      halves.emplace_back(half.data() + at, sizes[i]);
      half_gradients.emplace_back(half_gradient.data() + at, sizes[i]);
    }
  }
};

/// PyTorch's fused AdamW over tensors of these sizes.
std::unique_ptr<bench::peer_process> torch_fused(std::vector<std::size_t> const& sizes) {
  static std::string const python = bench::python_with_torch();
  if (python.empty()) return nullptr;
  std::vector<std::string> command{python, DOVETAIL_BENCH_SOURCE "/cuda_adamw.py"};
  for (auto const n : sizes) command.push_back(std::to_string(n));
  auto peer = std::make_unique<bench::peer_process>(command);
  return peer->version.empty() ? nullptr : std::move(peer);
}

struct how {
  std::string name;
  double bytes_per_parameter;
  bool graph = false, beside_torch = false;
};

/// Steps of make(memory), whose gradients are source(memory).
template <class Make, class Source>
figure measure(how const& h, std::vector<std::size_t> const& sizes, gpu::device d, Make const& make,
               Source const& source_of) {
  figure f;
  f.name = h.name;
  f.tensors = sizes.size();
  for (auto const n : sizes) f.parameters += n;
  f.bytes = h.bytes_per_parameter * double(f.parameters);
  memory m(sizes);
  auto const rule = make(m);
  auto const source = source_of(m);
  auto state = optim::cuda::init(rule, m.list, d, source);
  auto const queue = [&] { optim::cuda::step(rule, m.list, state, source); };

  cudaGraph_t recorded{};
  cudaGraphExec_t executable{};
  if (h.graph) {
    gpu::check(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    queue();
    gpu::check(cudaStreamEndCapture(d.stream, &recorded), "cudaStreamEndCapture");
    gpu::check(cudaGraphInstantiate(&executable, recorded, 0), "cudaGraphInstantiate");
  }
  auto const peer = h.beside_torch ? torch_fused(sizes) : nullptr;
  // A copy reads and writes each of its bytes. Never larger than 2 GiB: what it measures is a rate.
  std::size_t const copied = std::min<std::size_t>(std::size_t(f.bytes / 2), std::size_t{1} << 31);
  gpu::device_buffer<std::byte> from(copied), to(copied);
  double const whole = f.bytes / 2 / double(copied);
  bench::stopwatch watch;
  for (int r = -warm_ups; r < repetitions; ++r) {
    double const step = watch.seconds(d.stream, [&] {
      if (h.graph)
        gpu::check(cudaGraphLaunch(executable, d.stream), "cudaGraphLaunch");
      else
        queue();
    });
    double const copy = watch.seconds(d.stream, [&] {
      gpu::check(cudaMemcpyAsync(to.data(), from.data(), copied, cudaMemcpyDeviceToDevice, d.stream), "a copy");
    });
    double const other = peer ? peer->seconds(1) : -1;
    if (r < 0) continue;
    f.step.push_back(step);
    f.copy.push_back(copy * whole);
    if (other > 0) f.peer.push_back(other);
  }
  if (optim::cuda::result(state).step != repetitions + warm_ups) throw numeric_error("a measured step was not applied");
  if (h.graph) {
    gpu::check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
    gpu::check(cudaGraphDestroy(recorded), "cudaGraphDestroy");
  }
  std::printf("%-44s %11zu %6zu %10.1f %8.1f %8.1f %7.1f%%", f.name.c_str(), f.parameters, f.tensors,
              1e6 * median(f.step), 1e-9 * f.bytes / median(f.step), 1e-9 * f.bytes / median(f.copy),
              100 * median(f.copy) / median(f.step));
  if (h.beside_torch && f.peer.empty()) std::printf("  no PyTorch that finds the GPU");
  if (!f.peer.empty()) std::printf("  %.2f of torch fused", median(f.step) / median(f.peer));
  std::printf("\n");
  std::fflush(stdout);
  return f;
}
template <class Rule>
figure measure(how h, std::vector<std::size_t> const& sizes, gpu::device d, Rule const& rule) {
  h.bytes_per_parameter = double(Rule::bytes_per_parameter);
  return measure(
      h, sizes, d, [&](memory&) { return rule; }, [](memory&) { return optim::gradient::dense{}; });
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
                 "\"torch_fused_s\": %.9g, \"step_GBps\": %.1f, \"copy_GBps\": %.1f, \"percent_of_copy\": %.1f}",
                 i ? "," : "", f.name.c_str(), f.parameters, f.tensors, f.bytes, median(f.step), *fastest, *slowest,
                 median(f.copy), median(f.peer), 1e-9 * f.bytes / median(f.step), 1e-9 * f.bytes / median(f.copy),
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
  std::signal(SIGPIPE, SIG_IGN);  // a peer that dies is missing in the figures
  bench::stream const own;        // the default one cannot be captured
  gpu::device const d{.index = 0, .stream = own.get()};
  std::printf("%-44s %11s %6s %10s %8s %8s %8s\n", "step", "parameters", "tensors", "time(us)", "GB/s", "copy",
              "of copy");
  std::vector<figure> all;
  for (int const power : {20, 26, 27, 28})
    all.push_back(
        measure({"adamw/2^" + std::to_string(power), 0, false, true}, {std::size_t{1} << power}, d, optim::adamw{}));
  all.push_back(measure({"adamw/1000 tensors", 0, false, true}, mixed(), d, optim::adamw{}));
  all.push_back(measure({"adamw/1000 tensors/graph", 0, true, true}, mixed(), d, optim::adamw{}));
  all.push_back(measure({"lamb/1000 tensors", 0}, mixed(), d, optim::lamb{}));
  all.push_back(measure({"lamb/1000 tensors/graph", 0, true}, mixed(), d, optim::lamb{}));

  // AdamW in other formats. Bytes: the gradient, weights read and written, two slots read and written.
  std::vector<std::size_t> const large{std::size_t{1} << 27};
  auto const fp32 = [](memory&) { return optim::gradient::dense{}; };
  auto const bf16s = [](memory& m) { return optim::gradient::half<bf16>{m.half_gradients}; };
  all.push_back(measure(
      {"adamw/2^27/bf16 gradients", 2 + 8 + 16}, large, d, [](memory&) { return optim::adamw{}; }, bf16s));
  all.push_back(measure(
      {"adamw/2^27/bf16 gradients, mirrored bf16", 2 + 8 + 2 + 16}, large, d,
      [](memory& m) {
        return optim::stored{optim::adamw{}, optim::fp32_slots{}, optim::mirrored_weights<bf16>{m.halves}};
      },
      bf16s));
  all.push_back(measure(
      {"adamw/2^27/bf16 gradients, split weights", 2 + 8 + 16}, large, d,
      [](memory& m) {
        return optim::stored{optim::adamw{}, optim::fp32_slots{}, optim::split_weights{m.halves}};
      },
      bf16s));
  all.push_back(measure(
      {"adamw/2^27/all bf16, rounded", 2 + 4 + 8}, large, d,
      [](memory& m) {
        return optim::stored{optim::adamw{}, optim::bf16_slots{}, optim::rounded_weights{m.halves}};
      },
      bf16s));
  all.push_back(measure(
      {"adamw/2^27/8-bit slots", 4 + 8 + 4 * (1 + 4.0 / optim::storage_block)}, large, d,
      [](memory&) {
        return optim::stored{optim::adamw{}, optim::blockwise_8bit{}};
      },
      fp32));
  if (!path.empty()) write(path, all, d);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return bench::main_of("bench_cuda_optim", argc, argv, run); }
