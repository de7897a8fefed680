// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include <mpi.h>

#include <dovetail/comm/mpi/check.hpp>
#include <dovetail/comm/mpi/notice.hpp>
#include <dovetail/comm/mpi/peers.hpp>

namespace dovetail::comm::detail {

/// The two communicators of MPI below one of ours, the caller's messages apart from everything else, and what is being
/// sent from memory of the library's own.
///
/// MPI gives the number of a communicator that was freed to the next one, and delivers there what the old one left
/// unreceived. So a communicator ends in three steps: each rank bids farewell on both (MPI keeps the order: nothing
/// comes after it), receives and drops whatever comes until it has everybody's farewell, and only then frees. Nothing
/// is freed by the destructor: what cannot be ended so is left to MPI, its number is then not used again.
class mpi_wire {
 public:
  enum lane : std::size_t { collective, messages };
  static constexpr int notice_tag = 0;  // on the collective lane

  mpi_wire(MPI_Comm c, MPI_Comm m) : comms_{c, m} {
    mpi_check(MPI_Comm_rank(c, &rank_), "MPI_Comm_rank");
    mpi_check(MPI_Comm_size(c, &size_), "MPI_Comm_size");
    for (auto& f : farewells_) f.resize(static_cast<std::size_t>(size_));
    unreceived_.resize(static_cast<std::size_t>(size_));
    forgotten_.resize(static_cast<std::size_t>(size_));
  }
  mpi_wire(mpi_wire const&) = delete;
  mpi_wire& operator=(mpi_wire const&) = delete;
  ~mpi_wire() {
    for (auto& p : posted_) static_cast<void>(p.data.release());  // MPI may still read them, or write there
    for (auto& d : drains_)
      if (d.request != MPI_REQUEST_NULL) static_cast<void>(d.data.release());
  }

  int rank() const { return rank_; }
  int size() const { return size_; }
  MPI_Comm on(lane l) const { return comms_[l]; }

  struct piece {
    std::size_t begin, end;
  };
  /// Sends pieces of `data`, which it keeps until they are sent. A caller's message counts until its receiver says that
  /// it has it. MPI's own word for that, MPI_Issend, never ends with Open MPI 5.0.7 where some hundreds are received
  /// at once, both ways.
  void post(lane l, int to, int tag, std::unique_ptr<std::byte[]> data, std::vector<piece> const& pieces) {
    auto& p = posted_.emplace_back(posting{std::move(data), {}, to, l, 0, pieces.size()});
    p.requests.reserve(pieces.size());
    for (auto const& part : pieces) {
      MPI_Request request = MPI_REQUEST_NULL;
      auto const n = static_cast<int>(part.end - part.begin);
      mpi_check(MPI_Isend(p.data.get() + part.begin, n, MPI_BYTE, to, tag, comms_[l], &request), "MPI_Isend", to);
      p.requests.push_back(request);
      p.bytes += part.end - part.begin;
    }
    if (l == collective) ++notices_;
    if (l == collective || p.bytes == 0) return;
    long_ += pieces.size() > 1;
    auto& u = unreceived_[static_cast<std::size_t>(to)];
    ++u.messages, u.bytes += p.bytes;
  }
  void post(int to, notice const& n) {
    auto copy = std::make_unique<std::byte[]>(sizeof n);
    std::memcpy(copy.get(), &n, sizeof n);
    post(collective, to, notice_tag, std::move(copy), {{0, sizeof n}});
  }
  /// Moves on what is being sent: MPI works only while it is called. Returns how many messages have gone.
  std::size_t progress() {
    std::size_t gone = 0;
    auto at = posted_.begin();
    for (int looked = 0; at != posted_.end() && looked < 64; ++looked) {
      int done = 0;
      int const code =
          MPI_Testall(static_cast<int>(at->requests.size()), at->requests.data(), &done, MPI_STATUSES_IGNORE);
      if (code != MPI_SUCCESS && forgotten_[static_cast<std::size_t>(at->to)]) {
        static_cast<void>(at->data.release());  // of a rank that is lost: MPI cannot send it, nor take it back
        done = 1;
      } else {
        mpi_check(code, "sending", at->to);
      }
      if (!done) {
        ++at;
        continue;
      }
      if (at->on == messages) long_ -= at->pieces > 1;
      if (at->on == collective) --notices_;
      at = posted_.erase(at);
      ++gone;
    }
    if (at != posted_.end()) posted_.splice(posted_.end(), posted_, posted_.begin(), at);  // the others next time
    return gone;
  }
  bool pending() const { return !posted_.empty(); }
  bool pending_notices() const { return notices_ > 0; }
  /// Whether a long message may be under way, which stands still while this rank does not call MPI.
  bool transfers() const { return long_ > 0; }
  /// Of the caller's messages to one rank, or to all: what they have not received yet.
  struct backlog {
    std::size_t messages = 0, bytes = 0;
  };
  backlog unreceived() const {
    backlog all;
    for (auto const& u : unreceived_) all.messages += u.messages, all.bytes += u.bytes;
    return all;
  }
  /// Who owes it, the rank with most of it first.
  std::vector<int> late_receivers() const {
    std::vector<int> ranks;
    for (int r = 0; r < size_; ++r)
      if (unreceived_[static_cast<std::size_t>(r)].messages > 0) ranks.push_back(r);
    std::sort(ranks.begin(), ranks.end(), [this](int a, int b) {
      return unreceived_[static_cast<std::size_t>(a)].messages > unreceived_[static_cast<std::size_t>(b)].messages;
    });
    return ranks;
  }
  /// Rank r has received a message of so many bytes.
  void received(int r, std::size_t bytes) {
    auto& u = unreceived_[static_cast<std::size_t>(r)];
    if (u.messages == 0) return;  // of a rank that was lost meanwhile
    --u.messages, u.bytes -= bytes;
  }
  /// Rank r is lost: what it has not received takes no room any more.
  void forget(int r) {
    unreceived_[static_cast<std::size_t>(r)] = {};
    forgotten_[static_cast<std::size_t>(r)] = 1;
  }

  /// A notice, if one has come.
  bool read(notice& n) {
    int there = 0;
    MPI_Status status{};
    mpi_check(MPI_Iprobe(MPI_ANY_SOURCE, notice_tag, comms_[collective], &there, &status), "MPI_Iprobe");
    if (!there) return false;
    mpi_check(MPI_Recv(&n, static_cast<int>(sizeof n), MPI_BYTE, status.MPI_SOURCE, notice_tag, comms_[collective],
                       MPI_STATUS_IGNORE),
              "MPI_Recv", status.MPI_SOURCE);
    if (n.kind == notice::left) {
      said_farewell(collective, status.MPI_SOURCE);
      unreceived_[static_cast<std::size_t>(status.MPI_SOURCE)] = {};  // dropped by its end, and not acknowledged
    }
    return true;
  }
  /// Somebody has met a failure, and bids no farewell.
  bool failed() const { return failed_; }
  bool has_farewell(int r) const {
    return farewells_[0][static_cast<std::size_t>(r)] && farewells_[1][static_cast<std::size_t>(r)];
  }
  void said_farewell(lane l, int r) { farewells_[l][static_cast<std::size_t>(r)] = true; }

  /// The first step of the end: this rank's farewells. An empty message is no caller's: those begin with their length.
  void close() {
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) continue;
      post(r, {notice::left, rank_});
      post(messages, r, 0, std::make_unique<std::byte[]>(1), {{0, 0}});
    }
    for (auto& f : farewells_) f[static_cast<std::size_t>(rank_)] = true;
  }
  /// The second step, polled: true when nothing more can come and nothing is under way.
  bool settled() {
    progress();
    drain(collective);
    drain(messages);
    return !pending() && drains_[0].request == MPI_REQUEST_NULL && drains_[1].request == MPI_REQUEST_NULL &&
           all(farewells_[0]) && all(farewells_[1]);
  }
  /// The third. Collective as MPI has it, local as every MPI does it.
  void free() {
    for (auto& c : comms_) mpi_check(MPI_Comm_free(&c), "MPI_Comm_free");
  }

 private:
  struct posting {
    std::unique_ptr<std::byte[]> data;
    std::vector<MPI_Request> requests;
    int to;
    lane on;
    std::size_t bytes, pieces;
  };
  struct drained {
    std::unique_ptr<std::byte[]> data;
    std::size_t bytes = 0;
    int from = 0, tag = 0;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  static bool all(std::vector<bool> const& f) { return std::find(f.begin(), f.end(), false) == f.end(); }
  void drain(lane l) {
    auto& d = drains_[l];
    for (;;) {
      int there = 0;
      MPI_Status status{};
      if (d.request == MPI_REQUEST_NULL) {
        // While somebody may still be in an operation that this rank has left, what is sent in it stays where it is:
        // the operation fails, and its arrays are freed, which MPI must not be reading then.
        int const tag = l == messages || all(farewells_[l]) ? MPI_ANY_TAG : notice_tag;
        mpi_check(MPI_Iprobe(MPI_ANY_SOURCE, tag, comms_[l], &there, &status), "MPI_Iprobe");
        if (!there) return;
        int n = 0;
        mpi_check(MPI_Get_count(&status, MPI_BYTE, &n), "MPI_Get_count");
        d.bytes = static_cast<std::size_t>(n), d.from = status.MPI_SOURCE, d.tag = status.MPI_TAG;
        d.data = std::make_unique<std::byte[]>(d.bytes + 1);
        mpi_check(MPI_Irecv(d.data.get(), n, MPI_BYTE, d.from, d.tag, comms_[l], &d.request), "MPI_Irecv", d.from);
      }
      mpi_check(MPI_Test(&d.request, &there, MPI_STATUS_IGNORE), "MPI_Test", d.from);
      if (!there) return;
      notice n;
      if (l == collective && d.tag == notice_tag && d.bytes == sizeof n) std::memcpy(&n, d.data.get(), sizeof n);
      failed_ = failed_ || n.kind == notice::lost || n.kind == notice::diverged || n.kind == notice::aborted;
      if (l == collective ? n.kind == notice::left : d.bytes == 0) said_farewell(l, d.from);
      d.data.reset();
    }
  }

  std::array<MPI_Comm, 2> comms_;
  int rank_ = 0, size_ = 0;
  bool failed_ = false;
  std::list<posting> posted_;
  std::vector<backlog> unreceived_;
  std::vector<char> forgotten_;
  std::size_t long_ = 0, notices_ = 0;
  std::array<std::vector<bool>, 2> farewells_;
  std::array<drained, 2> drains_;
};

}  // namespace dovetail::comm::detail
