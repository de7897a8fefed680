// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An optimizer that is divided among ranks takes its steps together with them; local SGD lets ranks train apart.
// first error gcc: needs the same gradients on all ranks, which sync::local_sgd lets train apart.*sync::sharded
// first error clang: sync::sharded.*needs the same gradients on all ranks, which sync::local_sgd lets train apart
#include <dovetail/comm/self.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

using namespace dovetail;

void train_apart(parameter_list& parameters, comm::self& comm) {
#ifdef FAIL
  auto const opt = sync::shard(optim::adamw{}, comm);
#else
  optim::adamw const opt{};
#endif
  auto session = sync::local_sgd{}.join(parameters, opt, comm);
  session.begin();
}
