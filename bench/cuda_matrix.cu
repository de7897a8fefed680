// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A step of the rules that precondition matrices, on a device: its time, and that of a step that renews roots or bases.
// The tensors are those of a transformer's block of width 1024; AdamW is there to compare with.
#include <cstdio>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>
#include <dovetail/optim/cuda/matrix.cuh>
#include <dovetail/optim/matrix.hpp>

#include "cuda_program.hpp"

using namespace dovetail;
using bench::median;
namespace gpu = dovetail::cuda;  // CCCL has a global namespace cuda

namespace {

constexpr std::int64_t interval = 10;
constexpr int steps = 2 * static_cast<int>(interval) + 2;

struct figure {
  std::string name;
  double plain, renewing;  ///< medians, in seconds
};

/// `renews(t)` says which steps renew.
template <class Rule, class Renews>
figure measure(std::string const& name, Rule const& rule, Renews const& renews, gpu::device d) {
  std::vector<arena::tensor> const block{{"query", {1024, 1024}}, {"key", {1024, 1024}}, {"value", {1024, 1024}},
                                         {"out", {1024, 1024}},   {"up", {4096, 1024}},  {"down", {1024, 4096}},
                                         {"up_bias", {4096}},     {"down_bias", {1024}}};
  arena host(block);
  std::size_t const n = host.weights().size();
  std::uint32_t random = 1;
  for (float& g : host.gradients())
    g = static_cast<float>((random = random * 1664525u + 1013904223u) >> 8) * 0x1p-24f - 0.5f;
  gpu::device_buffer<float> weight(n), gradient(n);
  gradient.upload(d, host.gradients());
  gpu::parameter_list parameters(cuda_memory{d});
  for (std::size_t i = 0; i < block.size(); ++i) {
    auto const& p = host.parameters()[i];
    auto const at = host.parameters().offset(i);
    parameters.add(p.name, weight.span().subspan(at, p.size()), gradient.span().subspan(at, p.size()), p.shape);
  }
  auto state = rule.init(parameters);
  bench::stopwatch watch;
  std::vector<double> plain, renewing;
  for (int t = 1; t <= steps; ++t) {
    double const seconds = watch.seconds(d.stream, [&] { rule.step(parameters, state); });
    if (t > 2) (renews(t) ? renewing : plain).push_back(seconds);  // the first make handles
  }
  if (optim::cuda::result(state).step != steps) throw numeric_error("a measured step was not applied");
  figure const f{name, median(plain), median(renewing)};
  std::printf("%-12s %12.3f %12.3f\n", name.c_str(), 1e3 * f.plain, 1e3 * f.renewing);
  std::fflush(stdout);
  return f;
}

int run(std::string const& path) {
  bench::stream const own;  // the default one cannot be captured
  gpu::device const d{.index = 0, .stream = own.get()};
  auto const never = [](std::int64_t) { return false; };
  std::printf("%-12s %12s %12s\n", "rule", "step(ms)", "renewing(ms)");
  optim::shampoo const shampoo{.interval = interval};
  // The feed-forward layers' longer sides keep the identity: a basis of order 4096 is renewed in seconds.
  optim::soap const soap{.interval = interval, .largest = 2048};
  bench::figures_file file(path, path.empty() ? "" : bench::context_of(d, steps));
  auto const add = [&](figure const& f) {
    file.add("{\"name\": \"%s\", \"step_s\": %.9g, \"renewing_s\": %.9g}", f.name.c_str(), f.plain, f.renewing);
  };
  add(measure("adamw", optim::adamw{}, never, d));
  add(measure("muon", optim::muon{}, never, d));
  add(measure(
      "shampoo", shampoo, [](std::int64_t t) { return optim::scale_by_shampoo{.interval = interval}.due(t); }, d));
  add(measure(
      "soap", soap, [](std::int64_t t) { return optim::scale_by_soap{.interval = interval}.due(t); }, d));
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return bench::main_of("bench_cuda_matrix", argc, argv, run); }
