// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Optimizer steps against the memory bus, against a loop written by hand, against their own build without flags, and
// over a thousand tensors. Bytes counted are the plan's; percent of copy: divide by copy's bytes_per_second.
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>

#include "claims.hpp"
#include "optim_step.hpp"
#include "optim_tensors.hpp"

#if DOVETAIL_BENCH_TORCH
#include <torch/torch.h>
#endif

using namespace dovetail;

namespace {

using bench::fill;
using bench::parameters;
using bench::thousand;

void add(std::string const& name, std::size_t bytes, std::function<std::unique_ptr<bench::stepper>()> make) {
  auto s = std::make_shared<std::unique_ptr<bench::stepper>>();
  benchmark::RegisterBenchmark(
      name.c_str(),
      [=](benchmark::State& state) {
        if (!*s) {
          *s = make();
          (*s)->step();  // touches the slots
        }
        for (auto _ : state) (*s)->step();
        state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes * parameters));
        state.counters["ns_per_parameter"] =
            benchmark::Counter(static_cast<double>(state.iterations()) * parameters * 1e-9,
                               benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
      })
      ->Iterations(4)
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime();
}

}  // namespace

int main(int argc, char** argv) {
  using bench::rule;
  arena a = bench::flat();
  auto const& p = a.parameters();
  thousand one_arena(true), scattered(false);

  buffer<float> from(2 * parameters), to(2 * parameters);
  fill(from.span(), 5);
  benchmark::RegisterBenchmark(
      "copy",
      [&](benchmark::State& state) {
        for (auto _ : state) {
          std::memcpy(to.data(), from.data(), from.size() * sizeof(float));
          benchmark::DoNotOptimize(to.data());
        }
        state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(2 * from.size() * sizeof(float)));
      })
      ->Iterations(4)
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime();

  struct row {
    char const* name;
    rule which;
    std::size_t bytes;
  };
  row const rows[] = {{"sgd", rule::sgd, optim::sgd::bytes_per_parameter},
                      {"momentum", rule::momentum, optim::momentum::bytes_per_parameter},
                      {"adam", rule::adam, optim::adam::bytes_per_parameter},
                      {"six_stages", rule::six_stages, 28},
                      {"adamw", rule::adamw, optim::adamw::bytes_per_parameter},
                      {"clipped_adamw", rule::clipped_adamw, 32},
                      {"lars", rule::lars, optim::lars::bytes_per_parameter},
                      {"lamb", rule::lamb, optim::lamb::bytes_per_parameter}};
  for (auto const& r : rows) {
    auto const which = r.which;
    add(std::string(r.name) + "/plain", r.bytes, [&p, which] { return bench::make_library_plain(which, p, 1); });
    add(std::string(r.name) + "/native", r.bytes, [&p, which] { return bench::make_library_native(which, p, 1); });
    if (which == rule::momentum || which == rule::adamw)
      add(std::string(r.name) + "/by_hand", r.bytes, [&p, which] { return bench::make_by_hand(which, p); });
  }
  add("adamw/by_name", 28, [&p] { return bench::make_library_plain(rule::adamw_by_name, p, 1); });
  add("adamw/two_threads", 28, [&p] { return bench::make_library_plain(rule::adamw, p, 2); });
  add("adamw/1000_tensors", 28, [&] { return bench::make_library_plain(rule::adamw, one_arena.list, 1); });
  add("adamw/1000_scattered", 28, [&] { return bench::make_library_plain(rule::adamw, scattered.list, 1); });
  add("lamb/1000_scattered", 40, [&] { return bench::make_library_plain(rule::lamb, scattered.list, 1); });

#if DOVETAIL_BENCH_TORCH
  struct torch_adamw final : bench::stepper {
    explicit torch_adamw(thousand& t) {
      torch::set_num_threads(1);
      std::vector<torch::Tensor> all;
      for (auto& x : t.list) {
        auto const n = static_cast<std::int64_t>(x.size());
        all.push_back(torch::from_blob(x.weight.data(), {n}).requires_grad_(true));
        all.back().mutable_grad() = torch::from_blob(x.gradient.data(), {n});
      }
      opt = std::make_unique<torch::optim::AdamW>(all, torch::optim::AdamWOptions(1e-3).weight_decay(1e-2));
    }
    void step() override { opt->step(); }
    std::unique_ptr<torch::optim::AdamW> opt;
  };
  add("adamw/libtorch", 28, [&] { return std::make_unique<torch_adamw>(scattered); });
#endif

  return bench::run(
      argc, argv,
      {{"AdamW built with -O2 is within 10 % of a loop by hand built for this machine", "adamw/plain", "adamw/by_hand",
        1.10},
       {"momentum built with -O2 is within 10 % of a loop by hand built for this machine", "momentum/plain",
        "momentum/by_hand", 1.10},
       {"AdamW built with -O2 is within 15 % of itself built for this machine", "adamw/plain", "adamw/native", 1.15},
       {"LAMB built with -O2 is within 15 % of itself built for this machine", "lamb/plain", "lamb/native", 1.15},
       {"a chain of six stages, built for this machine, costs no more than Adam", "six_stages/native", "adam/native",
        1.05},
       {"AdamW chosen by name when the program runs costs at most 1 % more than AdamW by type", "adamw/by_name",
        "adamw/plain", 1.01},
       {"1000 tensors in one arena cost as one", "adamw/1000_tensors", "adamw/plain", 1.10},
       {"1000 scattered tensors cost at most 15 % more than one", "adamw/1000_scattered", "adamw/plain", 1.15},
       // libtorch's C++ optimizer has no fused form: bench_optim_rules measures PyTorch at its best.
       {"AdamW over 1000 tensors is 3 times as fast as the C++ optimizer of libtorch", "adamw/1000_scattered",
        "adamw/libtorch", 1 / 3.0}});
}
