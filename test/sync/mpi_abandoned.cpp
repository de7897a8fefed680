// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mpi_abandoned (shared|messages) BUCKETS, on three processes: rank 1 abandons its second step after so many buckets
// and begins anew while the others are still in it. Every rank must throw rank_diverged, with weights that only the
// first step has changed. Prints "rank <r> ok" where that is so.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include <dovetail/comm/mpi.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

using namespace dovetail;

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  bool const shared = std::strcmp(argv[1], "shared") == 0;
  auto const seen_first = static_cast<std::size_t>(std::atoi(argv[2]));
  comm::mpi world({.deadline = std::chrono::seconds(20), .shared_memory = shared});
  arena a({{"a", {100}}, {"b", {100}}, {"c", {100}}, {"d", {100}}});
  bool ok = false;
  try {
    auto session = sync::all_reduce{.bucket_bytes = 400}.join(a.parameters(), optim::sgd{.lr = 1}, world);
    for (int step = 1; step < 4; ++step) {
      auto const backward = [&](float value, std::size_t buckets) {
        session.begin();
        std::fill(a.gradients().begin(), a.gradients().end(), value);
        for (std::size_t i = 4; i > 4 - buckets; --i) session.ready(a.parameters().offset(i - 1));
      };
      bool const abandons = world.rank() == 1 && step == 2;
      backward(static_cast<float>(step), abandons ? seen_first : 4);
      if (abandons) backward(static_cast<float>(step + 1), 4);
      session.step();
    }
  } catch (rank_diverged const& e) {
    ok = std::all_of(a.weights().begin(), a.weights().end(), [](float w) { return w == -3.f; });
    std::printf("rank %d %s: %s\n", world.rank(), ok ? "ok" : "has mixed steps", e.what());
  } catch (std::exception const& e) {
    std::printf("rank %d has missed it: %s\n", world.rank(), e.what());
  }
  std::fflush(stdout);
  // What is broken is not freed, and MPI_Finalize would wait for it.
  std::_Exit(ok ? 0 : 1);
}
