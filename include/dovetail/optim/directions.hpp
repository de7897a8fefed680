// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The directions beyond Adam's, as stages: each turns the gradient into an update by the paper's formula.
#include <dovetail/optim/directions/adam_averages.hpp>
#include <dovetail/optim/directions/adam_family.hpp>
#include <dovetail/optim/directions/adam_variants.hpp>
#include <dovetail/optim/directions/adaptive.hpp>
#include <dovetail/optim/directions/curvature.hpp>
#include <dovetail/optim/directions/factored.hpp>
#include <dovetail/optim/directions/layer_wise.hpp>
#include <dovetail/optim/directions/local_entropy.hpp>
#include <dovetail/optim/directions/loss_aware.hpp>
#include <dovetail/optim/directions/momentum.hpp>
#include <dovetail/optim/directions/online.hpp>
#include <dovetail/optim/directions/row_wise.hpp>
#include <dovetail/optim/directions/sign.hpp>
