// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "rules.hpp"

#include "on_device.hpp"
#include "report.hpp"

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include <dovetail/optim/cuda/engine.cuh>

// One line per case; exit code 1 if one fails, 77 if there is no device.

using namespace dovetail;
using test::failures, test::report, test::said, test::same_bits;
namespace gpu = dovetail::cuda;  // CCCL has a global namespace cuda

namespace {

/// The tensors of rules.hpp in device memory, their gradients loaded step by step.
struct training {
  gpu::device device;
  std::size_t gap;
  gpu::device_buffer<float> weight, gradient;
  parameter_list parameters;

  explicit training(gpu::device d, std::size_t gap = 0)
      : device(d),
        gap(gap),
        weight(spread(test::values(1))),
        gradient(weight.size()),
        parameters(test::list(weight.data(), gradient.data(), gap)) {}

  std::vector<float> spread(std::vector<float> const& flat) const {
    std::vector<float> v(flat.size() + gap * test::sizes.size() + 1, -7.0f);
    std::size_t from = 0, to = 0;
    for (auto const n : test::sizes) {
      std::copy_n(flat.begin() + static_cast<std::ptrdiff_t>(from), n, v.begin() + static_cast<std::ptrdiff_t>(to));
      from += n;
      to += n + gap;
    }
    return v;
  }
  void load(int step, bool poisoned = false) {
    auto g = test::gradients(step);
    if (poisoned) g[g.size() / 2] = std::numeric_limits<float>::quiet_NaN();
    gradient.upload(device, spread(g));
  }
  /// All weights in flat order; `strays` counts changes outside the tensors.
  std::vector<float> weights(int* strays = nullptr) const {
    auto const v = weight.to_host(device);
    std::vector<float> flat;
    std::size_t at = 0;
    for (auto const n : test::sizes) {
      flat.insert(flat.end(), v.begin() + static_cast<std::ptrdiff_t>(at),
                  v.begin() + static_cast<std::ptrdiff_t>(at + n));
      for (std::size_t k = 0; strays && k < gap; ++k) *strays += v[at + n + k] != -7.0f;
      at += n + gap;
    }
    if (strays) *strays += v.back() != -7.0f;
    return flat;
  }
};

/// Largest |a - b| / max(1, |b|): weights and slots are of order 1. A NaN counts as infinite.
double distance(std::span<float const> a, std::span<float const> b) {
  double most = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    double const d = std::abs(double(a[i]) - double(b[i])) / std::max(1.0, std::abs(double(b[i])));
    most = d <= most ? most : std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
  return most;
}

constexpr int steps = 20;
// 20 steps with fused multiply-adds against 20 without.
constexpr double near = 2e-6;

template <class Rule>
void check_rule(char const* name, int number, Rule const& rule, gpu::device d) {
  auto const host = test::on_host(number, steps);
  std::vector<float> packed;
  for (std::size_t const gap : {0u, 0u, 1u}) {  // twice the same, then tensors apart from each other
    training t(d, gap);
    auto state = optim::cuda::init(rule, t.parameters, d);
    for (int i = 0; i < steps; ++i) {
      t.load(i);
      optim::cuda::step(rule, t.parameters, state);
    }
    int strays = 0;
    auto const w = t.weights(&strays);
    auto const title = std::string(name) + (gap ? ", separate tensors" : packed.empty() ? "" : ", again");
    auto worst = distance(w, host.weight);
    auto const slots = state.to_host();
    for (std::size_t s = 0; s < host.slot.size(); ++s) worst = std::max(worst, distance(slots.slot(s), host.slot[s]));
    report(worst <= near, title + " equals the host's engine", said("largest difference", worst));
    report(strays == 0, title + " writes nowhere else");
    auto const r = optim::cuda::result(state);
    report(!r.skipped && r.step == host.last.step && r.lr == host.last.lr &&
               std::abs(r.gradient_norm - host.last.gradient_norm) <= 1e-9 * std::abs(host.last.gradient_norm),
           title + " reports step, rate and norm as the host does", said("norm", r.gradient_norm));
    if (packed.empty())
      packed = w;
    else if (Rule::passes == 1 || gap == 0)
      report(same_bits(w, packed), title + " gives the same bits");
  }
}

void check_skip(gpu::device d) {
  auto const rule = test::clipped();
  auto const host = test::on_host(7, steps, 5);
  training t(d);
  auto state = optim::cuda::init(rule, t.parameters, d);
  for (int i = 0; i < steps; ++i) {
    auto const before = i == 5 ? t.weights() : std::vector<float>{};
    auto const slots = i == 5 ? state.to_host() : optim::state{};
    t.load(i, i == 5);
    optim::cuda::step(rule, t.parameters, state);
    if (i != 5) continue;
    auto const r = optim::cuda::result(state);
    report(r.skipped && r.step == 5, "a non-finite gradient skips the step", said("steps", double(r.step)));
    report(same_bits(before, t.weights()) && slots == state.to_host(), "a skipped step changes nothing");
  }
  report(distance(t.weights(), host.weight) <= near, "after a skipped step the host's and the device's ways are one");
}

template <class Rule>
void check_graph(char const* name, Rule const& rule, gpu::device d) {
  training plain(d), replayed(d);
  auto a = optim::cuda::init(rule, plain.parameters, d);
  auto b = optim::cuda::init(rule, replayed.parameters, d);
  cudaGraph_t graph{};
  cudaGraphExec_t executable{};
  gpu::check(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  optim::cuda::step(rule, replayed.parameters, b);
  gpu::check(cudaStreamEndCapture(d.stream, &graph), "cudaStreamEndCapture");
  gpu::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  for (int i = 0; i < steps; ++i) {
    plain.load(i);
    optim::cuda::step(rule, plain.parameters, a);
    replayed.load(i);
    gpu::check(cudaGraphLaunch(executable, d.stream), "cudaGraphLaunch");
  }
  auto const r = optim::cuda::result(b);
  report(r.step == steps && same_bits(plain.weights(), replayed.weights()) && a.to_host() == b.to_host(),
         std::string(name) + " replayed as a graph equals plain steps", said("steps", double(r.step)));
  gpu::check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

void check_state(gpu::device d) {
  auto const rule = test::adamw();
  training t(d, 1);
  auto state = optim::cuda::init(rule, t.parameters, d);
  for (int i = 0; i < 7; ++i) t.load(i), optim::cuda::step(rule, t.parameters, state);
  auto host = state.to_host();
  report(host.steps() == 7 && host.tensors("optimizer/")[1].name == state.tensors("optimizer/")[0].name,
         "state has the host's names", state.tensors("optimizer/")[0].name);

  training moved(d);  // other addresses, another layout
  moved.weight.upload(d, t.weights());
  auto other = optim::cuda::init(rule, moved.parameters, d);
  other.from_host(host);
  for (int i = 7; i < steps; ++i) {
    t.load(i), optim::cuda::step(rule, t.parameters, state);
    moved.load(i), optim::cuda::step(rule, moved.parameters, other);
  }
  report(same_bits(t.weights(), moved.weights()) && state.to_host() == other.to_host(),
         "state saved by name and loaded elsewhere goes on bit for bit");

  auto copy = state;
  t.load(0), optim::cuda::step(rule, t.parameters, state);
  report(copy.to_host() == other.to_host() && !(state.to_host() == copy.to_host()), "copies of a state are its own");

  bool refused = false;
  try {
    optim::cuda::step(rule, moved.parameters, state);
  } catch (argument_error const&) {
    refused = true;
  }
  report(refused, "tensors at other addresses are refused until they are bound again");

  bool faster = false;
  training s(d);
  optim::sgd opt{.lr = 0.5f};
  auto plain = optim::cuda::init(opt, s.parameters, d);
  opt.lr = 0.25f;
  s.load(0), optim::cuda::step(opt, s.parameters, plain);
  faster = optim::cuda::result(plain).lr == 0.25f;
  report(faster, "a changed learning rate holds from the next step on");
}

int run() {
  cudaStream_t stream{};
  gpu::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  gpu::device const d{0, stream};
#define DOVETAIL_CHECK(number, name) check_rule(#name, number, test::name(), d);
  DOVETAIL_TEST_RULES(DOVETAIL_CHECK)
#undef DOVETAIL_CHECK
  check_skip(d);
  check_graph("adamw", test::adamw(), d);
  check_graph("clipped adamw", test::clipped(), d);
  check_state(d);
  gpu::check(cudaStreamDestroy(stream), "cudaStreamDestroy");
  std::printf("%d failed\n", failures);
  return failures ? 1 : 0;
}

}  // namespace

int main() { return on_device(run); }
