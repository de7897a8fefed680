// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

// Kinds of memory, as types: where the numbers of a parameter list are says which engine steps them, and what cannot
// work with that memory does not compile.
namespace dovetail {

/// Memory that this process's processors read and write.
struct host_memory {};

/// A CUDA device's memory, and the stream on which work with it is queued: core/cuda.hpp.
struct cuda_memory;

}  // namespace dovetail
