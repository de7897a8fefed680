// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The loop. What shows how it goes is included by name: train/progress.hpp, train/plot.hpp, train/tensorboard.hpp (with
// train/crc32.hpp, train/log_file.hpp, train/printable.hpp), train/folder_lock.hpp, and with nlohmann-json train/checkpoint.hpp,
// train/metrics.hpp, train/trace.hpp.
#include <dovetail/train/options.hpp>
#include <dovetail/train/saved_state.hpp>
#include <dovetail/train/trainer.hpp>
