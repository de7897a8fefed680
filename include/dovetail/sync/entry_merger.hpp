// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/select.hpp>

namespace dovetail::sync::detail {

/// One rank's part in a tree of merges (sync::exchange::merge_tree). An entry is index and bits of the value of one
/// element; entries are pairs one behind the other, by rising index.
///
/// On the way up each merge adds up the entries of two subtrees and keeps as many of the largest as one rank sends.
/// What it drops is remembered: on the way down it tells which of the entries that came through contain what this
/// rank, and each rank below it, has sent. An index may be among the result though what some ranks sent of it was
/// dropped, as others brought it in again: that, too, has to go back to their residuals.
///
/// Source: Shi, Wang, Zhao, Tang, Wang, Tang, Chu, "A Distributed Synchronous SGD Algorithm with Global Top-k
/// Sparsification for Low Bandwidth Networks", ICDCS 2019, algorithms 3 and 4. There a rank keeps what it sent only of
/// indices that are not among the result.
class entry_merger {
 public:
  /// For up to `most` entries a rank, and so many merges.
  void resize(std::size_t most, std::size_t merges) {
    most_ = most;
    for (auto* pairs : {&own_, &merged_, &incoming_, &result_}) pairs->resize(2 * most);
    indices_.reserve(2 * most);
    values_.reserve(2 * most);
    dropped_.resize(merges);
    for (auto& indices : dropped_) indices.reserve(most);
  }

  /// To be filled with the rank's own entries, those of the next merge, and those that came through in the end.
  std::span<std::uint32_t> own() { return own_; }
  std::span<std::uint32_t> incoming() { return incoming_; }
  std::span<std::uint32_t> result() { return result_; }

  /// With so many entries of one's own.
  void begin(std::size_t count) {
    own_count_ = merged_count_ = count;
    merged_ = own_;
    merges_ = 0;
  }
  /// Adds `count` incoming entries.
  void merge(std::size_t count) {
    add_up(count);
    auto& dropped = dropped_[merges_++];
    dropped.clear();
    merged_count_ = 0;
    auto const keep = [&](std::size_t i) {
      merged_[2 * merged_count_] = indices_[i];
      merged_[2 * merged_count_++ + 1] = std::bit_cast<std::uint32_t>(values_[i]);
    };
    if (values_.size() <= most_) {
      for (std::size_t i = 0; i < values_.size(); ++i) keep(i);
      return;
    }
    compress::select_largest(values_, nullptr, nullptr, most_, scratch_, reinterpret_cast<std::byte*>(incoming_.data()),
                             compress::kernels::best());
    for (std::size_t i = 0, next = 0; i < values_.size(); ++i)
      if (next < most_ && incoming_[2 * next] == i)
        keep(i), ++next;
      else
        dropped.push_back(indices_[i]);
  }
  /// What all merges so far have come to.
  std::span<std::uint32_t> merged() { return std::span(merged_).first(2 * merged_count_); }

  /// With so many entries that came through.
  void end(std::size_t count) { result_count_ = count; }
  /// Clears the flags of those among the result that merge number `which` has dropped: what went into that merge is not
  /// part of them.
  void drop(std::size_t which, std::span<std::byte> flags) const {
    auto const& dropped = dropped_[which];
    std::size_t at = 0;
    for (std::size_t i = 0; i < result_count_; ++i) {
      while (at < dropped.size() && dropped[at] < result_[2 * i]) ++at;
      if (at < dropped.size() && dropped[at] == result_[2 * i]) flags[i / 8] &= ~(std::byte{1} << (i % 8));
    }
  }
  /// The own entries that are not part of the result.
  std::span<std::uint32_t const> lost(std::span<std::byte const> flags) {
    std::size_t at = 0, count = 0;
    for (std::size_t i = 0; i < own_count_; ++i) {
      while (at < result_count_ && result_[2 * at] < own_[2 * i]) ++at;
      bool const counts = at < result_count_ && result_[2 * at] == own_[2 * i] &&
                          (flags[at / 8] >> (at % 8) & std::byte{1}) != std::byte{0};
      if (counts) continue;
      merged_[2 * count] = own_[2 * i];
      merged_[2 * count++ + 1] = own_[2 * i + 1];
    }
    return std::span<std::uint32_t const>(merged_).first(2 * count);
  }

 private:
  /// indices_ and values_ become the sum of both.
  void add_up(std::size_t count) {
    indices_.clear();
    values_.clear();
    auto const value = [](std::vector<std::uint32_t> const& pairs, std::size_t i) {
      return std::bit_cast<float>(pairs[2 * i + 1]);
    };
    for (std::size_t i = 0, j = 0; i < merged_count_ || j < count;) {
      bool const left = i < merged_count_ && (j == count || merged_[2 * i] <= incoming_[2 * j]);
      bool const right = j < count && (i == merged_count_ || incoming_[2 * j] <= merged_[2 * i]);
      indices_.push_back(left ? merged_[2 * i] : incoming_[2 * j]);
      values_.push_back(left && right ? value(merged_, i) + value(incoming_, j)
                        : left        ? value(merged_, i)
                                      : value(incoming_, j));
      i += left;
      j += right;
    }
  }

  std::size_t most_ = 0, own_count_ = 0, merged_count_ = 0, result_count_ = 0, merges_ = 0;
  std::vector<std::uint32_t> own_, merged_, incoming_, result_;
  std::vector<std::uint32_t> indices_;
  std::vector<float> values_;
  std::vector<std::vector<std::uint32_t>> dropped_;  // by merge, indices that rise
  compress::selection_scratch scratch_;
};

}  // namespace dovetail::sync::detail
