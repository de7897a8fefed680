// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <mpi.h>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/host_row.hpp>
#include <dovetail/comm/mpi/family.hpp>
#include <dovetail/comm/mpi/messages.hpp>
#include <dovetail/comm/mpi/options.hpp>
#include <dovetail/comm/mpi/survivors.hpp>
#include <dovetail/comm/mpi/watch.hpp>
#include <dovetail/comm/shm/shared_seats.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::detail {

/// The state of one communicator over MPI: its ranks, how they meet and part, and what is under way between them.
class mpi_job : public mpi_messages {
 public:
  /// `peers` says who the ranks are when that is known from the communicator that this is a part of.
  mpi_job(std::unique_ptr<mpi_wire> wire, mpi_options const& o, std::shared_ptr<mpi_family> family,
          mpi_peers const* peers)
      : mpi_messages(std::move(wire), o, std::move(family)), is_whole_(!peers) {
    guarded({operation::split}, [&](call const& c) {
      if (peers)
        watch_.peers = *peers;
      else
        watch_.peers = mpi_peers(share(c, mpi_identity::own(o.host)), rank());
      check_options(c);
      seats.open(rank(), size(), o.shared_memory && watch_.peers.one_host(), watch_.peers.ranks_here(),
                 [&](auto const& mine) { return share(c, mine); });
      open_row(c);
    });
    watch_.constructed(options.deadline);
  }
  /// After a failure nothing is freed and MPI is not finalized: both are collective and would wait for the lost rank.
  ~mpi_job() {
    if (family_->off_limits() || mpi_is_over()) return;
    bool over = false;
    try {
      if (!watch_.broken() && std::uncaught_exceptions() > exceptions_) {
        watch_.flush();
        watch_.give_up(message("rank ", rank(), " left by an exception"));
      }
      if (!watch_.broken()) {
        watch_.wire->close();
        over = true;
        family_->bury(std::move(watch_.wire), watch_.peers, is_whole_);
      }
    } catch (...) {
      over = false;  // the others notice that this rank is gone
    }
    if (is_whole_ && !over) family_->give_up();
  }

  /// What is left of these ranks. MPI makes a communicator of some ranks without the others, if they are all there.
  std::shared_ptr<mpi_job> shrink(call const& c) {
    std::shared_ptr<mpi_job> made;
    guarded(c, [&](call const&) {
      auto const members = watch_.agree_on_survivors(c);
      auto const look_at = [&](int r) {
        if (!peers().alive(r)) watch_.lost(r, c, message("rank ", r, " is dead: its process has ended"));
      };
      auto const look = [&] { std::for_each(members.begin(), members.end(), look_at); };
      MPI_Group all = MPI_GROUP_NULL, rest = MPI_GROUP_NULL;
      mpi_check(MPI_Comm_group(handle(), &all), "MPI_Comm_group");
      mpi_check(MPI_Group_incl(all, static_cast<int>(members.size()), members.data(), &rest), "MPI_Group_incl");
      MPI_Comm const parent = handle();
      MPI_Comm const part = mpi_made(
          "MPI_Comm_create_group", [=](MPI_Comm* to) { return MPI_Comm_create_group(parent, rest, of_groups, to); },
          options.deadline, family_->occupied, look);
      static_cast<void>(MPI_Group_free(&all));
      static_cast<void>(MPI_Group_free(&rest));
      MPI_Comm const messages = mpi_duplicate(part, options.deadline, look);
      made = of_part(part, messages, members);
    });
    return made;
  }

  /// A blocking call of MPI's own.
  template <class F>
  void native(call const& c, F f) {
    guarded(c, [&](call const&) { mpi_check(f(), "MPI_Allreduce"); });
  }
  /// The part of these ranks, who have all just met.
  std::shared_ptr<mpi_job> split(call const& c, int color, int key, std::vector<int> const& members) {
    std::shared_ptr<mpi_job> made;
    guarded(c, [&](call const&) {
      auto const look_at = [&](int r) {
        if (peers().alive(r)) return;
        if (!family_->occupied) watch_.read_notices();  // this one may have ended because it missed another one
        watch_.lost(r, c, message("rank ", r, " is dead: its process has ended"));
      };
      MPI_Comm const parent = handle();
      MPI_Comm const part = mpi_made(
          "MPI_Comm_split", [=](MPI_Comm* to) { return MPI_Comm_split(parent, color, key, to); }, options.deadline,
          family_->occupied,
          [&] {
            for (int r = 0; r < size(); ++r) look_at(r);
          });
      MPI_Comm const messages =
          mpi_duplicate(part, options.deadline, [&] { std::for_each(members.begin(), members.end(), look_at); });
      made = of_part(part, messages, members);
    });
    return made;
  }

  comm::traffic traffic;

 private:
  static constexpr int most_lanes = 4;
  /// Of several hosts in a row each has seats for its ranks, or they are not used on any.
  void open_row(call const& c) {
    auto const hosts = watch_.peers.topology();
    row = host_row::of(hosts, rank(), 1);
    if (row && row->hosts() > 2 && row->most_on_a_host() == 1) row.reset();  // nothing would go so
    if (!row) return;
    int const first = row->first(row->host);
    bool seen = options.shared_memory;
    for (int r = first; r < first + row->here(); ++r) seen = seen && watch_.peers.sees(r);
    row_seats.open(row->place(), row->here(), seen, watch_.peers.ranks_here(),
                   [&](auto const& mine) { return share(c, mine, first, row->here()); });
    struct answer {
      std::int32_t usable, crowded;
    };
    auto const all =
        share(c, answer{options.shared_memory && (row->here() == 1 || row_seats.usable()), watch_.peers.crowded()});
    // One rank of a host fills a link that it would otherwise share; several do where links are faster than a core, and
    // only if nobody waits for theirs.
    int const most = options.lanes > 0                                                                ? options.lanes
                     : std::any_of(all.begin(), all.end(), [](answer const& a) { return a.crowded; }) ? 1
                                                                                                      : most_lanes;
    row = host_row::of(hosts, rank(), most);
    if (std::all_of(all.begin(), all.end(), [](answer const& a) { return a.usable; })) return;
    row.reset();
    row_seats.give_back();
  }
  std::shared_ptr<mpi_job> of_part(MPI_Comm part, MPI_Comm messages, std::vector<int> const& members) {
    auto const peers_there = peers().part(members);
    try {
      return std::make_shared<mpi_job>(std::make_unique<mpi_wire>(part, messages), options, family_, &peers_there);
    } catch (comm_error const& e) {  // whose number is that in the part
      if (e.rank < 0) throw rank_lost(e.what(), -1);
      int const r = members[static_cast<std::size_t>(e.rank)];
      throw rank_lost(message("rank ", r, ", rank ", e.rank, " of the part: ", e.what()), r);
    }
  }
  /// Options that must be equal on all ranks.
  void check_options(call const& c) {
    struct must_agree {
      std::uint64_t largest_message;
      std::int32_t check, order, lanes;
    };
    must_agree const mine{options.largest_message, options.check, static_cast<std::int32_t>(options.order),
                          options.lanes};
    auto const all = share(c, mine);
    for (int r = 0; r < size(); ++r) {
      auto const& theirs = all[static_cast<std::size_t>(r)];
      auto const& ours = all[0];
      if (theirs.largest_message != ours.largest_message || theirs.check != ours.check || theirs.order != ours.order ||
          theirs.lanes != ours.lanes)
        watch_.diverged(
            r, c, message("mpi_options of rank ", r, ": largest_message, check, order or lanes are not rank 0's"));
    }
  }

  bool is_whole_;
  int const exceptions_ = std::uncaught_exceptions();

 public:
  shared_seats seats;           ///< usable where all ranks are on one host
  std::optional<host_row> row;  ///< of several hosts, where collectives go from host to host
  shared_seats row_seats;       ///< of the ranks on this host, if there is a row and more than one of them
};

}  // namespace dovetail::comm::detail
