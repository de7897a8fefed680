// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "format_rules.hpp"

#include "on_device.hpp"
#include "report.hpp"

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <type_traits>

#include <dovetail/optim/cuda/partition.cuh>

// Groups of hyperparameters, and formats other than fp32. One line per case; exit code 1 if one fails, 77 if there is
// no device.

using namespace dovetail;
using test::report, test::run_case, test::said, test::same_bits;
namespace gpu = dovetail::cuda;  // CCCL has a global namespace cuda

namespace {

constexpr int steps = 8;
// Where sums are added in another order. Where codes are rounded stochastically besides, a last bit decides one in very
// many of them otherwise: by a step of bf16, or by an eighth of a slot.
constexpr double near = 4e-6, near_codes = 3e-2, share_of_codes = 2e-3;

template <class T>
std::vector<T> spread(std::vector<T> const& flat, std::size_t gap, T filler) {
  std::vector<T> v;
  std::size_t from = 0;
  for (auto const n : test::sizes) {
    for (std::size_t k = 0; k < n; ++k) v.push_back(flat[from + k]);
    v.insert(v.end(), gap, filler);
    from += n;
  }
  v.push_back(filler);
  return v;
}
/// Takes the gaps out again; counts what was written there.
template <class T>
std::vector<T> gathered(std::vector<T> const& v, std::size_t gap, T filler, int& strays) {
  std::vector<T> flat;
  std::size_t at = 0;
  for (auto const n : test::sizes) {
    for (std::size_t k = 0; k < n; ++k) flat.push_back(v[at + k]);
    for (std::size_t k = 0; k < gap; ++k) strays += std::memcmp(&v[at + n + k], &filler, sizeof(T)) != 0;
    at += n + gap;
  }
  strays += std::memcmp(&v.back(), &filler, sizeof(T)) != 0;
  return flat;
}

/// A case's memory on the device, and its state.
template <class Case>
struct training {
  gpu::device device;
  std::size_t gap;
  gpu::device_buffer<float> weight, gradient;
  gpu::device_buffer<bf16> half, half_gradient;
  gpu::device_buffer<fp16> half16, half16_gradient;
  test::halves halves;
  gpu::parameter_list parameters;
  decltype(Case::rule(test::halves{})) rule;
  std::remove_cvref_t<decltype(rule.init(parameters))> state;

  training(gpu::device d, std::size_t gap)
      : device(d),
        gap(gap),
        weight(spread(test::values(1), gap, -7.0f), d),
        gradient(weight.size(), d),
        half(spread(test::as_halves<bf16>(test::values(1)), gap, bf16(-7.0f)), d),
        half_gradient(weight.size(), d),
        half16(spread(test::as_halves<fp16>(test::values(1)), gap, fp16(-7.0f)), d),
        half16_gradient(weight.size(), d),
        halves(half.data(), half16.data(), half_gradient.data(), half16_gradient.data(), gap),
        parameters(Case::elsewhere ? test::elsewhere_list(cuda_memory{d})
                                   : test::list(weight.data(), gradient.data(), gap, cuda_memory{d})),
        rule(Case::rule(halves)) {
    test::with_source<Case::gradients>(halves, [&](auto const& source) { state = rule.init(parameters, source); });
  }
  void load(int i) {
    auto const g = test::gradients(i);
    gradient.upload(device, spread(g, gap, 0.0f));
    half_gradient.upload(device, spread(test::as_halves<bf16>(g), gap, bf16(0.0f)));
    half16_gradient.upload(device, spread(test::as_halves<fp16>(g), gap, fp16(0.0f)));
  }
  void queue() {
    test::with_source<Case::gradients>(halves, [&](auto const& source) { rule.step(parameters, state, source); });
  }
  void step(int i) {
    load(i);
    queue();
  }
  test::format_outcome outcome(int& strays) {
    test::format_outcome o;
    o.weight = gathered(weight.to_host(device), gap, -7.0f, strays);
    o.half = gathered(half.to_host(device), gap, bf16(-7.0f), strays);
    o.half16 = gathered(half16.to_host(device), gap, fp16(-7.0f), strays);
    auto host = state.to_host();
    o.state = test::kept_of(host);
    o.last = optim::cuda::result(state);
    return o;
  }
};

double distance(std::vector<float> const& a, std::vector<float> const& b) {
  double most = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    double const d = std::abs(double(a[i]) - double(b[i])) / std::max(1.0, std::abs(double(b[i])));
    most = d <= most ? most : std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
  return most;
}
template <class Half>
std::vector<float> widened(std::vector<Half> const& h) {
  std::vector<float> v;
  for (auto const x : h) v.push_back(static_cast<float>(x));
  return v;
}
template <class T>
bool equal_bytes(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}
bool equal(test::format_outcome const& a, test::format_outcome const& b) {
  return same_bits(a.weight, b.weight) && equal_bytes(a.half, b.half) && equal_bytes(a.half16, b.half16) &&
         a.state == b.state;
}

std::vector<float> as_floats(test::kept const& k) {
  std::vector<float> v(k.bytes.size() / sizeof(float));
  if (!v.empty()) std::memcpy(v.data(), k.bytes.data(), k.bytes.size());
  return v;
}
/// Of two states: the largest difference of fp32 arrays, and the share of codes (bf16 or 8 bits) that differ. Sums in
/// another order are in every last bit of the first, but tip few of the second.
struct state_difference {
  double fp32 = 0, codes = 0;
};
state_difference difference(std::vector<test::kept> const& a, std::vector<test::kept> const& b) {
  constexpr state_difference all_of_it{std::numeric_limits<double>::infinity(), 1};
  state_difference d;
  std::size_t other = 0, all = 1;
  if (a.size() != b.size()) return all_of_it;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].name != b[i].name || a[i].type != b[i].type || a[i].bytes.size() != b[i].bytes.size()) return all_of_it;
    if (a[i].type == dtype::f32) {  // slots, and the scales of codes
      d.fp32 = std::max(d.fp32, distance(as_floats(a[i]), as_floats(b[i])));
    } else if (a[i].name.ends_with(".low")) {  // the lower halves of weights: joined() compares the whole
    } else if (std::size_t const width = size_of(a[i].type); width <= 2) {
      for (std::size_t k = 0; k < a[i].bytes.size(); k += width)
        other += std::memcmp(&a[i].bytes[k], &b[i].bytes[k], width) != 0;
      all += a[i].bytes.size() / width;
    } else if (a[i].bytes != b[i].bytes) {  // counters
      return all_of_it;
    }
  }
  d.codes = double(other) / double(all);
  return d;
}
/// That it sees what it should, and nothing else.
void check_difference() {
  auto const bytes_of = [](auto const& v) {
    auto const b = std::as_bytes(std::span(v));
    return std::vector<std::byte>(b.begin(), b.end());
  };
  std::vector<float> const slot(1000, 0.75f), near_by(1000, std::nextafter(0.75f, 1.0f)), far(1000, 0.76f);
  std::vector<std::uint8_t> code(999, 7), other = code;
  other[3] = 8;
  auto const state = [&](std::vector<float> const& s, std::vector<std::uint8_t> const& c, std::int64_t step) {
    return std::vector<test::kept>{{"w.m", dtype::f32, bytes_of(s)},
                                   {"w.v", dtype::u8, bytes_of(c)},
                                   {"step", dtype::i64, bytes_of(std::vector{step})}};
  };
  auto const a = state(slot, code, 5);
  auto const last_bits = difference(a, state(near_by, code, 5)), large = difference(a, state(far, code, 5)),
             tipped = difference(a, state(slot, other, 5)), steps_apart = difference(a, state(slot, code, 6));
  report(last_bits.codes == 0 && last_bits.fp32 > 0 && last_bits.fp32 <= near, "last bits of fp32 slots are no codes");
  report(large.fp32 > near_codes / 4 && large.codes == 0, "fp32 slots are compared by distance");
  report(tipped.codes == 1.0 / 1000 && tipped.fp32 == 0, "codes that differ are counted");
  report(steps_apart.codes == 1, "counters are the same");
}

/// Weights that are kept in two halves; empty for other cases.
std::vector<float> joined(test::format_outcome const& o) {
  std::vector<float> w;
  for (auto const& k : o.state)
    if (k.name.ends_with(".low"))
      for (std::size_t at = 0; at < k.bytes.size(); at += 2) {
        std::uint16_t low = 0;
        std::memcpy(&low, &k.bytes[at], sizeof low);
        w.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(o.half[w.size()].bits) << 16 | low));
      }
  return w;
}

template <class Case>
void check(int number, gpu::device d) {
  std::string const name = Case::name;
  auto const host = test::formats_on_host(number, steps);
  test::format_outcome first;
  for (std::size_t const gap : {0, 0, 1}) {  // twice the same, then tensors apart from each other
    training<Case> t(d, gap);
    for (int i = 0; i < steps; ++i) t.step(i);
    int strays = 0;
    auto const o = t.outcome(strays);
    auto const title = name + (gap ? ", separate tensors" : first.weight.empty() ? "" : ", again");
    auto const state = difference(o.state, host.state);
    double const fp32 = std::max({distance(o.weight, host.weight), distance(joined(o), joined(host)), state.fp32});
    double const halves =
        std::max(distance(widened(o.half), widened(host.half)), distance(widened(o.half16), widened(host.half16)));
    auto const differences =
        said("largest difference of fp32", fp32) + said(", of halves", halves) + said(", other codes", state.codes);
    using test::tipped;
    if constexpr (Case::has_sums)
      report(fp32 <= (Case::tips == tipped::codes ? near_codes : near) &&
                 halves <= (Case::tips == tipped::nothing ? near : near_codes) &&
                 state.codes <= (Case::tips == tipped::codes ? share_of_codes : 0),
             title + " equals the host's engine", differences);
    else
      report(equal(o, host), title + " leaves the host's bits", differences);
    report(strays == 0, title + " writes nowhere else");
    report(!o.last.skipped && o.last.step == host.last.step && o.last.lr == host.last.lr,
           title + " reports step and rate as the host does", said("rate", double(o.last.lr)));
    if (first.weight.empty())
      first = o;
    else if (!Case::has_sums || gap == 0)
      report(equal(o, first), title + " gives the same bits");
  }
}

/// A state taken to the host and back, a copy, and a graph go on with the same bits.
template <class Case>
void check_state(gpu::device d) {
  std::string const name = Case::name;
  training<Case> plain(d, 0), loaded(d, 1), replayed(d, 0);
  for (int i = 0; i < 3; ++i) plain.step(i), loaded.step(i), replayed.step(i);
  auto const copy = loaded.state;
  loaded.step(7);
  loaded.state.from_host(copy.to_host());
  int strays = 0;
  auto const at = plain.outcome(strays);
  loaded.weight.upload(d, spread(at.weight, 1, -7.0f));
  loaded.half.upload(d, spread(at.half, 1, bf16(-7.0f)));
  loaded.half16.upload(d, spread(at.half16, 1, fp16(-7.0f)));

  cudaGraph_t graph{};
  cudaGraphExec_t executable{};
  gpu::check(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  replayed.queue();
  gpu::check(cudaStreamEndCapture(d.stream, &graph), "cudaStreamEndCapture");
  gpu::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  for (int i = 3; i < steps; ++i) {
    plain.step(i);
    loaded.step(i);
    replayed.load(i);
    gpu::check(cudaGraphLaunch(executable, d.stream), "cudaGraphLaunch");
  }
  auto const o = plain.outcome(strays);
  report(equal(o, loaded.outcome(strays)), name + " goes on from a saved state bit for bit");
  report(equal(o, replayed.outcome(strays)), name + " replayed as a graph equals plain steps");
  report(strays == 0, name + " writes nowhere else when loaded or replayed");
  gpu::check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

/// A copy of a state of another device than the thread's current one goes on there.
template <class Case>
void check_other_device(gpu::device d) {
  if (gpu::device_count() < 2) return std::puts("--      one device: nothing is shown about two"), void();
  test::stream const stream(1);
  training<Case> here(d, 0), there({1, stream.get()}, 0);
  for (int i = 0; i < 2; ++i) here.step(i), there.step(i);
  { there.state = decltype(there.state)(there.state); }
  here.step(2), there.step(2);
  int strays = 0;
  report(equal(here.outcome(strays), there.outcome(strays)), std::string(Case::name) + " on another device");
}

template <class F>
void refused(char const* what, F const& f) {
  bool was = false;
  try {
    f();
  } catch (argument_error const&) {
    was = true;
  }
  report(was, std::string(what) + " is refused");
}
void check_refusals(gpu::device d) {
  training<test::all_small> t(d, 0);
  auto other = t.halves;
  other.weights[3] = other.weights[4].first(other.weights[3].size() > 4 ? 4 : other.weights[3].size());
  refused("a half of another size", [&] {
    test::all_small::rule(other).step(t.parameters, t.state, optim::gradient::half<bf16>{t.halves.gradients, 0.5f});
  });
  training<test::all_small> moved(d, 1);
  refused("halves at other addresses", [&] {
    moved.rule.step(t.parameters, t.state, optim::gradient::half<bf16>{t.halves.gradients, 0.5f});
  });
  refused("gradients at other addresses", [&] {
    t.rule.step(t.parameters, t.state, optim::gradient::half<bf16>{moved.halves.gradients, 0.5f});
  });
  refused("gradients in another format", [&] {
    training<test::groups> g(d, 0);
    g.rule.step(g.parameters, g.state, optim::gradient::half<bf16>{g.halves.gradients, 0.5f});
  });
  refused("a state without lower halves, by split weights", [&] {
    training<test::rounded> r(d, 0);
    using split = optim::low_precision_state<optim::momentum, optim::fp32_slots, optim::split_weights>;
    split{test::momentum(), {}, {r.halves.weights}}.step(r.parameters, r.state,
                                                         optim::gradient::half<bf16>{r.halves.gradients, 0.5f});
  });
  refused("a rate that is no number", [&] {
    training<test::groups> g(d, 0);
    optim::param_groups const bad{
        optim::adamw{},
        optim::group{optim::name_matches{"*.8"}, optim::adamw{.lr = std::numeric_limits<float>::quiet_NaN()}},
        optim::group{optim::name_matches{"*.7"}, optim::adamw{}}};
    bad.step(g.parameters, g.state);
  });
  refused("a rule with fp32 weights, which the list does not have", [&] {
    optim::sgd{}.init(t.parameters, optim::gradient::half<bf16>{t.halves.gradients, 0.5f});
  });
}

/// What one rule refuses is refused before another one has stepped.
void check_all_or_none(gpu::device d) {
  training<test::several_rules> t(d, 0), moved(d, 0);
  t.step(0);
  auto const before = t.state.to_host();
  gpu::parameter_list some = t.parameters;
  some[8].weight = moved.parameters[8].weight;  // of the frozen rule: the last of three
  t.load(1);
  refused("a list of which one rule's tensors have moved", [&] { t.rule.step(some, t.state); });
  optim::partition const broken{
      test::adamw(),
      optim::group{optim::name_matches{"*.1*"}, optim::lars{.lr = std::numeric_limits<float>::quiet_NaN()}},
      optim::group{optim::name_matches{"*.8"}, optim::frozen{}}};
  refused("a rate of one rule that is no number", [&] { broken.step(t.parameters, t.state); });
  report(t.state.to_host() == before, "a refused step of several rules leaves all of them as they were");
  optim::cuda::rebind(t.rule, some, t.state);
  t.rule.step(some, t.state);
  report(optim::cuda::result(t.state).step == 2, "tensors that moved are stepped when they are bound again");
  gpu::parameter_list shorter(cuda_memory{d});
  shorter.add("tensor.0", t.parameters[0].weight, t.parameters[0].gradient);
  refused("a shorter list", [&] { optim::cuda::rebind(t.rule, shorter, t.state); });
}

template <class Case>
test::alone alone_on_device(gpu::device d) {
  auto const rule = Case::rule();
  gpu::device_buffer<float> weight(std::vector<float>(Case::size, 1.0f)), gradient(weight.size());
  gpu::parameter_list p(cuda_memory{d});
  p.add("w", weight.span(), gradient.span());
  auto state = rule.init(p);
  for (int i = 0; i < Case::steps; ++i) {
    gradient.upload(d, test::gradient_alone<Case>(i));
    rule.step(p, state);
  }
  auto host = state.to_host();
  return {weight.to_host(d), test::kept_of(host)};
}
/// A block that is not whole, with a scale that is NaN for a step.
void check_recovery(gpu::device d) {
  using test::recovering;
  report(alone_on_device<recovering>(d).state == test::alone_on_host<recovering>().state,
         "what is behind a tensor's end has no part in its block");
}
void check_long(gpu::device d) {
#if defined(DOVETAIL_EMULATED_CUDA)
  static_cast<void>(d);
  std::puts("--      long pieces: 2^24 elements take too long where every thread is a fiber");
#else
  using test::long_packed;
  auto const here = alone_on_device<long_packed>(d), there = test::alone_on_host<long_packed>();
  report(same_bits(here.weight, there.weight) && here.state == there.state, "long pieces leave the host's bits");
#endif
}

/// Replays beyond the rates that were sent are reported once.
void check_outrun(gpu::device d) {
  training<test::groups> t(d, 0);
  cudaGraph_t graph{};
  cudaGraphExec_t executable{};
  t.load(0);
  gpu::check(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  t.queue();
  gpu::check(cudaStreamEndCapture(d.stream, &graph), "cudaStreamEndCapture");
  gpu::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  t.state.set_steps(optim::cuda::rate_table::room - 1);
  gpu::check(cudaGraphLaunch(executable, d.stream), "cudaGraphLaunch");
  report(optim::cuda::result(t.state).step == optim::cuda::rate_table::room, "the last rate that was sent is used");
  gpu::check(cudaGraphLaunch(executable, d.stream), "cudaGraphLaunch");
  refused("a replay beyond the rates", [&] { optim::cuda::result(t.state); });
  optim::cuda::refresh(t.rule, t.state);
  gpu::check(cudaGraphLaunch(executable, d.stream), "cudaGraphLaunch");
  report(optim::cuda::result(t.state).step == optim::cuda::rate_table::room + 2, "and goes on when it has new ones");
  gpu::check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

int run() {
  test::stream const stream(0);
  gpu::device const d{0, stream.get()};
#define DOVETAIL_CHECK(number, name) run_case(#name, [&] { check<test::name>(number, d); });
  DOVETAIL_TEST_FORMATS(DOVETAIL_CHECK)
#undef DOVETAIL_CHECK
  run_case("difference", [&] { check_difference(); });
  run_case("state_of_groups_with_norms", [&] { check_state<test::groups_with_norms>(d); });
  run_case("state_of_mirrored_fp16", [&] { check_state<test::mirrored_fp16>(d); });
  run_case("state_of_split", [&] { check_state<test::split>(d); });
  run_case("state_of_slots_8bit_lamb", [&] { check_state<test::slots_8bit_lamb>(d); });
  run_case("state_of_several_formats", [&] { check_state<test::several_formats>(d); });
  run_case("other_device", [&] { check_other_device<test::several_formats>(d); });
  run_case("refusals", [&] { check_refusals(d); });
  run_case("all_or_none", [&] { check_all_or_none(d); });
  run_case("recovery", [&] { check_recovery(d); });
  run_case("long", [&] { check_long(d); });
  run_case("outrun", [&] { check_outrun(d); });
  return test::conclude();
}

}  // namespace

int main(int argc, char** argv) {
  test::choose(argc, argv);
  return on_device(run);
}
