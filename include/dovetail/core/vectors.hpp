// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What loops are made of that are compiled once per cpu_level (core/dispatch.hpp): vectors of 4, 8 and 16 numbers, in a
// namespace per level. A kernel's namespace takes its level's names by a using-directive. Kernels of two levels lie
// beside each other: inside of one another they would find both.
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/finite.hpp>

namespace dovetail::simd {

namespace baseline {
#define DOVETAIL_VECTOR_LANES 4
#include <dovetail/core/vectors.inc.hpp>
#include <dovetail/core/vectors_level.inc.hpp>
#undef DOVETAIL_VECTOR_LANES
}  // namespace baseline

#if DOVETAIL_X86_LEVELS
DOVETAIL_TARGET_BEGIN(DOVETAIL_AVX2)
namespace avx2 {
#define DOVETAIL_VECTOR_LANES 8
#include <dovetail/core/vectors.inc.hpp>
#include <dovetail/core/vectors_level.inc.hpp>
#undef DOVETAIL_VECTOR_LANES
}  // namespace avx2
DOVETAIL_TARGET_END

DOVETAIL_TARGET_BEGIN(DOVETAIL_AVX512)
namespace avx512 {
#define DOVETAIL_VECTOR_LANES 16
#include <dovetail/core/vectors.inc.hpp>
#include <dovetail/core/vectors_level.inc.hpp>
#undef DOVETAIL_VECTOR_LANES
}  // namespace avx512
DOVETAIL_TARGET_END
#endif

}  // namespace dovetail::simd
