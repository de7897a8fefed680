// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>

// Which tensors of a bucket low-rank codecs send as products of two thin matrices.
namespace dovetail::compress::detail {

/// A tensor of a bucket as the matrix of its first dimension against the others.
struct low_rank_matrix {
  std::size_t begin = 0, rows = 0, columns = 0;
  std::size_t rank = 0;  ///< columns of either factor, at most; 0: sent as it is
  constexpr std::size_t size() const { return rows * columns; }
};

/// Of rank r = min(rank, rows, columns) if (rows + columns) r · min_rate < rows · columns, otherwise of rank 0: vectors
/// and small matrices are.
constexpr low_rank_matrix matrix_of(bucket_tensor const& t, int rank, float min_rate) {
  auto const size = static_cast<std::size_t>(t.shape.size());
  if (t.shape.rank < 2 || size == 0) return {};
  auto const m = static_cast<std::size_t>(t.shape[0]), n = size / m;
  auto const r = std::min({static_cast<std::size_t>(rank), m, n});
  double const sent = (static_cast<double>(m) + static_cast<double>(n)) * static_cast<double>(r);
  if (!(sent * static_cast<double>(min_rate) < static_cast<double>(size))) return {};
  return {t.begin, m, n, r};
}

/// Those of rank above 0. Throws argument_error unless tensors lie in the bucket, one behind the other.
DOVETAIL_COLD inline std::vector<low_rank_matrix> matrices_in(char const* who, bucket const& b, int rank,
                                                              float min_rate) {
  std::vector<low_rank_matrix> found;
  require_in_order(who, b);
  for (auto const& t : b.tensors)
    if (auto const m = matrix_of(t, rank, min_rate); m.rank > 0) found.push_back(m);
  return found;
}

/// f(begin, n) for the elements between matrices of a bucket of so many elements.
template <class Matrices, class F>
void for_each_between(Matrices const& matrices, std::size_t size, F const& f) {
  std::size_t end = 0;
  for (auto const& m : matrices) {
    if (m.begin > end) f(end, m.begin - end);
    end = m.begin + m.size();
  }
  if (size > end) f(end, size - end);
}

}  // namespace dovetail::compress::detail
