// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ctime>
#endif

namespace dovetail::comm::detail {

inline void pause_core() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#if defined(__linux__)
/// Sleeps while `word` is `seen`, until it is woken or the time is over.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, std::chrono::nanoseconds at_most,
                       int how) {
  if (at_most.count() <= 0) return;
  timespec ts{};
  ts.tv_sec = at_most.count() / 1'000'000'000;
  ts.tv_nsec = at_most.count() % 1'000'000'000;
  syscall(SYS_futex, static_cast<void*>(&word), FUTEX_WAIT | how, seen, &ts, nullptr, 0);
}
inline void futex_wake(std::atomic<std::uint32_t>& word, int how) {
  syscall(SYS_futex, static_cast<void*>(&word), FUTEX_WAKE | how, 0x7fffffff, nullptr, nullptr, 0);
}
/// The same between processes that share memory.
inline void shared_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, std::chrono::nanoseconds at_most) {
  futex_wait(word, seen, at_most, 0);
}
inline void shared_wake(std::atomic<std::uint32_t>& word) { futex_wake(word, 0); }
#else
inline void shared_wait(std::atomic<std::uint32_t>&, std::uint32_t, std::chrono::nanoseconds at_most) {
  std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(at_most, std::chrono::microseconds(50)));
}
inline void shared_wake(std::atomic<std::uint32_t>&) {}
#endif

/// A word that one thread raises and others wait for. std::atomic::wait has no timeout, and a rank that does not
/// come must be noticed: hence the system call.
class signal {
 public:
  std::uint32_t load() const { return value_.load(std::memory_order_acquire); }
  void add(std::uint32_t n) {
    value_.fetch_add(n, std::memory_order_seq_cst);
    wake();
  }
  void set_bits(std::uint32_t bits) {
    value_.fetch_or(bits, std::memory_order_seq_cst);
    wake();
  }

  /// Returns when done(value) holds (true), or at `give_up` (false). Waits on the core for as long as `spin`, in the
  /// hope that the others are about to come, then asleep.
  template <class Done>
  bool wait(Done done, std::chrono::microseconds spin, std::chrono::steady_clock::time_point give_up) {
    using clock = std::chrono::steady_clock;
    if (done(load())) return true;
    for (int i = 0; i < 32 && spin.count() > 0; ++i) {
      pause_core();
      if (done(load())) return true;
    }
    auto const spin_until = clock::now() + spin;
    // On a busy machine the one we wait for may want this very core: offer it.
    while (clock::now() < spin_until) {
      for (int i = 0; i < 32; ++i) {
        pause_core();
        if (done(load())) return true;
      }
      std::this_thread::yield();
    }
    for (;;) {
      // The one who raises writes the value, then reads sleepers_; we write sleepers_, then read the value: in the
      // single order of sequentially consistent operations one of the two sees the other.
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      auto const seen = value_.load(std::memory_order_seq_cst);
      if (!done(seen)) sleep(seen, give_up - clock::now());
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
      if (done(load())) return true;
      if (clock::now() >= give_up) return false;
    }
  }

 private:
#if defined(__linux__)
  void wake() {
    if (sleepers_.load(std::memory_order_seq_cst) != 0) futex_wake(value_, FUTEX_PRIVATE_FLAG);
  }
  void sleep(std::uint32_t seen, std::chrono::nanoseconds at_most) {
    futex_wait(value_, seen, at_most, FUTEX_PRIVATE_FLAG);
  }
#else
  void wake() {}
  void sleep(std::uint32_t, std::chrono::nanoseconds) { std::this_thread::sleep_for(std::chrono::microseconds(50)); }
#endif

  std::atomic<std::uint32_t> value_{0}, sleepers_{0};
  static_assert(sizeof(std::atomic<std::uint32_t>) == 4, "a futex is the atomic's own four bytes");
};

}  // namespace dovetail::comm::detail
