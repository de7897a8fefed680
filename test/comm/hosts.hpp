// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Hosts that ranks of one machine say they are on.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <string>

namespace hosts {

/// Of "2,1": a name of the first two ranks' host, and another one of the third's.
inline std::string of(int rank, std::string const& ranks_on_hosts) {
  int host = 0;
  for (std::size_t at = 0, before = 0; at < ranks_on_hosts.size(); at += 2, ++host) {
    before += static_cast<std::size_t>(ranks_on_hosts[at] - '0');
    if (static_cast<std::size_t>(rank) < before) break;
  }
  return "host" + std::to_string(host);
}
/// This process's rank, as its launcher says before there is a communicator.
inline int launched_rank() {
  for (char const* variable : {"OMPI_COMM_WORLD_RANK", "PMI_RANK"})
    if (char const* const said = std::getenv(variable)) return std::atoi(said);
  return 0;
}

}  // namespace hosts
