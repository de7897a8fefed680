// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "paired.hpp"
#include "peer_process.hpp"

// Google Benchmark, with claims: medians of ratios of repetitions that took turns in one run. A program registers its
// benchmarks, then ends with `return bench::run(argc, argv, {claims…})`: the claims are printed with the spread, and
// the exit code is 1 if one of them does not hold by more than noise (paired.hpp).
namespace bench {

struct claim {
  std::string says;       ///< what is claimed, as a reader would say it
  std::string fast;       ///< name of the benchmark whose time is divided by …
  std::string reference;  ///< … the time of this one
  double at_most;         ///< the largest ratio fast / reference that is claimed
};

/// Prints as the console does, and keeps the real time of every repetition.
class recorder : public benchmark::ConsoleReporter {
 public:
  recorder() : ConsoleReporter(OO_Tabular) {}
  void ReportRuns(std::vector<Run> const& runs) override {
    ConsoleReporter::ReportRuns(runs);
    for (auto const& run : runs) failed += ended_with_error(run);
    for (auto const& run : runs)
      if (run.run_type == Run::RT_Iteration && !ended_with_error(run))
        seconds_[name_of(run)].push_back(run.real_accumulated_time / static_cast<double>(run.iterations));
  }
  std::vector<double> const* find(std::string const& name) const {
    auto const it = seconds_.find(name);
    return it == seconds_.end() ? nullptr : &it->second;
  }

  int failed = 0;  ///< repetitions that ended with an error

 private:
  /// Google Benchmark 1.8 has another member for it.
  template <class R>
  static bool ended_with_error(R const& run) {
    if constexpr (requires { run.error_occurred; })
      return run.error_occurred;
    else
      return run.skipped != decltype(run.skipped){};
  }
  static std::string name_of(Run const& run) {
    return run.run_name.args.empty() ? run.run_name.function_name
                                     : run.run_name.function_name + "/" + run.run_name.args;
  }
  std::map<std::string, std::vector<double>> seconds_;
};

/// Runs all registered benchmarks interleaved, nine repetitions unless the flags say otherwise, then checks `claims`.
/// A claim whose benchmarks did not run (filtered out, peer not installed) is printed as not checked.
inline int run(int argc, char** argv, std::vector<claim> const& claims) {
  std::vector<std::string> words(argv, argv + argc);
  words.insert(words.begin() + 1, {"--benchmark_enable_random_interleaving=true", "--benchmark_repetitions=9"});
  std::vector<char*> pointers;
  for (auto& w : words) pointers.push_back(w.data());
  int count = static_cast<int>(pointers.size());
  benchmark::Initialize(&count, pointers.data());
  if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 2;
  recorder seen;
  benchmark::RunSpecifiedBenchmarks(&seen);
  benchmark::Shutdown();

  int failed = seen.failed;
  if (!claims.empty()) std::printf("\nclaims (median of paired ratios in its 95 %% bounds; medians [min, max])\n");
  for (auto const& c : claims) {
    auto const *fast = seen.find(c.fast), *reference = seen.find(c.reference);
    if (!fast || !reference) {
      std::printf("  not checked   %s: %s did not run\n", c.says.c_str(), (fast ? c.reference : c.fast).c_str());
      continue;
    }
    auto const [fmin, fmax] = std::minmax_element(fast->begin(), fast->end());
    auto const [rmin, rmax] = std::minmax_element(reference->begin(), reference->end());
    auto const ratio = paired_ratio::of(*fast, *reference);
    auto const verdict = ratio.at_most(c.at_most);
    failed += verdict == paired_ratio::verdict::does_not;
    std::printf("  %s  %s: %.3f in [%.3f, %.3f] <= %.3f  (%.4g [%.4g, %.4g] s against %.4g [%.4g, %.4g] s)\n",
                name_of(verdict), c.says.c_str(), ratio.median, ratio.low, ratio.high, c.at_most, median(*fast), *fmin,
                *fmax, median(*reference), *rmin, *rmax);
  }
  return failed ? 1 : 0;
}

/// A benchmark of what the peer does for one repetition. `peer` must outlive it.
inline void register_peer(std::string const& name, peer_process& peer) {
  if (peer.version.empty()) return std::fprintf(stderr, "bench: %s did not start\n", name.c_str()), void();
  benchmark::RegisterBenchmark(name.c_str(),
                               [&peer](benchmark::State& state) {
                                 for (auto _ : state) {
                                   double const s = peer.seconds(1);
                                   if (s < 0) return state.SkipWithError("PyTorch's process has died");
                                   state.SetIterationTime(s);
                                 }
                               })
      ->Iterations(4)
      ->Unit(benchmark::kMillisecond)
      ->UseManualTime();
}

}  // namespace bench
