// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The codecs that have kernels.
#include <dovetail/compress/cuda/error_feedback.cuh>
#include <dovetail/compress/cuda/half.cuh>
#include <dovetail/compress/cuda/levels.cuh>
#include <dovetail/compress/cuda/random_k.cuh>
#include <dovetail/compress/cuda/sign.cuh>
#include <dovetail/compress/cuda/top_k.cuh>
