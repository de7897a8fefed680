// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_compress_hosts [--rounds N] [--json FILE]: time per step of sync::all_reduce with each codec, two ranks of
// comm::mpi on two hosts whose link has 100 Mb/s, 1 Gb/s, or what the machine gives. The hosts are network namespaces
// with half of this machine's cores each (test/two_hosts.sh); they need root. The processes are this program again,
// where the codecs take turns step by step, with gradients that are new in each.
#include <dovetail/comm/mpi.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm_table.hpp"
#include "paired.hpp"
#include "peer_process.hpp"

using namespace dovetail;
using compress::error_feedback;

namespace {

std::vector<std::string> const rates{"100mbit", "1gbit", "unshaped"};
constexpr int warm_up = 2, steps = 5;  // in the first step `automatic` measures

/// A rank's model with one synchronizer: four matrices of 512 x 1024, 8.4 MB of gradients in two buckets.
struct contender {
  std::string name;
  std::vector<std::vector<float>> weights, gradients;
  parameter_list list;
  std::function<double(std::int64_t)> step;  ///< its seconds
};
std::vector<std::unique_ptr<contender>> contenders;

template <class Codec>
void add(std::string name, Codec const& codec, comm::mpi& world) {
  auto& c = *contenders.emplace_back(std::make_unique<contender>());
  c.name = std::move(name);
  for (int i = 0; i < 4; ++i) {
    c.weights.emplace_back(512 * 1024, 1.0f);
    c.gradients.emplace_back(512 * 1024);
  }
  for (std::size_t i = 0; i < 4; ++i)
    c.list.add("w" + std::to_string(i), std::span<float>(c.weights[i]), std::span<float>(c.gradients[i]),
               shape{512, 1024});
  auto session = std::make_shared<decltype(sync::all_reduce{codec}.join(c.list, optim::sgd{}, world))>(
      sync::all_reduce{codec}, c.list, optim::sgd{.lr = 1e-3f}, world);
  c.step = [&c, session, &world](std::int64_t step) {
    session->begin();
    for (std::size_t i = 0; i < 4; ++i) {
      random_stream const random{1, static_cast<std::uint32_t>(i), static_cast<std::uint64_t>(step),
                                 static_cast<std::uint32_t>(world.rank())};
      auto& g = c.gradients[i];
      for (std::size_t j = 0; j < g.size(); j += 4) {
        auto const w = random.words(static_cast<std::uint32_t>(j / 4));
        for (std::size_t k = 0; k < 4; ++k)
          g[j + k] = random_stream::to_uniform(w[k]) - random_stream::to_uniform(w[(k + 1) % 4]);
      }
    }
    world.barrier();
    auto const begin = std::chrono::steady_clock::now();
    session->ready(0);
    session->step();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
}

int child() {
  comm::mpi world;
  add("dense", compress::identity{}, world);
  add("fp16", compress::fp16{}, world);
  add("int8", compress::int8{}, world);
  add("EF-int4", error_feedback{compress::int4{}}, world);
  add("EF-sign", error_feedback{compress::sign{}}, world);
  add("EF-top-k-1%", error_feedback{compress::top_k{.ratio = 0.01f}}, world);
  add("PowerSGD-4", compress::powersgd{}, world);
  compress::automatic const any{compress::automatic_options{.log = &std::cerr},
                                compress::fp16{},
                                compress::int8{},
                                error_feedback{compress::int4{}},
                                error_feedback{compress::sign{}},
                                error_feedback{compress::top_k{.ratio = 0.01f}},
                                compress::powersgd{}};
  add("automatic", any, world);
  for (int s = 0; s < warm_up + steps; ++s)
    for (auto& c : contenders) {
      double t = c->step(s);
      world.all_reduce(std::span<double>(&t, 1), comm::reduction::max);
      if (world.rank() == 0 && s >= warm_up) std::printf("row %s %.9g\n", c->name.c_str(), t);
    }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 3;
  std::string json;
  for (int i = 1; i < argc; ++i) {
    std::string const a = argv[i];
    if (a == "--child") return child();
    if (a == "--rounds" && i + 1 < argc) rounds = std::atoi(argv[++i]);
    if (a == "--json" && i + 1 < argc) json = argv[++i];
  }
  std::map<std::string, std::map<std::string, std::vector<double>>> seen;  // by rate and codec
  std::vector<std::string> names;
  for (int r = 0; r < rounds; ++r)
    for (auto const& rate : rates) {
      bench::peer_process ranks({"sh", DOVETAIL_COMM_HOSTS, DOVETAIL_MPIEXEC, rate, "1", "1", argv[0], "--child"});
      if (ranks.version.starts_with("no two hosts")) {
        std::printf("%s\nnothing is measured between hosts\n", ranks.version.c_str());
        return 0;
      }
      for (std::string line = ranks.version; !line.empty(); line = ranks.line()) {
        char who[64];
        double seconds = 0;
        if (std::sscanf(line.c_str(), "row %63s %lf", who, &seconds) != 2) continue;
        seen[rate][who].push_back(seconds);
        if (std::find(names.begin(), names.end(), who) == names.end()) names.push_back(who);
      }
      if (!ranks.end()) {
        std::printf("mpirun failed on a link of %s: nothing to compare with\n", rate.c_str());
        return 1;
      }
    }

  std::printf("\nmilliseconds of a step (8.4 MB of gradients, 2 ranks; median of %d)\n%-14s", rounds * steps, "codec");
  for (auto const& rate : rates) std::printf("%12s", rate.c_str());
  std::printf("\n");
  std::vector<bench::row> rows;
  for (auto const& name : names) {
    std::printf("%-14s", name.c_str());
    for (auto const& rate : rates) {
      double const t = bench::median(seen[rate][name]);
      std::printf("%12.2f", 1e3 * t);
      rows.push_back({name, "step " + rate, 4ul * 512 * 1024 * 4, t, 1, 0});
    }
    std::printf("\n");
  }
  if (!json.empty()) bench::write_json(json, rows);

  int failed = 0;
  auto const claim = [&](std::string const& what, std::vector<double> const& a, std::vector<double> const& b,
                         double at_most) {
    auto const ratio = bench::paired_ratio::of(a, b);
    auto const verdict = ratio.at_most(at_most);
    failed += verdict == bench::paired_ratio::verdict::does_not;
    std::printf("  %s  %s: %.3f in [%.3f, %.3f] <= %.3f\n", bench::name_of(verdict), what.c_str(), ratio.median,
                ratio.low, ratio.high, at_most);
  };
  std::printf("\nclaims (median of the ratios of %d steps in its 95 %% bounds)\n", rounds * steps);
  for (auto const& rate : rates) {
    std::string best;
    for (auto const& name : names)
      if (name != "automatic" && (best.empty() || bench::median(seen[rate][name]) < bench::median(seen[rate][best])))
        best = name;
    claim("automatic against the best, " + best + ", at " + rate, seen[rate]["automatic"], seen[rate][best], 1.1);
    if (rate == "100mbit") claim(best + " against dense at " + rate, seen[rate][best], seen[rate]["dense"], 0.2);
  }
  return failed ? 1 : 0;
}
