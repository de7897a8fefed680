// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <dovetail/comm/operation.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/state.hpp>

// The buffers of one rank's model: each rank's come from its own share of the data. What is saved, evaluated and handed
// back is their mean; a rank that trains on does so with its own, as if nobody had asked.
namespace dovetail::train {

class rank_buffers {
 public:
  using list = std::vector<named_tensor>;

  /// Collective: rank 0's become those of all.
  template <communicator C>
  DOVETAIL_COLD static void make_equal(list const& buffers, C& comm) {
    if (buffers.empty() || comm.size() == 1) return;
    check(buffers);
    std::vector<std::int64_t> words((copy_of(buffers).size() + 7) / 8);
    auto const bytes = std::as_writable_bytes(std::span(words));
    auto const mine = copy_of(buffers);
    std::memcpy(bytes.data(), mine.data(), mine.size());
    comm.broadcast(std::span(words), 0);
    copy_to(buffers, bytes);
  }

  /// Collective: keeps this rank's, and makes of the model's the mean over ranks, the same bits on all: sums are the
  /// communicator's, and divided once. Of integers rank 0's are taken.
  template <communicator C>
  DOVETAIL_COLD void average(list const& buffers, C& comm) {
    if (buffers.empty() || comm.size() == 1) return;
    kept_ = copy_of(buffers);
    average_floats<float>(buffers, comm);
    average_floats<double>(buffers, comm);
    list integers;
    for (auto const& t : buffers)
      if (t.type == dtype::i64) integers.push_back(t);
    make_equal(integers, comm);
  }
  /// The model's are this rank's again.
  void put_back(list const& buffers) {
    if (!kept_.empty()) copy_to(buffers, kept_);
    kept_.clear();
  }

  /// Before a step that may be skipped, and if it was.
  void remember(list const& buffers) { before_ = copy_of(buffers); }
  void undo(list const& buffers) const { copy_to(buffers, before_); }

  /// This rank's, as they are kept while the model has the mean: "buffers.1.running_mean". None on a single rank, whose
  /// mean they are.
  DOVETAIL_COLD list own(list const& buffers) {
    list all;
    std::size_t at = 0;
    for (auto const& t : buffers) {
      if (kept_.empty()) break;
      all.push_back({"buffers." + t.name, t.type, t.shape, std::span(kept_).subspan(at, t.bytes.size()), t.counts});
      at += t.bytes.size();
    }
    return all;
  }
  /// The same names and shapes of what the model has.
  DOVETAIL_COLD static list own_in(list buffers) {
    for (auto& t : buffers) t.name = "buffers." + t.name;
    return buffers;
  }

 private:
  DOVETAIL_COLD static void check(list const& buffers) {
    for (auto const& t : buffers)
      require(t.type == dtype::f32 || t.type == dtype::f64 || t.type == dtype::i64, "fit: the model's buffer '", t.name,
              "' is neither of floats nor of doubles nor of 64-bit integers: ranks could not agree on it");
  }
  static std::vector<std::byte> copy_of(list const& buffers) {
    std::vector<std::byte> all;
    for (auto const& t : buffers) all.insert(all.end(), t.bytes.begin(), t.bytes.end());
    return all;
  }
  static void copy_to(list const& buffers, std::span<std::byte const> from) {
    for (auto const& t : buffers) {
      if (!t.bytes.empty()) std::memcpy(t.bytes.data(), from.data(), t.bytes.size());
      from = from.subspan(t.bytes.size());
    }
  }
  template <class T, class C>
  DOVETAIL_COLD static void average_floats(list const& buffers, C& comm) {
    list of_type;
    for (auto const& t : buffers)
      if (t.type == dtype_of<T>()) of_type.push_back(t);
    if (of_type.empty()) return;
    auto const bytes = copy_of(of_type);
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    comm.all_reduce(std::span(values), comm::reduction::sum);
    for (auto& v : values) v /= static_cast<T>(comm.size());
    copy_to(of_type, std::as_bytes(std::span(values)));
  }

  std::vector<std::byte> kept_, before_;
};

}  // namespace dovetail::train
