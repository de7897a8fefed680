// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mpi_again threads RANKS | mpi | mpi messages: communicators that are made, split and destroyed again and again, with
// random operations in between, messages that nobody receives, and ranks that leave at different times. Each operation
// is checked; rank 0 prints a digest, which must not depend on the backend.
#include <dovetail/comm/mpi.hpp>
#include <dovetail/comm/threads.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "conformance.hpp"

using namespace dovetail;
using conformance::expect;
using conformance::mix;

namespace {

/// One operation, the same on all ranks of `c` for the same dice.
template <class C>
void operate(C& c, std::uint64_t dice, conformance::digest& d) {
  auto const n = static_cast<std::size_t>(dice / 8 % 7 == 0 ? 20000 : dice / 8 % 97);
  auto const p = static_cast<std::size_t>(c.size());
  auto v = conformance::values<float>(c.rank(), n * p, dice);
  switch (dice % 8) {
    case 0:
      c.all_reduce(std::span(v));
      for (std::size_t i = 0; i < v.size(); i += 1 + n / 9)
        expect(v[i] == conformance::reduced<float>(comm::reduction::sum, c.size(), i, dice), "all_reduce");
      break;
    case 1:
      c.all_gather(std::span(v));
      break;
    case 2:
      c.broadcast(std::span(v), static_cast<int>(dice / 1024 % p));
      expect(v == conformance::values<float>(static_cast<int>(dice / 1024 % p), n * p, dice), "broadcast");
      break;
    case 3: {
      std::vector<std::byte> all;
      c.all_gather_v(std::as_bytes(std::span(v).first(n * static_cast<std::size_t>(c.rank()))), all);
      d.add(std::span(all));
      return;
    }
    case 4: {
      auto const in = v;
      c.all_to_all(std::span<float const>(in), std::span(v));
      for (std::size_t r = 0; r < p && n > 0; ++r)
        expect(v[r * n] == conformance::value<float>(static_cast<int>(r), static_cast<std::size_t>(c.rank()) * n, dice),
               "all_to_all");
      break;
    }
    case 5: {
      int const next = (c.rank() + 1) % c.size(), last = (c.rank() + c.size() - 1) % c.size();
      c.send(std::as_bytes(std::span(v)), next, static_cast<int>(dice / 1024 % 3));
      c.recv(std::as_writable_bytes(std::span(v)), last, static_cast<int>(dice / 1024 % 3));
      expect(v == conformance::values<float>(last, n * p, dice), "a message");
      break;
    }
    default:
      c.barrier();
      return;
  }
  d.add(std::span(v));
}

/// Splits, works in the part, leaves something unreceived there, and keeps some parts for longer than others do.
template <class C>
void live(C& c, std::uint64_t seed, int rounds, conformance::digest& d) {
  using part_type = decltype(c.split(0, 0));
  std::vector<std::optional<part_type>> kept(3);
  for (int i = 0; i < rounds; ++i) {
    auto const dice = mix(0, static_cast<std::size_t>(i), seed);
    operate(c, dice, d);
    int const colors = 1 + static_cast<int>(dice / 16 % 3);
    part_type part = c.split(static_cast<int>(mix(c.rank(), static_cast<std::size_t>(i), seed) % 100) % colors,
                             dice % 2 ? -c.rank() : 0);
    for (std::uint64_t k = 0; k < dice % 5; ++k) operate(part, mix(1, k, dice), d);
    // An old message must not be the new part's: same tag, same ranks, other contents.
    if (part.size() > 1 && part.rank() == 0) {
      std::vector<std::uint64_t> const unread(dice % 3 ? 3 : 30000, 111 + dice);
      part.send(std::as_bytes(std::span(unread)), 1, 2);
    }
    if (dice % 4 == 0) {
      auto again = part.split(0, part.rank());
      std::uint64_t one = dice;
      if (again.size() > 1 && again.rank() == 0) again.send(std::as_bytes(std::span(&one, 1)), 1, 2);
      if (again.size() > 1 && again.rank() == 1) {
        one = 0;
        again.recv(std::as_writable_bytes(std::span(&one, 1)), 0, 2);
        expect(one == dice, "a message of an older communicator was received");
      }
    }
    if (mix(c.rank(), static_cast<std::size_t>(i), seed + 1) % 3 == 0)
      kept[static_cast<std::size_t>(i) % kept.size()].emplace(std::move(part));
    if (mix(c.rank(), static_cast<std::size_t>(i), seed + 2) % 16 == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace

int main(int argc, char** argv) try {
  std::string const backend = argc > 1 ? argv[1] : "", how = argc > 2 ? argv[2] : "";
  constexpr int times = 8, rounds = 12;
  auto const print = [](auto const& c, conformance::digest const& d) {
    if (c.rank() == 0) std::printf("%d ranks: digest %016llx\n", c.size(), static_cast<unsigned long long>(d.value));
  };
  if (backend == "threads") {
    comm::threads{std::atoi(how.c_str())}.run([&](auto& c) {
      conformance::digest d;
      for (std::uint64_t t = 0; t < times; ++t) live(c, t, rounds, d);
      print(c, d);
    });
    return 0;
  }
  comm::mpi_options const options{.deadline = std::chrono::seconds(30), .shared_memory = how.empty()};
  comm::mpi const keeps_mpi{options};
  conformance::digest d;
  for (std::uint64_t t = 0; t < times; ++t) {
    comm::mpi again(MPI_COMM_WORLD, options);  // six in a row hung
    live(again, t, rounds, d);
    if (mix(again.rank(), t, 9) % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  for (int i = 0; i < 10; ++i) comm::mpi(MPI_COMM_WORLD, options).barrier();
  {
    // The one that was split may go before its parts, and ranks may go on in the meantime.
    std::optional<comm::mpi> whole(std::in_place, MPI_COMM_WORLD, options);
    auto part = whole->split(0, 0);
    auto other = part.split(0, 0);
    if (part.rank() == 0) whole.reset();
    part.barrier();
    if (part.rank() != 0) whole.reset();
    if (part.rank() == part.size() - 1)
      part = other.split(0, 0);
    else
      static_cast<void>(other.split(0, 0));
    other.barrier();
  }
  print(keeps_mpi, d);
} catch (std::exception const& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
