// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_comm_threads [RANKS [JSON]]: the collectives of comm::threads in the table of nccl-tests.
#include <dovetail/comm/threads.hpp>

#include <cstdlib>
#include <string>
#include <vector>

#include "comm_table.hpp"

using namespace dovetail;

int main(int argc, char** argv) {
  int const ranks = argc > 1 ? std::atoi(argv[1]) : 2;
  double const n = ranks;
  std::vector<bench::row> rows;
  bench::print_header();
  comm::threads{ranks}.run([&](auto& c) {
    auto const one = [&](char const* op, std::size_t bytes, double factor, auto call, auto expected) {
      std::vector<float> data(bytes / 4 / static_cast<std::size_t>(ranks) * static_cast<std::size_t>(ranks));
      std::vector<double> times;
      long wrong = 0;
      auto const mine = shard(data.size(), c.size(), c.rank());
      for (int k = -1; k < std::max(5, bench::repetitions(bytes) / 3); ++k) {
        double const t = bench::time_once(
            std::span(data), c.rank(), k, [&] { c.barrier(); }, call);
        if (k >= 0) times.push_back(t);
        for (std::size_t i = mine.begin; i < mine.end; i += 1 + mine.size() / 64) wrong += data[i] != expected(k);
      }
      if (c.rank() != 0) return;
      rows.push_back({"threads", op, data.size() * 4, bench::median_of(times), factor, wrong});
      bench::print(rows.back());
    };
    auto const sum = [&](int k) { return static_cast<float>(ranks * k + ranks * (ranks - 1) / 2); };
    auto const own = [&](int k) { return static_cast<float>(c.rank() + k); };
    auto const root = [](int k) { return static_cast<float>(k); };
    for (std::size_t bytes = 1024; bytes <= (16u << 20); bytes *= 16) {
      std::vector<float> out(bytes / 4 / static_cast<std::size_t>(ranks) * static_cast<std::size_t>(ranks));
      one(
          "all_reduce", bytes, 2 * (n - 1) / n, [&](std::span<float> d) { c.all_reduce(d); }, sum);
      one(
          "reduce_scatter", bytes, (n - 1) / n, [&](std::span<float> d) { c.reduce_scatter(d); }, sum);
      one(
          "all_gather", bytes, (n - 1) / n, [&](std::span<float> d) { c.all_gather(d); }, own);
      one(
          "broadcast", bytes, 1, [&](std::span<float> d) { c.broadcast(d, 0); }, root);
      one(
          "all_to_all", bytes, (n - 1) / n,
          [&](std::span<float> d) { c.all_to_all(std::span<float const>(d), std::span(out)); }, own);
    }
  });
  if (argc > 2) bench::write_json(argv[2], rows);
  long wrong = 0;
  for (auto const& r : rows) wrong += r.wrong;
  return wrong != 0;
}
