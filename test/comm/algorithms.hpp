// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <dovetail/comm/algorithms.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "conformance.hpp"

// What every algorithm must do on every communicator: right results, the same bits on all ranks, and as many bytes as
// its schedule says.
namespace conformance {

/// Counts what an operation moved against what was predicted.
template <class C>
class cost_check {
 public:
  cost_check(C const& c, comm::call const& what)
      : comm_(c), before_(c.traffic()), cost_(c.cost_of(what)), what_(what) {}
  void done() const {
    auto const t = comm_.traffic() - before_;
    expect(t == cost_.traffic, what_, " on rank ", comm_.rank(), " of ", comm_.size(), " moved ", t.bytes_sent, " and ",
           t.bytes_received, " bytes (", t.sent_off_host, " to other hosts) in ", t.operations,
           " operations; predicted ", cost_.traffic.bytes_sent, ", ", cost_.traffic.bytes_received, " (",
           cost_.traffic.sent_off_host, ')');
  }

 private:
  C const& comm_;
  comm::traffic before_;
  comm::schedule_cost cost_;
  comm::call what_;
};

/// Any order of additions gives this, to within the roundings of P additions. Integers and minima have none.
template <class T>
void expect_reduced(T got, reduction how, int ranks, std::size_t i, std::uint64_t seed) {
  if constexpr (std::is_integral_v<T>) {
    expect(got == reduced<T>(how, ranks, i, seed), "element ", i, " of integers");
  } else {
    if (how != reduction::sum) return expect(same_bits(got, reduced<T>(how, ranks, i, seed)), "element ", i);
    double sum = 0, size = 0;
    for (int r = 0; r < ranks; ++r) {
      double const x = static_cast<double>(static_cast<float>(value<T>(r, i, seed)));
      sum += x, size += std::abs(x);
    }
    double const epsilon = std::is_same_v<T, bf16>    ? 0x1p-8
                           : std::is_same_v<T, fp16>  ? 0x1p-11
                           : std::is_same_v<T, float> ? 0x1p-24
                                                      : 0x1p-53;
    double is = 0;
    if constexpr (std::is_same_v<T, double>)
      is = got;
    else
      is = static_cast<double>(static_cast<float>(got));
    expect(std::abs(is - sum) <= ranks * epsilon * size, "element ", i, " is ", is, ", not ", sum);
  }
}

template <class T, class C>
void reductions_of(C& c, std::vector<std::size_t> const& sizes, digest& d) {
  for (auto const how : {reduction::sum, reduction::max})
    for (std::size_t const n : sizes) {
      auto const mine = shard(n, c.size(), c.rank());
      std::uint64_t const seed = n + static_cast<std::uint64_t>(how);
      auto v = values<T>(c.rank(), n, seed);
      {
        cost_check const t(c, {comm::operation::all_reduce, dtype_of<T>(), how, -1, n, {}});
        c.all_reduce(std::span(v), how);
        t.done();
      }
      for (std::size_t i = 0; i < n; i += 1 + n / 500) expect_reduced(v[i], how, c.size(), i, seed);
      d.add(std::span(v));
      v = values<T>(c.rank(), n, seed);
      {
        cost_check const t(c, {comm::operation::reduce_scatter, dtype_of<T>(), how, -1, n, {}});
        c.reduce_scatter(std::span(v), how);
        t.done();
      }
      for (std::size_t i = mine.begin; i < mine.end; i += 1 + n / 500) expect_reduced(v[i], how, c.size(), i, seed);
      {
        cost_check const t(c, {comm::operation::all_gather, dtype_of<T>(), how, -1, n, {}});
        c.all_gather(std::span(v));
        t.done();
      }
      for (std::size_t i = 0; i < n; i += 1 + n / 500) expect_reduced(v[i], how, c.size(), i, seed);
      d.add(std::span(v));
    }
}

template <class T, class C>
void moves_of(C& c, std::vector<std::size_t> const& sizes, digest& d) {
  int const P = c.size(), me = c.rank();
  auto const p = static_cast<std::size_t>(P);
  for (std::size_t const n : sizes) {
    auto const mine = values<T>(me, n, 3);
    std::vector<T> all(n * p);
    {
      cost_check const t(c, {comm::operation::all_gather, dtype_of<T>(), reduction::sum, -1, n * p, {}});
      c.all_gather(std::span<T const>(mine), std::span(all));
      t.done();
    }
    for (int r = 0; r < P; ++r)
      expect(std::ranges::equal(std::span(all).subspan(static_cast<std::size_t>(r) * n, n), values<T>(r, n, 3)),
             "all_gather: part of rank ", r, " of ", P);
    d.add(std::span(all));
    for (int root = 0; root < P; root += 1 + P / 3) {
      auto v = values<T>(me, n, 11);
      cost_check const t(c, {comm::operation::broadcast, dtype_of<T>(), reduction::sum, root, n, {}});
      c.broadcast(std::span(v), root);
      t.done();
      expect(v == values<T>(root, n, 11), "broadcast of ", n, " from ", root);
    }
    std::vector<T> out(n * p);
    auto const in = values<T>(me, n * p, 5);
    {
      cost_check const t(c, {comm::operation::all_to_all, dtype_of<T>(), reduction::sum, -1, n * p, {}});
      c.all_to_all(std::span<T const>(in), std::span(out));
      t.done();
    }
    for (int r = 0; r < P; ++r)
      for (std::size_t i = 0; i < n; i += 1 + n / 50)
        expect(out[static_cast<std::size_t>(r) * n + i] == value<T>(r, static_cast<std::size_t>(me) * n + i, 5),
               "all_to_all: element ", i, " from rank ", r);
  }
}

/// Everything, of a communicator with an algorithm. Rank 0's number is every rank's.
template <class C>
std::uint64_t algorithm(C& c) {
  auto const p = static_cast<std::size_t>(c.size());
  std::vector<std::size_t> const few{0, 1, p - 1, p + 1, 1001}, more{0, 1, 2, p - 1, p, p + 1, 31, 1001, 70001};
  digest d;
  reductions_of<float>(c, more, d);
  reductions_of<double>(c, few, d);
  reductions_of<fp16>(c, few, d);
  reductions_of<bf16>(c, few, d);
  reductions_of<std::int32_t>(c, few, d);
  reductions_of<std::uint8_t>(c, few, d);
  moves_of<float>(c, {0, 1, 1001, 20011}, d);
  moves_of<std::byte>(c, {1, 333}, d);
  std::vector<std::uint64_t> digests(p);
  c.inner().all_gather(std::span<std::uint64_t const>(&d.value, 1), std::span(digests));
  for (auto const theirs : digests) expect(theirs == d.value, "ranks got different bits");
  return d.value;
}

}  // namespace conformance
