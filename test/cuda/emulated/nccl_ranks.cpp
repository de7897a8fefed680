// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#define DOVETAIL_EMULATED_NCCL 1
#include "../nccl.cpp"
