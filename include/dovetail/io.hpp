// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Files: what a run leaves and what it goes on from. Included by name, since they need nlohmann-json:
// io/checkpoint.hpp, io/metrics.hpp, io/run_state.hpp, io/safetensors.hpp, io/trace.hpp.
#include <dovetail/io/crc32.hpp>
#include <dovetail/io/folder_lock.hpp>
#include <dovetail/io/log_file.hpp>
#include <dovetail/io/plot.hpp>
#include <dovetail/io/printable.hpp>
#include <dovetail/io/saved_state.hpp>
#include <dovetail/io/tensorboard.hpp>
