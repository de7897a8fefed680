// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Random sparsification that is scaled to be unbiased is no contraction: error feedback around it would diverge.
// mistakes: 2
// first error gcc: error feedback needs a contraction.*basic_random_k<true>
// first error clang: basic_random_k<true>.*error feedback needs a contraction
// first error 2 gcc: error feedback needs a contraction.*wangni
// first error 2 clang: wangni.*error feedback needs a contraction
#include <dovetail/compress/error_feedback.hpp>
#include <dovetail/compress/random_k.hpp>
#include <dovetail/compress/wangni.hpp>

using namespace dovetail;

#if FAIL == 1
using fed_back = compress::error_feedback<compress::scaled_random_k>;
#elif FAIL == 2
using fed_back = compress::error_feedback<compress::wangni>;
#else
using fed_back = compress::error_feedback<compress::random_k>;
#endif
static_assert(sizeof(fed_back) > 0);
