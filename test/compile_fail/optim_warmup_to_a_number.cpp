// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A warmup is followed by a schedule.
// mistakes: 2
// first error gcc: what follows a warmup is a schedule, a function of the step: a rate that stays is optim::constant.*float
// first error clang: float.*what follows a warmup is a schedule, a function of the step: a rate that stays is optim::constant
#include <dovetail/optim/schedules/schedules.hpp>

using namespace dovetail;
#if !defined(FAIL)
inline optim::warmup rate{.steps = 100, .then = optim::constant{1e-3f}};
inline optim::constant_warmup other{.steps = 100, .then = optim::constant{1e-3f}};
#elif FAIL == 1
inline optim::warmup rate{.steps = 100, .then = 1e-3f};
#else
inline optim::constant_warmup rate{.steps = 100, .then = 1e-3f};
#endif
