// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>

#include <dovetail/core/shape.hpp>

namespace dovetail::compress {

/// A tensor, or the slice of one, that lies in a bucket at [begin, begin + shape.size()).
struct bucket_tensor {
  std::size_t begin = 0;
  dovetail::shape shape;
};

/// What a codec sees: a flat span of gradients and the shapes of the tensors in it.
struct bucket {
  std::span<float const> values;
  std::span<bucket_tensor const> tensors;

  std::size_t size() const { return values.size(); }
};

}  // namespace dovetail::compress
