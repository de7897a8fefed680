// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <mpi.h>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/envelope.hpp>
#include <dovetail/comm/host_row.hpp>
#include <dovetail/comm/mpi/family.hpp>
#include <dovetail/comm/mpi/flow.hpp>
#include <dovetail/comm/mpi/options.hpp>
#include <dovetail/comm/mpi/survivors.hpp>
#include <dovetail/comm/mpi/watch.hpp>
#include <dovetail/comm/shm/shared_seats.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::detail {

/// The state of one communicator over MPI: its ranks and what is under way. Only non-blocking operations are used, and
/// polled against the deadline: a blocking one never returns when a peer has died.
class mpi_job {
 public:
  struct piece {
    int rank;
    std::byte* data;
    std::size_t bytes;
  };

  /// `peers` says who the ranks are when that is known from the communicator that this is a part of.
  mpi_job(std::unique_ptr<mpi_wire> wire, mpi_options const& o, std::shared_ptr<mpi_family> family,
          mpi_peers const* peers)
      : options(o), family_(std::move(family)), is_whole_(!peers), watch_(std::move(wire), *family_, o) {
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
  mpi_job(mpi_job const&) = delete;
  mpi_job& operator=(mpi_job const&) = delete;
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

  int rank() const { return watch_.wire->rank(); }
  int size() const { return watch_.wire->size(); }
  MPI_Comm handle() const { return watch_.wire->on(mpi_wire::collective); }
  std::shared_ptr<mpi_family> const& family() const { return family_; }
  mpi_peers const& peers() const { return watch_.peers; }
  mpi_watch& watch() { return watch_; }
  /// After a failure MPI may still write to memory that was given to `exchange` or `start`.
  bool unfinished() const { return unfinished_; }

  void begin(call const& c) {
    may_call(c);
    guarded(c, [&](call const&) { watch_.begin(c); });
  }

  /// Polls until done(); missing() lists the ranks that are waited for, `tag` is what their messages carry, or -1.
  template <class Done, class Missing, class Rest>
  void wait_until(call const& c, int tag, Done done, Missing missing, Rest rest) {
    guarded(c, [&](call const&) { watch_.wait_until(c, tag, done, missing, rest); });
  }

  static constexpr int checking = 2;  ///< the phase before an operation in which its call is compared

  /// Sends and receives all pieces at once. An operation may have phases 0 and 1.
  void exchange(call const& c, int phase, std::span<piece const> sends, std::span<piece const> recvs) {
    guarded(c, [&](call const&) {
      watch_.go_on(c);  // who has said that it takes nothing any more posts no receive
      int const tag = tag_in(c, phase);
      for (auto const& p : recvs)
        flows_.emplace_back(handle(), mpi_flow::receives, p.rank, tag, p.data, p.bytes, options.largest_message);
      for (auto const& p : sends)
        flows_.emplace_back(handle(), mpi_flow::sends, p.rank, tag, p.data, p.bytes, options.largest_message);
      complete(c, tag);
    });
  }
  /// Begins to send or to receive, and does not wait: the array stays as it is until `finish`. Of one phase and one
  /// other rank several may be under way, each not longer than a message; they are matched in their order.
  mpi_flow* start(call const& c, int phase, mpi_flow::direction way, piece const& p) {
    mpi_flow* started = nullptr;
    guarded(c, [&](call const&) {
      watch_.go_on(c);
      flows_.emplace_back(handle(), way, p.rank, tag_in(c, phase), p.data, p.bytes, options.largest_message);
      started = &flows_.back();
      watch_.exchanging = true;
      watch_.moved += started->advance();
    });
    return started;
  }
  /// Until it is done; there is no such flow afterwards.
  void finish(call const& c, int phase, mpi_flow* flow) {
    guarded(c, [&](call const&) {
      complete(c, tag_in(c, phase), flow);
      flows_.remove_if([&](mpi_flow const& f) { return &f == flow; });
      if (flows_.empty()) none_under_way();
    });
  }
  /// For who leaves an operation by an exception that did not come from here.
  void abandon_flows() {
    if (!flows_.empty()) abandon();
  }
  /// Whatever is under way.
  void advance_flows() {
    for (auto& f : flows_)
      if (!f.finished()) watch_.moved += f.advance();
  }
  /// Everybody's `mine`.
  template <class T>
  requires std::is_trivially_copyable_v<T> std::vector<T> share(call const& c, T const& mine) {
    return share(c, mine, 0, size());
  }
  /// That of the ranks first, first + 1, ... of which this one is one.
  template <class T>
  requires std::is_trivially_copyable_v<T> std::vector<T> share(call const& c, T const& mine, int first, int count) {
    auto all = std::make_unique<std::vector<T>>(static_cast<std::size_t>(count), mine);
    std::vector<piece> sends, recvs;
    auto const of = [&](int r) { return reinterpret_cast<std::byte*>(&(*all)[static_cast<std::size_t>(r - first)]); };
    for (int r = first; r < first + count; ++r) {
      if (r == rank()) continue;
      sends.push_back({r, of(rank()), sizeof mine});
      recvs.push_back({r, of(r), sizeof mine});
    }
    try {
      exchange(c, 1, sends, recvs);
    } catch (...) {
      if (unfinished_) static_cast<void>(all.release());  // MPI may still write there
      throw;
    }
    return std::move(*all);
  }

  /// A message begins with its length; what fits goes with that, the rest follows in pieces.
  void send(call const& c, std::byte const* data, int tag) {
    guarded(c, [&](call const&) {
      wait_for_room(c);
      auto copy = std::make_unique<std::byte[]>(sizeof(std::uint64_t) + c.count);
      std::uint64_t const n = c.count;
      std::memcpy(copy.get(), &n, sizeof n);
      if (c.count != 0) std::memcpy(copy.get() + sizeof n, data, c.count);
      std::size_t const end = sizeof n + c.count;
      std::vector<mpi_wire::piece> pieces{{0, std::min(end, first_piece())}};
      while (pieces.back().end < end)
        pieces.push_back({pieces.back().end, std::min(end, pieces.back().end + options.largest_message)});
      watch_.wire->post(mpi_wire::messages, c.root, tag, std::move(copy), pieces);
      watch_.wire->progress();
    });
  }

  /// Of receiving: what a rank has sent is there for it, also when the rank is lost. So nothing is asked before.
  void recv(call const& c, std::byte* data, int tag) {
    may_call(c);
    if (auto const m = pulled(c.root, tag); m != pulled_.end()) {
      if (m->data.size() != c.count)
        watch_.diverged(c.root, c,
                        message("the message with tag ", tag, " has ", m->data.size(), " bytes, not ", c.count));
      if (c.count != 0) std::memcpy(data, m->data.data(), c.count);
      take(m);
      return;
    }
    guarded(c, [&](call const&) {
      int n = 0;
      while (n == 0) {
        MPI_Status status{};
        int there = 0;
        watch_.wait_until(
            c, -1,
            [&] {
              mpi_check(MPI_Iprobe(c.root, tag, watch_.wire->on(mpi_wire::messages), &there, &status), "MPI_Iprobe",
                        c.root);
              return there != 0;
            },
            [&] { return std::vector<int>{c.root}; }, mpi_watch::sleeper{});
        mpi_check(MPI_Get_count(&status, MPI_BYTE, &n), "MPI_Get_count", c.root);
        first_.resize(static_cast<std::size_t>(n));
        receive(c, tag, first_.data(), first_.size());
        if (n == 0) watch_.said_farewell(c.root);
      }
      std::uint64_t total = 0;
      std::memcpy(&total, first_.data(), std::min(sizeof total, first_.size()));
      if (total != c.count || first_.size() < sizeof total || first_.size() - sizeof total > total)
        watch_.diverged(c.root, c, message("the message with tag ", tag, " has ", total, " bytes, not ", c.count));
      std::size_t const have = first_.size() - sizeof total;
      if (have != 0) std::memcpy(data, first_.data() + sizeof total, have);
      if (have < c.count) receive(c, tag, data + have, c.count - have);
      watch_.acknowledge(c.root, sizeof total + c.count);
    });
  }

  /// MPI does not say how long a message of several pieces is, so it is pulled out when it is found.
  std::optional<envelope> probe(call const& c, int tag) {
    may_call(c);
    std::optional<envelope> found;
    guarded(c, [&](call const&) {
      watch_.read_notices();
      found = find(c, tag);
      if (!found) watch_.go_on(c);
    });
    return found;
  }
  envelope wait_message(call const& c, int tag, bool hurry) {
    may_call(c);
    std::optional<envelope> found;
    guarded(c, [&](call const&) {
      watch_.wait_for_message(
          c, [&] { return (found = find(c, tag)).has_value(); },
          hurry ? watch_.deadline() : mpi_clock::duration(std::chrono::hours(24 * 365)));
    });
    return *found;
  }
  envelope receive(call const& c, std::vector<std::byte>& data, int tag) {
    auto const e = wait_message(c, tag, true);
    auto const m = pulled(e.from, e.tag);
    data = std::move(m->data);
    m->data.resize(e.bytes);
    take(m);
    return e;
  }
  std::vector<int> lost_ranks() {
    if (!family_->off_limits() && !mpi_is_over()) try {
        watch_.read_notices();
      } catch (comm_error const&) {
        static_cast<void>(0);  // as far as it is known
      }
    std::vector<int> all;
    for (int r = 0; r < size(); ++r)
      if (r != rank() && watch_.is_gone(r)) all.push_back(r);
    return all;
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

  mpi_options const options;
  comm::traffic traffic;

 private:
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
  /// Runs f; what MPI itself reports becomes a failure of the communicator, of which the others hear.
  template <class F>
  void guarded(call const& c, F f) {
    try {
      try {
        f(c);
      } catch (mpi_flow::misfit const& m) {
        watch_.misfit(m.rank, c,
                      message("rank ", m.rank, " sent ", m.got > m.expected ? "more" : message(m.got, " bytes"),
                              " where ", m.expected, " bytes were expected"));
      } catch (rank_lost const& e) {  // of nobody if it is not known who did not come
        if (!watch_.broken() && c.op != operation::wait_message) watch_.lost(e.rank, c, e.what());
        throw;
      } catch (comm_error const& e) {
        if (!watch_.broken()) watch_.lost(e.rank >= 0 ? e.rank : rank(), c, e.what());
        throw;
      }
    } catch (...) {
      abandon_flows();
      throw;
    }
  }
  void may_call(call const& c) const {
    family_->mark.check(c);
    if (family_->occupied && !watch_.broken())
      throw comm_error(message(c, ": a call that did not return occupies MPI: end the process"), -1);
  }
  struct message_here {
    int from, tag;
    std::vector<std::byte> data;
  };
  using messages_here = std::list<message_here>;
  messages_here::iterator pulled(int from, int tag) {
    return std::find_if(pulled_.begin(), pulled_.end(), [&](message_here const& m) {
      return (from == any_rank || m.from == from) && (tag == any_tag || m.tag == tag);
    });
  }
  void take(messages_here::iterator m) {
    int const from = m->from;
    std::size_t const bytes = sizeof(std::uint64_t) + m->data.size();
    pulled_.erase(m);
    try {
      watch_.acknowledge(from, bytes);
    } catch (comm_error const&) {
      return;  // its sender cannot be told any more
    }
  }
  /// A message that has been pulled out, or that can be.
  std::optional<envelope> find(call const& c, int tag) {
    for (;;) {
      if (auto const m = pulled(c.root, tag); m != pulled_.end()) return envelope{m->from, m->tag, m->data.size()};
      int there = 0, n = 0;
      MPI_Status status{};
      mpi_check(MPI_Iprobe(c.root == any_rank ? MPI_ANY_SOURCE : c.root, tag == any_tag ? MPI_ANY_TAG : tag,
                           watch_.wire->on(mpi_wire::messages), &there, &status),
                "MPI_Iprobe", c.root);
      if (!there) return std::nullopt;
      mpi_check(MPI_Get_count(&status, MPI_BYTE, &n), "MPI_Get_count", status.MPI_SOURCE);
      call const from{operation::recv, dtype::u8, reduction::sum, status.MPI_SOURCE, static_cast<std::size_t>(n)};
      first_.resize(static_cast<std::size_t>(n));
      receive(from, status.MPI_TAG, first_.data(), first_.size());
      if (n == 0) {
        watch_.said_farewell(status.MPI_SOURCE);
        continue;
      }
      // What a rank sends behind a message that was not received to its end cannot be told apart any more.
      cut_.resize(static_cast<std::size_t>(size()));
      auto& cut = cut_[static_cast<std::size_t>(status.MPI_SOURCE)];
      if (cut) continue;
      std::uint64_t total = 0;
      std::memcpy(&total, first_.data(), std::min(sizeof total, first_.size()));
      std::size_t const have = first_.size() - std::min(sizeof total, first_.size());
      if (first_.size() < sizeof total || have > total)
        watch_.diverged(status.MPI_SOURCE, c,
                        message("a message of ", first_.size(), " bytes says that it has ", total));
      incoming_.resize(total);  // a member: MPI may still write there when this fails
      if (have != 0) std::memcpy(incoming_.data(), first_.data() + sizeof total, have);
      cut = have < total;
      if (have < total) receive(from, status.MPI_TAG, incoming_.data() + have, total - have);
      cut = false;
      pulled_.push_back({status.MPI_SOURCE, status.MPI_TAG, std::move(incoming_)});
      incoming_.clear();
    }
  }
  std::size_t first_piece() const { return std::min<std::size_t>(options.largest_message, 65536); }
  static constexpr int most_lanes = 4;
  /// A tag that tag_of never gives: MPI uses it for messages between the members of a new group, and a notice's would
  /// have them taken for notices.
  static constexpr int of_groups = 1 + (31 << 1 | 15 << 6);
  /// The envelope says what is being called, so that a message of another operation is recognized: 14 bits of 15. Of
  /// neighboring steps no two buckets have the same last four.
  int tag_of(call const& c, int phase) const {
    int const kind = static_cast<int>(c.type) * 3 + static_cast<int>(c.how);
    auto const which =
        watch_.sequence + 7 * static_cast<std::uint64_t>(c.about.step) + 2 * static_cast<std::uint64_t>(c.about.bucket);
    return 1 + (phase | kind << 1 | static_cast<int>(c.op) << 6 | static_cast<int>(which & 15) << 10);
  }
  void receive(call const& c, int tag, std::byte* data, std::size_t n) {
    flows_.emplace_back(watch_.wire->on(mpi_wire::messages), mpi_flow::receives, c.root, tag, data, n,
                        options.largest_message, false);
    complete(c, -1);
  }

  int tag_in(call const& c, int phase) const {
    return phase == checking ? tag_of({operation::split, dtype::u8, reduction::max}, 0) : tag_of(c, phase);
  }
  /// Until all flows are finished; then, or when that fails, there are none any more.
  void complete(call const& c, int tag) {
    complete(c, tag, nullptr);
    flows_.clear();
    none_under_way();
  }
  void none_under_way() {
    watch_.exchanging = false;
    if (watch_.broken()) watch_.tell_released();  // of what it heard while they were completed
  }
  /// Until one is, while the others go on, or (nullptr) all.
  void complete(call const& c, int tag, mpi_flow const* one) {
    auto first = flows_.begin();
    auto const done = [&] {
      bool all = true;
      for (auto f = first; f != flows_.end(); ++f) {
        if (!f->finished()) watch_.moved += f->advance();
        all = all && f->finished();
      }
      while (first != flows_.end() && first->finished()) ++first;
      return one ? one->finished() : all;
    };
    auto const missing = [&] {
      std::vector<int> ranks;
      for (auto const& f : flows_)
        if ((!one || one == &f) && !f.finished() && std::find(ranks.begin(), ranks.end(), f.rank()) == ranks.end())
          ranks.push_back(f.rank());
      return ranks;
    };
    watch_.exchanging = true;
    watch_.wait_until(c, tag, done, missing, mpi_watch::sleeper{});
  }
  /// After a failure the arrays belong to the caller again, who may free them. MPI cannot take back a message that its
  /// receiver has begun to take: it goes on reading from the one array and writing to the other whenever somebody calls
  /// it. So each rank takes back the receives that nothing has come for, completes the others, and says when it has;
  /// what has not been sent to such a rank by then is never asked for. Bounded, for the other rank may be blocked.
  void abandon() {
    auto const start = mpi_clock::now();
    auto look = start;
    for (;;) {
      bool received = true, sent = true;
      auto const now = mpi_clock::now();
      bool const looks = now >= look;
      if (looks) look = now + std::chrono::milliseconds(2);
      for (auto& f : flows_) {
        if (f.abandon()) continue;
        if (!f.is_send())
          received = false;
        else if (!looks || !watch_.released(f.rank()))
          sent = false;
      }
      if (received) watch_.tell_released();
      if ((received && sent) || now - start > std::chrono::seconds(1)) break;
      if (now - start > std::chrono::milliseconds(1)) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    watch_.tell_released();
    unfinished_ = std::any_of(flows_.begin(), flows_.end(), [](mpi_flow const& f) { return f.under_way(); });
    if (unfinished_) {  // MPI knows where they lie
      static_cast<void>(new std::list<mpi_flow>(std::move(flows_)));
      static_cast<void>(new std::vector<std::byte>(std::move(first_)));
      static_cast<void>(new std::vector<std::byte>(std::move(incoming_)));
    }
    flows_.clear();
  }

  void wait_for_room(call const& c) {
    auto& wire = *watch_.wire;
    auto const there = [&] { return wire.unreceived(); };
    auto const room = [&] { return options.mailbox.has_room(there().messages, there().bytes); };
    if (room()) return;
    watch_.read_notices();
    if (room() && !watch_.broken()) return;
    std::string const full = message("the mailbox is full: ", there().messages, " messages of ", there().bytes,
                                     " bytes are not received (mpi_options::mailbox)");
    if (c.root == rank()) throw comm_error(full, rank());
    watch_.wait_until(
        c, -1, room, [&] { return wire.late_receivers(); }, mpi_watch::sleeper{}, full.c_str());
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

  std::shared_ptr<mpi_family> family_;
  bool is_whole_;
  mpi_watch watch_;
  int const exceptions_ = std::uncaught_exceptions();
  std::list<mpi_flow> flows_;  // which do not move while MPI knows them
  std::vector<std::byte> first_;
  messages_here pulled_;
  std::vector<std::byte> incoming_;
  std::vector<char> cut_;  // of ranks: a message of theirs was not received to its end
  bool unfinished_ = false;

 public:
  shared_seats seats;           ///< usable where all ranks are on one host
  std::optional<host_row> row;  ///< of several hosts, where collectives go from host to host
  shared_seats row_seats;       ///< of the ranks on this host, if there is a row and more than one of them
};

}  // namespace dovetail::comm::detail
