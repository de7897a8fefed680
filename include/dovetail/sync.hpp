// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// When and how replicas agree.
#include <dovetail/sync/agreement.hpp>
#include <dovetail/sync/all_reduce.hpp>
#include <dovetail/sync/exchange.hpp>
#include <dovetail/sync/fully_sharded.hpp>
#include <dovetail/sync/hyperparameters.hpp>
#include <dovetail/sync/local_sgd.hpp>
#include <dovetail/sync/one_bit_adam.hpp>
#include <dovetail/sync/one_bit_lamb.hpp>
#include <dovetail/sync/parameter_server.hpp>
#include <dovetail/sync/regroup.hpp>
#include <dovetail/sync/role.hpp>
#include <dovetail/sync/session_traits.hpp>
#include <dovetail/sync/shard.hpp>
#include <dovetail/sync/summed.hpp>
