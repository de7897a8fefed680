// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Learning rates and batch sizes as functions of the step, of the epoch, or of what is measured.
#include <dovetail/optim/schedules/batch_scaling.hpp>
#include <dovetail/optim/schedules/batch_schedule.hpp>
#include <dovetail/optim/schedules/plateau.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/schedules/schedules.hpp>
