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
/// staging buffers. An all-reduce goes through it in chunks: every rank copies its chunk into its staging buffer, they
/// meet, and all combine. No message is sent, and a rank that asks for something else is seen at once.
class shared_seats {
 public:
  static constexpr std::size_t chunk = 256 * 1024;
  static constexpr std::size_t whole_up_to = 16 * 1024;  ///< so far every rank combines everything itself

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
    bool const whole = size_ == 2 || n <= whole_up_to;
    for (std::size_t at = 0; at == 0 || at < n; at += chunk) {
      std::size_t const now = std::min(chunk, n - at);
      std::byte* const mine = seats_[rank_].staging[staged_];
      if (now != 0) std::memcpy(mine, data + at, now);
      arrive();
      wait();
      if (at == 0) compare(c, differ);
      if (whole) {
        combine_range(combine, data + at, 0, now, width);
      } else {
        // Each rank combines one shard in place in its own staging buffer, where nobody else reads that shard.
        auto const own = shard(now / width, size_, rank_);
        combine_range(combine, mine + own.begin * width, own.begin * width, own.end * width, width);
        arrive();
        wait();
        for (int i = 0; i < size_; ++i) {
          int const r = (rank_ + i) % size_;
          auto const part = shard(now / width, size_, r);
          if (!part.empty())
            std::memcpy(data + at + part.begin * width, seats_[r].staging[staged_] + part.begin * width,
                        part.size() * width);
        }
      }
      staged_ ^= 1;
    }
    posted_ ^= 1;
  }

 private:
  void arrive() { seats_[rank_].arrived.store(++phase_, std::memory_order_release); }
  void combine_range(ordered_reduce combine, std::byte* out, std::size_t begin, std::size_t end, std::size_t width) {
    if (begin == end) return;  // a barrier brings no function
    for (int r = 0; r < size_; ++r) sources_[static_cast<std::size_t>(r)] = seats_[r].staging[staged_] + begin;
    sources_[static_cast<std::size_t>(rank_)] = out;  // the same values, without a third stream through the cache
    combine(&out, 1, sources_.data(), sources_.size(), (end - begin) / width);
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
