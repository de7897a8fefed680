// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Random sparsification that is scaled to be unbiased is no contraction: error feedback around it would diverge.
// first error gcc: error feedback needs a contraction.*basic_random_k<true>
// first error clang: basic_random_k<true>.*error feedback needs a contraction
#include <dovetail/compress/error_feedback.hpp>
#include <dovetail/compress/random_k.hpp>

using namespace dovetail;

#ifdef FAIL
using fed_back = compress::error_feedback<compress::scaled_random_k>;
#else
using fed_back = compress::error_feedback<compress::random_k>;
#endif
static_assert(sizeof(fed_back) > 0);
