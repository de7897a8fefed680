// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <type_traits>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>

// How ranks find out together what went wrong: each says what it called and how it ended, and judges all reports alike.
namespace dovetail::comm::detail {

/// What a rank says of itself when ranks meet on the control communicator.
struct nccl_report {
  enum class state : std::uint8_t {
    calls,   ///< it is about to queue `what`
    late,    ///< it waited for it in vain
    failed,  ///< NCCL reported an error to it
    broken   ///< its device, or it itself, cannot go on
  };
  call what;
  std::uint64_t number = 0;
  state is = state::calls;
  std::array<char, 239> text{};

  void say(std::string const& s) { std::snprintf(text.data(), text.size(), "%s", s.c_str()); }
  friend bool same_call(nccl_report const& a, nccl_report const& b) { return a.number == b.number && a.what == b.what; }
};
static_assert(std::is_trivially_copyable_v<nccl_report>);

/// What all ranks throw: rank_lost, rank_diverged, or a comm_error of nobody.
struct nccl_verdict {
  enum class kind : std::uint8_t { lost, diverged, failed };
  kind is = kind::failed;
  int who = -1;
  std::string why;
};

/// Of reports that are not all of the same call. A function of them alone, so that all ranks throw the same; `late` is
/// how long they wait.
DOVETAIL_COLD inline nccl_verdict judge(std::vector<nccl_report> const& all, std::string const& late) {
  using state = nccl_report::state;
  using enum nccl_verdict::kind;
  for (std::size_t r = 0; r < all.size(); ++r)
    if (all[r].is == state::broken)
      return {lost, static_cast<int>(r), message("rank ", r, " cannot go on: ", all[r].text.data())};
  // Of those that are not as far as others, which may differ from each other without being wrong.
  std::uint64_t least = all[0].number;
  for (auto const& r : all) least = std::min(least, r.number);
  std::vector<call> calls;
  std::vector<int> who;
  for (std::size_t r = 0; r < all.size(); ++r)
    if (all[r].number == least) {
      calls.push_back(all[r].what);
      who.push_back(static_cast<int>(r));
    }
  if (auto const odd = odd_one_out(calls); odd < calls.size())
    return {diverged, who[odd],
            message("rank ", who[odd], " called ", calls[odd],
                    ": every rank must call the same operations with the same sizes, in the same order")};
  std::string late_ones, errors;
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (all[r].is == state::late) late_ones += message(late_ones.empty() ? "" : ", ", r);
    if (all[r].is == state::failed && errors.empty())
      errors = message("NCCL failed on rank ", r, ": ", all[r].text.data());
  }
  if (!errors.empty()) return {failed, -1, errors + "; all ranks are there"};
  if (late_ones.empty())
    return {diverged, who[0], message("ranks are at different operations, ", who[0], " the least far")};
  return {failed, -1,
          message("all ranks came, but it was not done on rank ", late_ones, " after ", late,
                  ": a device, or a link between them, hangs (NCCL_DEBUG=INFO says what they use)")};
}

}  // namespace dovetail::comm::detail
