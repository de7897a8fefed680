// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// All of optim/ that needs a C++20 compiler and threads only. For programs that name them: optim/matrix.hpp, which
// needs BLAS and LAPACK; optim/second_order.hpp, methods that see all parameters as one vector;
// optim/low_precision.hpp; optim/sam.hpp; optim/rules/registry.hpp with optim/any_optimizer.hpp and optim/settings.hpp,
// rules by name, which compiles all that is registered; optim/linalg/remote_span.hpp, for algebras of other memory;
// what runs on a device is in optim/cuda/.
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/decoded_gradients.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/param_groups.hpp>
#include <dovetail/optim/partition.hpp>
#include <dovetail/optim/rules.hpp>
#include <dovetail/optim/schedules.hpp>
#include <dovetail/optim/stages.hpp>
#include <dovetail/optim/tensorwise.hpp>
