// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The loop, and what needs no dependency around it.
#include <dovetail/train/options.hpp>
#include <dovetail/train/saved_state.hpp>
#include <dovetail/train/trainer.hpp>
