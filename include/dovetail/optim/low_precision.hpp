// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Optimizer state and weights in fewer bits, and the scaling of losses that fp16 gradients need.
#include <dovetail/optim/low_precision/loss_scale.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/optim/low_precision/storage.hpp>
#include <dovetail/optim/low_precision/storage_codes.hpp>
#include <dovetail/optim/low_precision/storage_kernels.hpp>
