// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/core/config.hpp>

namespace dovetail::compress::detail {

/// A piece of a bucket: a tensor, or what is between two.
struct segment {
  std::size_t begin, end;
  bool vector;  ///< a tensor of at most one dimension
  std::size_t size() const { return end - begin; }
  friend bool operator==(segment const&, segment const&) = default;
};

/// The tensors of a bucket by rising place, and what is between them: each element is in one. A bucket without tensors
/// is one segment, and no vector. Throws as require_in_order.
DOVETAIL_COLD inline std::vector<segment> segments_of(std::string_view codec, bucket const& b) {
  require_in_order(codec, b);
  std::vector<segment> all;
  std::size_t end = 0;
  for (auto const& t : b.tensors) {
    std::size_t const stop = t.begin + static_cast<std::size_t>(t.shape.size());
    if (t.begin > end) all.push_back({end, t.begin, false});
    if (stop > t.begin) all.push_back({t.begin, stop, t.shape.rank <= 1});
    end = stop;
  }
  if (end < b.size()) all.push_back({end, b.size(), false});
  return all;
}

}  // namespace dovetail::compress::detail
