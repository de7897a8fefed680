// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>
#include <dovetail/optim/cuda/engine.cuh>
#include <dovetail/optim/cuda/low_precision_state.cuh>

#include "cuda_program.hpp"
#include "peer_process.hpp"

// Steps on a device, each repetition next to a copy from device memory to device memory of as many bytes, and, where
// Python has a PyTorch that finds the GPU, next to a step of its fused AdamW, by itself and from a graph. JSON goes to
// the file of --benchmark_out=FILE, or to $OUT/bench_cuda_optim.json. Exit code 77: no device here.

using namespace dovetail;
using bench::median;
namespace gpu = dovetail::cuda;

namespace {

// A sample is several steps: the gap between two launches by the host is not the time of a step.
constexpr int repetitions = 20, warm_ups = 3, steps = 5;

struct figure {
  std::string name;
  std::size_t parameters = 0, tensors = 0;
  double bytes = 0;  ///< necessary bytes of one step; below, seconds
  std::vector<double> step, copy;
  std::vector<double> peer, peer_graph;  ///< empty without one
};

/// Tensors one after the other, and the same in halves.
struct memory {
  gpu::device_buffer<float> weight, gradient;
  gpu::device_buffer<bf16> half, half_gradient;
  gpu::parameter_list list;
  std::vector<std::span<bf16>> halves;
  std::vector<std::span<bf16 const>> half_gradients;

  memory(std::vector<std::size_t> const& sizes, gpu::device d) : list(cuda_memory{d}) {
    std::size_t all = 0, at = 0;
    for (auto const n : sizes) all += n;
    weight = gpu::device_buffer<float>(all);
    gradient = gpu::device_buffer<float>(all);
    half = gpu::device_buffer<bf16>(all);
    half_gradient = gpu::device_buffer<bf16>(all);
    for (std::size_t i = 0; i < sizes.size(); at += sizes[i++]) {
      list.add(message("p", i), {weight.data() + at, sizes[i]}, {gradient.data() + at, sizes[i]});
      halves.emplace_back(half.data() + at, sizes[i]);
      half_gradients.emplace_back(half_gradient.data() + at, sizes[i]);
    }
  }
  /// As backward would: they are not in a cache because the last step read them. 0.0115 or 0.0157 everywhere.
  void rewrite_gradients(gpu::device const& d, int sample) {
    int const byte = sample % 2 ? 0x3c : 0x3d;
    gpu::check(cudaMemsetAsync(gradient.data(), byte, gradient.size() * sizeof(float), d.stream), "cudaMemset");
    gpu::check(cudaMemsetAsync(half_gradient.data(), byte, half_gradient.size() * sizeof(bf16), d.stream),
               "cudaMemset");
  }
};

/// PyTorch's fused AdamW: one process for all sizes, since its start takes longer than a figure does.
class torch_fused {
 public:
  torch_fused() {
    auto const python = bench::python_with_torch();
    if (python.empty()) {
      say("no Python with PyTorch was found (DOVETAIL_PEER_PYTHON names one)");
      return;
    }
    // The script where it was compiled, or where a program that was carried elsewhere finds it.
    char const* const folder = std::getenv("DOVETAIL_BENCH_SOURCE");
    process_ = std::make_unique<bench::peer_process>(
        std::vector<std::string>{python, std::string(folder ? folder : DOVETAIL_BENCH_SOURCE) + "/cuda_adamw.py"});
    if (process_->version.empty()) process_.reset();
    say(process_ ? process_->version : python + " has a PyTorch, which finds no GPU");
  }
  std::string const& version() const { return version_; }
  /// From now on steps are over tensors of these sizes; false without a peer.
  bool take(std::vector<std::size_t> const& sizes) {
    if (!process_) return false;
    std::string line = "tensors";
    for (auto const n : sizes) line += ' ' + std::to_string(n);
    if (process_->ask(line) == "ready") return true;
    process_.reset();
    say("PyTorch has died");
    return false;
  }
  void leave() {
    if (process_) process_->ask("tensors");  // its memory
  }
  double seconds(int steps) { return process_->seconds(steps); }
  double seconds_replayed(int steps) { return process_->seconds("graph " + std::to_string(steps)); }

 private:
  void say(std::string const& what) {
    version_ = what;
    std::printf("peer: %s\n", what.c_str());
  }
  std::unique_ptr<bench::peer_process> process_;
  std::string version_;
};

struct how {
  std::string name;
  double bytes_per_parameter;
  bool graph = false;
  torch_fused* torch = nullptr;  ///< measured beside
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
  memory m(sizes, d);
  auto const rule = make(m);
  auto const source = source_of(m);
  auto state = rule.init(m.list, source);
  auto const queue = [&] { rule.step(m.list, state, source); };

  cudaGraph_t recorded{};
  cudaGraphExec_t executable{};
  if (h.graph) {
    gpu::check(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    queue();
    gpu::check(cudaStreamEndCapture(d.stream, &recorded), "cudaStreamEndCapture");
    gpu::check(cudaGraphInstantiate(&executable, recorded, 0), "cudaGraphInstantiate");
  }
  bool const beside = h.torch && h.torch->take(sizes);
  // A copy reads and writes each of its bytes. Never larger than 2 GiB: what it measures is a rate.
  std::size_t const copied = std::min<std::size_t>(std::size_t(f.bytes / 2), std::size_t{1} << 31);
  gpu::device_buffer<std::byte> from(copied), to(copied);
  double const whole = f.bytes / 2 / double(copied);
  bench::stopwatch watch;
  auto const each = [&](auto const& work) {
    double const seconds = watch.seconds(d.stream, [&] {
      for (int k = 0; k < steps; ++k) work();
    });
    return seconds / steps;
  };
  for (int r = -warm_ups; r < repetitions; ++r) {
    m.rewrite_gradients(d, r);
    double const step = each([&] {
      if (h.graph)
        gpu::check(cudaGraphLaunch(executable, d.stream), "cudaGraphLaunch");
      else
        queue();
    });
    double const copy = each([&] {
      gpu::check(cudaMemcpyAsync(to.data(), from.data(), copied, cudaMemcpyDeviceToDevice, d.stream), "a copy");
    });
    double const other = beside ? h.torch->seconds(steps) / steps : -1;
    double const replayed = beside ? h.torch->seconds_replayed(steps) / steps : -1;
    if (r < 0) continue;
    f.step.push_back(step);
    f.copy.push_back(copy * whole);
    if (other > 0) f.peer.push_back(other);
    if (replayed > 0) f.peer_graph.push_back(replayed);
  }
  if (beside) h.torch->leave();
  if (optim::cuda::result(state).step != (repetitions + warm_ups) * steps)
    throw numeric_error("a measured step was not applied");
  if (h.graph) {
    gpu::check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
    gpu::check(cudaGraphDestroy(recorded), "cudaGraphDestroy");
  }
  std::printf("%-44s %11zu %6zu %10.1f %8.1f %8.1f %7.1f%%", f.name.c_str(), f.parameters, f.tensors,
              1e6 * median(f.step), 1e-9 * f.bytes / median(f.step), 1e-9 * f.bytes / median(f.copy),
              100 * median(f.copy) / median(f.step));
  if (h.torch && f.peer.empty()) std::printf("  no PyTorch that finds the GPU");
  if (!f.peer.empty()) std::printf("  %.2f of torch fused", median(f.step) / median(f.peer));
  if (!f.peer_graph.empty()) std::printf(", %.2f of its graph", median(f.step) / median(f.peer_graph));
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

void add(bench::figures_file& file, figure const& f) {
  auto const [fastest, slowest] = std::minmax_element(f.step.begin(), f.step.end());
  file.add(
      "{\"name\": \"%s\", \"parameters\": %zu, \"tensors\": %zu, \"bytes\": %.0f, "
      "\"step_s\": {\"median\": %.9g, \"min\": %.9g, \"max\": %.9g}, \"copy_s\": %.9g, "
      "\"torch_fused_s\": %.9g, \"torch_fused_graph_s\": %.9g, \"step_GBps\": %.1f, \"copy_GBps\": %.1f, "
      "\"percent_of_copy\": %.1f}",
      f.name.c_str(), f.parameters, f.tensors, f.bytes, median(f.step), *fastest, *slowest, median(f.copy),
      median(f.peer), median(f.peer_graph), 1e-9 * f.bytes / median(f.step), 1e-9 * f.bytes / median(f.copy),
      100 * median(f.copy) / median(f.step));
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
  torch_fused torch;
  bench::figures_file file(path, path.empty() ? "" : bench::context_of(d, repetitions));
  file.add("{\"name\": \"peer\", \"version\": \"%s\"}", torch.version().c_str());
  auto const add = [&](figure const& f) { ::add(file, f); };
  for (int const power : {20, 26, 27, 28})
    add(measure({"adamw/2^" + std::to_string(power), 0, false, &torch}, {std::size_t{1} << power}, d, optim::adamw{}));
  add(measure({"adamw/1000 tensors", 0, false, &torch}, mixed(), d, optim::adamw{}));
  add(measure({"adamw/1000 tensors/graph", 0, true, &torch}, mixed(), d, optim::adamw{}));
  add(measure({"lamb/2^27", 0}, {std::size_t{1} << 27}, d, optim::lamb{}));
  add(measure({"lamb/1000 tensors", 0}, mixed(), d, optim::lamb{}));
  add(measure({"lamb/1000 tensors/graph", 0, true}, mixed(), d, optim::lamb{}));

  // AdamW in other formats. Bytes: the gradient, weights read and written, two slots read and written.
  std::vector<std::size_t> const large{std::size_t{1} << 27};
  auto const fp32 = [](memory&) { return optim::gradient::dense{}; };
  auto const bf16s = [](memory& m) { return optim::gradient::half<bf16>{m.half_gradients}; };
  add(measure(
      {"adamw/2^27/bf16 gradients", 2 + 8 + 16}, large, d, [](memory&) { return optim::adamw{}; }, bf16s));
  add(measure(
      {"adamw/2^27/bf16 gradients, mirrored bf16", 2 + 8 + 2 + 16}, large, d,
      [](memory& m) {
        return optim::low_precision_state{optim::adamw{}, optim::fp32_slots{}, optim::master_weights<bf16>{m.halves}};
      },
      bf16s));
  add(measure(
      {"adamw/2^27/bf16 gradients, split weights", 2 + 8 + 16}, large, d,
      [](memory& m) {
        return optim::low_precision_state{optim::adamw{}, optim::fp32_slots{}, optim::split_weights{m.halves}};
      },
      bf16s));
  add(measure(
      {"adamw/2^27/all bf16, rounded", 2 + 4 + 8}, large, d,
      [](memory& m) {
        return optim::low_precision_state{optim::adamw{}, optim::bf16_slots{}, optim::rounded_weights{m.halves}};
      },
      bf16s));
  add(measure(
      {"adamw/2^27/8-bit slots", 4 + 8 + 4 * (1 + 4.0 / optim::storage_block)}, large, d,
      [](memory&) {
        return optim::low_precision_state{optim::adamw{}, optim::blockwise_8bit{}};
      },
      fp32));
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return bench::main_of("bench_cuda_optim", argc, argv, run); }
