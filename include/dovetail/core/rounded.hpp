// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <dovetail/core/config.hpp>

namespace dovetail {

/// A product as it is, not fused with the sum that follows it. GCC fuses the two by default where the processor can,
/// which every AArch64 does: it would choose anew in each loop that it makes of a rule, and bits would differ from loop
/// to loop and from x86-64, where processors fuse only for who asks for it (-mfma, -march=native). For numbers and for
/// vectors of one register; no instruction.
template <class Number>
DOVETAIL_HOST_INLINE Number rounded(Number product) {
#if defined(__aarch64__) && defined(__GNUC__)
  __asm__("" : "+w"(product));  // the compiler no longer sees where the value comes from
#endif
  return product;
}

}  // namespace dovetail
