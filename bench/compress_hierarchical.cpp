// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_compress_hierarchical [STEPS]: time per step of sync::all_reduce with and without sync::exchange::hierarchical,
// dense and with int8, by ranks of comm::mpi, which take turns step by step; bytes that leave this rank's host a step.
// On two hosts of two ranks whose link has a rate (network namespaces, as root):
//     sh bench/comm_hosts.sh mpirun 100mbit 2 2 build/release/bench/bench_compress_hierarchical
#include <dovetail/comm/mpi.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

using namespace dovetail;

namespace {

/// A rank's model: four matrices of 512 x 1024, 8.4 MB of gradients in two buckets.
struct contender {
  std::string name;
  arena memory{{{"w0", {512, 1024}}, {"w1", {512, 1024}}, {"w2", {512, 1024}}, {"w3", {512, 1024}}}};
  std::function<comm::traffic()> step;  ///< what it has moved
  std::vector<double> seconds;
  double off_host = 0;
};
std::vector<std::unique_ptr<contender>> contenders;

template <class Codec, class Exchange>
void add(std::string name, Codec const& codec, Exchange const& exchange, comm::mpi& world) {
  auto& c = *contenders.emplace_back(std::make_unique<contender>());
  c.name = std::move(name);
  using policy = sync::all_reduce<Codec, Exchange>;
  using session_type = decltype(policy{}.join(c.memory.parameters(), optim::sgd{}, world));
  auto session =
      std::make_shared<session_type>(policy{codec, exchange}, c.memory.parameters(), optim::sgd{.lr = 1e-3f}, world);
  c.step = [session, &world] {
    auto const before = world.traffic() + session->traffic();
    session->begin();
    session->ready(0);
    session->step();
    return world.traffic() + session->traffic() - before;
  };
}

}  // namespace

int main(int argc, char** argv) {
  int const steps = argc > 1 ? std::atoi(argv[1]) : 10;
  comm::mpi world;
  using sync::exchange::automatic, sync::exchange::hierarchical;
  add("dense", compress::identity{}, automatic{}, world);
  add("dense, hierarchical", compress::identity{}, hierarchical{}, world);
  add("int8", compress::int8{}, automatic{}, world);
  add("int8, hierarchical", compress::int8{}, hierarchical{}, world);
  for (int s = -2; s < steps; ++s)
    for (auto& c : contenders) {
      std::size_t i = static_cast<std::size_t>(s + 2);
      for (float& g : c->memory.gradients()) g = 1e-3f * static_cast<float>((i++ * 7 + 1) % 113) - 0.05f;
      world.barrier();
      auto const begin = std::chrono::steady_clock::now();
      auto const moved = c->step();
      double all[] = {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
                      world.topology().host(world.rank()) == 0 ? static_cast<double>(moved.sent_off_host) : 0};
      world.all_reduce(std::span<double>(all, 1), comm::reduction::max);
      world.all_reduce(std::span<double>(all + 1, 1), comm::reduction::sum);
      if (s >= 0) c->seconds.push_back(all[0]);
      c->off_host = all[1];
    }
  if (world.rank() != 0) return 0;
  std::printf("%d ranks on %d hosts, %s; median of %d steps\n", world.size(), world.topology().hosts(),
              world.transport(), steps);
  for (auto& c : contenders) {
    std::sort(c->seconds.begin(), c->seconds.end());
    std::printf("%-20s %9.2f ms  (%.2f to %.2f)  %10.0f bytes leave the first host\n", c->name.c_str(),
                1e3 * c->seconds[c->seconds.size() / 2], 1e3 * c->seconds.front(), 1e3 * c->seconds.back(),
                c->off_host);
  }
}
