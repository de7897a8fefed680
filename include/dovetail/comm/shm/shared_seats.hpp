// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <mpi.h>  // a part of comm::mpi, and of no use without it

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/shm/signal.hpp>

namespace dovetail::comm::detail {

/// Memory that the processes of one host share: a seat per rank with a phase counter, what the rank asks for, and two
/// staging buffers in turn. Ranks write to their own seat, meet, and read the others' (seat_collectives.hpp).
class shared_seats {
 public:
  static constexpr std::size_t chunk = 512 * 1024;
  static constexpr int most_ranks = 1024;  ///< for who take a part of a chunk each

  struct posting {
    call asked;
    std::uint64_t number = 0;  // of the operation: the same on all ranks
    friend bool operator==(posting const&, posting const&) = default;
  };
  /// What ranks need not have alike: the array that others take from.
  struct array {
    std::byte const* data = nullptr;
    std::size_t bytes = 0;
  };
  struct post {
    posting what;
    array from;
  };
  struct alignas(4096) seat {
    std::atomic<std::uint32_t> arrived, sleepers, could_not_read, gave_up;
    alignas(128) post posts[2];
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
      int ok, reads;
      long pid;
      std::uint64_t const* at;
      std::uint64_t what_is_there;
    };
    if (size == 1) return;
    wanted = wanted && size <= most_ranks;
    // Rank 0 makes the file, everybody maps it, and its name goes as soon as they have.
    offer mine{};
    mine.pid = static_cast<long>(getpid());
    std::uint64_t const what_is_here =
        0x9e3779b97f4a7c15u * (static_cast<std::uint64_t>(mine.pid) + reinterpret_cast<std::uintptr_t>(this));
    mine.at = &what_is_here;
    mine.what_is_there = what_is_here;
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
    mine.reads = 1;
    for (auto const& o : all) {
      pids_.push_back(o.pid);
      std::uint64_t seen = 0;
      if (!begun ||
          !read(pids_.size() - 1, reinterpret_cast<std::byte*>(&seen), reinterpret_cast<std::byte const*>(o.at),
                sizeof seen) ||
          seen != o.what_is_there)
        mine.reads = 0;
    }
    try {
      if (begun) all = share(mine);
    } catch (...) {
      if (rank_ == 0 && file >= 0) shm_unlink(mine.name);
      throw;
    }
    if (rank_ == 0 && file >= 0) shm_unlink(mine.name);
    if (!all_ok()) unmap();
    sources_.resize(static_cast<std::size_t>(size_));
    single_copy_ = usable() && std::all_of(all.begin(), all.end(), [](offer const& o) { return o.reads; });
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
  /// It is not usable any more.
  void give_back() { unmap(); }

  bool usable() const { return seats_ != nullptr; }
  /// Whether rank r has come as far as this one waits for it.
  bool reached(int r) const { return reached(r, seats_[r].arrived.load(std::memory_order_acquire)); }
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
      if (reached(r, seen)) continue;
      // Who arrives writes the count, then reads `sleepers`; we write `sleepers`, then read the count.
      peer.sleepers.fetch_add(1, std::memory_order_seq_cst);
      if (peer.arrived.load(std::memory_order_seq_cst) == seen) shared_wait(peer.arrived, seen, at_most);
      peer.sleepers.fetch_sub(1, std::memory_order_relaxed);
      return;
    }
  }

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// The buffer of rank r for this step. What is written to one's own may be read by the others when they have met.
  std::byte* staging(int r) const { return seats_[r].staging[staged_]; }
  /// This rank has written what the others may read now, and read what they may overwrite.
  void arrive() {
    auto& mine = seats_[rank_];
    await(-1, 0);
    mine.arrived.store(++phase_, std::memory_order_seq_cst);
    if (mine.sleepers.load(std::memory_order_seq_cst) != 0) shared_wake(mine.arrived);
  }
  /// Until this rank arrives again it waits for rank r alone, or for all (-1), which may be so many arrivals behind it.
  void await(int r, std::uint32_t behind) { awaited_ = r, behind_ = behind; }
  /// The next step: the other staging buffer. When all have met in a step, nobody reads that of the step before.
  void turn() { staged_ ^= 1; }
  /// Says what this rank is about to do; the n-th and the one before it are kept.
  void say(post const& p) {
    posted_ ^= 1;
    seats_[rank_].posts[posted_] = p;
  }
  post const& said(int r) const { return seats_[r].posts[posted_]; }

  /// Room for an address of each rank.
  std::vector<std::byte const*>& sources() { return sources_; }

  /// Whether every rank may read the others' memory, which saves one of two copies. Containers often forbid it.
  bool single_copy() const { return single_copy_; }
  /// Copies from an array of rank r's process; false when the system refuses, or that process has ended.
  bool read(int r, std::byte* to, std::byte const* from, std::size_t n) const {
    return read(static_cast<std::size_t>(r), to, from, n);
  }
  /// Before this rank leaves an operation by an exception: what the others read of its memory from then on may be
  /// anything. There is no operation after that.
  void give_up() { seats_[rank_].gave_up.store(1, std::memory_order_seq_cst); }
  /// A rank that has, of which what was read before may be anything; -1 for none.
  int who_gave_up() const {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    for (int r = 0; r < size_; ++r)
      if (seats_[r].gave_up.load(std::memory_order_seq_cst) != 0) return r;
    return -1;
  }
  void could_not_read() { seats_[rank_].could_not_read.store(1, std::memory_order_relaxed); }
  /// Asked by all ranks when they have met after reading. When one could not, nobody tries again.
  bool all_could_read() {
    for (int r = 0; r < size_; ++r) single_copy_ = single_copy_ && seats_[r].could_not_read.load() == 0;
    return single_copy_;
  }

 private:
  bool reached(int r, std::uint32_t arrived) const {
    return (awaited_ >= 0 && awaited_ != r) || static_cast<std::int32_t>(arrived - (phase_ - behind_)) >= 0;
  }
  bool read(std::size_t r, std::byte* to, std::byte const* from, std::size_t n) const {
#if defined(__linux__)
    while (n > 0) {
      iovec const here{to, n}, there{const_cast<std::byte*>(from), n};
      auto const got = process_vm_readv(static_cast<pid_t>(pids_[r]), &here, 1, &there, 1, 0);
      if (got <= 0) return false;
      to += got, from += got, n -= static_cast<std::size_t>(got);
    }
    return true;
#else
    static_cast<void>(r), static_cast<void>(to), static_cast<void>(from);
    return n == 0;
#endif
  }
  void unmap() {
    if (seats_) munmap(static_cast<void*>(seats_), bytes_);
    seats_ = nullptr;
  }

  int rank_ = 0, size_ = 0;
  std::size_t bytes_ = 0;
  seat* seats_ = nullptr;
  std::uint32_t phase_ = 0, behind_ = 0;
  int awaited_ = -1;
  unsigned posted_ = 0, staged_ = 0;
  bool single_copy_ = false;
  std::vector<long> pids_;
  std::vector<std::byte const*> sources_;
};

}  // namespace dovetail::comm::detail
