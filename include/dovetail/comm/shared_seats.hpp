// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mpi.h>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/reduce.hpp>

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

  struct alignas(4096) seat {
    std::atomic<std::uint32_t> arrived;
    alignas(128) call posts[2];
    alignas(128) std::byte staging[2][chunk];
  };
  static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

  /// Collective over `comm`. Afterwards `usable()` is the same on all ranks: false when they are on several hosts or
  /// the system gives no shared memory.
  shared_seats(MPI_Comm comm, bool wanted) {
    MPI_Comm_rank(comm, &rank_);
    MPI_Comm_size(comm, &size_);
    MPI_Comm host = MPI_COMM_NULL;
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &host);
    int here = 0, ok = wanted && size_ > 1;
    MPI_Comm_size(host, &here);
    MPI_Comm_free(&host);
    ok = ok && here == size_;
    MPI_Allreduce(MPI_IN_PLACE, &ok, 1, MPI_INT, MPI_MIN, comm);
    if (!ok) return;

    // Rank 0 makes the file, everybody maps it, and its name goes before anything can go wrong.
    char name[64]{};
    int file = -1;
    auto const bytes = sizeof(seat) * static_cast<std::size_t>(size_);
    if (rank_ == 0) {
      static_assert(sizeof(void*) <= 8);
      std::snprintf(name, sizeof name, "/dovetail.%ld.%p", static_cast<long>(getpid()), static_cast<void*>(this));
      file = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
      if (file >= 0 && posix_fallocate(file, 0, static_cast<off_t>(bytes)) != 0) {
        close(file);
        file = -1;
      }
    }
    MPI_Bcast(name, static_cast<int>(sizeof name), MPI_CHAR, 0, comm);
    if (rank_ != 0) file = shm_open(name, O_RDWR, 0600);
    void* at = MAP_FAILED;
    ok = file >= 0;
    MPI_Allreduce(MPI_IN_PLACE, &ok, 1, MPI_INT, MPI_MIN, comm);
    if (ok) at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (rank_ == 0) shm_unlink(name);
    ok = at != MAP_FAILED;
    MPI_Allreduce(MPI_IN_PLACE, &ok, 1, MPI_INT, MPI_MIN, comm);
    if (at == MAP_FAILED) return;
    bytes_ = bytes;
    seats_ = static_cast<seat*>(at);  // the system's zeros are the initial state
    if (!ok) unmap();
    sources_.resize(static_cast<std::size_t>(size_));
  }
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

  /// A barrier when c.count is 0. `wait(seats)` returns when all_reached(), or throws; `differ(calls)` must throw.
  template <class Wait, class Differ>
  void all_reduce(call const& c, std::byte* data, ordered_reduce combine, Wait wait, Differ differ) {
    seats_[rank_].posts[posted_] = c;
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
      if (at == 0) compare(c, differ);
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
  void arrive() { seats_[rank_].arrived.store(++phase_, std::memory_order_release); }
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
  void compare(call const& c, Differ differ) {
    bool same = true;
    for (int r = 0; r < size_; ++r) same = same && seats_[r].posts[posted_] == c;
    if (same) [[likely]]
      return;
    std::vector<call> calls;
    for (int r = 0; r < size_; ++r) calls.push_back(seats_[r].posts[posted_]);
    differ(calls);
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
