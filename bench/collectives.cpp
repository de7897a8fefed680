// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_collectives --help: times collectives, on threads in this process, alone, or under mpirun, with the
// communicator's own way or with algorithms, and prints nccl-tests' table: GB = 1e9, algbw = S/t with S the total
// array, busbw = algbw × 2(n-1)/n for all_reduce, (n-1)/n for reduce_scatter, all_gather and all_to_all, 1 for
// broadcast.
//
// Several algorithms (--algorithm own,ring) take turns call by call. A time is the median over iterations of the
// slowest rank's; every rank rewrites its array before each call, or caches would be measured, and every result is
// checked.
// --calibrate FILE measures all algorithms and writes the table that algorithm::automatic reads.
#include <dovetail/comm.hpp>
#include <dovetail/comm/algorithms.hpp>
#if defined(DOVETAIL_BENCH_MPI)
#include <dovetail/comm/mpi.hpp>
#endif

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "figures_file.hpp"

using namespace dovetail;
using comm::operation;
namespace algorithm = comm::algorithm;

namespace {

struct options {
  std::string backend = "threads", op = "all_reduce", type = "float", json, calibrate, table;
  std::vector<std::string> algorithms{"own"};
  int ranks = 2, iterations = 20, warmup = 2, factor = 4, root = 0;
  std::size_t least = 1024, most = 16 << 20;
};
constexpr std::array operations{operation::all_reduce, operation::reduce_scatter, operation::all_gather,
                                operation::all_to_all, operation::broadcast};

double bus_factor(operation op, int n) {
  double const part = (n - 1.0) / n;
  return op == operation::broadcast ? 1 : op == operation::all_reduce ? 2 * part : part;
}
std::vector<operation> operations_of(std::string const& name) {
  for (auto const op : operations)
    if (name == comm::name_of(op)) return {op};
  require(name == "all", "there is no operation '", name, "'");
  return {operations.begin(), operations.end()};
}
std::vector<std::size_t> sizes_of(options const& o) {
  std::vector<std::size_t> sizes;
  for (auto s = o.least; s <= o.most; s *= static_cast<std::size_t>(o.factor)) sizes.push_back(s);
  return sizes;
}

/// Small whole numbers, so that sums are exact in every type and order.
template <class T>
T value(int rank, std::size_t i, int k) {
  auto const x = static_cast<float>((static_cast<std::size_t>(rank) * 3 + i + static_cast<std::size_t>(k)) % 4);
  return static_cast<T>(x);
}

struct measured {
  double seconds = 0;
  std::int64_t wrong = 0;
};

/// One way to make one operation on arrays of one size, timed call by call.
template <class T, class Own>
class contest {
 public:
  contest(Own& own, operation op, std::size_t bytes, int root, bool in_place)
      : own_(own), op_(op), root_(root), in_place_(in_place) {
    auto const n = static_cast<std::size_t>(own.size());
    count_ = std::max<std::size_t>(bytes / sizeof(T) / n, 1) * n;
    data_.resize(count_);
    input_.resize(op == operation::all_to_all ? count_ : count_ / n);
  }
  std::size_t count() const { return count_; }
  static bool has(operation op, bool in_place) {
    return op == operation::all_gather || in_place == (op != operation::all_to_all);
  }

  template <class C>
  measured once(C& with, int k) {
    auto const n = static_cast<std::size_t>(own_.size()), me = static_cast<std::size_t>(own_.rank());
    auto const own = shard(count_, own_.size(), own_.rank());
    for (std::size_t i = 0; i < count_; ++i) data_[i] = value<T>(own_.rank(), i, k);
    for (std::size_t i = 0; i < input_.size(); ++i)
      input_[i] = value<T>(own_.rank(), op_ == operation::all_gather ? own.begin + i : i, k);
    own_.barrier();
    auto const begin = std::chrono::steady_clock::now();
    switch (op_) {
      case operation::all_reduce:
        with.all_reduce(std::span(data_));
        break;
      case operation::reduce_scatter:
        with.reduce_scatter(std::span(data_));
        break;
      case operation::all_gather:
        if (in_place_)
          with.all_gather(std::span(data_));
        else
          with.all_gather(std::span<T const>(input_), std::span(data_));
        break;
      case operation::all_to_all:
        with.all_to_all(std::span<T const>(input_), std::span(data_));
        break;
      default:
        with.broadcast(std::span(data_), root_);
    }
    measured m;
    m.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    own_.barrier();  // with more ranks than cores one that checks would take the core from one that is not done
    std::size_t const chunk = count_ / n;
    auto const expected = [&](std::size_t i) {
      if (op_ == operation::all_gather) return value<T>(static_cast<int>(i / chunk), i, k);
      if (op_ == operation::all_to_all) return value<T>(static_cast<int>(i / chunk), me * chunk + i % chunk, k);
      if (op_ == operation::broadcast) return value<T>(root_, i, k);
      float sum = 0;
      for (int r = 0; r < own_.size(); ++r) sum += static_cast<float>(value<T>(r, i, k));
      return static_cast<T>(sum);
    };
    std::size_t const from = op_ == operation::reduce_scatter ? own.begin : 0,
                      to = op_ == operation::reduce_scatter ? own.end : count_;
    for (std::size_t i = from; i < to; i += 1 + (to - from) / 4096)
      m.wrong += static_cast<float>(data_[i]) != static_cast<float>(expected(i));
    return m;
  }

 private:
  Own& own_;
  operation op_;
  int root_;
  bool in_place_;
  std::size_t count_ = 0;
  std::vector<T> data_, input_;
};

/// Every contender's median of the slowest rank's times, and what was wrong on all ranks.
template <class T, class Own, class With>
std::vector<measured> measure(Own& own, std::vector<With>& contenders, options const& o, operation op,
                              std::size_t bytes, bool in_place, std::size_t& count) {
  contest<T, Own> c(own, op, bytes, o.root, in_place);
  count = c.count();
  auto const n = contenders.size(), rounds = static_cast<std::size_t>(o.iterations);
  std::vector<double> seconds(n * rounds);
  std::vector<std::int64_t> wrong(n);
  for (int k = -o.warmup; k < o.iterations; ++k)
    for (std::size_t w = 0; w < n; ++w) {
      auto const m = c.once(contenders[w], k + o.warmup);
      wrong[w] += m.wrong;
      if (k >= 0) seconds[w * rounds + static_cast<std::size_t>(k)] = m.seconds;
    }
  own.all_reduce(std::span(seconds), comm::reduction::max);
  own.all_reduce(std::span(wrong), comm::reduction::sum);
  std::vector<measured> all;
  for (std::size_t w = 0; w < n; ++w) {
    auto const first = seconds.begin() + static_cast<std::ptrdiff_t>(w * rounds);
    std::nth_element(first, first + o.iterations / 2, first + o.iterations);
    all.push_back({first[o.iterations / 2], wrong[w]});
  }
  return all;
}

void print_header() {
  std::printf("# %12s %12s %6s %6s %5s  %-18s | out of place: %9s %7s %7s %6s | in place: %9s %7s %7s %6s\n", "size(B)",
              "count", "type", "redop", "root", "algorithm", "time(us)", "algbw", "busbw", "#wrong", "time(us)",
              "algbw", "busbw", "#wrong");
}
void print_half(measured const& m, double bytes, double factor, char const* pad) {
  if (m.seconds == 0)
    std::printf(" | %s %9s %7s %7s %6s", pad, "n/a", "n/a", "n/a", "n/a");
  else
    std::printf(" | %s %9.2f %7.3f %7.3f %6lld", pad, m.seconds * 1e6, bytes / m.seconds / 1e9,
                bytes / m.seconds / 1e9 * factor, static_cast<long long>(m.wrong));
}

/// The fastest way for each size, as rows for algorithm::automatic; a threshold lies between two sizes.
class calibration {
 public:
  void add(operation op, int ranks, std::size_t bytes, algorithm::kind best) {
    if (!rows_.empty() && rows_.back().op == op) {
      auto& last = rows_.back();
      if (last.use == best) {
        last_bytes_ = bytes;
        return;
      }
      last.bytes = static_cast<std::size_t>(std::sqrt(static_cast<double>(last_bytes_) * static_cast<double>(bytes)));
    }
    rows_.push_back({op, ranks, std::numeric_limits<std::size_t>::max(), best});
    last_bytes_ = bytes;
  }
  std::vector<algorithm::table_row> const& rows() const { return rows_; }

 private:
  std::vector<algorithm::table_row> rows_;
  std::size_t last_bytes_ = 0;
};

/// Runs on every rank; rank 0 prints.
template <class T, class Own>
void rows(Own& own, options const& o, bench::figures_file* figures, std::int64_t& wrong) {
  bool const first = own.rank() == 0;
  calibration found;
  auto const all_operations = operations_of(o.calibrate.empty() ? o.op : "all");
  std::vector<algorithm::table_row> table;
  if (!o.table.empty()) {
    std::ifstream in(o.table);
    require<input_error>(in.good(), o.table, " cannot be read");
    std::stringstream text;
    text << in.rdbuf();
    table = algorithm::automatic::parse(text.str());
  }
  for (auto const op : all_operations) {
    std::vector<std::string> names = o.algorithms;
    if (!o.calibrate.empty()) {
      names.clear();
      for (auto const k : algorithm::kinds)
        if (k == algorithm::kind::own || !algorithm::chosen{k}.leaves({op, own.size(), 0, 0, 1, 1}))
          names.push_back(name_of(k));
    }
    using with = decltype(comm::with_algorithm(own, algorithm::automatic{}));
    std::vector<with> contenders;
    for (auto const& name : names) {
      algorithm::automatic a{.table = table};
      if (name != "automatic")
        a.table = {{op, own.size(), std::numeric_limits<std::size_t>::max(), algorithm::kind_of(name)}};
      contenders.push_back(comm::with_algorithm(own, a));
    }
    if (first) {
      std::printf("# %s, %s, %d ranks, %d iterations behind %d\n", comm::name_of(op), o.backend.c_str(), own.size(),
                  o.iterations, o.warmup);
      print_header();
    }
    for (auto const size : sizes_of(o)) {
      std::size_t count = 0;
      std::vector<measured> halves[2];
      for (bool const in_place : {false, true})
        halves[in_place] = contest<T, Own>::has(op, in_place)
                               ? measure<T>(own, contenders, o, op, size, in_place, count)
                               : std::vector<measured>(contenders.size());
      double const factor = bus_factor(op, own.size()), bytes = static_cast<double>(count * sizeof(T));
      std::size_t best = 0;
      auto const time = [&](std::size_t w) { return halves[op != operation::all_to_all][w].seconds; };
      for (std::size_t w = 0; w < contenders.size(); ++w) {
        if (time(w) < time(best)) best = w;
        wrong += halves[0][w].wrong + halves[1][w].wrong;
        if (!first) continue;
        bool const reduces = op == operation::all_reduce || op == operation::reduce_scatter;
        std::printf("  %12zu %12zu %6s %6s %5d  %-18s", count * sizeof(T), count, o.type.c_str(),
                    reduces ? "sum" : "none", op == operation::broadcast ? o.root : -1, names[w].c_str());
        print_half(halves[0][w], bytes, factor, "            ");
        print_half(halves[1][w], bytes, factor, "        ");
        std::printf("\n");
        for (bool const in_place : {false, true})
          if (auto const& m = halves[in_place][w]; figures && m.seconds > 0)
            figures->add(
                "{\"op\": \"%s\", \"backend\": \"%s\", \"ranks\": %d, \"algorithm\": \"%s\", \"in_place\": %s, "
                "\"bytes\": "
                "%zu, \"type\": \"%s\", \"seconds\": %.9g, \"algbw\": %.6g, \"busbw\": %.6g, \"wrong\": %lld}",
                comm::name_of(op), o.backend.c_str(), own.size(), names[w].c_str(), in_place ? "true" : "false",
                count * sizeof(T), o.type.c_str(), m.seconds, bytes / m.seconds / 1e9, bytes / m.seconds / 1e9 * factor,
                static_cast<long long>(m.wrong));
      }
      if (first) std::fflush(stdout);
      if (!o.calibrate.empty()) found.add(op, own.size(), size, algorithm::kind_of(names[best]));
    }
  }
  if (first && !o.calibrate.empty()) {
    std::ofstream out(o.calibrate);
    out << algorithm::automatic::text_of(found.rows());
    require<input_error>(out.good(), o.calibrate, " cannot be written");
    std::printf("# the table for algorithm::automatic is in %s\n", o.calibrate.c_str());
  }
}

template <class World>
int run(World world, options const& o) {
  std::int64_t wrong = 0;
  world.run([&](auto& own) {
    std::int64_t mine = 0;
    std::optional<bench::figures_file> figures;
    if (own.rank() == 0) figures.emplace(o.json, "{\"program\": \"collectives\"}");
    auto* const to = figures ? &*figures : nullptr;
    if (o.type == "float")
      rows<float>(own, o, to, mine);
    else if (o.type == "double")
      rows<double>(own, o, to, mine);
    else if (o.type == "half")
      rows<fp16>(own, o, to, mine);
    else if (o.type == "bf16")
      rows<bf16>(own, o, to, mine);
    else
      rows<std::int32_t>(own, o, to, mine);
    if (own.rank() == 0) wrong = mine;
  });
  if (wrong != 0) std::printf("# %lld results are wrong\n", static_cast<long long>(wrong));
  return wrong == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) try {
  options o;
  CLI::App app{"Times collectives and prints nccl-tests' table."};
  app.add_option("--backend", o.backend, "threads, self or mpi (under mpirun)")
      ->check(CLI::IsMember({"threads", "self", "mpi"}))
      ->capture_default_str();
  app.add_option("--ranks", o.ranks, "of threads; mpirun says it otherwise")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--algorithm", o.algorithms, "own, automatic, or names, with commas: they take turns")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--op", o.op, "all_reduce, reduce_scatter, all_gather, all_to_all, broadcast or all")
      ->capture_default_str();
  app.add_option("--minbytes", o.least, "of the whole array; 4K, 1M are understood")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--maxbytes", o.most, "of the whole array")->transform(CLI::AsSizeValue(false))->capture_default_str();
  app.add_option("--factor", o.factor, "from one size to the next")->check(CLI::Range(2, 1024))->capture_default_str();
  app.add_option("--type", o.type)
      ->check(CLI::IsMember({"float", "double", "half", "bf16", "int32"}))
      ->capture_default_str();
  app.add_option("--iters", o.iterations)->check(CLI::Range(1, 1000000))->capture_default_str();
  app.add_option("--warmup", o.warmup)->check(CLI::Range(0, 1000))->capture_default_str();
  app.add_option("--root", o.root, "of a broadcast")->check(CLI::Range(0, 1023))->capture_default_str();
  app.add_option("--json", o.json, "figures as JSON");
  app.add_option("--table", o.table, "of --algorithm automatic, as --calibrate writes it");
  app.add_option("--calibrate", o.calibrate, "measures all operations with all algorithms and writes the table");
  CLI11_PARSE(app, argc, argv);
  require(o.least >= 1 && o.least <= o.most, "--minbytes ", o.least, " and --maxbytes ", o.most,
          ": no size lies between");
  if (o.backend == "self") return run(comm::self{}, o);
  if (o.backend == "threads") return run(comm::threads{o.ranks}, o);
#if defined(DOVETAIL_BENCH_MPI)
  return run(comm::mpi{}, o);
#else
  throw error("this program was built without MPI");
#endif
} catch (std::exception const& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
