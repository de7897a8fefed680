// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mpi_hosts [RANKS_ON_HOSTS]: what large collectives count as leaving a host, on the hosts that the ranks are on, or on
// pretended ones ("2,1"). Prints what all ranks of the first host have counted, and those of the second, in bytes.
#include <dovetail/comm/mpi.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "conformance.hpp"
#include "hosts.hpp"

using namespace dovetail;
using conformance::expect;

namespace {

constexpr std::size_t n = 360'000;  // divides among any number of ranks up to six

/// What leaves each host in f(), by all ranks of it.
template <class F>
std::vector<std::uint64_t> off_hosts(comm::mpi& c, F f) {
  auto const before = c.traffic();
  f();
  std::vector<std::uint64_t> by_host(static_cast<std::size_t>(c.topology().hosts()));
  by_host[static_cast<std::size_t>(c.topology().host(c.rank()))] = (c.traffic() - before).sent_off_host;
  c.all_reduce(std::span(by_host));
  return by_host;
}
void is(char const* what, std::vector<std::uint64_t> const& by_host, std::vector<std::uint64_t> const& expected) {
  for (std::size_t h = 0; h < by_host.size(); ++h)
    expect(by_host[h] == expected[h], what, ": host ", h, " sends ", by_host[h], " bytes to others, not ", expected[h]);
}

void measure(comm::mpi& c) {
  auto const hosts = c.topology().hosts(), ranks = c.size();
  expect(hosts >= 2 &&
             c.transport() == std::string(hosts == ranks && hosts > 2 ? "messages" : "messages from host to host"),
         hosts, " hosts, ", c.transport());
  auto const each = [&](auto f) {
    std::vector<std::uint64_t> all;
    for (int h = 0; h < hosts; ++h) all.push_back(static_cast<std::uint64_t>(f(h)));
    return all;
  };
  std::uint64_t const bytes = 4 * n, P = static_cast<std::uint64_t>(ranks);
  auto const on = [&](int h) { return static_cast<std::uint64_t>(c.topology().ranks_on(h).size()); };
  auto const before = [&](int h) {
    std::uint64_t sum = 0;
    for (int g = 0; g < h; ++g) sum += on(g);
    return sum;
  };
  auto const part = bytes / P;
  std::uint64_t direct = 0;  // what the host sends that sends most, of a part to everybody
  for (int h = 0; h < hosts; ++h) direct = std::max(direct, on(h) * (P - on(h)) * part);

  std::vector<float> v(n, 1.0f), w(n);
  std::vector<bf16> halves(2 * n, bf16(1.0f));
  std::vector<std::uint64_t> all(static_cast<std::size_t>(hosts));
  auto const add = [&](std::vector<std::uint64_t> const& by_host) {
    for (std::size_t h = 0; h < all.size(); ++h) all[h] += by_host[h];
    return by_host;
  };
  // Along the line however many ranks a host has, if that is no more: sums to the last host, results back.
  auto const along = [&](std::uint64_t wide, bool to_all) {
    bool const line = bytes * (wide + (hosts > 2)) <= (to_all ? 2 : 1) * direct;
    return each([&](int h) {
      auto const back = to_all ? (h > 0 ? bytes : 0) : before(h) * part;
      return line ? (h + 1 < hosts ? wide * bytes : 0) + back : (to_all ? 2 : 1) * on(h) * (P - on(h)) * part;
    });
  };
  is("all_reduce", add(off_hosts(c, [&] { c.all_reduce(std::span(v)); })), along(1, true));
  is("reduce_scatter", add(off_hosts(c, [&] { c.reduce_scatter(std::span(v)); })), along(1, false));
  is("all_reduce of halves", add(off_hosts(c, [&] { c.all_reduce(std::span(halves)); })), along(2, true));
  is("all_gather", add(off_hosts(c, [&] { c.all_gather(std::span(w)); })),
     each([&](int h) { return part * on(h) * static_cast<std::uint64_t>(hosts - 1); }));
  std::vector<std::byte> mine(static_cast<std::size_t>(20'000 * (c.rank() + 1)), std::byte{1}), gathered;
  is("all_gather_v", add(off_hosts(c, [&] { c.all_gather_v(mine, gathered); })), each([&](int h) {
       std::uint64_t sum = 0;
       for (int const r : c.topology().ranks_on(h)) sum += static_cast<std::uint64_t>(20'000 * (r + 1) * (hosts - 1));
       return sum;
     }));
  // From the last host, along a tree of the hosts.
  is("broadcast", add(off_hosts(c, [&] { c.broadcast(std::span(v), ranks - 1); })), each([&](int h) {
       auto const children = hosts == 2 ? (h == 1) : 2 * (h == 2);
       return bytes * static_cast<std::uint64_t>(children);
     }));
  if (c.rank() == 0)
    std::printf("%llu %llu\n", static_cast<unsigned long long>(all[0]), static_cast<unsigned long long>(all[1]));
}

}  // namespace

int main(int argc, char** argv) try {
  comm::mpi c{{.deadline = std::chrono::seconds(60),
               .host = argc > 1 ? hosts::of(hosts::launched_rank(), argv[1]) : std::string()}};
  c.run([](comm::mpi& k) { measure(k); });
} catch (std::exception const& e) {
  std::fprintf(stderr, "%s\n", e.what());
  std::fflush(stderr);
  return 1;
}
