// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <mpi.h>
#include <boost/mpi/environment.hpp>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/mpi_options.hpp>
#include <dovetail/comm/mpi_peers.hpp>
#include <dovetail/comm/shared_seats.hpp>
#include <dovetail/comm/signal.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm {

namespace detail {

/// The state of one communicator over MPI: its ranks, what is under way, and what went wrong. Only non-blocking
/// operations are used, and polled against the deadline: a blocking one never returns when a peer has died.
class mpi_job {
 public:
  struct piece {
    int rank;
    std::byte* data;
    std::size_t bytes;
  };

  mpi_job(MPI_Comm parent, mpi_options o, std::unique_ptr<boost::mpi::environment> env)
      : options(o),
        environment_(std::move(env)),
        collective_(copy_of(parent)),
        messages_(copy_of(parent)),
        peers_(collective_),
        seats(collective_, o.shared_memory) {
    MPI_Comm_rank(collective_, &rank);
    MPI_Comm_size(collective_, &size);
    left_.resize(static_cast<std::size_t>(size));
    away_.resize(static_cast<std::size_t>(size));
    crowded_ = peers_.more_ranks_than_cores();
  }
  mpi_job(mpi_job const&) = delete;
  mpi_job& operator=(mpi_job const&) = delete;

  /// After a failure nothing is freed and MPI is not finalised: both are collective and would wait for the lost rank.
  ~mpi_job() {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized) return;
    if (!broken() && std::uncaught_exceptions() > exceptions_)
      fail({notice::loss, rank, message("rank ", rank, " left by an exception")}, true);
    if (!broken()) tell_all({notice::left, rank, "left"});
    auto const give_up = clock::now() + options.deadline;
    while (!broken() && !sent_.empty() && clock::now() < give_up) progress();
    if (broken() || !sent_.empty()) {
      static_cast<void>(environment_.release());
      for (auto& s : sent_) static_cast<void>(s.data.release());  // MPI may still read them
      return;
    }
    MPI_Comm_free(&messages_);
    MPI_Comm_free(&collective_);
  }

  bool broken() const { return failure_.kind != notice::none; }
  MPI_Comm handle() const { return collective_; }
  std::string where(call const& c) const { return message(c, ", operation ", sequence, " of ", size, " ranks"); }
  void begin(call const& c) {
    // A message is between two ranks, and no operation of the others, who number what all call alike.
    if (c.op != operation::send && c.op != operation::recv) ++sequence;
    if (broken()) rethrow(where(c));
    if (!sent_.empty()) progress();
  }
  /// A failure of this rank's own making, told to the others.
  void give_up(std::string const& reason) {
    if (!broken()) fail({notice::loss, rank, reason}, true);
  }
  /// Told to the others: this rank is in code of its own, or back from there. Guards may be nested.
  void go_away(bool now) {
    guards_ += now ? 1 : -1;
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized && !broken() && guards_ == (now ? 1 : 0)) tell_all({now ? notice::away : notice::back, rank, ""});
  }
  [[noreturn]] void lost(int r, call const& c, std::string const& reason) {
    fail({notice::loss, r, reason}, true);
    rethrow(where(c));
  }
  [[noreturn]] void diverged(int r, call const& c, std::string const& reason) {
    fail({notice::divergence, r,
          reason + ": every rank must call the same operations with the same sizes, in the same order"},
         true);
    rethrow(where(c));
  }

  /// Polls until done(); missing() lists the ranks that are waited for, `tag` is what their messages carry, or -1.
  template <class Done, class Missing>
  void wait_until(call const& c, int tag, Done done, Missing missing) {
    for (int i = 0; i < (crowded_ ? 1 : 1000); ++i) {
      if (done()) return;
      pause_core();
    }
    suspect_ = -1;
    auto const start = clock::now();
    came_back_ = start;
    auto next_look = start + std::chrono::milliseconds(1);
    for (;;) {
      for (int i = 0; i < 16; ++i)
        if (done()) return;
      auto const now = clock::now();
      if (crowded_ || now - start > std::chrono::milliseconds(10)) std::this_thread::yield();
      if (now < next_look) continue;
      if (now - start > std::chrono::milliseconds(20)) std::this_thread::sleep_for(std::chrono::microseconds(20));
      next_look = now + std::chrono::milliseconds(2);
      progress();
      look_around(c, tag, done, missing());
      if (now - came_back_ > options.deadline && !done()) {
        auto const late = missing();
        if (late.empty() ||
            std::any_of(late.begin(), late.end(), [&](int r) { return away_[static_cast<std::size_t>(r)]; }))
          continue;
        std::string others;
        for (std::size_t i = 1; i < late.size(); ++i) others += message(" and rank ", late[i]);
        lost(late[0], c,
             message("rank ", late[0], others, " did not answer for ", options.deadline.count(),
                     " ms, the deadline: blocked or slow (mpi_options::deadline can be raised)"));
      }
    }
  }

  static constexpr int checking = 2;  ///< the phase before an operation in which its call is compared

  /// Sends and receives all pieces at once. An operation may have phases 0 and 1.
  void exchange(call const& c, int phase, std::span<piece const> sends, std::span<piece const> recvs) {
    int const tag = phase == checking ? tag_of({operation::split, dtype::u8, reduction::max}, 0) : tag_of(c, phase);
    requests_.clear();
    for (auto const& p : recvs)
      in_pieces(p, [&](std::byte* at, int n) {
        requests_.push_back({MPI_REQUEST_NULL, p.rank, n});
        MPI_Irecv(at, n, MPI_BYTE, p.rank, tag, collective_, &requests_.back().handle);
      });
    for (auto const& p : sends)
      in_pieces(p, [&](std::byte* at, int n) {
        requests_.push_back({MPI_REQUEST_NULL, p.rank, -1});
        MPI_Isend(at, n, MPI_BYTE, p.rank, tag, collective_, &requests_.back().handle);
      });
    complete(c, tag);
  }

  void send(call const& c, std::byte const* data, int tag) {
    sent_.push_back({std::unique_ptr<std::byte[]>(new std::byte[c.count]), {}});
    auto& s = sent_.back();
    if (c.count != 0) std::memcpy(s.data.get(), data, c.count);
    in_pieces({c.root, s.data.get(), c.count}, [&](std::byte* at, int n) {
      s.requests.emplace_back();
      MPI_Isend(at, n, MPI_BYTE, c.root, tag, messages_, &s.requests.back());
    });
    progress();
  }

  void recv(call const& c, std::byte* data, int tag) {
    in_pieces({c.root, data, c.count}, [&](std::byte* at, int n) {
      MPI_Status status{};
      int there = 0;
      wait_until(
          c, -1,
          [&] {
            MPI_Iprobe(c.root, tag, messages_, &there, &status);
            return there != 0;
          },
          [&] { return std::vector<int>{c.root}; });
      int bytes = 0;
      MPI_Get_count(&status, MPI_BYTE, &bytes);
      if (bytes != n) diverged(c.root, c, message("the message with tag ", tag, " has ", bytes, " bytes, not ", n));
      requests_.clear();
      requests_.push_back({MPI_REQUEST_NULL, c.root, n});
      MPI_Irecv(at, n, MPI_BYTE, c.root, tag, messages_, &requests_.back().handle);
      complete(c, -1);
    });
  }

  int rank = 0, size = 0;
  mpi_options options;
  comm::traffic traffic;
  std::uint64_t sequence = 0;

 private:
  using clock = std::chrono::steady_clock;

  struct request {
    MPI_Request handle;
    int rank;
    int bytes;  // expected, or -1 for a send
  };
  struct sent {
    std::unique_ptr<std::byte[]> data;
    std::vector<MPI_Request> requests;
  };
  /// What a rank tells the others when something went wrong, or when it leaves.
  struct notice {
    enum kinds : int { none, left, away, back, loss, divergence };
    notice() = default;
    notice(kinds k, int r, std::string const& why) : kind(k), rank(r) {
      std::memcpy(text, why.data(), std::min(why.size(), sizeof text - 1));
    }
    kinds kind = none;
    int rank = -1;
    char text[248]{};
  };
  static constexpr int notice_tag = 0;

  static MPI_Comm copy_of(MPI_Comm parent) {
    MPI_Comm c = MPI_COMM_NULL;
    MPI_Comm_dup(parent, &c);
    MPI_Comm_set_errhandler(c, MPI_ERRORS_RETURN);  // an error must become an exception that names a rank
    return c;
  }
  /// The envelope says what is being called, so that a message of another operation is recognised: 15 bits. Of
  /// neighbouring steps no two buckets have the same last four.
  int tag_of(call const& c, int phase) const {
    int const kind = static_cast<int>(c.type) * 3 + static_cast<int>(c.how);
    auto const which =
        sequence + 7 * static_cast<std::uint64_t>(c.about.step) + 2 * static_cast<std::uint64_t>(c.about.bucket);
    return 1 + (phase | kind << 1 | static_cast<int>(c.op) << 6 | static_cast<int>(which & 15) << 10);
  }
  template <class F>
  void in_pieces(piece const& p, F f) const {
    std::size_t at = 0;
    do {
      auto const n = std::min(p.bytes - at, options.largest_message);
      f(p.data + at, static_cast<int>(n));
      at += n;
    } while (at < p.bytes);
  }

  void complete(call const& c, int tag) {
    std::size_t first = 0;
    auto const done = [&] {
      bool all = true;
      for (std::size_t i = first; i < requests_.size(); ++i) {
        auto& q = requests_[i];
        if (q.handle == MPI_REQUEST_NULL) continue;
        int flag = 0, bytes = q.bytes;
        MPI_Status status{};
        int const error = MPI_Test(&q.handle, &flag, &status);
        if (error != MPI_SUCCESS) failed(c, q, error);
        if (!flag) {
          all = false;
          continue;
        }
        if (q.bytes >= 0) MPI_Get_count(&status, MPI_BYTE, &bytes);
        if (bytes != q.bytes)
          diverged(q.rank, c, message("rank ", q.rank, " sent ", bytes, " bytes where ", q.bytes, " were expected"));
      }
      while (first < requests_.size() && requests_[first].handle == MPI_REQUEST_NULL) ++first;
      return all;
    };
    auto const missing = [&] {
      std::vector<int> ranks;
      for (auto const& q : requests_)
        if (q.handle != MPI_REQUEST_NULL && std::find(ranks.begin(), ranks.end(), q.rank) == ranks.end())
          ranks.push_back(q.rank);
      return ranks;
    };
    try {
      wait_until(c, tag, done, missing);
    } catch (...) {
      for (auto& q : requests_) {
        if (q.handle == MPI_REQUEST_NULL) continue;
        if (q.bytes >= 0) MPI_Cancel(&q.handle);  // nobody may write to the caller's array any more
        MPI_Request_free(&q.handle);
      }
      throw;
    }
  }
  [[noreturn]] void failed(call const& c, request const& q, int error) {
    int kind = 0, length = 0;
    char text[MPI_MAX_ERROR_STRING]{};
    MPI_Error_class(error, &kind);
    MPI_Error_string(error, text, &length);
    if (kind == MPI_ERR_TRUNCATE) diverged(q.rank, c, message("rank ", q.rank, " sent more than was expected"));
    lost(q.rank, c, message("rank ", q.rank, ": ", text));
  }

  /// Throws what another rank has reported.
  void read_notices(call const& c) {
    for (int there = 1; there != 0;) {
      MPI_Status status{};
      MPI_Iprobe(MPI_ANY_SOURCE, notice_tag, collective_, &there, &status);
      if (!there) break;
      notice n;
      MPI_Recv(&n, static_cast<int>(sizeof n), MPI_BYTE, status.MPI_SOURCE, notice_tag, collective_, &status);
      if (n.kind == notice::left) {
        left_[static_cast<std::size_t>(n.rank)] = true;
      } else if (n.kind == notice::away || n.kind == notice::back) {
        away_[static_cast<std::size_t>(n.rank)] = n.kind == notice::away;
        came_back_ = clock::now();
      } else {
        fail(n, false);
        rethrow(where(c));
      }
    }
  }
  template <class Done>
  void look_around(call const& c, int tag, Done& done, std::vector<int> const& missing) {
    read_notices(c);
    for (int const r : missing) {
      bool const gone = left_[static_cast<std::size_t>(r)], dead = !peers_.alive(r);
      int other = 0;
      MPI_Status status{};
      if (tag >= 0 && r != rank) MPI_Iprobe(r, MPI_ANY_TAG, collective_, &other, &status);
      // Only the operation counts: the next phase may be under way. What has come meanwhile is no offence.
      other = other && status.MPI_TAG != notice_tag && ((status.MPI_TAG - 1) | 1) != ((tag - 1) | 1);
      if (!(gone || dead || other)) {
        if (suspect_ == r) suspect_ = -1;
        continue;
      }
      // MPI keeps the order of what it matches, not of arrival: what we wait for may still be on its way behind the
      // short message, or the end, that we have seen. Strike only when it does not come.
      if (suspect_ != r) suspect_ = r, suspect_since_ = clock::now();
      auto const grace = std::chrono::milliseconds(other ? 250 : 20);
      if (clock::now() - suspect_since_ < std::min<std::chrono::milliseconds>(grace, options.deadline / 2)) return;
      if (done()) return;
      if (other)
        diverged(r, c,
                 message("rank ", r, " called ", name_of(static_cast<operation>(((status.MPI_TAG - 1) >> 6) & 15)),
                         " (other type, reduction or number of operations, if not another name)"));
      read_notices(c);  // a rank that threw says why before it ends
      if (dead) lost(r, c, message("rank ", r, " is dead: its process has ended"));
      lost(r, c, message("rank ", r, " has left: it returned or destroyed its communicator"));
    }
  }
  /// Sends that are on their way; MPI moves them only when it is called.
  void progress() {
    for (auto s = sent_.begin(); s != sent_.end();) {
      int flag = 0;
      MPI_Testall(static_cast<int>(s->requests.size()), s->requests.data(), &flag, MPI_STATUSES_IGNORE);
      s = flag ? sent_.erase(s) : s + 1;
    }
  }

  void fail(notice const& n, bool tell) {
    failure_ = n;
    if (tell) tell_all(n);
  }
  [[noreturn]] void rethrow(std::string const& where) const {
    auto const what = message(where, ": ", failure_.text);
    if (failure_.kind == notice::divergence) throw rank_diverged(what, failure_.rank);
    throw rank_lost(what, failure_.rank);
  }
  /// At best effort: a peer that is gone must not stop us.
  void tell_all(notice const& n) {
    auto copy = std::make_unique<notice>(n);
    std::vector<MPI_Request> under_way;
    for (int r = 0; r < size; ++r) {
      if (r == rank) continue;
      under_way.emplace_back();
      MPI_Isend(copy.get(), static_cast<int>(sizeof n), MPI_BYTE, r, notice_tag, collective_, &under_way.back());
    }
    int flag = 0;
    auto const give_up = clock::now() + std::chrono::milliseconds(100);
    do MPI_Testall(static_cast<int>(under_way.size()), under_way.data(), &flag, MPI_STATUSES_IGNORE);
    while (!flag && clock::now() < give_up);
    if (!flag) static_cast<void>(copy.release());  // MPI may still read it
  }

  int const exceptions_ = std::uncaught_exceptions();
  std::unique_ptr<boost::mpi::environment> environment_;
  MPI_Comm collective_, messages_;
  mpi_peers peers_;
  bool crowded_ = false;
  notice failure_;
  int suspect_ = -1;
  clock::time_point suspect_since_, came_back_;
  std::vector<bool> left_, away_;
  int guards_ = 0;  // of this rank's being away
  std::deque<sent> sent_;
  std::vector<request> requests_;

 public:
  shared_seats seats;
};

}  // namespace detail
}  // namespace dovetail::comm
