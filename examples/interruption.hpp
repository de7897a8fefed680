// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <set>
#include <thread>

// Ctrl-C asks the trainer to save and return; a second one ends the program at once. mpirun and batch systems ask by
// SIGTERM, a terminal that goes away by SIGHUP, unless nohup has it ignored.
//
// No handler: it would run on top of whatever the thread is doing, and oneDNN's products for AVX-512 (2.6) keep numbers
// below the stack pointer, which a handler overwrites: the heap is damaged in one of three interruptions. A thread of
// its own waits for the signals instead.

namespace examples {

/// For fit_options::stop.
inline std::atomic<bool> interrupted{false};

/// To be called before any other thread is started: they inherit that the signals are blocked.
inline void wait_for_interruption() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int const s : {SIGINT, SIGTERM}) {
    std::signal(s, SIG_DFL);  // ignored in the background of sh: whether a blocked one is then kept, systems differ in
    sigaddset(&signals, s);
  }
  struct sigaction hangup;
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaddset(&signals, SIGHUP);  // Linux would keep it in spite of nohup
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    std::set<int> seen;
    for (int s = 0; sigwait(&signals, &s) == 0;) {
      interrupted = true;
      if (seen.insert(s).second) continue;
      std::signal(s, SIG_DFL);
      pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
      std::raise(s);
    }
  }).detach();
}

}  // namespace examples
