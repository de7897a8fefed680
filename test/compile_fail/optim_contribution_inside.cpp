// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A rule that has ranks agree on something else than gradients cannot stand inside of one that hands gradients on.
// mistakes: 3
// first error gcc: has ranks agree on what it contributes, and not on gradients.*one_bit_adam
// first error clang: one_bit_adam.*has ranks agree on what it contributes, and not on gradients
#include <dovetail/comm/self.hpp>
#include <dovetail/optim/any_optimizer.hpp>
#include <dovetail/sync/one_bit_adam.hpp>
#include <dovetail/optim/partition.hpp>
#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/sync/shard.hpp>

using namespace dovetail;
#if FAIL == 1
using inner = optim::partition<sync::one_bit_adam>;
#else
using inner = optim::partition<optim::adamw>;
#endif
static_assert(sizeof(inner) > 0);
#if FAIL == 3
inline optim::any_optimizer chosen() { return sync::one_bit_adam{}; }
#endif
#if FAIL == 2
static_assert(sizeof(sync::sharded<sync::one_bit_adam, comm::self>) > 0);
#endif
