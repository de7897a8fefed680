// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <dovetail/core/config.hpp>
#include <dovetail/core/simd.hpp>

// The functions that several tensorwise stages map over their arrays, with names, so that they run on a device too.

namespace dovetail::optim::detail {

/// kept x + fresh u.
struct average {
  float kept, fresh;
  template <class T>
  DOVETAIL_INLINE T operator()(T x, T u) const {
    return kept * x + fresh * u;
  }
};
/// kept x + fresh u^2.
struct average_squares {
  float kept, fresh;
  template <class T>
  DOVETAIL_INLINE T operator()(T x, T u) const {
    return kept * x + fresh * u * u;
  }
};
/// factor x.
struct times {
  float factor;
  template <class T>
  DOVETAIL_INLINE T operator()(T x) const {
    return factor * x;
  }
};

}  // namespace dovetail::optim::detail
