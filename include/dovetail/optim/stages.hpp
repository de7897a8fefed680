// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The stages that chains are made of, beyond the directions of rules/.
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/stages/averaging.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/gradient_sign.hpp>
#include <dovetail/optim/stages/moments.hpp>
#include <dovetail/optim/stages/reducing.hpp>
#include <dovetail/optim/stages/row_wise.hpp>
