// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <mpi.h>

#include <dovetail/comm/mpi/check.hpp>

namespace dovetail::comm::detail {

/// An array on its way to or from one rank, in pieces of which a few are under way at a time: so that progress can be
/// seen, which MPI does not show of one message. Where `announced`, an array of several pieces begins with a message
/// of its length under another tag. Must neither move nor go while a request is under way.
class mpi_flow {
 public:
  static constexpr int announcement = 1 << 14;  // in the tag
  enum direction : bool { receives, sends };
  struct misfit {  // thrown: a message had another size; got more than expected: at least so much
    int rank;
    std::size_t got, expected;
  };

  mpi_flow(MPI_Comm comm, direction way, int rank, int tag, std::byte* data, std::size_t bytes, std::size_t largest,
           bool announced = true)
      : comm_(comm), way_(way), rank_(rank), tag_(tag), data_(data), bytes_(bytes), largest_(largest), total_(bytes) {
    pieces_ = std::max<std::size_t>(1, (bytes + largest - 1) / largest);
    first_ = announced && pieces_ > 1 ? 1 : 0;
    pieces_ += first_;
  }

  int rank() const { return rank_; }
  bool finished() const { return done_ == pieces_; }
  /// Posts what may be posted and takes what is complete; returns how many pieces have come or gone. Not more at a time
  /// than are under way: other arrays want their turn, and others of the ranks may ask where this one is.
  std::size_t advance() {
    for (std::size_t const before = done_, most = before + ring_.size();; ++done_) {
      while (begun_ < pieces_ && begun_ < done_ + ring_.size()) post(begun_++);
      if (finished() || done_ == most) return done_ - before;
      int there = 0;
      MPI_Status status{};
      int const code = MPI_Test(&ring_[done_ % ring_.size()], &there, &status);
      if (code != MPI_SUCCESS) failed(code);
      if (!there) return done_ - before;
      if (way_ == receives) check(status);
    }
  }
  bool under_way() const {
    return std::any_of(ring_.begin(), ring_.end(), [](MPI_Request q) { return q != MPI_REQUEST_NULL; });
  }
  bool is_send() const { return way_ == sends; }
  /// After a failure, polled: takes back what can be taken back, receives that nothing has come for; true when MPI is
  /// done with the array.
  bool abandon() {
    for (auto& q : ring_) {
      if (q == MPI_REQUEST_NULL) continue;
      int there = 0;
      if (way_ == receives && !cancelled_) static_cast<void>(MPI_Cancel(&q));
      if (MPI_Test(&q, &there, MPI_STATUS_IGNORE) != MPI_SUCCESS) q = MPI_REQUEST_NULL;
    }
    cancelled_ = true;
    return !under_way();
  }

 private:
  std::size_t size_of(std::size_t piece) const {
    if (piece < first_) return sizeof total_;
    return std::min(largest_, bytes_ - (piece - first_) * largest_);
  }
  void post(std::size_t piece) {
    bool const announces = piece < first_;
    std::byte* const at = announces ? reinterpret_cast<std::byte*>(&total_) : data_ + (piece - first_) * largest_;
    int const n = static_cast<int>(size_of(piece)), tag = announces ? tag_ | announcement : tag_;
    MPI_Request& q = ring_[piece % ring_.size()];
    if (way_ == sends)
      mpi_check(MPI_Isend(at, n, MPI_BYTE, rank_, tag, comm_, &q), "MPI_Isend", rank_);
    else
      mpi_check(MPI_Irecv(at, n, MPI_BYTE, rank_, tag, comm_, &q), "MPI_Irecv", rank_);
  }
  [[noreturn]] void failed(int code) {
    int kind = 0;
    if (way_ == receives && MPI_Error_class(code, &kind) == MPI_SUCCESS && kind == MPI_ERR_TRUNCATE)
      throw misfit{rank_, size_of(done_) + 1, size_of(done_)};
    throw comm_error(
        message(way_ == sends ? "a message to rank " : "a message from rank ", rank_, ": ", mpi_text(code)), rank_);
  }
  void check(MPI_Status const& status) {
    int n = 0;
    mpi_check(MPI_Get_count(&status, MPI_BYTE, &n), "MPI_Get_count", rank_);
    auto const got = static_cast<std::size_t>(n);
    if (got != size_of(done_)) throw misfit{rank_, got, size_of(done_)};
    if (done_ < first_ && total_ != bytes_) throw misfit{rank_, total_, bytes_};
  }

  MPI_Comm comm_;
  direction way_;
  int rank_, tag_;
  std::byte* data_;
  std::size_t bytes_, largest_, pieces_ = 1, first_ = 0;  // of the pieces the first may be the announcement
  std::size_t begun_ = 0, done_ = 0;
  std::uint64_t total_;  // what is announced
  bool cancelled_ = false;
  std::array<MPI_Request, 4> ring_{MPI_REQUEST_NULL, MPI_REQUEST_NULL, MPI_REQUEST_NULL, MPI_REQUEST_NULL};
};

}  // namespace dovetail::comm::detail
