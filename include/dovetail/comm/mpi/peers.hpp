// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <sched.h>
#include <unistd.h>

#include <mpi.h>  // a part of comm::mpi, and of no use without it

#include <dovetail/comm/topology.hpp>
#include <dovetail/core/cores.hpp>

namespace dovetail::comm::detail {

/// Who a rank is, as it tells the others.
struct mpi_identity {
  std::array<char, 64> host{};
  long pid = 0;
  unsigned long long started = 0;  ///< clock ticks after boot: tells a reused process number
  std::int64_t ranks_on_host = 0;  ///< of the whole job, as its launcher says; 0: not said
  std::int64_t cores = 1;          ///< that the rank may keep busy
  cpu_set_t mask{};                ///< where it may run

  static mpi_identity own(std::string const& name) {
    mpi_identity me;
    if (name.empty())
      gethostname(me.host.data(), me.host.size() - 1);
    else
      name.copy(me.host.data(), me.host.size() - 1);
    me.pid = static_cast<long>(getpid());
    me.started = look(me.pid).started;
    for (char const* variable :
         {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"})
      if (char const* const said = std::getenv(variable))
        me.ranks_on_host = std::max<std::int64_t>(me.ranks_on_host, std::atol(said));
    me.cores = usable_cores();
    CPU_ZERO(&me.mask);
    if (sched_getaffinity(0, sizeof me.mask, &me.mask) != 0) CPU_ZERO(&me.mask);
    return me;
  }

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
};

/// Who the ranks are, so that a rank on the same host can be asked for signs of life. MPI has no such question, and a
/// message that does not come says nothing about why.
class mpi_peers {
 public:
  mpi_peers() = default;
  mpi_peers(std::vector<mpi_identity> all, int rank) : peers_(std::move(all)) {
    auto const& me = peers_[static_cast<std::size_t>(rank)];
    cpu_set_t where = me.mask;
    int here = 0, sharing = 0;
    for (auto& p : peers_) {
      // Equal host names may still be two containers: what matters is that the process can be seen from here.
      bool const same_host = p.host == me.host;
      if (!same_host || p.started == 0 || mpi_identity::look(p.pid).started != p.started) p.pid = 0;
      if (p.pid == 0) one_host_ = false;
      if (!same_host) continue;
      ++here;
      cpu_set_t both;
      CPU_AND(&both, &me.mask, &p.mask);
      if (CPU_COUNT(&both) == 0) continue;
      ++sharing;
      CPU_OR(&where, &where, &p.mask);
    }
    // Ranks of the job that are not in this communicator run where this one does, unless it has cores of its own.
    ranks_here_ = std::max(here, static_cast<int>(me.ranks_on_host));
    int cores = std::max(1, CPU_COUNT(&where));
    if (cores > sharing) sharing += ranks_here_ - here;
    // A quota is of the whole group of processes: take each rank's as if it were the host's.
    if (me.cores < CPU_COUNT(&me.mask)) cores = std::min(cores, static_cast<int>(me.cores));
    crowded_ = sharing > cores;
    spare_core_ = sharing < cores;
  }
  /// The same of some of the ranks; how busy the host is stays known.
  mpi_peers part(std::vector<int> const& ranks) const {
    mpi_peers p = *this;
    p.peers_.clear();
    p.one_host_ = true;
    for (int const r : ranks) {
      p.peers_.push_back(peers_[static_cast<std::size_t>(r)]);
      p.one_host_ = p.one_host_ && p.peers_.back().pid != 0;
    }
    return p;
  }

  /// False only when the rank's process is known to have ended.
  bool alive(int r) const {
    if (peers_.empty()) return true;  // the ranks have not met yet
    auto const& p = peers_[static_cast<std::size_t>(r)];
    if (p.pid == 0) return true;
    auto const now = mpi_identity::look(p.pid);
    return now.started == p.started && now.state != 'Z' && now.state != 'X';
  }
  /// Whether rank r's process can be seen from here.
  bool sees(int r) const { return peers_[static_cast<std::size_t>(r)].pid != 0; }
  /// Whether every rank's process can.
  bool one_host() const { return one_host_; }
  int ranks_here() const { return ranks_here_; }
  /// By the names of hosts.
  comm::topology topology() const {
    std::vector<std::array<char, 64>> names;
    for (auto const& p : peers_) names.push_back(p.host);
    return comm::topology::of(names);
  }
  /// Whether ranks of this host, of whatever communicator, must share cores: who waits should sleep then.
  bool crowded() const { return crowded_; }
  /// Whether they leave a core.
  bool spare_core() const { return spare_core_; }

 private:
  std::vector<mpi_identity> peers_;
  int ranks_here_ = 0;
  bool one_host_ = true, crowded_ = false, spare_core_ = false;
};

}  // namespace dovetail::comm::detail
