// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <unistd.h>

#include <mpi.h>

namespace dovetail::comm::detail {

/// Who the ranks are, so that a rank on the same host can be asked for signs of life. MPI has no such question, and a
/// message that does not come says nothing about why.
class mpi_peers {
 public:
  /// Collective over `comm`.
  explicit mpi_peers(MPI_Comm comm) {
    int size = 0;
    MPI_Comm_size(comm, &size);
    identity me{};
    gethostname(me.host.data(), me.host.size() - 1);
    me.pid = static_cast<long>(getpid());
    me.started = look(me.pid).started;
    peers_.resize(static_cast<std::size_t>(size));
    MPI_Allgather(&me, static_cast<int>(sizeof me), MPI_BYTE, peers_.data(), static_cast<int>(sizeof me), MPI_BYTE,
                  comm);
    for (auto& p : peers_) {
      // Equal host names may still be two containers: what matters is that the process can be seen from here.
      bool const same_host = p.host == me.host;
      if (!same_host || p.started == 0 || look(p.pid).started != p.started) p.pid = 0;
      ranks_here_ += same_host;
    }
  }

  /// False only when the rank's process is known to have ended.
  bool alive(int r) const {
    auto const& p = peers_[static_cast<std::size_t>(r)];
    if (p.pid == 0) return true;
    auto const now = look(p.pid);
    return now.started == p.started && now.state != 'Z' && now.state != 'X';
  }
  bool more_ranks_than_cores() const { return ranks_here_ > sysconf(_SC_NPROCESSORS_ONLN); }

 private:
  struct identity {
    std::array<char, 64> host;
    long pid;
    unsigned long long started;  // clock ticks after boot: tells a reused process number
  };
  struct status {
    char state = 0;
    unsigned long long started = 0;
  };
  /// The third and 22nd field of /proc/<pid>/stat; the second, the name, may contain anything up to the last ')'.
  static status look(long pid) {
    char path[64], text[1024];
    std::snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    std::FILE* const f = std::fopen(path, "r");
    if (!f) return {};
    std::size_t const n = std::fread(text, 1, sizeof text - 1, f);
    std::fclose(f);
    text[n] = 0;
    char const* at = std::strrchr(text, ')');
    if (!at || at[1] == 0) return {};
    status s;
    s.state = at[2];
    for (int field = 2; field < 22 && at; ++field) at = std::strchr(at + 1, ' ');
    if (at) s.started = std::strtoull(at, nullptr, 10);
    return s;
  }

  std::vector<identity> peers_;
  long ranks_here_ = 0;
};

}  // namespace dovetail::comm::detail
