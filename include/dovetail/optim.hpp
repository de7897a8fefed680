// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// All of optim/: optimizers that are compiled to the fewest passes over memory. Needs a C++20 compiler and threads.
// For programs that name them: optim/matrix.hpp, which needs BLAS and LAPACK; optim/stored.hpp, optim/storage.hpp,
// optim/storage_codes.hpp and optim/storage_kernels.hpp; optim/loss_scale.hpp, optim/plateau.hpp and
// optim/sharpness.hpp; optim/remote_span.hpp, for algebras of other memory; and the methods that see all parameters as
// one vector: optim/lbfgs.hpp with optim/minimize.hpp, optim/line_search.hpp and optim/batch_objective.hpp;
// optim/stochastic_lbfgs.hpp with optim/curvature_pairs.hpp and optim/flat_vectors.hpp; optim/hessian_free.hpp with
// optim/conjugate_gradient.hpp and optim/curvature_product.hpp.
#include <dovetail/optim/batch_scaling.hpp>
#include <dovetail/optim/batch_schedule.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/directions.hpp>
#include <dovetail/optim/gradient.hpp>
#include <dovetail/optim/grouped.hpp>
#include <dovetail/optim/mixed.hpp>
#include <dovetail/optim/rate.hpp>
#include <dovetail/optim/reducing_stages.hpp>
#include <dovetail/optim/rules.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>
