// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include <dovetail/core/config.hpp>

#if defined(__linux__)
#include <sched.h>
#endif

namespace dovetail {

namespace detail {

/// The first line of a small file of the system; empty when it cannot be read.
DOVETAIL_COLD inline std::string first_line(std::string const& path) {
  std::FILE* const f = std::fopen(path.c_str(), "r");
  if (!f) return {};
  char text[512]{};
  bool const got = std::fgets(text, sizeof text, f) != nullptr;
  std::fclose(f);
  return got ? text : "";
}

/// Cores that one control group grants: quota / period, as "max 100000" or "50000 100000"; 0: no limit known.
DOVETAIL_COLD inline double quota_of(std::string const& line) {
  char* end = nullptr;
  double const quota = std::strtod(line.c_str(), &end);
  if (end == line.c_str() || quota <= 0) return 0;
  double const period = std::strtod(end, nullptr);
  return period > 0 ? quota / period : 0;
}

/// The smallest quota of the control groups that this process is in (version 2, or the cpu controller of version 1).
DOVETAIL_COLD inline double cgroup_cores() {
  double least = 0;
  auto const take = [&](double cores) {
    if (cores > 0 && (least <= 0 || cores < least)) least = cores;
  };
  std::FILE* const f = std::fopen("/proc/self/cgroup", "r");
  char text[1024];
  while (f && std::fgets(text, sizeof text, f)) {
    std::string line(text);
    if (!line.empty() && line.back() == '\n') line.pop_back();
    auto const a = line.find(':'), b = line.find(':', a + 1);
    if (a == std::string::npos || b == std::string::npos) continue;
    std::string const controllers = line.substr(a + 1, b - a - 1);
    bool const second = controllers.empty();
    if (!second && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    // Inside a container the path may be the host's: the group's own limit then lies at the root.
    for (std::string path = line.substr(b + 1);; path.resize(path.rfind('/'))) {
      if (!path.empty() && path.back() == '/') path.pop_back();
      if (second) {
        take(quota_of(first_line("/sys/fs/cgroup" + path + "/cpu.max")));
      } else {
        std::string const at = "/sys/fs/cgroup/cpu" + path;
        take(quota_of(first_line(at + "/cpu.cfs_quota_us") + " " + first_line(at + "/cpu.cfs_period_us")));
      }
      if (path.rfind('/') == std::string::npos) break;
    }
  }
  if (f) std::fclose(f);
  return least;
}

}  // namespace detail

/// How many cores this process may keep busy at once: what its affinity allows and its control group's quota pays for,
/// at least 1. Asks the system; keep the answer where it is needed often.
DOVETAIL_COLD inline int usable_cores() {
  int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
  cpu_set_t mine;
  CPU_ZERO(&mine);
  if (sched_getaffinity(0, sizeof mine, &mine) == 0) cores = std::max(1, CPU_COUNT(&mine));
#endif
  double const quota = detail::cgroup_cores();
  if (quota > 0 && quota < cores) cores = std::max(1, static_cast<int>(quota));
  return cores;
}

}  // namespace dovetail
