// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The optimizers with names. Each is an aggregate of hyperparameters, with PyTorch's or the paper's defaults, that
// stands for a chain.
#include <dovetail/optim/rules/adam_family.hpp>
#include <dovetail/optim/rules/adam_variants.hpp>
#include <dovetail/optim/rules/adaptive.hpp>
#include <dovetail/optim/rules/base.hpp>
#include <dovetail/optim/rules/curvature.hpp>
#include <dovetail/optim/rules/factored.hpp>
#include <dovetail/optim/rules/layer_wise.hpp>
#include <dovetail/optim/rules/loss_aware.hpp>
#include <dovetail/optim/rules/momentum.hpp>
#include <dovetail/optim/rules/online.hpp>
#include <dovetail/optim/rules/schedule_free.hpp>
#include <dovetail/optim/rules/sign.hpp>
