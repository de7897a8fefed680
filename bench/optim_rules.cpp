// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every rule of the library's list, built with plain -O2, against copying as many bytes, and against a loop that
// does no more than touch the same arrays; long chains; and AdamW over one tensor and over 1000 against PyTorch's,
// fused (its best setting) and foreach, on one thread and on two, which take turns in this run (bench/optim_adamw.py,
// with the python that DOVETAIL_PEER_PYTHON names).
#include <array>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/optim.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>

#include "claims.hpp"
#include "optim_tensors.hpp"
#include "peer_process.hpp"

using namespace dovetail;

namespace {

using bench::parameters;

/// w += g, and k more arrays likewise: what a rule with k slots cannot avoid.
void touch(float* w, float const* g, std::vector<buffer<float>>& slots) {
  constexpr std::size_t lanes = simd::pack::lanes;
  std::size_t const k = slots.size();
  auto const loop = [&]<std::size_t... S>(std::index_sequence<S...>) {
    [[maybe_unused]] std::array<float*, sizeof...(S) + 1> const s{slots[S].data()..., nullptr};
    for (std::size_t i = 0; i < parameters; i += 4 * lanes)
      for (std::size_t j = i; j < i + 4 * lanes; j += lanes) {
        auto const x = simd::pack::load(g + j);
        (simd::pack(simd::pack::load(s[S] + j) + x).store(s[S] + j), ...);
        simd::pack(simd::pack::load(w + j) + x).store(w + j);
      }
  };
  if (k == 0) loop(std::make_index_sequence<0>{});
  if (k == 1) loop(std::make_index_sequence<1>{});
  if (k == 2) loop(std::make_index_sequence<2>{});
  if (k == 3) loop(std::make_index_sequence<3>{});
  if (k == 4) loop(std::make_index_sequence<4>{});
  if (k == 5) loop(std::make_index_sequence<5>{});
}

void add(std::string const& name, double bytes, std::function<std::function<void()>()> make) {
  auto step = std::make_shared<std::function<void()>>();
  benchmark::RegisterBenchmark(name.c_str(),
                               [=](benchmark::State& state) {
                                 if (!*step) {
                                   *step = make();
                                   (*step)();  // touches the slots
                                 }
                                 for (auto _ : state) (*step)();
                                 state.SetBytesProcessed(static_cast<std::int64_t>(
                                     static_cast<double>(state.iterations()) * bytes * double{parameters}));
                               })
      ->Iterations(4)
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime();
}

std::vector<bench::claim> claims;

/// Of what takes one pass, claims; beyond, with whole tensors, or with powers that are no square roots, which cost more
/// than the memory, no claim, but the figures.
template <class Rule>
void add_rule(char const* name, parameter_list const& p, Rule rule = {}) {
  auto const& plan = static_cast<optim::plan const&>(Rule::plan);
  add(name, plan.bytes(), [&p, rule] {
    auto state = std::make_shared<optim::state>(rule.init(p));
    return [&p, rule, state] { rule.step(p, *state, {.loss = 1.0}); };
  });
  std::set<std::string> const with_powers{"madgrad"};
  if (plan.passes > 1 || plan.tensorwise > 0 || with_powers.contains(name)) return;
  claims.push_back({message(name, " takes at most 10 % more than copying its ", plan.bytes(), " bytes"), name, "copy",
                    1.1 * plan.bytes() / 16});
  auto const slots = static_cast<std::size_t>((plan.bytes() - 12) / 8);
  claims.push_back(
      {message(name, " takes at most 50 % more than touching its arrays"), name, message("touch/", slots), 1.5});
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a peer that dies is an error of its benchmark
  arena a = bench::flat();
  auto const& p = a.parameters();
  bench::thousand scattered(false);

  buffer<float> from(2 * parameters), to(2 * parameters);
  add("copy", 16, [&] {
    return [&] {
      std::memcpy(to.data(), from.data(), from.size() * sizeof(float));
      benchmark::DoNotOptimize(to.data());
    };
  });
  for (std::size_t k = 0; k <= 5; ++k)
    add(message("touch/", k), 12 + 8 * static_cast<double>(k), [&, k] {
      auto slots = std::make_shared<std::vector<buffer<float>>>();
      for (std::size_t i = 0; i < k; ++i) slots->emplace_back(parameters);
      return [&, slots] { touch(a.weights().data(), a.gradients().data(), *slots); };
    });

  arena matrix({{"w", {4096, 4096}}});
  static_assert(parameters == std::size_t{4096} * 4096);
  bench::fill(matrix.weights(), 1);
  bench::fill(matrix.gradients(), 2);
  auto const& m = matrix.parameters();
  // What maps whole tensors is given a matrix.
#define DOVETAIL_RULE(family, name) \
  add_rule(#name, static_cast<optim::plan const&>(optim::name::plan).tensorwise > 0 ? m : p, optim::name{});
#include <dovetail/optim/rules/list.inc.hpp>
  add_rule("six_stages", p,
           optim::chain{optim::scale{0.5f}, optim::clip_by_value{1}, optim::add_decayed_weights{1e-4f},
                        optim::scale_by_adam{}, optim::clip_by_value{1}, optim::scale_by_learning_rate{1e-3f}});
  claims.push_back({"a chain of six stages, built with -O2, costs no more than Adam", "six_stages", "adam", 1.05});
  add("padam/any_power", 36, [&] {  // beyond roots: no claim
    optim::padam const rule{.power = 0.1f};
    auto state = std::make_shared<optim::state>(rule.init(p));
    return [&p, rule, state] { rule.step(p, *state); };
  });

  optim::adamw const adamw{};
  // Slots in other formats: no claim, but the figures.
  auto const add_stored = [&](char const* name, double bytes, auto rule) {
    add(name, bytes, [&p, rule] {
      auto state = std::make_shared<decltype(rule.init(p))>(rule.init(p));
      return [&p, rule, state] { rule.step(p, *state); };
    });
  };
  add_stored("adamw/bf16_slots", 20, optim::low_precision_state{adamw, optim::bf16_slots{}});
  add_stored("adamw/8bit_slots", 16, optim::low_precision_state{adamw, optim::blockwise_8bit{}});
  add("adamw/1000_scattered", 28, [&] {
    auto state = std::make_shared<optim::state>(adamw.init(scattered.list));
    return [&, state] { adamw.step(scattered.list, *state); };
  });
  claims.push_back({"1000 scattered tensors cost at most 15 % more than one", "adamw/1000_scattered", "adamw", 1.15});
  add("adamw/two_threads", 28, [&] {
    auto state = std::make_shared<optim::state>(adamw.init(p));
    return [&p, adamw, state] { adamw.step(p, *state, {.threads = 2}); };
  });
  add("adamw/1000_scattered_two_threads", 28, [&] {
    auto state = std::make_shared<optim::state>(adamw.init(scattered.list));
    return [&, state] { adamw.step(scattered.list, *state, {.threads = 2}); };
  });
  std::vector<std::unique_ptr<bench::peer_process>> peers;
  if (auto const python = bench::python_with_torch(); !python.empty()) {
    auto const add_peer = [&](std::string const& setting, int threads, bool flat) {
      std::vector<std::string> command{python, DOVETAIL_BENCH_SOURCE "/optim_adamw.py", setting,
                                       std::to_string(threads)};
      if (flat)
        command.push_back(std::to_string(parameters));
      else
        for (auto const& x : scattered.list) command.push_back(std::to_string(x.size()));
      auto& peer = *peers.emplace_back(std::make_unique<bench::peer_process>(command));
      benchmark::AddCustomContext("peer", peer.version);
      auto const name = message("pytorch/", setting, flat ? "" : "/1000", threads == 2 ? "/two_threads" : "");
      bench::register_peer(name, peer);
    };
    for (int threads : {1, 2})
      for (bool flat : {true, false}) add_peer("fused", threads, flat);
    add_peer("foreach", 1, false);
  }
  for (auto const* more : {"", "_two_threads"}) {
    std::string const threads = *more ? "two threads" : "one thread", theirs = *more ? "/two_threads" : "";
    claims.push_back({"AdamW over one tensor, " + threads + ", is at least as fast as PyTorch's fused",
                      *more ? "adamw/two_threads" : "adamw", "pytorch/fused" + theirs, 1.0});
    claims.push_back({"AdamW over 1000 tensors, " + threads + ", is at least as fast as PyTorch's fused",
                      message("adamw/1000_scattered", more), "pytorch/fused/1000" + theirs, 1.0});
  }
  return bench::run(argc, argv, claims);
}
