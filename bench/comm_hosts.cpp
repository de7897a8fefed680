// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_comm_hosts [--rounds N] [--rate 1gbit] [--json FILE]: collectives of comm::mpi against MPI's own on two hosts,
// all_reduce on 1+1, 2+2, 4+4 and 3+1 ranks, the others on 1+1 and 2+2; and all_reduce against `link`, one rank of each
// host sending the array to the other, both ways at once, which no sum can be faster than. The hosts are network
// namespaces with a shaped link and half of this machine's cores each (test/two_hosts.sh); they need root. The
// processes are this program again, where all take turns call by call; MPI is asked to spin and to yield in turns, and
// the faster way of each contender counts.
#include <dovetail/comm/mpi.hpp>

#include <algorithm>
#include <cmath>
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

std::vector<std::size_t> const sizes{1024, 16384, 65536, 262144, 4u << 20, 16'800'000};
/// Of the whole array, for the collectives that move and add otherwise.
std::vector<std::size_t> const other_sizes{65536, 2u << 20};
std::vector<std::string> const others{"all_gather", "reduce_scatter", "all_to_all", "broadcast"};
std::vector<std::pair<char const*, char const*>> const placements{{"1", "1"}, {"2", "2"}, {"4", "4"}, {"3", "1"}};

void other_collectives(comm::mpi& world) {
  auto const P = static_cast<std::size_t>(world.size());
  for (auto const bytes : other_sizes) {
    std::vector<float> data(bytes / 4 / P * P), out(data.size());
    std::size_t const part = data.size() / P;
    int const n = static_cast<int>(part), all = static_cast<int>(data.size());
    std::span<float const> const own(data.data(), part);
    std::map<std::pair<std::string, std::string>, std::vector<double>> seen;
    long wrong = 0;
    for (int k = -1; k < (bytes < (1u << 20) ? 21 : 5); ++k) {
      auto const turn = [&](char const* what, char const* who, std::vector<float> const& result, float expected,
                            std::size_t where, auto const& call) {
        auto const meet = [] { MPI_Barrier(MPI_COMM_WORLD); };
        double t = bench::time_once(std::span(data), world.rank(), k, meet, [&](std::span<float>) { call(); });
        MPI_Allreduce(MPI_IN_PLACE, &t, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
        wrong += std::fabs(result[where] - expected) > 0;
        if (k >= 0) seen[{what, who}].push_back(t);
      };
      auto const last = static_cast<float>(world.size() - 1 + k),
                 sum = static_cast<float>(world.size() * (world.size() - 1) / 2 + world.size() * k);
      std::size_t const end = data.size() - 1, mine = part * static_cast<std::size_t>(world.rank());
      turn("all_gather", "comm::mpi", out, last, end, [&] { world.all_gather(own, std::span(out)); });
      turn("all_gather", "MPI", out, last, end,
           [&] { MPI_Allgather(data.data(), n, MPI_FLOAT, out.data(), n, MPI_FLOAT, MPI_COMM_WORLD); });
      turn("all_to_all", "comm::mpi", out, last, end, [&] { world.all_to_all(data, std::span(out)); });
      turn("all_to_all", "MPI", out, last, end,
           [&] { MPI_Alltoall(data.data(), n, MPI_FLOAT, out.data(), n, MPI_FLOAT, MPI_COMM_WORLD); });
      turn("broadcast", "comm::mpi", data, last, end, [&] { world.broadcast(std::span(data), world.size() - 1); });
      turn("broadcast", "MPI", data, last, end,
           [&] { MPI_Bcast(data.data(), all, MPI_FLOAT, world.size() - 1, MPI_COMM_WORLD); });
      turn("reduce_scatter", "comm::mpi", data, sum, mine, [&] { world.reduce_scatter(std::span(data)); });
      turn("reduce_scatter", "MPI", out, sum, 0,
           [&] { MPI_Reduce_scatter_block(data.data(), out.data(), n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); });
    }
    if (world.rank() != 0) continue;
    for (auto& [of, times] : seen)
      std::printf("row %s %s %zu %.9g %ld\n", of.first.c_str(), of.second.c_str(), bytes, bench::median_of(times),
                  wrong);
  }
}

int child() {
  comm::mpi world;
  auto const last = world.size() - 1, peer = world.rank() == 0 ? last : world.rank() == last ? 0 : MPI_PROC_NULL;
  for (auto const bytes : sizes) {
    std::vector<float> data(bytes / 4), in(data.size());
    int const n = static_cast<int>(data.size());
    long wrong = 0;
    std::map<std::string, std::vector<double>> seen;
    for (int k = -1; k < (bytes < (1u << 20) ? 21 : 3); ++k) {
      auto const turn = [&](char const* who, bool sums, auto const& call) {
        auto const meet = [] { MPI_Barrier(MPI_COMM_WORLD); };
        double t = bench::time_once(std::span(data), world.rank(), k, meet, [&](std::span<float>) { call(); });
        MPI_Allreduce(MPI_IN_PLACE, &t, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
        auto const P = world.size();
        if (sums) wrong += data[data.size() / 3] != static_cast<float>(P * (P - 1) / 2 + P * k);
        if (k >= 0) seen[who].push_back(t);
      };
      turn("comm::mpi", true, [&] { world.all_reduce(std::span(data)); });
      turn("MPI", true, [&] { MPI_Allreduce(MPI_IN_PLACE, data.data(), n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); });
      turn("link", false, [&] {
        MPI_Request both[2];
        MPI_Irecv(in.data(), n, MPI_FLOAT, peer, 1, MPI_COMM_WORLD, &both[0]);
        MPI_Isend(data.data(), n, MPI_FLOAT, peer, 1, MPI_COMM_WORLD, &both[1]);
        MPI_Waitall(2, both, MPI_STATUSES_IGNORE);
      });
    }
    if (world.rank() != 0) continue;
    for (auto& [who, times] : seen)
      std::printf("row all_reduce %s %zu %.9g %ld\n", who.c_str(), bytes, bench::median_of(times), wrong);
  }
  auto const hosts = world.topology();
  if (world.size() <= 4 && hosts.ranks_on(0).size() == hosts.ranks_on(1).size()) other_collectives(world);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 5;
  std::string json, rate = "1gbit";
  for (int i = 1; i < argc; ++i) {
    std::string const a = argv[i];
    if (a == "--child") return child();
    if (a == "--rounds" && i + 1 < argc) rounds = std::atoi(argv[++i]);
    if (a == "--json" && i + 1 < argc) json = argv[++i];
    if (a == "--rate" && i + 1 < argc) rate = argv[++i];
  }
  // By collective, contender, placement and size.
  using by_place = std::map<std::string, std::map<std::string, std::map<std::size_t, std::vector<double>>>>;
  std::map<std::string, by_place> of_all;
  long wrong = 0;
  for (int r = 0; r < rounds; ++r)
    for (auto const& [a, b] : placements)
      for (bool const yields : {false, true}) {
        setenv("OMPI_MCA_mpi_yield_when_idle", yields ? "1" : "0", 1);
        bench::peer_process ranks({"sh", DOVETAIL_COMM_HOSTS, DOVETAIL_MPIEXEC, rate, a, b, argv[0], "--child"});
        if (ranks.version.starts_with("no two hosts")) {
          std::printf("%s\nnothing is measured between hosts\n", ranks.version.c_str());
          return 0;
        }
        std::string const where = std::string(a) + "+" + b;
        for (std::string line = ranks.version; !line.empty(); line = ranks.line()) {
          char what[32], who[32];
          std::size_t bytes = 0;
          double seconds = 0;
          long w = 0;
          if (std::sscanf(line.c_str(), "row %31s %31s %zu %lf %ld", what, who, &bytes, &seconds, &w) != 5) continue;
          auto& all = of_all[what][who][where][bytes];
          if (yields && !all.empty())  // ours is at its best, as MPI is
            all.back() = std::min(all.back(), seconds);
          else
            all.push_back(seconds);
          wrong += w;
        }
        if (!ranks.end()) {
          std::printf("mpirun failed on %s ranks: nothing to compare with\n", where.c_str());
          return 1;
        }
      }

  bench::print_header();
  std::vector<bench::row> rows;
  auto& seen = of_all["all_reduce"];
  for (auto const& [a, b] : placements)
    for (auto const bytes : sizes)
      for (auto const* who : {"comm::mpi", "MPI", "link"}) {
        auto const& v = seen[who][std::string(a) + "+" + b][bytes];
        if (v.empty()) continue;
        double const P = std::atof(a) + std::atof(b);
        bool const link = who == std::string("link");
        rows.push_back({who, std::string(link ? "both ways " : "all_reduce ") + a + "+" + b, bytes, bench::median_of(v),
                        link ? 1 : 2 * (P - 1) / P, wrong});
        bench::print(rows.back());
      }
  for (auto const& what : others)
    for (auto const& [who, placed] : of_all[what])
      for (auto const& [where, by_size] : placed)
        for (auto const& [bytes, times] : by_size) {
          double const P = where == "1+1" ? 2 : 4;
          rows.push_back(
              {who, what + " " + where, bytes, bench::median_of(times), what == "broadcast" ? 1 : (P - 1) / P, wrong});
          bench::print(rows.back());
        }
  if (!json.empty()) bench::write_json(json, rows);

  // MPI often sends the one way after the other: the link is what the best exchange of all placements shows.
  auto& link = seen["link"]["1+1"][sizes.back()];
  for (auto const& [where, by_size] : seen["link"])
    for (double const t : by_size.at(sizes.back()))
      for (double& best : link) best = std::min(best, t);

  int failed = wrong != 0;
  auto const claim = [&](std::string const& what, std::string const& where, std::string const& peer,
                         std::string const& of_peer, std::size_t bytes, double at_most) {
    auto const &a = of_all[what]["comm::mpi"][where][bytes], &b = of_all[what][peer][of_peer][bytes];
    if (a.empty() || b.empty()) return;
    auto const ratio = bench::paired_ratio::of(a, b);
    auto const verdict = ratio.at_most(at_most);
    failed += verdict == bench::paired_ratio::verdict::does_not;
    std::printf("  %s  %s on %s ranks against %s at %zu bytes: %.3f in [%.3f, %.3f] <= %.3f\n", bench::name_of(verdict),
                what.c_str(), where.c_str(), peer.c_str(), bytes, ratio.median, ratio.low, ratio.high, at_most);
  };
  std::printf("\nclaims (median of the ratios of %d rounds in its 95 %% bounds), on a link of %s\n", rounds,
              rate.c_str());
  for (auto const& [a, b] : placements) {
    std::string const where = std::string(a) + "+" + b;
    claim("all_reduce", where, "link", "1+1", sizes.back(), 1.1);
    for (auto const bytes : sizes)
      // Where little is moved, waking each other takes the time, of as many ranks on a core as the placement has.
      if (bytes > 1024) claim("all_reduce", where, "MPI", where, bytes, bytes < 262144 ? 1.25 : 1.03);
  }
  for (auto const& what : others)
    for (auto const* where : {"1+1", "2+2"}) claim(what, where, "MPI", where, other_sizes.back(), 1.1);
  return failed ? 1 : 0;
}
