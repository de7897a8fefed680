// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <thread>
#include <vector>

#include <mpi.h>  // a part of comm::mpi, and of no use without it

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/mpi/notice.hpp>
#include <dovetail/comm/mpi/watch.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::detail {

/// The ranks that all of them go on with. Each says without whom it would; when it has heard the same from all who
/// are left it says that they agree; and it goes on when all have said so. (What a rank said first may be old: a rank
/// that comes late hears it, and must not take it for an answer.)
inline std::vector<int> mpi_watch::agree_on_survivors(call const& c) {
  using namespace std::chrono_literals;
  auto const n = records_.size(), me = static_cast<std::size_t>(wire->rank());
  require(n <= static_cast<std::size_t>(notice::most_ranks), "shrink of ", n, " ranks: at most ", notice::most_ranks);
  being_here const here(*this, c, {});
  auto heard = clock::now();
  std::vector<bool> without(n), said;
  bool proposed = false, said_so = false;
  std::vector<clock::time_point> gone_since(n);
  for (bool first = true;; first = false) {
    if (wire->pending()) wire->progress();
    read_notices();
    if (over_) rethrow(c);
    for (std::size_t r = 0; r < n; ++r) {
      if (r != me && !without[r] && is_gone(static_cast<int>(r))) {
        // What it had said may be on its way: it may have gone on without this rank before it ended.
        if (gone_since[r] == clock::time_point{}) gone_since[r] = clock::now();
        if (clock::now() - gone_since[r] > 30ms) without[r] = true, heard = clock::now();
      }
      if (r == me || !records_[r].shrinks) continue;
      without[me] = without[me] || records_[r].without[me];  // whatever has become of it since
      if (without[r]) continue;
      for (std::size_t q = 0; q < n; ++q)
        if (records_[r].without[q] && !without[q]) without[q] = true, heard = clock::now();
    }
    if (without[me] || self_lost_)
      throw rank_lost(message(where(c), ": the others go on without this rank", self_lost_ ? ": " : "", why_self_),
                      wire->rank());
    proposed = true;
    for (std::size_t r = 0; r < n; ++r)
      proposed = proposed && (r == me || without[r] || (records_[r].shrinks && records_[r].without == without));
    if (first || without != said || proposed != said_so) {
      said = without;
      said_so = proposed;
      notice word{notice::shrinking, wire->rank()};
      word.agreed = proposed;
      for (std::size_t r = 0; r < n; ++r)
        if (without[r])
          word.text[r / 8] = static_cast<char>(static_cast<unsigned char>(word.text[r / 8]) | 1u << (r % 8));
      for (std::size_t r = 0; r < n; ++r)
        if (r != me) try {  // also to those who are left behind, if they live: they learn it
            if (peers.alive(static_cast<int>(r)) && !records_[r].left) wire->post(static_cast<int>(r), word);
          } catch (comm_error const&) {
            continue;
          }
    }
    bool agreed = proposed;
    std::size_t late = n;
    for (std::size_t r = 0; r < n; ++r) {
      if (r == me || without[r]) continue;
      bool const proposes = records_[r].shrinks && records_[r].without == without;
      bool const same = proposes && (records_[r].agreed || !proposed);  // who is late has to come first
      agreed = agreed && same;
      if (!same && late == n) late = r;
    }
    if (agreed) break;
    if (records_[late].away) heard = clock::now();
    if (clock::now() - std::max(heard, came_back_) > deadline_) {
      fail({notice::lost, static_cast<int>(late),
            message("rank ", late, " did not come to shrink for ", deadline_.count(), " ms, the deadline")},
           true);
      heard = clock::now();
    }
    std::this_thread::sleep_for(200us);
  }
  std::vector<int> members;
  for (std::size_t r = 0; r < n; ++r) {
    records_[r].shrinks = records_[r].agreed = false;  // it may be asked for again
    if (!without[r]) members.push_back(static_cast<int>(r));
  }
  return members;
}

}  // namespace dovetail::comm::detail
