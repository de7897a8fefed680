// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// within SECONDS MEGABYTES USUAL YARDSTICK SUBJECT COMMAND…: runs COMMAND SUBJECT and fails if it, with all processes
// that it started and waited for, took more processor time or more memory at its peak. Where COMMAND YARDSTICK takes
// longer than USUAL seconds, the machine is slow, or busy, and the time allowed grows in proportion. Best of three runs
// each.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

struct cost {
  double seconds = 1e9, megabytes = 0;
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
  cost yardstick, subject;
  for (int i = 0; i < 3; ++i) {
    yardstick.seconds = std::min(yardstick.seconds, run(command, argv[4]).seconds);
    auto const c = run(command, argv[5]);
    subject.seconds = std::min(subject.seconds, c.seconds);
    subject.megabytes = std::max(subject.megabytes, c.megabytes);
  }
  double const allowed = seconds * std::max(1.0, yardstick.seconds / usual);
  std::printf("%.1f s of at most %.1f s (the yardstick took %.2f s), %.0f MB of at most %g MB\n", subject.seconds,
              allowed, yardstick.seconds, subject.megabytes, megabytes);
  return subject.seconds <= allowed && subject.megabytes <= megabytes ? 0 : 1;
}
