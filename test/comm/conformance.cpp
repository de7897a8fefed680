// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The conformance suite as a program: `threads RANKS` in this process, or, under mpirun, `mpi [plain|checked|pieces]`:
// through shared memory, or (plain) by messages, comparing calls first (checked), or in many small messages (pieces).
// `threads RANKS algorithms`, `mpi algorithms`: the suite of algorithms, with each of them.
// Rank 0 prints a digest of all results, which must not depend on the backend.
#include <dovetail/comm/decorators.hpp>
#include <dovetail/comm/mpi.hpp>
#include <dovetail/comm/threads.hpp>
#include <dovetail/concepts.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "algorithms.hpp"
#include "conformance.hpp"

using namespace dovetail;
static_assert(communicator<comm::mpi> && world<comm::mpi>);

namespace {
template <class C>
void all_algorithms(C& c) {
  for (auto const k : comm::algorithm::kinds) {
    auto with = comm::with_algorithm(c, comm::algorithm::chosen{k});
    auto const digest = conformance::algorithm(with);
    if (c.rank() == 0) std::printf("%s %016llx ", name_of(k), static_cast<unsigned long long>(digest));
  }
  if (c.rank() == 0) std::printf("\n");
}
}  // namespace

int main(int argc, char** argv) try {
  std::string const backend = argc > 1 ? argv[1] : "", how = argc > 2 ? argv[2] : "";
  auto const print = [](auto& c) {
    auto const digest = conformance::all(c);
    if (c.rank() == 0) std::printf("%d ranks: digest %016llx\n", c.size(), static_cast<unsigned long long>(digest));
  };
  bool const algorithms = how == "algorithms" || (argc > 3 && std::string(argv[3]) == "algorithms");
  if (backend == "threads" && algorithms) {
    comm::threads{std::atoi(how.c_str())}.run([](auto& c) { all_algorithms(c); });
  } else if (algorithms) {
    comm::mpi{{.deadline = std::chrono::seconds(60)}}.run([](auto& c) {
      all_algorithms(c);
      // By messages, as around any communicator, in place of its own steps.
      auto steps = comm::with_algorithm(c, comm::algorithm::chosen{comm::algorithm::kind::ring});
      auto around = comm::decorate(c, [](auto&, comm::call const&, auto const& operation) { operation(); });
      auto messages = comm::with_algorithm(around, comm::algorithm::chosen{comm::algorithm::kind::ring});
      conformance::expect(conformance::algorithm(steps) == conformance::algorithm(messages), "a ring of messages");
    });
  } else if (backend == "threads") {
    comm::threads{std::atoi(how.c_str())}.run(print);
  } else {
    comm::mpi_options options{.deadline = std::chrono::seconds(60), .shared_memory = how.empty()};
    if (how == "checked") options.check = true;
    if (how == "pieces") options.largest_message = 1000;
    comm::mpi world{options};
    auto copy = world;
    copy.run(print);
    conformance::expect(world.traffic() == copy.traffic(), "copies count together");
    comm::mpi joined{MPI_COMM_WORLD, {.order = comm::mpi_order::native}};  // beside the first: messages do not mix
    std::vector<std::int64_t> v(5000, joined.rank());
    joined.all_reduce(std::span(v), comm::reduction::max);
    conformance::expect(v[4999] == joined.size() - 1, "native all_reduce");
#if defined(DOVETAIL_BOOST_MPI)
    comm::mpi boosted{boost::mpi::communicator{}};
    boosted.barrier();
#endif
  }
} catch (std::exception const& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
