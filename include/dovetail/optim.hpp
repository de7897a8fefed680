// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// All of optim/: optimizers that are compiled to the fewest passes over memory. Needs a C++20 compiler and threads.
// Those of optim/matrix.hpp, which need BLAS and LAPACK, are for programs that name it.
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/directions.hpp>
#include <dovetail/optim/gradient.hpp>
#include <dovetail/optim/grouped.hpp>
#include <dovetail/optim/mixed.hpp>
#include <dovetail/optim/reducing_stages.hpp>
#include <dovetail/optim/rules.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>
