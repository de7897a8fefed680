// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// within SECONDS MEGABYTES USUAL YARDSTICK SUBJECT COMMAND…: runs COMMAND SUBJECT and fails if it, with all processes
// that it started and waited for, took more processor time or more memory at its peak. Where COMMAND YARDSTICK takes
// longer than USUAL seconds, the machine is slow, or busy, and the time allowed grows in proportion. The yardstick is
// run often enough, before and behind the subject, to meet what the subject met: a short run finds a quiet moment that
// a long one does not. Up to three rounds; the first that holds ends it.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

constexpr int beside = 3;  // runs of the yardstick on either side of the subject

struct cost {
  double seconds = 0, megabytes = 0;
};

cost run(std::vector<char*> command, char* subject) {
  command.push_back(subject);
  command.push_back(nullptr);
  pid_t const child = fork();
  if (child == 0) {
    execvp(command[0], command.data());
    std::perror(command[0]);
    _exit(127);
  }
  int status = 0;
  rusage used{};
  if (child < 0 || wait4(child, &status, 0, &used) < 0) {
    std::perror("within");
    std::exit(2);
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::fprintf(stderr, "within: %s with %s failed\n", command[0], subject);
    std::exit(1);
  }
  auto const in_seconds = [](timeval t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return {in_seconds(used.ru_utime) + in_seconds(used.ru_stime),
          static_cast<double>(used.ru_maxrss) / 1024};  // Linux counts in KiB
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7) {
    std::fprintf(stderr, "usage: within SECONDS MEGABYTES USUAL YARDSTICK SUBJECT COMMAND...\n");
    return 2;
  }
  double const seconds = std::atof(argv[1]), megabytes = std::atof(argv[2]), usual = std::atof(argv[3]);
  std::vector<char*> const command(argv + 6, argv + argc);
  for (int round = 0; round < 3; ++round) {
    double total = 0;
    for (int i = 0; i < beside; ++i) total += run(command, argv[4]).seconds;
    auto const subject = run(command, argv[5]);
    for (int i = 0; i < beside; ++i) total += run(command, argv[4]).seconds;
    double const yardstick = total / (2 * beside), allowed = seconds * std::max(1.0, yardstick / usual);
    std::printf("%.1f s of at most %.1f s (the yardstick took %.2f s), %.0f MB of at most %g MB\n", subject.seconds,
                allowed, yardstick, subject.megabytes, megabytes);
    std::fflush(stdout);
    if (subject.megabytes > megabytes) return 1;
    if (subject.seconds <= allowed) return 0;
  }
  return 1;
}
