// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_comm_all_reduce [--rounds N] [--json FILE] [--operation NAME] [--ranks N]: two ranks that are threads against
// two processes that call MPI_Allreduce, and the collectives of comm::mpi against MPI's. Threads run in this process;
// the processes are this program again, started by mpirun, where both contenders take turns call by call. The rounds
// alternate between them; claims are medians of the rounds' ratios, and the exit code is 1 when one does not hold by
// more than noise (paired.hpp).
//
// `loop` is what two threads that share their arrays cannot go below: one addition, stored to both, nothing checked.
// `MPI` is Open MPI at its best, which reads the peer's memory through the kernel. Where that is not allowed, as in
// most containers, Open MPI copies through a shared buffer: `MPI copies`.
#include <dovetail/comm/mpi.hpp>
#include <dovetail/comm/threads.hpp>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "comm_table.hpp"
#include "paired.hpp"
#include "peer_process.hpp"

using namespace dovetail;

namespace {

std::vector<std::size_t> const sizes{1024, 4096, 16384, 65536, 262144, 1u << 20, 4u << 20, 16u << 20, 64u << 20};

long count_wrong(std::span<float const> data, int k) {
  long wrong = 0;
  for (std::size_t i = 0; i < data.size(); i += 1 + data.size() / 1000)
    wrong += data[i] != static_cast<float>(2 * k + 1);
  return wrong;
}

/// One operation: how ours is called, and MPI's, where there is more than one way the fastest counts. Data are floats,
/// rank + k everywhere; `wrong(k, by_mpi)` counts what is not as it should be afterwards.
struct contest {
  char const* name;
  std::function<void()> ours;
  std::vector<std::function<void()>> mpi;
  std::function<long(int k, bool by_mpi)> wrong;
};

long differ(std::span<float const> data, float from) {
  long wrong = 0;
  for (std::size_t i = 0; i < data.size(); i += 1 + data.size() / 1000) wrong += data[i] != from;
  return wrong;
}

std::vector<contest> contests(comm::mpi& world, std::span<float> data, std::span<float> out) {
  int const P = world.size(), n = static_cast<int>(data.size()), part = n / P;
  auto const sum = [=](int k) { return static_cast<float>(P * (P - 1) / 2 + P * k); };
  auto const own = [=, &world](std::span<float> d, bool first) {
    return d.subspan(static_cast<std::size_t>(first ? 0 : world.rank() * part), static_cast<std::size_t>(part));
  };
  auto const from_each = [=](std::span<float const> d, int k) {
    long wrong = 0;
    for (int r = 0; r < P; ++r)
      wrong += differ(d.subspan(static_cast<std::size_t>(r * part), static_cast<std::size_t>(part)),
                      static_cast<float>(r + k));
    return wrong;
  };
  return {
      {"all_reduce",
       [=, &world] { world.all_reduce(data); },
       {[=] { MPI_Allreduce(MPI_IN_PLACE, data.data(), n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }},
       [=](int k, bool) { return differ(data, sum(k)); }},
      {"reduce_scatter",
       [=, &world] { world.reduce_scatter(data); },
       {[=] { MPI_Reduce_scatter_block(MPI_IN_PLACE, data.data(), part, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); },
        [=, counts = std::vector<int>(static_cast<std::size_t>(P), part)] {
          MPI_Reduce_scatter(MPI_IN_PLACE, data.data(), counts.data(), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        }},
       [=](int k, bool by_mpi) { return differ(own(data, by_mpi), sum(k)); }},
      {"all_gather",
       [=, &world] { world.all_gather(data); },
       {[=] { MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data.data(), part, MPI_FLOAT, MPI_COMM_WORLD); }},
       [=](int k, bool) { return from_each(data, k); }},
      {"all_to_all",
       [=, &world] { world.all_to_all(std::span<float const>(data), out); },
       {[=] { MPI_Alltoall(data.data(), part, MPI_FLOAT, out.data(), part, MPI_FLOAT, MPI_COMM_WORLD); }},
       [=](int k, bool) { return from_each(out, k); }},
      {"broadcast",
       [=, &world] { world.broadcast(data, 0); },
       {[=] { MPI_Bcast(data.data(), n, MPI_FLOAT, 0, MPI_COMM_WORLD); }},
       [=](int k, bool) { return differ(data, static_cast<float>(k)); }},
  };
}

/// Of every repetition the slowest rank counts: the root of a broadcast is done long before the others.
double median_of_slowest(std::vector<double> v) {
  MPI_Allreduce(MPI_IN_PLACE, v.data(), static_cast<int>(v.size()), MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return bench::median_of(v);
}

int child(std::string const& only) {
  comm::mpi world;
  for (auto const bytes : sizes) {
    auto const P = static_cast<std::size_t>(world.size()), n = bytes / 4 / P * P;
    std::vector<float> data(n), out(n);
    auto const meet = [] { MPI_Barrier(MPI_COMM_WORLD); };
    for (auto const& c : contests(world, data, out)) {
      bool const all_reduce = c.name == std::string("all_reduce");
      if ((!only.empty() && only != c.name) || (bytes > (16u << 20) && !all_reduce)) continue;
      std::vector<std::vector<double>> seen(1 + c.mpi.size());
      long wrong = 0;
      for (int k = -2; k < bench::repetitions(bytes); ++k)
        for (std::size_t who = 0; who < seen.size(); ++who) {
          auto const& f = who == 0 ? c.ours : c.mpi[who - 1];
          double const t = bench::time_once(std::span(data), world.rank(), k, meet, [&](std::span<float>) { f(); });
          wrong += c.wrong(k, who != 0);
          if (k >= 0) seen[who].push_back(t);
        }
      double const ours = median_of_slowest(seen[0]);
      double raw = 1e9;
      for (std::size_t who = 1; who < seen.size(); ++who) raw = std::min(raw, median_of_slowest(seen[who]));
      if (world.rank() == 0) std::printf("row %s %zu %.9g %.9g %ld\n", c.name, bytes, raw, ours, wrong);
    }
  }
  return 0;
}

/// By contender, operation and size.
using times = std::map<std::string, std::map<std::string, std::map<std::size_t, std::vector<double>>>>;

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
      seen["threads"]["all_reduce"][bytes].push_back(bench::median_of(ours));
      seen["loop"]["all_reduce"][bytes].push_back(bench::median_of(loop));
    }
  });
}

bool mpi_round(std::vector<std::string> const& command, bool single_copy, times& seen, long& wrong) {
  // What Open MPI 4 and 5 call it.
  for (auto const& [variable, none] :
       {std::pair{"OMPI_MCA_btl_vader_single_copy_mechanism", "none"}, std::pair{"OMPI_MCA_smsc", "^cma"}})
    single_copy ? unsetenv(variable) : setenv(variable, none, 1);
  bench::peer_process ranks(command);
  for (std::string line = ranks.version; !line.empty(); line = ranks.line()) {
    char op[32];
    std::size_t bytes = 0;
    double raw = 0, ours = 0;
    long w = 0;
    if (std::sscanf(line.c_str(), "row %31s %zu %lf %lf %ld", op, &bytes, &raw, &ours, &w) != 5) continue;
    seen[single_copy ? "MPI" : "MPI copies"][op][bytes].push_back(raw);
    if (single_copy) seen["comm::mpi"][op][bytes].push_back(ours);
    wrong += w;
  }
  return ranks.end();
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 5;
  std::string json, operation, ranks = "2";
  for (int i = 1; i < argc; ++i) {
    std::string const a = argv[i];
    if (a == "--child") return child(i + 1 < argc ? argv[i + 1] : "");
    if (a == "--rounds" && i + 1 < argc) rounds = std::atoi(argv[++i]);
    if (a == "--json" && i + 1 < argc) json = argv[++i];
    if (a == "--operation" && i + 1 < argc) operation = argv[++i];
    if (a == "--ranks" && i + 1 < argc) ranks = argv[++i];
  }
  bool const pair = ranks == "2", whole = operation.empty() || operation == "all_reduce";
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
  setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 0);
  setenv("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe", 0);  // of Open MPI 5
  times seen;
  long wrong = 0;
  std::vector<std::string> command{DOVETAIL_MPIEXEC, "-n", ranks, argv[0], "--child"};
  if (!operation.empty()) command.push_back(operation);
  for (int r = 0; r < rounds; ++r) {
    if (pair && whole) threads_round(seen, wrong);
    if (!mpi_round(command, true, seen, wrong) || (whole && !mpi_round(command, false, seen, wrong))) {
      std::printf("mpirun failed: nothing to compare with\n");
      return 1;
    }
  }

  bench::print_header();
  std::vector<bench::row> rows;
  double const P = std::atof(ranks.c_str());
  for (auto const* op : {"all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast"})
    for (auto const bytes : sizes)
      for (auto const* who : {"loop", "threads", "comm::mpi", "MPI", "MPI copies"}) {
        auto const& v = seen[who][op][bytes];
        if (v.empty()) continue;
        double const factor =
            op == std::string("broadcast") ? 1 : (op == std::string("all_reduce") ? 2 : 1) * (P - 1) / P;
        rows.push_back({who, op, bytes, bench::median_of(v), factor, wrong});
        bench::print(rows.back());
      }
  if (!json.empty()) bench::write_json(json, rows);

  int failed = wrong != 0;
  auto const claim = [&](std::string const& who, std::string const& peer, std::size_t bytes, double at_most,
                         std::string const& op = "all_reduce") {
    auto const &a = seen[who][op][bytes], &b = seen[peer][op][bytes];
    if (a.empty() || b.empty()) return;
    auto const ratio = bench::paired_ratio::of(a, b);
    auto const verdict = ratio.at_most(at_most);
    failed += verdict == bench::paired_ratio::verdict::does_not;
    auto const [amin, amax] = std::minmax_element(a.begin(), a.end());
    auto const [bmin, bmax] = std::minmax_element(b.begin(), b.end());
    std::printf(
        "  %s  %s of %s against %s at %zu bytes: %.3f in [%.3f, %.3f] <= %.3f  ([%.4g, %.4g] s against [%.4g, %.4g] "
        "s)\n",
        bench::name_of(verdict), op.c_str(), who.c_str(), peer.c_str(), bytes, ratio.median, ratio.low, ratio.high,
        at_most, *amin, *amax, *bmin, *bmax);
  };
  if (!pair) return failed ? 1 : 0;  // more ranks than cores: for information
  std::printf("\nclaims (median of the ratios of %d rounds in its 95 %% bounds; [min, max])\n", rounds);
  for (auto const bytes : {std::size_t{1} << 20, std::size_t{16} << 20, std::size_t{64} << 20})
    claim("threads", "loop", bytes, 1.1);
  claim("threads", "MPI", 1024, 1.0);
  claim("threads", "MPI", 1u << 20, 1 / 1.7);
  claim("threads", "MPI copies", 16u << 20, 1 / 5.0);
  claim("threads", "MPI", 16u << 20, 1 / 3.5);
  claim("threads", "MPI", 64u << 20, 1 / 5.0);
  for (auto const bytes : sizes) claim("comm::mpi", "MPI", bytes, 1.03);
  // What is only moved takes as long as two cores need to read each other's memory, in chunks or by the kernel's copy,
  // from 256 KB on: no faster there, and no slower.
  for (auto const bytes : sizes) {
    for (auto const* op : {"all_gather", "all_to_all"})
      claim("comm::mpi", "MPI", bytes, bytes < 65536 ? 1 / 1.5 : 1.03, op);
    claim("comm::mpi", "MPI", bytes, bytes <= 262144 ? 1 / 1.3 : 1.03, "broadcast");
    claim("comm::mpi", "MPI", bytes, 1 / 1.5, "reduce_scatter");
  }
  return failed ? 1 : 0;
}
