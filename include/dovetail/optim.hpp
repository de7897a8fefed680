// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// All of optim/: optimizers that are compiled to the fewest passes over memory. Needs a C++20 compiler and threads.
// What few programs use is included by name: other formats of slots and weights (optim/storage.hpp,
// optim/storage_kernels.hpp, optim/stored.hpp), and the rules of optim/matrix.hpp, which need a BLAS and LAPACK as
// well.
#include <dovetail/optim/batch_scaling.hpp>
#include <dovetail/optim/batch_schedule.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/directions.hpp>
#include <dovetail/optim/gradient.hpp>
#include <dovetail/optim/grouped.hpp>
#include <dovetail/optim/loss_scale.hpp>
#include <dovetail/optim/mixed.hpp>
#include <dovetail/optim/plateau.hpp>
#include <dovetail/optim/reducing_stages.hpp>
#include <dovetail/optim/rules.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/sharpness.hpp>
#include <dovetail/optim/stages.hpp>
