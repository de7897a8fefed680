// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "rules.hpp"

#include "on_device.hpp"
#include "report.hpp"

#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include <dovetail/optim/cuda/engine.cuh>
#include <dovetail/optim/cuda/partition.cuh>

// One line per case; exit code 1 if one fails, 77 if there is no device.

using namespace dovetail;
using test::report, test::run_case, test::said, test::same_bits;
namespace gpu = dovetail::cuda;  // CCCL has a global namespace cuda

namespace {

/// The tensors of rules.hpp in device memory, their gradients loaded step by step.
struct training {
  gpu::device device;
  std::size_t gap;
  gpu::device_buffer<float> weight, gradient;
  gpu::parameter_list parameters;

  explicit training(gpu::device d, std::size_t gap = 0)
      : device(d),
        gap(gap),
        weight(spread(test::values(1)), d),
        gradient(weight.size(), d),
        parameters(test::list(weight.data(), gradient.data(), gap, cuda_memory{d})) {}

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
// What sums in another order leave behind. Rules without sums leave the host's bits.
constexpr double near = 4e-6;

struct device_outcome {
  std::vector<float> weight;
  int strays = 0;
  optim::state state;
  optim::step_result last;
};
/// All that is compiled for each rule.
template <class Rule>
device_outcome steps_of(Rule const& rule, gpu::device d, std::size_t gap) {
  training t(d, gap);
  auto state = rule.init(t.parameters);
  for (int i = 0; i < steps; ++i) {
    t.load(i);
    rule.step(t.parameters, state);
  }
  device_outcome o;
  o.weight = t.weights(&o.strays);
  o.state = state.to_host();
  o.last = optim::cuda::result(state);
  return o;
}

void check_rule(std::string const& name, bool one_pass, std::function<device_outcome(std::size_t gap)> const& run) {
  auto const host = test::on_host(name, steps);
  std::vector<float> packed;
  for (std::size_t const gap : {0u, 0u, 1u}) {  // twice the same, then tensors apart from each other
    auto const o = run(gap);
    auto const title = name + (gap ? ", separate tensors" : packed.empty() ? "" : ", again");
    auto worst = distance(o.weight, host.weight);
    bool same = same_bits(o.weight, host.weight);
    for (std::size_t s = 0; s < host.slot.size(); ++s) {
      worst = std::max(worst, distance(o.state.slot(s), host.slot[s]));
      same = same && same_bits(o.state.slot(s), host.slot[s]);
    }
    report(one_pass ? same : worst <= near,
           title + (one_pass ? " leaves the host's bits" : " equals the host's engine"),
           said("largest difference", worst));
    report(o.strays == 0, title + " writes nowhere else");
    report(!o.last.skipped && o.last.step == host.last.step && o.last.lr == host.last.lr &&
               std::abs(o.last.gradient_norm - host.last.gradient_norm) <= 1e-9 * std::abs(host.last.gradient_norm),
           title + " reports step, rate and norm as the host does", said("norm", o.last.gradient_norm));
    if (packed.empty())
      packed = o.weight;
    else if (one_pass || gap == 0)
      report(same_bits(o.weight, packed), title + " gives the same bits");
  }
}

void check_skip(gpu::device d) {
  auto const rule = test::clipped();
  auto const host = test::on_host("clipped", steps, 5);
  training t(d);
  auto state = rule.init(t.parameters);
  for (int i = 0; i < steps; ++i) {
    auto const before = i == 5 ? t.weights() : std::vector<float>{};
    auto const slots = i == 5 ? state.to_host() : optim::state{};
    t.load(i, i == 5);
    rule.step(t.parameters, state);
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
  auto a = rule.init(plain.parameters);
  auto b = rule.init(replayed.parameters);
  cudaGraph_t graph{};
  cudaGraphExec_t executable{};
  gpu::check(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  rule.step(replayed.parameters, b);
  gpu::check(cudaStreamEndCapture(d.stream, &graph), "cudaStreamEndCapture");
  gpu::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  for (int i = 0; i < steps; ++i) {
    plain.load(i);
    rule.step(plain.parameters, a);
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
  auto state = rule.init(t.parameters);
  for (int i = 0; i < 7; ++i) t.load(i), rule.step(t.parameters, state);
  auto host = state.to_host();
  report(host.steps() == 7 && host.tensors("optimizer/")[1].name == state.tensors("optimizer/")[0].name,
         "state has the host's names", state.tensors("optimizer/")[0].name);

  training moved(d);  // other addresses, another layout
  moved.weight.upload(d, t.weights());
  auto other = rule.init(moved.parameters);
  other.from_host(host);
  for (int i = 7; i < steps; ++i) {
    t.load(i), rule.step(t.parameters, state);
    moved.load(i), rule.step(moved.parameters, other);
  }
  report(same_bits(t.weights(), moved.weights()) && state.to_host() == other.to_host(),
         "state saved by name and loaded elsewhere goes on bit for bit");

  auto copy = state;
  t.load(0), rule.step(t.parameters, state);
  report(copy.to_host() == other.to_host() && !(state.to_host() == copy.to_host()), "copies of a state are its own");

  bool refused = false;
  try {
    rule.step(moved.parameters, state);
  } catch (argument_error const&) {
    refused = true;
  }
  report(refused, "tensors at other addresses are refused until they are bound again");

  bool faster = false;
  training s(d);
  optim::sgd opt{.lr = 0.5f};
  auto plain = opt.init(s.parameters);
  opt.lr = 0.25f;
  s.load(0), opt.step(s.parameters, plain);
  faster = optim::cuda::result(plain).lr == 0.25f;
  report(faster, "a changed learning rate holds from the next step on");
}

/// A state of another device than the thread's current one, whose life changes nothing of it.
void check_other_device(gpu::device d) {
  if (gpu::device_count() < 2) return std::puts("--      one device: nothing is shown about two"), void();
  int wrong = 0;
  auto const look = [&] {
    int i = -1;
    gpu::check(cudaGetDevice(&i), "cudaGetDevice");
    wrong += i != d.index;
  };
  test::stream const stream(1);
  gpu::device const other{1, stream.get()};
  look();
  auto const rule = test::clipped();
  training here(d), there(other), moved(other, 1);
  auto a = rule.init(here.parameters);
  auto b = rule.init(there.parameters);
  look();
  for (int i = 0; i < 3; ++i) {
    here.load(i), rule.step(here.parameters, a);
    there.load(i), rule.step(there.parameters, b), look();
  }
  auto const copy = b;  // its memory, too, is on the other device
  look();
  here.load(3), rule.step(here.parameters, a);
  there.load(3), rule.step(there.parameters, b), look();
  report(same_bits(here.weights(), there.weights()) && a.to_host() == b.to_host(),
         "another device gives the same bits");
  look();
  moved.weight.upload(other, moved.spread(there.weights()));
  optim::cuda::rebind(rule, moved.parameters, b);
  look();
  b.from_host(a.to_host());
  look();
  here.load(4), rule.step(here.parameters, a);
  moved.load(4), rule.step(moved.parameters, b);
  auto again = copy;
  again = b;
  report(distance(here.weights(), moved.weights()) <= near && again.to_host() == b.to_host() &&
             optim::cuda::result(again).step == 5 && copy.record().steps == 3,
         "copied, bound again and loaded there");
  { auto const gone = std::move(b); }
  look();
  report(wrong == 0, "the thread's current device stays what it was", said("changes", wrong));
}

/// A state takes and gives back its memory in its stream's order, and goes to the host and back in few copies.
void check_quiet([[maybe_unused]] gpu::device d) {
#if defined(DOVETAIL_EMULATED_CUDA)
  auto const rule = test::clipped();
  training t(d);
  auto const before = emulated::stalls();
  {
    auto state = rule.init(t.parameters);
    t.load(0), rule.step(t.parameters, state);
    auto copy = state;
    copy = rule.init(t.parameters);
    auto copies = emulated::copies();
    copy.from_host(state.to_host());
    copies = emulated::copies() - copies;
    report(copies <= 8, "tensors in a row go to the host and back together", said("copies", double(copies)));
  }
  report(emulated::stalls() == before, "a state's life stalls no other stream");
#endif
}

/// What a step is told: a factor of gradients is that of gradients in memory; what a device cannot do is refused.
void check_context(gpu::device d) {
  auto const weights = [&](float in_memory, auto const& step) {
    training t(d);
    auto state = test::clipped().init(t.parameters);
    for (int i = 0; i < 3; ++i) {
      auto g = test::gradients(i);
      for (float& x : g) x *= in_memory;
      t.gradient.upload(d, t.spread(g));
      step(t.parameters, state);
    }
    return t.weights();
  };
  auto const plain = weights(1, [](auto& p, auto& s) { test::clipped().step(p, s); });
  report(same_bits(weights(4, [](auto& p, auto& s) { test::clipped().step(p, s, {.gradient_factor = 0.25f}); }), plain),
         "a factor of gradients gives the bits of gradients that were multiplied");
  report(same_bits(weights(4,
                           [](auto& p, auto& s) {
                             test::clipped().step(p, s, optim::gradient::scaled{0.5f}, {.gradient_factor = 0.5f});
                           }),
                   plain),
         "the source's factor and the step's are multiplied");
  training t(d);
  auto state = test::adamw().init(t.parameters);
  auto const refused = [&](optim::step_context const& context) {
    try {
      test::adamw().step(t.parameters, state, context);
    } catch (argument_error const&) {
      return true;
    }
    return false;
  };
  report(refused({.gradient_factor = std::numeric_limits<float>::infinity()}), "an infinite factor is refused");
  report(refused({.all_reduce_sums = [](std::span<double>) {}}), "sums over ranks are refused");
}

/// An estimate of the Hessian's diagonal goes into the slot that the host's engine puts it into, or changes nothing.
void check_curvature(gpu::device d) {
  auto const check = [&](char const* name, auto const& rule, std::size_t slot, auto const& observed) {
    training t(d);
    auto state = rule.init(t.parameters);
    auto estimate = test::values(77);
    std::vector<float> expected(estimate.size());
    for (int turn = 0; turn < 2; ++turn) {
      gpu::device_buffer<float> there(estimate, d);
      rule.observe(t.parameters, state, optim::hessian_diagonal{there.span()});
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = observed(expected[i], estimate[i]);
      d.wait();
    }
    report(same_bits(state.to_host().slot(slot), expected), std::string(name) + " takes in the diagonal");
    estimate[estimate.size() / 3] = std::numeric_limits<float>::quiet_NaN();
    gpu::device_buffer<float> there(estimate, d);
    rule.observe(t.parameters, state, optim::hessian_diagonal{there.span()});
    report(same_bits(state.to_host().slot(slot), expected), std::string(name) + " takes in no NaN");
  };
  optim::scale_by_sophia const direction{.beta2 = 0.75f};
  check("sophia", optim::sophia{.beta2 = 0.75f}, 1, [&](float h, float e) { return direction.observed(h, e); });
  // Averages over the kernels of a convolution, row-major and column-major.
  std::vector<float> const estimate{1, 2, 3, 4, 5, 6, 7, 8}, zeros(8);
  for (bool const turned : {false, true}) {
    gpu::device_buffer<float> weight(zeros, d), gradient(zeros, d), there(estimate, d);
    gpu::parameter_list p(cuda_memory{d});
    p.add("w", weight.span(), gradient.span(), {2, 1, 2, 2}, turned ? layout::column_major : layout::row_major);
    optim::adahessian const rule{};
    auto state = rule.init(p);
    rule.observe(p, state, optim::hessian_diagonal{there.span()});
    d.wait();
    auto own = state.to_host();
    auto const h = own.slot(2);
    auto const mean = [&](std::size_t i) { return turned ? (i % 2 ? 5.0f : 4.0f) : (i < 4 ? 2.5f : 6.5f); };
    bool right = true;
    for (std::size_t i = 0; i < 8; ++i) right = right && h[i] == optim::scale_by_adahessian{}.observed(0.0f, mean(i));
    report(right, turned ? "averages of a column-major kernel" : "averages of a kernel");
    // Of a rule among others, that of its own tensors; another rule's state is refused.
    gpu::device_buffer<float> other_weight(zeros, d), other_gradient(zeros, d), both(std::vector<float>(16, 0.5f), d);
    gpu::parameter_list two(cuda_memory{d});
    two.add("v", other_weight.span(), other_gradient.span(), {8});
    two.add("w", weight.span(), gradient.span(), {2, 1, 2, 2}, turned ? layout::column_major : layout::row_major);
    both.queue_upload(d, estimate, 8);
    optim::partition const parts{optim::adamw{}, optim::group{optim::name_matches{"w"}, rule}};
    auto divided = parts.init(two);
    parts.observe(two, divided, optim::hessian_diagonal{both.span()});
    d.wait();
    auto all = divided.to_host();
    report(same_bits(std::get<1>(all.parts).state.slot(2), h), "a rule among others takes in its own");
    bool refused = false;
    try {
      optim::sophia{}.observe(p, state, optim::hessian_diagonal{there.span()});
    } catch (argument_error const&) {
      refused = true;
    }
    report(refused, "the state of another rule is refused");
  }
}

/// A partition refuses what the host's does: names that two rules' states would share in a file, and, before one of the
/// rules has stepped, a step that could not be counted.
void check_partition(gpu::device const& d) {
  gpu::device_buffer<float> memory(std::vector<float>(16), d);
  auto const all = memory.span();
  auto const refused = [](auto const& f, char const* why) {
    try {
      f();
    } catch (argument_error const& e) {
      return std::string(e.what()).find(why) != std::string::npos;
    }
    return false;
  };
  auto const list = [&](char const* first, char const* second) {
    gpu::parameter_list p(cuda_memory{d});
    p.add(first, all.subspan(0, 4), all.subspan(4, 4), {4});
    p.add(second, all.subspan(8, 4), all.subspan(12, 4), {4});
    return p;
  };
  auto const both = [](auto const& rule, char const* pattern) {
    return optim::partition{rule, optim::group{optim::name_matches{pattern}, rule}};
  };
  auto const twice = list("w", "group1.w");
  optim::momentum const plain;
  optim::low_precision_state const packed{plain, optim::blockwise_8bit{}};
  auto const shared = [&](auto const& rule) {
    return refused([&] { both(rule, "w").init(twice); }, "saved as 'group1.w.momentum_buffer");
  };
  report(shared(plain) && shared(packed), "names that two states would share are refused");
  both(plain, "*w").init(twice);
  both(packed, "group1.*").init(twice);

  auto const two = list("w", "b");
  optim::partition const parts{optim::frozen{}, optim::group{optim::name_matches{"b"}, plain}};
  auto s = parts.init(two);
  auto const frozen = [&]() -> auto& { return std::get<0>(s.parts).state.steps; };
  std::get<1>(s.parts).state.set_steps(largest_count - 1);
  bool const of_rule = refused([&] { parts.step(two, s); }, "number of this step") && frozen() == 0;
  std::get<1>(s.parts).state.set_steps(0);
  frozen() = largest_count - 1;
  report(of_rule && refused([&] { parts.step(two, s); }, "number of this step"),
         "a step that could not be counted is refused before one of the rules has stepped");
}

/// Enough pieces for a device's multiprocessors, all elements in one of them, and the same ones whatever the device.
void check_pieces() {
  using optim::cuda::packed_piece, optim::cuda::plain_piece;
  auto const pieces = [](std::vector<std::size_t> const& sizes, bool merge) {
    std::vector<optim::cuda::place> places;
    std::size_t at = 4096;  // addresses that nobody follows
    for (auto const n : sizes) {
      places.push_back({reinterpret_cast<float*>(at), reinterpret_cast<std::byte const*>(at), n, 0});
      at += n * sizeof(float);
    }
    auto const begin = optim::cuda::slot_layout(places, sizeof(float));
    auto const t = optim::cuda::make_pieces(places, sizeof(float), begin, plain_piece, merge);
    std::size_t covered = 0;
    for (auto const& p : t.pieces) covered = p.slot == covered ? covered + p.count : 0;
    return std::pair(t.pieces.size(), covered);
  };
  constexpr std::size_t one = std::size_t{1} << 20, most = std::size_t{1} << 24;
  report(pieces({one}, true) == std::pair(one / 2048, one), "2^20 elements are 512 pieces");
  report(pieces({one, 3, one}, true) == std::pair(2 * one / 2048 + 1, 2 * one + 3), "neighbors are one run");
  report(pieces({one, 3, one}, false) == std::pair(2 * one / 2048 + 2, 2 * one + 3), "or each tensor has its own");
  report(packed_piece(most - 1) == 2048, "below 2^24 packed pieces are short");
  report(packed_piece(most) == 16384, "from there, long");
}

/// The device has no loss, and what maps whole tensors is in matrix.cu.
template <class Rule>
void check_listed(char const* name, gpu::device d) {
  if constexpr (!optim::optimizer_traits<Rule>::needs.loss &&
                static_cast<optim::plan const&>(Rule::plan).tensorwise == 0)
    run_case(name, [&] {
      auto const rule = test::configured<Rule>(name);
      check_rule(name, Rule::passes == 1, [&](std::size_t gap) { return steps_of(rule, d, gap); });
    });
}

int run() {
  test::stream const stream(0);
  gpu::device const d{0, stream.get()};
#define DOVETAIL_RULE(family, name) check_listed<optim::name>(#name, d);
#include <dovetail/optim/rules/list.inc.hpp>
#define DOVETAIL_CHECK(name)                                                                      \
  run_case(#name, [&] {                                                                           \
    auto const rule = test::name();                                                               \
    check_rule(#name, rule.passes == 1, [&](std::size_t gap) { return steps_of(rule, d, gap); }); \
  });
  DOVETAIL_TEST_CHAINS(DOVETAIL_CHECK)
#undef DOVETAIL_CHECK
  run_case("skip", [&] { check_skip(d); });
  run_case("graph_of_adamw", [&] { check_graph("adamw", test::adamw(), d); });
  run_case("graph_of_clipped_adamw", [&] { check_graph("clipped adamw", test::clipped(), d); });
  run_case("state", [&] { check_state(d); });
  run_case("context", [&] { check_context(d); });
  run_case("curvature", [&] { check_curvature(d); });
  run_case("partition", [&] { check_partition(d); });
  run_case("pieces", [&] { check_pieces(); });
  run_case("other_device", [&] { check_other_device(d); });
  run_case("quiet", [&] { check_quiet(d); });
  return test::conclude();
}

}  // namespace

int main(int argc, char** argv) {
  test::choose(argc, argv);
  return on_device(run);
}
