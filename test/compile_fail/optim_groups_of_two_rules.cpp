// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Groups of different rules, with the way out.
// first error gcc: for several rules use optim::partition.*optim::sgd
// first error clang: sgd.*for several rules use optim::partition
#include <dovetail/optim/param_groups.hpp>
#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/optim/rules/sgd.hpp>

using namespace dovetail;
#ifdef FAIL
inline optim::param_groups rule{optim::adamw{}, optim::group{optim::rank_below{2}, optim::sgd{}}};
#else
inline optim::param_groups rule{optim::adamw{}, optim::group{optim::rank_below{2}, optim::adamw{.weight_decay = 0}}};
#endif
