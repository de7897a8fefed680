// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Here both engines' matrices are the same libraries' work: what they may differ by is little.
#define DOVETAIL_TEST_SAME_LIBRARIES
#include "../matrix.cu"
