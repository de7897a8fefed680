// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::compress::detail {

/// Number of elements that a sparsifier keeps of n: max(1, ceil(ratio · n)), and 0 of none. `ratio` is in (0, 1], and
/// is read as the decimal it was written as: 0.1f of 10 elements is 1. Of more than 2^22 elements that are kept a float
/// does not say the last: there k is the nearest whole number.
constexpr std::size_t kept(float ratio, std::size_t n) {
  if (n == 0) return 0;
  // A float is within 2^-24 of the decimal that was meant; that much does not make one element more, nor one less.
  double const product = static_cast<double>(ratio) * static_cast<double>(n), slack = product * 0x1p-23;
  double const exact = product - (slack < 0.5 ? slack : 0.5);
  auto k = static_cast<std::size_t>(exact);
  if (static_cast<double>(k) < exact) ++k;
  return k < 1 ? 1 : k > n || ratio == 1.0f ? n : k;
}

[[noreturn]] DOVETAIL_COLD inline void refuse_size(char const* who, std::size_t n) {
  throw argument_error(message(who, ": a bucket of ", n, " elements: indices have 32 bits, use smaller buckets"));
}
/// Throws argument_error where indices of 32 bits do not suffice.
constexpr void check_indexable(char const* who, std::size_t n) {
  if (n > std::numeric_limits<std::uint32_t>::max()) refuse_size(who, n);
}

}  // namespace dovetail::compress::detail
