// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#define DOVETAIL_TEST_NCCL 1
#include "../codecs.cu"
