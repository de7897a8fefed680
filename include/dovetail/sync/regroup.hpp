// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/concepts.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/sync/agreement.hpp>
#include <dovetail/sync/session_traits.hpp>

namespace dovetail::sync {

namespace detail {
/// The bucket that a piece of a session's own state is of: its name up to the first dot.
inline std::string bucket_of(named_tensor const& t) { return t.name.substr(0, t.name.find('.')); }
/// Of a shard, or of a shard's sum: another number of ranks has others.
DOVETAIL_COLD inline bool of_shard(named_tensor const& t) {
  return t.name.ends_with("@sum") || t.name.find(".shard") != std::string::npos ||
         t.name.find(".sum") != std::string::npos;
}

/// Copies what both lists have of one name and size, but for the buckets of `without`; true if that is all of `to`.
DOVETAIL_COLD inline bool copy_by_name(std::vector<named_tensor> const& from, std::vector<named_tensor> const& to,
                                       std::set<std::string> const& without = {}) {
  std::map<std::string, named_tensor const*> known;
  for (auto const& t : from) known.emplace(t.name, &t);
  bool all = true;
  for (auto const& t : to) {
    auto const found = known.find(t.name);
    bool const fits = found != known.end() && found->second->bytes.size() == t.bytes.size() &&
                      !without.contains(bucket_of(t)) && !of_shard(t);
    all = all && fits;
    if (fits && !t.bytes.empty()) std::memcpy(t.bytes.data(), found->second->bytes.data(), t.bytes.size());
  }
  return all;
}

/// The buckets whose codecs have to begin anew with other ranks: where what is the same on all ranks is made of what is
/// summed over them, as EF21's is, it has something of the lost rank; and what it is of a shard is of another one.
DOVETAIL_COLD inline std::set<std::string> begins_anew(std::vector<named_tensor> const& own) {
  std::set<std::string> replicated, summed, anew;
  for (auto const& t : own) {
    if (t.kind == state_kind::replicated) replicated.insert(bucket_of(t));
    if (t.kind == state_kind::summed) summed.insert(bucket_of(t));
    if (t.kind == state_kind::replicated && of_shard(t)) anew.insert(bucket_of(t));
  }
  std::set_intersection(replicated.begin(), replicated.end(), summed.begin(), summed.end(),
                        std::inserter(anew, anew.end()));
  return anew;
}
}  // namespace detail

/// What regroup found.
struct regrouped {
  std::int64_t steps = 0;  ///< that the training has made, on all ranks that are left
  int from = 0;            ///< the rank whose weights and state all have now
  bool kept_own = true;    ///< what each rank had of its own (residuals) goes on; false: some of it begins anew
};

/// After a rank was lost: collective among those who are left, whose communicator `comm` is (shrink). The last step
/// that any of them has completed counts, because the lost rank's gradients are in it: its weights and what a session
/// has `replicated` become those of all. `own` state stays with its rank as far as `next`, which has been joined on
/// `comm`, has pieces of the same names and sizes; what is the same on all ranks becomes that of the rank that is
/// farthest. Where both stand together (EF21, PowerSGD, compress::automatic) a bucket's codec begins anew: what ranks
/// have in common has something of the lost one. A rank that had not completed the step keeps what its codecs had
/// before it.
///
///     std::int64_t steps = 0;
///     for (;;) try {
///         … session->begin(), gradients, session->step() …
///         ++steps;
///       } catch (rank_lost const&) {
///         rest.emplace(comm.shrink());
///         auto next = sync.join(parameters, optimizer, *rest);
///         steps = sync::regroup(*session, next, parameters, steps, *rest).steps;
///       }
///
/// For sessions whose ranks have the same weights between steps (sync::all_reduce). Where weights or state are divided
/// (sync::fully_sharded, sync::shard), what the lost rank had is lost: go on from a checkpoint.
///
/// Errors: argument_error if the sessions are of another optimizer or codec; rank_lost if another rank is lost
/// meanwhile: shrink and call it again; comm_error, on all ranks, if the loss was found inside of the optimizer on all
/// of them (what ranks divide among them there, as Muon's and Shampoo's): go on from a checkpoint.
template <class Old, class Next, communicator C>
DOVETAIL_COLD regrouped regroup(Old& old, Next& next, parameter_list& parameters, std::int64_t steps, C& comm) {
  DOVETAIL_REQUIRE(!session_traits<Next>::acquires && !session_traits<Next>::independent,
                   "has weights that are not the same on all ranks, so what a lost rank had is lost: go on from a "
                   "checkpoint",
                   Next);
  regrouped r;
  std::uint64_t half_made = 0;
  if constexpr (requires { old.half_made(); }) half_made = old.half_made();
  auto const of_rank = detail::gather_words({static_cast<std::uint64_t>(steps), half_made}, comm);
  r.steps = -1;
  for (std::size_t q = 0; q < of_rank.size(); ++q)
    if (auto const made = static_cast<std::int64_t>(of_rank[q].at(0)); made > r.steps && !of_rank[q].at(1)) {
      r.steps = made;
      r.from = static_cast<int>(q);
    }
  if (r.steps < 0)
    throw comm_error(message("sync::regroup: all ranks that are left were inside of the optimizer's step ", steps + 1,
                             " when they lost one, so nobody has the weights of a whole step: go on from a checkpoint"),
                     -1);
  require(detail::copy_by_name(old.replicated(""), next.replicated("")),
          "sync::regroup: the new session keeps other state than the old one: join it with the same optimizer and "
          "synchronizer");
  auto const own = next.own("");
  auto const anew = detail::begins_anew(own);
  r.kept_own = detail::copy_by_name(old.own(""), own, anew) && anew.empty();

  // One message from the rank that is farthest: it may have any types.
  auto state = next.replicated("");
  for (auto const& t : own)
    if (t.kind == state_kind::replicated && !anew.contains(detail::bucket_of(t))) state.push_back(t);
  for (auto& p : parameters) state.push_back(make_named_tensor(p.name, p.weight, p.shape));
  std::vector<std::byte> mine, all;
  if (comm.rank() == r.from)
    for (auto const& t : state) mine.insert(mine.end(), t.bytes.begin(), t.bytes.end());
  comm.all_gather_v(mine, all);
  std::size_t at = 0;
  for (auto const& t : state) at += t.bytes.size();
  require(at == all.size(), "sync::regroup: rank ", r.from, " has ", all.size(),
          " bytes of weights and state, this one ", at, ": their models or optimizers are not the same");
  at = 0;
  for (auto const& t : state) {
    if (!t.bytes.empty()) std::memcpy(t.bytes.data(), all.data() + at, t.bytes.size());
    at += t.bytes.size();
  }
  return r;
}

}  // namespace dovetail::sync
