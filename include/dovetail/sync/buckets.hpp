// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shard.hpp>

namespace dovetail::sync {

/// Cuts the flat index space into buckets of whole tensors, in the order in which backward finishes them: the last
/// tensors come first. A bucket is closed as soon as it holds `bytes` bytes of gradients; a larger tensor is a bucket
/// of its own. Depends on sizes only, so every rank cuts alike.
DOVETAIL_COLD inline std::vector<range> cut_buckets(parameter_list const& parameters, std::size_t bytes) {
  std::vector<range> buckets;
  std::size_t end = parameters.flat_size();
  for (std::size_t i = parameters.size(); i-- > 0;) {
    std::size_t const begin = parameters.offset(i);
    if (end - begin >= std::max<std::size_t>(bytes / sizeof(float), 1) || i == 0) {
      if (begin != end) buckets.push_back({begin, end});
      end = begin;
    }
  }
  return buckets;
}

/// The tensors, and slices of tensors, that lie in the flat range `part`; positions are relative to its beginning.
/// A whole tensor keeps its shape, a slice is one-dimensional.
DOVETAIL_COLD inline std::vector<compress::bucket_tensor> tensors_in(parameter_list const& parameters, range part) {
  std::vector<compress::bucket_tensor> found;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    std::size_t const begin = std::max(parameters.offset(i), part.begin);
    std::size_t const end = std::min(parameters.offset(i) + parameters[i].size(), part.end);
    if (begin >= end) continue;
    bool const whole = end - begin == parameters[i].size();
    found.push_back({begin - part.begin, whole ? parameters[i].shape : shape{static_cast<std::int64_t>(end - begin)}});
  }
  return found;
}

}  // namespace dovetail::sync
