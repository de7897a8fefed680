// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Methods that see all parameters as one vector: L-BFGS, Hessian-free, and what they are made of.
#include <dovetail/optim/second_order/batch_objective.hpp>
#include <dovetail/optim/second_order/conjugate_gradient.hpp>
#include <dovetail/optim/second_order/curvature_pairs.hpp>
#include <dovetail/optim/second_order/hessian_free.hpp>
#include <dovetail/optim/second_order/hvp.hpp>
#include <dovetail/optim/second_order/lbfgs.hpp>
#include <dovetail/optim/second_order/line_search.hpp>
#include <dovetail/optim/second_order/minimize.hpp>
#include <dovetail/optim/second_order/stochastic_lbfgs.hpp>
