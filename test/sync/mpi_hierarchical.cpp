// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// mpi_hierarchical WHAT RANKS_ON_HOSTS, on processes that are on these pretended hosts ("2,2"), or on those they are on
// ("real"):
//   bits        prints a number made of all ranks' weights, and the bytes that have left each host as counted and as
//               predicted for the codecs that say so
//   threads     the first of these of thread ranks, without MPI
//   lost        the last rank ends in its third step: the others must throw rank_lost with its number
//   diverged    the last rank begins its third step anew: all must throw rank_diverged with its number. Who does prints
//               "rank <r> ok"
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/comm/decorators.hpp>
#include <dovetail/comm/mpi.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include "../comm/conformance.hpp"
#include "../comm/hosts.hpp"
#include "gradients.hpp"

using namespace dovetail;
using conformance::expect;

namespace {

template <class Codec>
auto policy_of(Codec const& codec) {
  return sync::all_reduce{.codec = codec, .plan = sync::exchange::hierarchical{}, .bucket_bytes = 160, .seed = 5};
}

template <class Codec, class C>
void train(Codec const& codec, C& c, fingerprint& all) {
  auto a = test::odd_arena();
  test::fill(a.weights(), 0, 1000);
  auto const policy = policy_of(codec);
  auto session = policy.join(a.parameters(), optim::adamw{.lr = 0.01f}, c);
  auto const before = c.traffic() + session.traffic();
  comm::traffic said;
  for (std::uint64_t s = 0; s < 5; ++s) {
    session.begin();
    test::fill(a.gradients(), c.rank(), s);
    session.ready(300);
    expect(!session.step().skipped, "step ", s);
    said = said + policy.predict(a.parameters(), c.topology(), c.rank(), static_cast<std::int64_t>(s));
  }
  auto const moved = c.traffic() + session.traffic() - before;
  expect(moved.bytes_sent == said.bytes_sent && moved.bytes_received == said.bytes_received, moved.bytes_sent,
         " bytes sent, ", said.bytes_sent, " predicted");
  auto const hashes = sync::detail::gather_words({fingerprint{}.add(std::as_bytes(std::span(a.weights()))).value()}, c);
  for (auto const& h : hashes) {
    expect(h[0] == hashes[0][0], "replicas differ");
    all.add(h[0]);
  }
}
template <class C>
void bits(C& c) {
  fingerprint all;
  train(compress::identity{}, c, all);
  train(compress::fp16{}, c, all);
  train(compress::int8{}, c, all);
  train(compress::error_feedback{compress::top_k{.ratio = 0.05f}}, c, all);
  train(compress::powersgd{.rank = 2}, c, all);
  if (c.rank() == 0) std::printf("%016llx\n", static_cast<unsigned long long>(all.value()));
}

int misses(comm::mpi& c, bool diverges) {
  int const last = c.size() - 1;
  bool ok = false;
  std::string said;
  try {
    arena a({{"a", {100}}, {"b", {100}}, {"c", {100}}, {"d", {100}}});
    sync::all_reduce const policy{
        .codec = compress::int8{}, .plan = sync::exchange::hierarchical{}, .bucket_bytes = 400};
    auto session = policy.join(a.parameters(), optim::sgd{}, c);
    for (int step = 0; step < 5; ++step) {
      session.begin();
      session.ready(200);
      if (step == 2 && c.rank() == last) {
        if (!diverges) std::_Exit(1);
        session.begin();
      }
      session.step();
    }
    said = "went through";
  } catch (rank_diverged const& e) {
    ok = diverges && e.rank == last;
    said = e.what();
  } catch (rank_lost const& e) {
    ok = !diverges && e.rank == last;
    said = e.what();
  } catch (std::exception const& e) {
    said = e.what();
  }
  std::printf("rank %d %s: %s\n", c.rank(), ok ? "ok" : "has missed it", said.c_str());
  std::fflush(stdout);
  std::_Exit(ok ? 0 : 1);  // what is broken is not freed, and MPI_Finalize would wait for it
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) return 2;
  std::string const what = argv[1], on = argv[2];
  if (what == "threads") {
    std::vector<std::string> labels;
    int ranks = 0;
    for (std::size_t i = 0; i < on.size(); i += 2) ranks += on[i] - '0';
    for (int r = 0; r < ranks; ++r) labels.push_back(hosts::of(r, on));
    comm::threads(ranks).run([&](auto& thread) {
      auto c = comm::with_topology(thread, comm::topology::of(labels));
      bits(c);
    });
    return 0;
  }
  comm::mpi_options options{.deadline = std::chrono::seconds(5)};  // who has ended on another host is found by it
  if (on != "real") options.host = hosts::of(hosts::launched_rank(), on);
  comm::mpi world(options);
  if (what != "bits") return misses(world, what == "diverged");
  bits(world);
} catch (std::exception const& e) {
  std::printf("%s\n", e.what());
  return 1;
}
