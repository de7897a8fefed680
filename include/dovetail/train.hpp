// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The loop. train/progress.hpp, which shows how it goes on a terminal, is included by name.
#include <dovetail/train/options.hpp>
#include <dovetail/train/trainer.hpp>
