// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a rank has of a divided optimizer's state is not what all ranks have.
// first error gcc: has its state divided among ranks, so it is not what every rank would save.*sync::sharded
// first error clang: sync::sharded.*has its state divided among ranks, so it is not what every rank would save
#include <dovetail/comm/self.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

using namespace dovetail;

std::size_t save(parameter_list& parameters, comm::self& comm) {
#ifdef FAIL
  auto const opt = sync::shard(optim::adamw{}, comm);
#else
  optim::adamw const opt{};
#endif
  auto session = sync::all_reduce{}.join(parameters, opt, comm);
  return session.replicated("").size();
}
