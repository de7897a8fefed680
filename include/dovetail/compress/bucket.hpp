// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/core/shard.hpp>

namespace dovetail::compress {

/// A tensor, or the slice of one, that lies in a bucket at [begin, begin + shape.size()).
struct bucket_tensor {
  std::size_t begin = 0;
  dovetail::shape shape;
  friend bool operator==(bucket_tensor const&, bucket_tensor const&) = default;
};

/// What a codec sees: a flat span of gradients and the shapes of the tensors in it.
struct bucket {
  std::span<float const> values;
  std::span<bucket_tensor const> tensors;

  std::size_t size() const { return values.size(); }
};

/// Throws argument_error unless a bucket's tensors lie in it, one behind the other.
DOVETAIL_COLD inline void require_in_order(std::string_view codec, bucket const& b) {
  std::size_t end = 0;
  for (auto const& t : b.tensors) {
    auto const size = static_cast<std::size_t>(t.shape.size());
    require(t.begin >= end && t.begin <= b.size() && size <= b.size() - t.begin, codec, ": a tensor at ", t.begin,
            " of shape ", t.shape, " in a bucket of ", b.size(), " elements, of which ", end,
            " are taken: tensors lie in the bucket, one behind the other");
    end = t.begin + size;
  }
}

/// The tensors, and slices of tensors, of a bucket that lie in its elements [part.begin, part.end); positions are
/// relative to part.begin. A whole tensor keeps its shape, a slice is one-dimensional.
DOVETAIL_COLD inline std::vector<bucket_tensor> tensors_in(std::span<bucket_tensor const> tensors, range part) {
  std::vector<bucket_tensor> found;
  for (auto const& t : tensors) {
    auto const size = static_cast<std::size_t>(t.shape.size());
    std::size_t const begin = std::max(t.begin, part.begin), end = std::min(t.begin + size, part.end);
    if (begin >= end) continue;
    found.push_back(
        {begin - part.begin, end - begin == size ? t.shape : shape{static_cast<std::int64_t>(end - begin)}});
  }
  return found;
}

/// The tensors of the bucket that a codec's state was made for: kept in it and compared with every bucket.
class bucket_layout {
 public:
  bucket_layout() = default;
  explicit bucket_layout(bucket const& b) : tensors_(b.tensors.begin(), b.tensors.end()) {}

  /// Throws argument_error unless `b` has the same tensors in the same places.
  void check(bucket const& b, std::string_view codec) const {
    require(b.tensors.size() == tensors_.size(), codec, ": a bucket of ", b.tensors.size(),
            " tensors meets a state made for ", tensors_.size(), ": make one state per bucket with init");
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      require(b.tensors[i] == tensors_[i], codec, ": tensor ", i, " of a bucket begins at ", b.tensors[i].begin,
              " with shape ", b.tensors[i].shape, ", the state was made for one at ", tensors_[i].begin, " with shape ",
              tensors_[i].shape, ": make one state per bucket with init");
  }
  friend bool operator==(bucket_layout const&, bucket_layout const&) = default;

 private:
  std::vector<bucket_tensor> tensors_;
};

}  // namespace dovetail::compress
