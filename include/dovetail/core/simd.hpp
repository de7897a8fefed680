// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The number types of an elementwise rule. A rule is a template over its number type T and never branches on values:
//   float, double  one element: tests, and a device's rows and columns
//   simd::element  one element of a device's pass (core/simd_element.hpp)
//   simd::pack     one machine register of elements: the host's loops. Of doubles: simd::double_pack
//   simd::tracer   no element, but the set of inputs that a result depends on: evaluated at compile time
// All have + - * / and unary -, comparisons, and in dovetail::simd: sqrt abs min max sign select. A float
// converts to each of them, so constants need no ceremony. simd::pow has a header of its own, core/simd_power.hpp.
//
// Explicit vectors, because GCC at -O2 does not vectorize loops of unknown length, and because std::sqrt may set errno
// and therefore stays scalar: a program built without any flags must still run at the speed of memory.

#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/simd_element.hpp>
#include <dovetail/core/simd_number.hpp>

#if defined(__CUDACC__)
#include <dovetail/core/simd_plain.inc.hpp>
#else
#include <dovetail/core/simd_pack.inc.hpp>
#endif

namespace dovetail::simd {

/// The pack of numbers T.
template <class T>
using pack_of = basic_pack<T>;

/// Sets the first `n` lanes of a mask.
template <class Mask>
DOVETAIL_INLINE void first_lanes(Mask& m, int n) {
  for (int i = 0; i < static_cast<int>(sizeof(m.bits) / sizeof(m.bits[0])); ++i) m.bits[i] = i < n ? -1 : 0;
}

/// How a loop uses a pack: its sums, and how many of them take turns, so that additions do not wait for each other.
template <class Pack>
struct loop_traits;
template <class T>
struct loop_traits<basic_pack<T>> {
  using sum_type = product_sum<T>;
  using mask = basic_mask<T>;
  static constexpr int turns = 2;
};

#if DOVETAIL_X86_LEVELS && !defined(__AVX__)
}  // namespace dovetail::simd
#include <dovetail/core/simd_wide.inc.hpp>
namespace dovetail::simd {
#define DOVETAIL_WIDE_LOOPS 1
#else
#define DOVETAIL_WIDE_LOOPS 0
#endif

// ---- dependencies

/// A result's set of inputs. `untouched` says that it still is a plain input.
struct tracer {
  std::uint64_t inputs = 0;
  bool untouched = false;

  constexpr tracer() = default;
  constexpr tracer(float) {}
  constexpr explicit tracer(std::uint64_t set) : inputs(set) {}
  static constexpr tracer input(int i) {
    tracer t(std::uint64_t{1} << i);
    t.untouched = true;
    return t;
  }

#define DOVETAIL_TRACE(op) \
  friend constexpr tracer operator op(tracer a, tracer b) { return tracer(a.inputs | b.inputs); }
  DOVETAIL_TRACE(+)
  DOVETAIL_TRACE(-)
  DOVETAIL_TRACE(*)
  DOVETAIL_TRACE(/)
  DOVETAIL_TRACE(<)
  DOVETAIL_TRACE(>)
  DOVETAIL_TRACE(<=)
  DOVETAIL_TRACE(>=)
  DOVETAIL_TRACE(==)
#undef DOVETAIL_TRACE
  friend constexpr tracer operator-(tracer a) { return tracer(a.inputs); }
};

constexpr tracer select(tracer m, tracer a, tracer b) { return tracer(m.inputs | a.inputs | b.inputs); }
constexpr tracer sqrt(tracer a) { return tracer(a.inputs); }
constexpr tracer abs(tracer a) { return tracer(a.inputs); }
constexpr tracer min(tracer a, tracer b) { return a + b; }
constexpr tracer max(tracer a, tracer b) { return a + b; }
constexpr tracer sign(tracer a) { return tracer(a.inputs); }
constexpr tracer is_nan(tracer a) { return tracer(a.inputs); }

}  // namespace dovetail::simd
