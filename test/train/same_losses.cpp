// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Trains two small networks on N ranks, threads of this process (`same_losses N`) or processes under mpirun
// (`same_losses mpi`), and prints every loss to its last bit. Rank 0 prints.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef SAME_LOSSES_MPI
#include <dovetail/comm/mpi.hpp>
#endif

#include "small.hpp"

using namespace dovetail;

namespace {

template <class Net, class Sync, class World, class Data, class Optimizer = optim::lamb>
void print_losses(char const* what, Sync const& sync, World& world, Data const& data, bool speaks,
                  Optimizer const& opt = {.lr = 0.02f}) {
  train::trainer trainer{test::initialized<Net>(), nn::softmax_cross_entropy{}, opt, sync, world};
  auto const report = trainer.fit(data, {.batch = 4, .steps = 12});
  auto const sums = trainer.evaluate(data, 5);
  if (!speaks) return;
  for (double loss : report.losses) std::printf("%s %a\n", what, loss);
  for (auto const& b : trainer.model().buffers()) {
    float first = 0;
    std::memcpy(&first, b.bytes.data(), sizeof first);
    std::printf("%s %s %a\n", what, b.name.c_str(), static_cast<double>(first));
  }
  std::printf("%s evaluated %a weights %016llx\n", what, sums.loss,
              static_cast<unsigned long long>(test::digest(trainer.model().parameters())));
}

template <class World>
void run(World& world, bool speaks) {
  print_losses<test::images_net>("dense", sync::all_reduce{.bucket_bytes = 2000}, world, test::images(), speaks);
  print_losses<test::blocks_net>("blocks", sync::all_reduce{}, world, test::images(), speaks);
  print_losses<test::images_net>("half", sync::all_reduce{compress::fp16{}}, world, test::images(), speaks);
  print_losses<test::text_net>("sparse", sync::all_reduce{compress::error_feedback{compress::top_k{.ratio = 0.05f}}},
                               world, test::text(), speaks);
  print_losses<test::text_net>(
      "signs",
      sync::all_reduce{compress::error_feedback{compress::sign{}}, sync::exchange::reduce_scatter_all_gather{}}, world,
      test::text(), speaks);
  print_losses<test::text_net>("changes", sync::all_reduce{compress::ef21{compress::sign{.block = 64}}}, world,
                               test::text(), speaks);
  sync::one_bit_adam const momentum{.lr = 0.01f, .warmup_steps = 4};
  print_losses<test::text_net>(
      "momentum",
      sync::all_reduce{compress::after{4, compress::identity{}, compress::error_feedback{compress::sign{}}}}, world,
      test::text(), speaks, momentum);
  print_losses<test::images_net>("sharded", sync::fully_sharded{.bucket_bytes = 2000}, world, test::images(), speaks);
  print_losses<test::images_net>("apart", sync::local_sgd{}, world, test::images(), speaks);
  print_losses<test::text_net>("every5", sync::local_sgd{.every = 5}, world, test::text(), speaks);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) return 2;
#ifdef SAME_LOSSES_MPI
  if (std::strcmp(argv[1], "mpi") == 0) {
    comm::mpi world;
    run(world, world.rank() == 0);
    return 0;
  }
#endif
  comm::threads world(std::atoi(argv[1]));
  run(world, true);
} catch (std::exception const& e) {
  std::fprintf(stderr, "same_losses: %s\n", e.what());
  return 1;
}
