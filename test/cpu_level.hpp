// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <vector>

#include <dovetail/core/dispatch.hpp>

#if DOVETAIL_X86_LEVELS
// What __builtin_cpu_supports reads: libgcc's and compiler-rt's, the same layout and bits since GCC 4.8.
struct test_cpu_model {
  unsigned vendor, type, subtype, features;
};
extern "C" test_cpu_model __cpu_model;
#endif

namespace test {

/// While it lives, the processor seems to have no more than `level`, so that all loops run as on a lesser one. For
/// programs of which no other thread looks at it.
class at_cpu_level {
 public:
  explicit at_cpu_level([[maybe_unused]] dovetail::cpu_level level) {
#if DOVETAIL_X86_LEVELS
    constexpr unsigned avx2 = 1u << 10, avx512f = 1u << 15;
    dovetail::supported_cpu_level();  // which looks at the processor once
    before_ = __cpu_model.features;
    if (level < dovetail::cpu_level::avx512) __cpu_model.features &= ~avx512f;
    if (level < dovetail::cpu_level::avx2) __cpu_model.features &= ~avx2;
#endif
  }
  at_cpu_level(at_cpu_level const&) = delete;
  ~at_cpu_level() {
#if DOVETAIL_X86_LEVELS
    __cpu_model.features = before_;
#endif
  }

 private:
  [[maybe_unused]] unsigned before_ = 0;
};

/// Levels that can be had here, the least first.
inline std::vector<dovetail::cpu_level> cpu_levels() {
  using dovetail::cpu_level;
  std::vector<cpu_level> all;
  for (auto const level : {cpu_level::baseline, cpu_level::avx2, cpu_level::avx512}) {
    at_cpu_level const as(level);
    if (dovetail::supported_cpu_level() == level) all.push_back(level);
  }
  return all;
}

}  // namespace test
