// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_comm_all_reduce [--rounds N] [--json FILE]: two ranks that are threads against two processes that call
// MPI_Allreduce, and comm::mpi against the same. Threads run in this process; the processes are this program again,
// started by mpirun, where both contenders take turns call by call. The rounds alternate between them; claims are
// medians of the rounds' ratios, and the exit code is 1 when one does not hold by more than noise (paired.hpp).
//
// `loop` is what two threads that share their arrays cannot go below: one addition, stored to both, nothing checked.
// `MPI` is Open MPI at its best, which reads the peer's memory through the kernel. Where that is not allowed, as in
// most containers, Open MPI copies through a shared buffer: `MPI copies`.
#include <dovetail/comm/mpi.hpp>
#include <dovetail/comm/threads.hpp>

#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "comm_table.hpp"
#include "paired.hpp"
#include "peer_process.hpp"

using namespace dovetail;

namespace {

std::vector<std::size_t> const sizes{1024, 16384, 65536, 262144, 1u << 20, 4u << 20, 16u << 20, 64u << 20};

long count_wrong(std::span<float const> data, int k) {
  long wrong = 0;
  for (std::size_t i = 0; i < data.size(); i += 1 + data.size() / 1000)
    wrong += data[i] != static_cast<float>(2 * k + 1);
  return wrong;
}

int child() {
  comm::mpi world;
  for (auto const bytes : sizes) {
    std::vector<float> data(bytes / 4);
    std::vector<double> raw, ours;
    long wrong = 0;
    auto const meet = [] { MPI_Barrier(MPI_COMM_WORLD); };
    for (int k = -2; k < bench::repetitions(bytes); ++k) {
      double const a = bench::time_once(std::span(data), world.rank(), k, meet, [](std::span<float> d) {
        MPI_Allreduce(MPI_IN_PLACE, d.data(), static_cast<int>(d.size()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      });
      wrong += count_wrong(data, k);
      double const b =
          bench::time_once(std::span(data), world.rank(), k, meet, [&](std::span<float> d) { world.all_reduce(d); });
      wrong += count_wrong(data, k);
      if (k >= 0) raw.push_back(a), ours.push_back(b);
    }
    if (world.rank() == 0)
      std::printf("row %zu %.9g %.9g %ld\n", bytes, bench::median_of(raw), bench::median_of(ours), wrong);
  }
  return 0;
}

using times = std::map<std::string, std::map<std::size_t, std::vector<double>>>;

// Adds two arrays into both: no vector code by hand, whatever the compiler makes of it.
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((optimize("O3")))
#endif
void add_into_both(float* __restrict a, float* __restrict b, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) a[i] = b[i] = a[i] + b[i];
}

void threads_round(times& seen, long& wrong) {
  std::vector<float> shared[2];
  comm::threads{2}.run([&](auto& c) {
    auto& data = shared[c.rank()];
    for (auto const bytes : sizes) {
      data.resize(bytes / 4);
      std::vector<double> ours, loop;
      auto const meet = [&] { c.barrier(); };
      meet();
      for (int k = -2; k < bench::repetitions(bytes); ++k) {
        double const a =
            bench::time_once(std::span(data), c.rank(), k, meet, [&](std::span<float> d) { c.all_reduce(d); });
        if (c.rank() == 0) wrong += count_wrong(data, k);
        double const b = bench::time_once(std::span(data), c.rank(), k, meet, [&](std::span<float> d) {
          std::size_t const half = d.size() / 2, from = c.rank() == 0 ? 0 : half;
          add_into_both(shared[0].data() + from, shared[1].data() + from, half);
          meet();
        });
        if (c.rank() == 0) wrong += count_wrong(data, k);
        if (k >= 0) ours.push_back(a), loop.push_back(b);
      }
      if (c.rank() != 0) continue;
      seen["threads"][bytes].push_back(bench::median_of(ours));
      seen["loop"][bytes].push_back(bench::median_of(loop));
    }
  });
}

bool mpi_round(std::string const& self, bool single_copy, times& seen, long& wrong) {
  // What Open MPI 4 and 5 call it.
  for (auto const& [variable, none] :
       {std::pair{"OMPI_MCA_btl_vader_single_copy_mechanism", "none"}, std::pair{"OMPI_MCA_smsc", "^cma"}})
    single_copy ? unsetenv(variable) : setenv(variable, none, 1);
  bench::peer_process ranks({DOVETAIL_MPIEXEC, "-n", "2", self, "--child"});
  for (std::string line = ranks.version; !line.empty(); line = ranks.line()) {
    std::size_t bytes = 0;
    double raw = 0, ours = 0;
    long w = 0;
    if (std::sscanf(line.c_str(), "row %zu %lf %lf %ld", &bytes, &raw, &ours, &w) != 4) continue;
    seen[single_copy ? "MPI" : "MPI copies"][bytes].push_back(raw);
    if (single_copy) seen["comm::mpi"][bytes].push_back(ours);
    wrong += w;
  }
  return ranks.end();
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 5;
  std::string json;
  for (int i = 1; i < argc; ++i) {
    std::string const a = argv[i];
    if (a == "--child") return child();
    if (a == "--rounds" && i + 1 < argc) rounds = std::atoi(argv[++i]);
    if (a == "--json" && i + 1 < argc) json = argv[++i];
  }
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
  setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 0);
  setenv("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe", 0);  // of Open MPI 5
  times seen;
  long wrong = 0;
  for (int r = 0; r < rounds; ++r) {
    threads_round(seen, wrong);
    if (!mpi_round(argv[0], true, seen, wrong) || !mpi_round(argv[0], false, seen, wrong)) {
      std::printf("mpirun failed: nothing to compare with\n");
      return 1;
    }
  }

  bench::print_header();
  std::vector<bench::row> rows;
  for (auto const bytes : sizes)
    for (auto const* who : {"loop", "threads", "comm::mpi", "MPI", "MPI copies"}) {
      rows.push_back({who, "all_reduce", bytes, bench::median_of(seen[who][bytes]), 1, wrong});
      bench::print(rows.back());
    }
  if (!json.empty()) bench::write_json(json, rows);

  int failed = wrong != 0;
  auto const claim = [&](std::string const& who, std::string const& peer, std::size_t bytes, double at_most) {
    auto const &a = seen[who][bytes], &b = seen[peer][bytes];
    auto const ratio = bench::paired_ratio::of(a, b);
    auto const verdict = ratio.at_most(at_most);
    failed += verdict == bench::paired_ratio::verdict::does_not;
    auto const [amin, amax] = std::minmax_element(a.begin(), a.end());
    auto const [bmin, bmax] = std::minmax_element(b.begin(), b.end());
    std::printf(
        "  %s  %s against %s at %zu bytes: %.3f in [%.3f, %.3f] <= %.3f  ([%.4g, %.4g] s against [%.4g, %.4g] s)\n",
        bench::name_of(verdict), who.c_str(), peer.c_str(), bytes, ratio.median, ratio.low, ratio.high, at_most, *amin,
        *amax, *bmin, *bmax);
  };
  std::printf("\nclaims (median of the ratios of %d rounds in its 95 %% bounds; [min, max])\n", rounds);
  for (auto const bytes : {std::size_t{1} << 20, std::size_t{16} << 20, std::size_t{64} << 20})
    claim("threads", "loop", bytes, 1.1);
  claim("threads", "MPI", 1024, 1.0);
  claim("threads", "MPI", 1u << 20, 1 / 1.7);
  claim("threads", "MPI copies", 16u << 20, 1 / 5.0);
  claim("threads", "MPI", 16u << 20, 1 / 3.5);
  claim("threads", "MPI", 64u << 20, 1 / 5.0);
  for (auto const bytes : sizes) claim("comm::mpi", "MPI", bytes, 1.03);
  return failed ? 1 : 0;
}
