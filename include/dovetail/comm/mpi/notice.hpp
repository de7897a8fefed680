// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <mpi.h>  // a part of comm::mpi, and of no use without it

#include <dovetail/comm/call.hpp>

namespace dovetail::comm::detail {

/// The last collectives that a rank has called, the current one included: the n-th lies at n % size.
using recent_calls = std::array<call, 4>;

/// What ranks tell each other beside the data: that one leaves or went wrong, and, while they wait, where they are.
struct notice {
  enum kinds : int {
    none,
    left,      ///< the communicator was destroyed
    returned,  ///< run() number `run` has returned
    away,      ///< in code of its own: not lost, however long it takes
    back,
    received,  ///< a message of `bytes`
    waiting,   ///< alive, in call `now`, without progress, because of rank `waits_for`
    lost,      ///< `rank` is lost, because of `text`
    diverged,
    released,  ///< after a failure: takes no message any more
    aborted,   ///< `rank` has ended the communicator, because of `text`
    shrinking  ///< would go on without the ranks whose bits are set in `text`; `agreed`: all who are left say so
  };
  static constexpr int most_ranks = 8 * 352;  ///< that `text` has bits for
  notice() = default;
  notice(kinds k, int r, std::string const& why = {}) : kind(k), rank(r) {
    std::memcpy(text, why.data(), std::min(why.size(), sizeof text - 1));
  }
  kinds kind = none;
  int rank = -1;
  int waits_for = -1;
  bool asks = false;  ///< a waiting rank that hears this answers
  bool agreed = false;
  std::uint64_t run = 0, sequence = 0;
  std::uint64_t bytes = 0;  ///< of what was received; waiting: how often something came or went there so far
  call now{};
  recent_calls recent{};
  char text[360]{};
};

/// What a rank knows of another one.
struct peer_record {
  bool left = false, away = false;
  bool lost = false;           ///< known to come no more, because of `why`
  bool told = false;           ///< that it is gone, to who waits for messages of any
  bool released = false;       ///< has said after a failure that it takes no message any more
  bool shrinks = false;        ///< wants to go on without the ranks in `without`
  bool agreed = false;         ///< and has heard the same from all others
  std::uint64_t returned = 0;  ///< the last run() that it has returned from
  std::string why;
  std::vector<bool> without;
  notice last;  ///< of kind waiting
  std::chrono::steady_clock::time_point heard{};
};

/// What the ranks have called as operation `number`, as far as it is known, and who is odd.
struct disagreement {
  bool differ = false, complete = false;
  int odd = -1;
  call called{};

  template <class Recent>
  static disagreement at(std::uint64_t number, int rank, std::uint64_t sequence, recent_calls const& mine,
                         Recent const& peers) {
    std::vector<call> calls;
    std::vector<int> ranks;
    for (int r = 0; r < static_cast<int>(peers.size()); ++r) {
      auto const& p = peers[static_cast<std::size_t>(r)].last;
      auto const reached = r == rank ? sequence : p.kind == notice::waiting ? p.sequence : 0;
      if (reached < number || reached - number >= mine.size()) continue;
      calls.push_back((r == rank ? mine : p.recent)[number % mine.size()]);
      ranks.push_back(r);
    }
    disagreement d;
    d.complete = ranks.size() == peers.size();
    auto const odd = odd_one_out(calls);
    d.differ = odd < calls.size();
    if (d.differ) d.odd = ranks[odd], d.called = calls[odd];
    return d;
  }
};

}  // namespace dovetail::comm::detail
