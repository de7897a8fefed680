// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// All of optim/: optimizers that are compiled to the fewest passes over memory. Needs a C++20 compiler and threads.
// For those who name them: optim/matrix.hpp, and the methods that see all parameters as one vector: optim/lbfgs.hpp
// with optim/minimize.hpp, optim/line_search.hpp and optim/batch_objective.hpp; optim/stochastic_lbfgs.hpp with
// optim/curvature_pairs.hpp and optim/flat_vectors.hpp; optim/hessian_free.hpp with optim/conjugate_gradient.hpp and
// optim/curvature_product.hpp.
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/directions.hpp>
#include <dovetail/optim/gradient.hpp>
#include <dovetail/optim/grouped.hpp>
#include <dovetail/optim/mixed.hpp>
#include <dovetail/optim/reducing_stages.hpp>
#include <dovetail/optim/rules.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>
