// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "matrix_rules.hpp"

#include "on_device.hpp"
#include "report.hpp"

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>

#include <dovetail/optim/cuda/matrix.cuh>
#include <dovetail/optim/cuda/partition.cuh>

// Rules with tensorwise stages. One line per case; exit code 1 if one fails, 77 if there is no device.

using namespace dovetail;
using test::report, test::run_case, test::said, test::same_bits;
namespace gpu = dovetail::cuda;  // CCCL has a global namespace cuda

namespace {

constexpr int steps = 8;
#if defined(DOVETAIL_TEST_SAME_LIBRARIES)
constexpr double near = 5e-6;
#else
// Products in another order, fused multiply-adds, and roots of matrices that make both larger.
constexpr double near = 2e-4;
#endif

/// The tensors in device memory; steps of a rule on them.
template <class Rule>
struct training {
  gpu::device device;
  Rule rule;
  arena host{test::tensors};
  gpu::device_buffer<float> weight, gradient;
  gpu::parameter_list parameters{cuda_memory{device}};
  optim::cuda::state state;

  training(gpu::device d, Rule const& r)
      : device(d), rule(r), weight(host.weights().size(), d), gradient(host.weights().size(), d) {
    test::fill(host.weights(), 1);
    weight.upload(d, host.weights());
    for (std::size_t i = 0; i < host.parameters().size(); ++i) {
      auto const& p = host.parameters()[i];
      auto const at = host.parameters().offset(i);
      parameters.add(p.name, weight.span().subspan(at, p.size()), gradient.span().subspan(at, p.size()), p.shape);
    }
    state = rule.init(parameters);
  }
  void load(int t, bool poisoned = false) {
    test::fill(host.gradients(), static_cast<std::uint64_t>(1000 + t));
    if (poisoned) host.gradients()[7] = std::numeric_limits<float>::quiet_NaN();
    gradient.upload(device, host.gradients());
  }
  void show_layers([[maybe_unused]] int t) {
    if constexpr (optim::optimizer_traits<Rule>::needs.layers)
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        if (!test::layer::of(parameters[i])) continue;
        test::layer l(parameters[i], parameters.offset(i), t);
        gpu::device_buffer<float> const inputs(l.inputs), gradients(l.gradients);
        l.factors.inputs = inputs.data();
        l.factors.output_gradients = gradients.data();
        rule.observe(parameters, state, l.factors);
        device.wait();
      }
  }
  void step(int t, bool poisoned = false) {
    load(t, poisoned);
    show_layers(t);
    rule.step(parameters, state);
  }
  std::vector<float> weights() const { return weight.to_host(device); }
};

/// Largest |a - b| / max(1, largest |b|). A NaN counts as infinite.
double distance(std::span<float const> a, std::span<float const> b) {
  double most = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity(), scale = 1;
  for (float const x : b) scale = std::max(scale, std::abs(double(x)));
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    double const d = std::abs(double(a[i]) - double(b[i])) / scale;
    most = d <= most ? most : std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
  return most;
}

/// Largest distance of slots and arrays. Eigenvectors have no sign of their own: bases are not compared.
double distance(optim::state& device, optim::state& host, std::size_t stages, std::string& where) {
  double most = 0;
  auto const look = [&](double d, std::string const& name) {
    if (!(d <= most)) most = d, where = name;
  };
  for (std::size_t s = 0; s < host.slots(); ++s) look(distance(device.slot(s), host.slot(s)), host.slot_name(s));
  for (std::size_t s = 0; s < stages; ++s)
    for (std::size_t i = 0; i < test::tensors.size(); ++i) {
      auto const a = device.arrays(s, i), b = host.arrays(s, i);
      if (a.size() != b.size()) look(std::numeric_limits<double>::infinity(), "arrays");
      for (std::size_t k = 0; k < a.size() && k < b.size(); ++k) {
        if (a[k].name != b[k].name || !(a[k].shape == b[k].shape))
          look(std::numeric_limits<double>::infinity(), b[k].name);
        else if (b[k].name != "bases")
          look(distance(a[k].values.span(), b[k].values.span()), test::tensors[i].name + '.' + b[k].name);
      }
    }
  return most;
}

template <class Rule>
void check_rule(std::string const& name, int number, Rule const& rule, gpu::device d) {
  auto host = test::on_host(number, steps);
  training<Rule> t(d, rule), again(d, rule);
  for (int i = 0; i < steps; ++i) t.step(i), again.step(i);
  auto const w = t.weights();
  double const worst = distance(w, host.weight);
  report(worst <= near, name + " equals the host's engine", said("largest difference", worst));
  auto state = t.state.to_host();
  std::string where;
  double const apart = distance(state, host.state, optim::cuda::detail::chain_of<Rule>::plan.stages, where);
  report(apart <= near, name + " leaves the host's state", said("largest difference", apart) + " in " + where);
  report(same_bits(w, again.weights()) && again.state.to_host() == state, name + " gives the same bits again");
  auto const r = optim::cuda::result(t.state);
  report(!r.skipped && r.step == host.last.step && r.lr == host.last.lr, name + " reports step and rate");

  // Its state, taken to the host and back, by way of a copy.
  auto copy = again.state;
  again.state = rule.init(again.parameters);
  again.state.from_host(copy.to_host());
  for (int i = steps; i < steps + 4; ++i) t.step(i), again.step(i);
  report(same_bits(t.weights(), again.weights()) && t.state.to_host() == again.state.to_host(),
         name + " goes on from a saved state bit for bit");
}

void check_skip(gpu::device d) {
  auto const rule = test::guarded();
  auto const host = test::on_host(test::guarded_number, steps, 3);
  training t(d, rule);
  for (int i = 0; i < steps; ++i) {
    auto const before = t.weights();
    auto const state = t.state.to_host();
    t.step(i, i == 3);
    if (i != 3) continue;
    auto const r = optim::cuda::result(t.state);
    report(r.skipped && r.step == 3 && same_bits(before, t.weights()) && state == t.state.to_host(),
           "a non-finite gradient skips the step, which changes nothing", said("steps", double(r.step)));
  }
  report(distance(t.weights(), host.weight) <= near, "after a skipped step the host's and the device's ways are one");
}

/// Muon for matrices and AdamW for the rest, as one rule and as two.
void check_mixed(gpu::device d) {
  auto const matrices = [](std::string_view, shape const& s) { return s.rank == 2; };
  optim::partition const both{optim::adamw{.lr = 0.01f}, optim::group{matrices, test::muon()}};
  training<optim::adamw> together(d, optim::adamw{.lr = 0.01f}), apart(d, optim::adamw{.lr = 0.01f});
  auto state = both.init(together.parameters);
  gpu::parameter_list large(cuda_memory{d}), rest(cuda_memory{d});
  for (auto const& p : apart.parameters) (p.shape.rank == 2 ? large : rest).add(p.name, p.weight, p.gradient, p.shape);
  auto first = test::muon().init(large);
  auto second = apart.rule.init(rest);
  for (int i = 0; i < steps; ++i) {
    together.load(i), apart.load(i);
    both.step(together.parameters, state);
    test::muon().step(large, first);
    apart.rule.step(rest, second);
  }
  report(same_bits(together.weights(), apart.weights()) && optim::cuda::result(state).step == steps,
         "muon and adamw as one rule leave the bits of two");
  auto const saved = state.to_host();
  auto again = both.init(together.parameters);
  again.from_host(saved);
  report(again.to_host() == saved, "the state of several rules goes to the host and back");
}

/// Handles of cuBLAS and room of a device that is not the thread's current one.
void check_other_device(gpu::device d) {
  if (gpu::device_count() < 2) return std::puts("--      one device: nothing is shown about two"), void();
  test::stream const stream(1);
  training here(d, test::soap()), there({1, stream.get()}, test::soap());
  for (int i = 0; i < 4; ++i) here.step(i), there.step(i);
  there.state = decltype(there.state)(there.state);  // which makes handles of its own
  here.step(4), there.step(4);
  int current = -1;
  gpu::check(cudaGetDevice(&current), "cudaGetDevice");
  report(same_bits(here.weights(), there.weights()) && current == d.index, "soap on another device");
}

/// Captures one step; false if it is refused.
template <class Rule>
bool capture(training<Rule>& t, cudaGraph_t& graph) {
  gpu::check(cudaStreamBeginCapture(t.device.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  bool refused = false;
  try {
    t.rule.step(t.parameters, t.state);
  } catch (argument_error const&) {
    refused = true;
  }
  gpu::check(cudaStreamEndCapture(t.device.stream, &graph), "cudaStreamEndCapture");
  return !refused;
}
template <class Rule>
void check_graph(std::string const& name, Rule const& rule, gpu::device d) {
  training<Rule> plain(d, rule), replayed(d, rule);
  plain.step(0), replayed.step(0);  // makes handles and room
  cudaGraph_t graph{};
  if (!capture(replayed, graph)) return report(false, name + " can be captured in a graph");
  cudaGraphExec_t executable{};
  gpu::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  for (int i = 1; i < steps; ++i) {
    plain.step(i);
    replayed.load(i);
    gpu::check(cudaGraphLaunch(executable, d.stream), "cudaGraphLaunch");
  }
  auto const r = optim::cuda::result(replayed.state);
  report(r.step == steps && same_bits(plain.weights(), replayed.weights()),
         name + " replayed as a graph equals plain steps", said("steps", double(r.step)));
  gpu::check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
}
template <class Rule>
void check_no_graph(std::string const& name, Rule const& rule, gpu::device d) {
  training<Rule> t(d, rule);
  t.step(0);
  cudaGraph_t graph{};
  report(!capture(t, graph), name + " is refused in a graph");
  if (graph) gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

int run() {
  test::stream const stream(0);
  gpu::device const d{0, stream.get()};
#define DOVETAIL_CHECK(number, name) run_case(#name, [&] { check_rule(#name, number, test::name(), d); });
  DOVETAIL_TEST_MATRIX_RULES(DOVETAIL_CHECK)
#undef DOVETAIL_CHECK
  run_case("other_device", [&] { check_other_device(d); });
  run_case("skip", [&] { check_skip(d); });
  run_case("mixed", [&] { check_mixed(d); });
  run_case("graph_of_muon", [&] { check_graph("muon", test::muon(), d); });
  run_case("graph_of_sm3", [&] { check_graph("sm3", test::sm3(), d); });
  run_case("graph_of_row_wise_adagrad", [&] { check_graph("row-wise adagrad", test::row_wise_adagrad(), d); });
  run_case("no_graph_of_shampoo", [&] { check_no_graph("shampoo", test::shampoo(), d); });
  run_case("no_graph_of_soap", [&] { check_no_graph("soap", test::soap(), d); });
  run_case("no_graph_of_adafactor", [&] { check_no_graph("adafactor", test::adafactor(), d); });
  run_case("no_graph_of_a_rule_that_can_skip", [&] { check_no_graph("a rule that can skip", test::guarded(), d); });
  return test::conclude();
}

}  // namespace

int main(int argc, char** argv) {
  test::choose(argc, argv);
  return on_device(run);
}
