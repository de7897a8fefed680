// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <mpi.h>  // a part of comm::mpi, and of no use without it

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/comm/shm/signal.hpp>

namespace dovetail::comm::detail {

/// Memory that the processes of one host share: a seat per rank with a phase counter, what the rank asks for, and two
/// staging buffers. An all-reduce goes through it in chunks: every rank stages what others combine, they meet, every
/// rank combines its shard, they meet again and collect the others' shards. No message is sent, and a rank that asks
/// for something else is seen at once.
class shared_seats {
 public:
  static constexpr std::size_t chunk = 512 * 1024;
  /// So far every rank combines everything itself, which saves a meeting.
  static constexpr std::size_t whole_up_to(int ranks) { return (ranks == 2 ? 256 : 16) * std::size_t{1024}; }

  struct posting {
    call asked;
    std::uint64_t number = 0;  // of the operation: the same on all ranks
    friend bool operator==(posting const&, posting const&) = default;
  };
  struct alignas(4096) seat {
    std::atomic<std::uint32_t> arrived, sleepers;
    alignas(128) posting posts[2];
    alignas(128) std::byte staging[2][chunk];
  };
  static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

  /// Collective; afterwards `usable()` is the same on all ranks: false when they are on several hosts or the system has
  /// too little shared memory. `share(mine)` returns what all ranks have brought to it.
  template <class Share>
  void open(int rank, int size, bool wanted, int ranks_on_host, Share share) {
    rank_ = rank, size_ = size;
    struct offer {
      char name[64];
      int ok;
    };
    if (size == 1) return;
    // Rank 0 makes the file, everybody maps it, and its name goes as soon as they have.
    offer mine{};
    int file = -1;
    auto const bytes = sizeof(seat) * static_cast<std::size_t>(size_);
    if (rank_ == 0 && wanted) {
      std::snprintf(mine.name, sizeof mine.name, "/dovetail.%ld.%p", static_cast<long>(getpid()),
                    static_cast<void*>(this));
      if (leaves_room(bytes, ranks_on_host)) file = shm_open(mine.name, O_RDWR | O_CREAT | O_EXCL, 0600);
      if (file >= 0 && posix_fallocate(file, 0, static_cast<off_t>(bytes)) != 0) {
        close(file);
        shm_unlink(mine.name);
        file = -1;
      }
    }
    mine.ok = wanted && (rank_ != 0 || file >= 0);
    auto all = share(mine);
    auto const all_ok = [&] { return std::all_of(all.begin(), all.end(), [](offer const& o) { return o.ok; }); };
    bool const begun = all_ok();
    void* at = MAP_FAILED;
    if (begun && rank_ != 0) file = shm_open(all[0].name, O_RDWR, 0600);
    if (begun && file >= 0) at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (at != MAP_FAILED) {
      bytes_ = bytes;
      seats_ = static_cast<seat*>(at);  // the system's zeros are the initial state
    }
    mine.ok = at != MAP_FAILED;
    try {
      if (begun) all = share(mine);
    } catch (...) {
      if (rank_ == 0 && file >= 0) shm_unlink(mine.name);
      throw;
    }
    if (rank_ == 0 && file >= 0) shm_unlink(mine.name);
    if (!all_ok()) unmap();
    sources_.resize(static_cast<std::size_t>(size_));
  }
  /// Whether the shared memory of this host can give so much and keep what MPI may still want of it: what MPI has there
  /// takes its pages only when they are used, and a page that is missing then ends the process.
  static bool leaves_room(std::size_t bytes, int ranks_on_host, char const* where = "/dev/shm") {
    struct statvfs s {};
    if (statvfs(where, &s) != 0) return true;  // shm_open will say
    std::uint64_t const available = std::uint64_t{s.f_bavail} * s.f_frsize;
    return available >= bytes + margin(ranks_on_host);
  }
  static constexpr std::uint64_t margin(int ranks_on_host) {
    return (16 + 6 * static_cast<std::uint64_t>(std::max(ranks_on_host, 1))) << 20;
  }

  shared_seats() = default;
  shared_seats(shared_seats const&) = delete;
  shared_seats& operator=(shared_seats const&) = delete;
  ~shared_seats() { unmap(); }

  bool usable() const { return seats_ != nullptr; }
  bool reached(int r) const {
    return static_cast<std::int32_t>(seats_[r].arrived.load(std::memory_order_acquire) - phase_) >= 0;
  }
  bool all_reached() const {
    for (int r = 0; r < size_; ++r)
      if (!reached(r)) return false;
    return true;
  }

  /// Waits for the first rank that has not come, for `at_most`; it wakes us when it does.
  void rest(std::chrono::nanoseconds at_most) {
    for (int r = 0; r < size_; ++r) {
      auto& peer = seats_[r];
      auto const seen = peer.arrived.load(std::memory_order_seq_cst);
      if (static_cast<std::int32_t>(seen - phase_) >= 0) continue;
      // Who arrives writes the count, then reads `sleepers`; we write `sleepers`, then read the count.
      peer.sleepers.fetch_add(1, std::memory_order_seq_cst);
      if (peer.arrived.load(std::memory_order_seq_cst) == seen) shared_wait(peer.arrived, seen, at_most);
      peer.sleepers.fetch_sub(1, std::memory_order_relaxed);
      return;
    }
  }

  /// A barrier when c.count is 0; `number` counts the operations. `wait()` returns when all_reached(), or throws;
  /// `differ(postings)` must throw.
  template <class Wait, class Differ>
  void all_reduce(call const& c, std::uint64_t number, std::byte* data, ordered_reduce combine, Wait wait,
                  Differ differ) {
    posting const posted{c, number};
    seats_[rank_].posts[posted_] = posted;
    std::size_t const n = c.bytes(), width = size_of(c.type);
    bool const whole = n <= whole_up_to(size_);
    for (std::size_t at = 0; at == 0 || at < n; at += chunk) {
      std::size_t const now = std::min(chunk, n - at);
      std::byte* const mine = seats_[rank_].staging[staged_];
      // One's own shard is combined where it lies: only the peers' shards are staged.
      auto const own = whole ? byte_range{0, now} : part_of(now, width, rank_);
      copy(mine, data + at, whole ? now : own.begin);
      if (!whole) copy(mine + own.end, data + at + own.end, now - own.end);
      arrive();
      wait();
      if (at == 0) compare(posted, differ);
      if (own.begin != own.end) {
        for (int r = 0; r < size_; ++r)
          sources_[static_cast<std::size_t>(r)] = (r == rank_ ? data + at : seats_[r].staging[staged_]) + own.begin;
        std::byte* const outs[] = {data + at + own.begin, mine + own.begin};
        combine(outs, whole ? 1 : 2, sources_.data(), sources_.size(), (own.end - own.begin) / width);
      }
      if (!whole) {
        arrive();
        wait();
        for (int i = 1; i < size_; ++i) {
          int const r = (rank_ + i) % size_;
          auto const theirs = part_of(now, width, r);
          copy(data + at + theirs.begin, seats_[r].staging[staged_] + theirs.begin, theirs.end - theirs.begin);
        }
      }
      staged_ ^= 1;
    }
    posted_ ^= 1;
  }

 private:
  void arrive() {
    auto& mine = seats_[rank_];
    mine.arrived.store(++phase_, std::memory_order_seq_cst);
    if (mine.sleepers.load(std::memory_order_seq_cst) != 0) shared_wake(mine.arrived);
  }
  struct byte_range {
    std::size_t begin, end;
  };
  /// The part of `bytes` that rank r combines for all.
  byte_range part_of(std::size_t bytes, std::size_t width, int r) const {
    auto const part = shard(bytes / width, size_, r);
    return {part.begin * width, part.end * width};
  }
  static void copy(std::byte* to, std::byte const* from, std::size_t n) {
    if (n != 0) std::memcpy(to, from, n);
  }
  template <class Differ>
  void compare(posting const& mine, Differ differ) {
    bool same = true;
    for (int r = 0; r < size_; ++r) same = same && seats_[r].posts[posted_] == mine;
    if (same) [[likely]]
      return;
    std::vector<posting> all;
    for (int r = 0; r < size_; ++r) all.push_back(seats_[r].posts[posted_]);
    differ(all);
  }
  void unmap() {
    if (seats_) munmap(static_cast<void*>(seats_), bytes_);
    seats_ = nullptr;
  }

  int rank_ = 0, size_ = 0;
  std::size_t bytes_ = 0;
  seat* seats_ = nullptr;
  std::uint32_t phase_ = 0;
  unsigned posted_ = 0, staged_ = 0;
  std::vector<std::byte const*> sources_;
};

}  // namespace dovetail::comm::detail
