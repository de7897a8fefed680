// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// All of optim/: optimizers that are compiled to the fewest passes over memory. Needs a C++20 compiler and threads; the
// rules of optim/matrix.hpp need a BLAS and LAPACK as well, and are included by name.
#include <dovetail/optim/batch_scaling.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/directions.hpp>
#include <dovetail/optim/gradient.hpp>
#include <dovetail/optim/grouped.hpp>
#include <dovetail/optim/mixed.hpp>
#include <dovetail/optim/reducing_stages.hpp>
#include <dovetail/optim/rules.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>
