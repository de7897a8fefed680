// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "../../examples/interruption.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

namespace train_interruption {

namespace {

using namespace std::chrono_literals;

bool interrupted_within(std::chrono::milliseconds limit) {
  auto const end = std::chrono::steady_clock::now() + limit;
  while (!examples::interrupted && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(1ms);
  return examples::interrupted;
}

/// How a process of its own ends that does f and leaves with what f returns. Of one that has not ended after 20 s:
/// SIGALRM.
template <class F>
int status_of(F const& f) {
  pid_t const child = fork();
  if (child == 0) {
    alarm(20);
    _exit(f());
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status;
}

/// `first` interrupts and a second one ends the program.
int interrupt_twice(int first) {
  examples::wait_for_interruption();
  kill(getpid(), first);
  if (!interrupted_within(10s)) return 1;
  std::this_thread::sleep_for(50ms);  // equal signals that wait are one
  kill(getpid(), first);
  std::this_thread::sleep_for(10s);
  return 2;
}

TEST_CASE("a signal interrupts, a second one ends the program") {
  for (int const s : {SIGINT, SIGTERM, SIGHUP}) {
    CAPTURE(s);
    int const status = status_of([&] { return interrupt_twice(s); });
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == s);
  }
}

TEST_CASE("a hangup that nohup has ignored stays so") {
  int const status = status_of([] {
    std::signal(SIGHUP, SIG_IGN);
    examples::wait_for_interruption();
    for (int i = 0; i < 2; ++i) {
      kill(getpid(), SIGHUP);
      if (interrupted_within(100ms)) return 1;
    }
    kill(getpid(), SIGTERM);
    return interrupted_within(10s) ? 0 : 2;
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("in the background of sh, which has Ctrl-C ignored, the same signals interrupt") {
  for (int const s : {SIGINT, SIGTERM}) {
    CAPTURE(s);
    int const status = status_of([&] {
      std::signal(s, SIG_IGN);
      examples::wait_for_interruption();
      // Linux keeps a blocked signal also where it is ignored, so the answer alone shows nothing.
      struct sigaction now;
      sigaction(s, nullptr, &now);
      return now.sa_handler == SIG_DFL ? 0 : 1;
    });
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
}

}  // namespace

}  // namespace train_interruption
