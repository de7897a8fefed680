// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// within SECONDS MEGABYTES COMMAND…: runs the command and fails if it, with all processes that it started and waited
// for, took more processor time or more memory at its peak. Processor time, because other work on the machine must not
// decide.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: within SECONDS MEGABYTES COMMAND...\n");
    return 2;
  }
  double const seconds = std::atof(argv[1]), megabytes = std::atof(argv[2]);
  pid_t const child = fork();
  if (child == 0) {
    execvp(argv[3], argv + 3);
    std::perror(argv[3]);
    _exit(127);
  }
  int status = 0;
  rusage used{};
  if (child < 0 || wait4(child, &status, 0, &used) < 0) {
    std::perror("within");
    return 2;
  }
  auto const in_seconds = [](timeval t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  double const took = in_seconds(used.ru_utime) + in_seconds(used.ru_stime);
  double const peak = static_cast<double>(used.ru_maxrss) / 1024;  // Linux counts in KiB
  std::printf("%.1f s of at most %g s, %.0f MB of at most %g MB\n", took, seconds, peak, megabytes);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  return took <= seconds && peak <= megabytes ? 0 : 1;
}
