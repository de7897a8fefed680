// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <dovetail/compress/context.hpp>
#include <dovetail/core/config.hpp>

namespace dovetail::compress {

/// Where the elements of a vector of n lie in a count sketch of some rows, and with which sign: in row j element i is
/// added to one cell, s_j(i) x_i to S[j][h_j(i)]. Cell and sign are 4-wise independent, over random tables that all
/// ranks draw alike: an index is two digits a and b, and its random word T0[a] ^ T1[b] ^ T2[a + b] (Thorup and Zhang,
/// "Tabulation Based 4-Universal Hashing", SODA 2004, theorem 1).
///
/// Where the cells are no fewer than the elements, each element is one cell: nothing is lost.
class sketch_places {
 public:
  static constexpr int most_rows = 16;

  /// Cells that all rows of a sketch of n elements have together.
  static constexpr std::size_t cells_for(std::size_t n, std::size_t rows, std::size_t columns) {
    return columns >= n || rows * columns >= n ? n : rows * columns;
  }

  std::size_t size() const { return size_; }
  std::size_t rows() const { return rows_; }
  std::size_t cells() const { return rows_ * columns_; }

  /// The places in a sketch of n elements; draws tables only if they are not those of `random` already.
  DOVETAIL_NOINLINE void draw(std::size_t n, std::size_t rows, std::size_t columns, context const& where) {
    auto const stream = where.common_random().stream;
    if (drawn_ && size_ == n && seed_ == stream.seed && step_ == stream.step && offset_ == where.offset) return;
    drawn_ = true;
    size_ = n;
    seed_ = stream.seed;
    step_ = stream.step;
    offset_ = where.offset;
    exact_ = cells_for(n, rows, columns) == n;
    rows_ = exact_ ? 1 : rows;
    columns_ = exact_ ? n : columns;
    tables_.clear();
    if (exact_) return;
    digit_ = (static_cast<int>(std::bit_width(n - 1)) + 1) / 2;
    std::size_t const base = std::size_t{1} << digit_;
    // 2 base entries for sums, which go to 2 base − 2.
    table_ = 4 * base;
    for (std::size_t j = 0; j < rows_; ++j) {
      auto const random = where.common_random(static_cast<std::uint32_t>(j));
      for (std::size_t i = 0; i < table_; i += 4) {
        auto const words = random.stream.words(static_cast<std::uint32_t>((offset_ + i) / 4));
        tables_.insert(tables_.end(), words.begin(), words.end());
      }
    }
  }

  /// Adds the elements [first, first + x.size()) to the sketch.
  DOVETAIL_NOINLINE void add(std::span<float const> x, std::size_t first, float* sketch) const {
    if (exact_) {
      for (std::size_t i = 0; i < x.size(); ++i) sketch[first + i] += x[i];
      return;
    }
    for (std::size_t j = 0; j < rows_; ++j) {
      float* const row = sketch + j * columns_;
      for_words(j, first, x.size(),
                [&](std::size_t i, std::uint32_t word) { row[column(word)] += signed_by(word, x[i]); });
    }
  }
  void add(float x, std::size_t i, float* sketch) const { add(std::span(&x, 1), i, sketch); }
  /// Makes the cells of element i 0.
  void clear(std::size_t i, float* sketch) const {
    if (exact_) sketch[i] = 0;
    for (std::size_t j = 0; j < rows_ && !exact_; ++j)
      for_words(j, i, 1, [&](std::size_t, std::uint32_t word) { sketch[j * columns_ + column(word)] = 0; });
  }

  /// The median over the rows of what they say element i is; of an even number of rows the mean of the two in the
  /// middle. Not finite where most rows are not: of an element that is not finite all are.
  float estimate(std::size_t i, float const* sketch) const {
    float x;
    estimate(i, sketch, std::span(&x, 1));
    return x;
  }
  /// Of the elements [first, first + out.size()).
  DOVETAIL_NOINLINE void estimate(std::size_t first, float const* sketch, std::span<float> out) const {
    if (exact_) {
      std::copy(sketch + first, sketch + first + out.size(), out.begin());
      return;
    }
    constexpr std::size_t block = 64;
    std::array<std::array<std::int32_t, most_rows>, block> keys;
    for (std::size_t at = 0; at < out.size(); at += block) {
      std::size_t const n = std::min(block, out.size() - at);
      for (std::size_t j = 0; j < rows_; ++j) {
        float const* const row = sketch + j * columns_;
        for_words(j, first + at, n, [&](std::size_t i, std::uint32_t word) {
          keys[i][j] = ordered(std::bit_cast<std::int32_t>(signed_by(word, row[column(word)])));
        });
      }
      for (std::size_t i = 0; i < n; ++i) out[at + i] = median(keys[i]);
    }
  }

 private:
  static float signed_by(std::uint32_t word, float x) {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) ^ (word & 0x80000000u));
  }
  std::size_t column(std::uint32_t word) const {
    std::uint64_t const all = columns_;
    return (word & 0x7fffffffu) * all >> 31;
  }
  /// Between the bits of a float and an integer that is ordered as floats are, NaN at the ends; its own inverse.
  static std::int32_t ordered(std::int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }
  float median(std::array<std::int32_t, most_rows>& keys) const {
    // Without branches, which would be guessed wrong half of the time.
    for (std::size_t i = rows_; i > 1; --i)
      for (std::size_t j = 1; j < i; ++j) {
        std::int32_t const low = std::min(keys[j - 1], keys[j]), high = std::max(keys[j - 1], keys[j]);
        keys[j - 1] = low;
        keys[j] = high;
      }
    auto const at = [&](std::size_t i) { return std::bit_cast<float>(ordered(keys[i])); };
    return rows_ % 2 ? at(rows_ / 2) : 0.5f * at(rows_ / 2 - 1) + 0.5f * at(rows_ / 2);
  }
  /// f(i, random word of element first + i) for i below n, in order.
  template <class F>
  void for_words(std::size_t row, std::size_t first, std::size_t n, F const& f) const {
    std::size_t const base = std::size_t{1} << digit_;
    std::uint32_t const *const t0 = tables_.data() + row * table_, *const t1 = t0 + base, *const t2 = t1 + base;
    for (std::size_t i = 0; i < n;) {
      std::size_t const high = (first + i) >> digit_, low = (first + i) & (base - 1);
      std::size_t const end = std::min(n, i + base - low);
      std::uint32_t const* const digit = t1 + low;
      std::uint32_t const* const sum = t2 + high + low;
      for (std::size_t k = 0; k < end - i; ++k) f(i + k, t0[high] ^ digit[k] ^ sum[k]);
      i = end;
    }
  }

  std::size_t size_ = 0, rows_ = 0, columns_ = 0, table_ = 0, offset_ = 0;
  int digit_ = 0;
  std::uint64_t seed_ = 0, step_ = 0;
  bool drawn_ = false, exact_ = false;
  std::vector<std::uint32_t> tables_;
};

}  // namespace dovetail::compress
