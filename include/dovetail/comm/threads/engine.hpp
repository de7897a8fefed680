// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <dovetail/comm/away.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/envelope.hpp>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/comm/threads/group.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/cores.hpp>

namespace dovetail::comm::detail {

/// The collectives of ranks that share memory. Large arrays: post the pointers, meet, let every rank do its part
/// directly in its peers' arrays, meet again. Small reductions: copy into one's seat, meet once, and let every rank
/// combine all seats.
class thread_engine {
 public:
  thread_engine(std::shared_ptr<thread_group> group, int rank) : group_(std::move(group)), rank_(rank) {
    auto const n = static_cast<std::size_t>(group_->ranks);
    sources_.resize(n);
    outs_.resize(n);
  }
  thread_engine(thread_engine&&) noexcept = default;
  thread_engine& operator=(thread_engine&& other) noexcept {
    std::swap(group_, other.group_);
    std::swap(rank_, other.rank_);
    std::swap(phase_, other.phase_);
    std::swap(sequence_, other.sequence_);
    std::swap(traffic_, other.traffic_);
    std::swap(about_, other.about_);
    std::swap(sources_, other.sources_);
    std::swap(outs_, other.outs_);
    std::swap(told_, other.told_);
    return *this;
  }
  ~thread_engine() {
    if (group_) group_->leave(rank_);
  }

  int rank() const { return rank_; }
  int size() const { return group_->ranks; }
  bool has_spare_core() const { return usable_cores() > group_->ranks; }
  comm::traffic& traffic() { return traffic_; }
  comm::traffic const& traffic() const { return traffic_; }
  subject& about() { return about_; }

  void all_reduce(call const& c, std::byte* data, ordered_reduce combine) {
    std::size_t const size_of_all = c.bytes();
    if (size_of_all <= small_bytes) return all_reduce_small(c, data, size_of_all, combine);
    together({c, data, data}, [&] {
      // Whole cache lines (of an aligned array) per rank, so that no two ranks write to one line.
      std::size_t const grain = 64 / size_of(c.type);
      auto const lines = shard((c.count + grain - 1) / grain, size(), rank_);
      std::size_t const begin = std::min(lines.begin * grain, c.count), end = std::min(lines.end * grain, c.count);
      for (std::size_t r = 0; r < ranks(); ++r) {
        outs_[r] = post(r).out + begin * size_of(c.type);
        sources_[r] = outs_[r];
      }
      combine(outs_.data(), ranks(), sources_.data(), ranks(), end - begin);
    });
  }

  void reduce_scatter(call const& c, std::byte* data, ordered_reduce combine) {
    together({c, data, data}, [&] {
      auto const own = c.shard_bytes(size(), rank_);
      for (std::size_t r = 0; r < ranks(); ++r) sources_[r] = post(r).in + own.begin;
      std::byte* const out = data + own.begin;
      combine(&out, 1, sources_.data(), ranks(), own.size() / size_of(c.type));
    });
  }

  void all_gather(call const& c, std::byte const* in, std::byte* out) {
    together({c, in, out}, [&] {
      for_peers_first([&](std::size_t r) {
        auto const part = c.shard_bytes(size(), static_cast<int>(r));
        copy(out + part.begin, post(r).in, part.size());
      });
    });
  }

  std::vector<std::size_t> all_gather_v(std::span<std::byte const> in, std::vector<std::byte>& all) {
    std::vector<std::size_t> offsets(ranks() + 1);
    posting mine{{operation::all_gather_v}, in.data()};
    mine.call.about = about_;
    mine.bytes = in.size();
    together(mine, [&] {
      for (std::size_t r = 0; r < ranks(); ++r) offsets[r + 1] = offsets[r] + post(r).bytes;
      all.resize(offsets.back());
      for_peers_first([&](std::size_t r) { copy(all.data() + offsets[r], post(r).in, post(r).bytes); });
    });
    return offsets;
  }

  void all_to_all(call const& c, std::byte const* in, std::byte* out) {
    together({c, in, out}, [&] {
      std::size_t const chunk = c.bytes() / ranks(), mine = static_cast<std::size_t>(rank_) * chunk;
      for_peers_first([&](std::size_t r) { copy(out + r * chunk, post(r).in + mine, chunk); });
    });
  }

  void broadcast(call const& c, std::byte* data) {
    together({c, data, data}, [&] {
      if (rank_ != c.root) copy(data, post(static_cast<std::size_t>(c.root)).in, c.bytes());
    });
  }

  void barrier() {
    posting mine{{operation::barrier}};
    mine.call.about = about_;
    publish(mine);
    meet(mine.call);
    compare(mine.call);
  }

  thread_engine split(int color, int key) {
    posting mine{{operation::split}};
    mine.bytes = static_cast<std::size_t>(color);
    mine.key = key;
    int members = 0, before_me = 0;  // in the order of (key, rank)
    together(mine, [&] {
      for (std::size_t r = 0; r < ranks(); ++r) {
        if (post(r).bytes != mine.bytes) continue;
        ++members;
        before_me += std::pair(post(r).key, static_cast<int>(r)) < std::pair(key, rank_);
      }
    });
    return {group_->parts.join(sequence_, color, members, group_->options), before_me};
  }

  void send(call const& c, std::byte const* data, int tag) {
    group_->mark.check(c);
    auto& to = group_->at(c.root);
    group_->at(rank_).gave_up_on = -1;
    require_alive(c.root, c);
    if (!to.mail.put(rank_, tag, {data, c.count}, group_->options.mailbox)) put_when_there_is_room(c, data, tag);
    to.mail_signal.add(thread_group::one_phase);
  }

  void recv(call const& c, std::byte* data, int tag) {
    auto const m = await(c, tag, true);
    if (m.bytes != c.count) diverged(c.root, where(c, tag), message("the message has ", m.bytes, " bytes"));
    auto const taken = group_->at(rank_).mail.take(c.root, tag);
    copy(data, taken->data(), c.count);
  }
  envelope receive(call const& c, std::vector<std::byte>& data, int tag) {
    auto const m = await(c, tag, true);
    data = std::move(*group_->at(rank_).mail.take(m.from, m.tag));
    return m;
  }
  envelope wait_message(call const& c, int tag) { return await(c, tag, false); }
  std::optional<envelope> probe(call const& c, int tag) {
    group_->mark.check(c);
    bool const over = group_->over, dead = c.root >= 0 && (group_->is_lost(c.root) || group_->is_lost(rank_));
    auto const m = group_->at(rank_).mail.find(c.root, tag);  // what was sent before comes first
    if (!m && over) group_->rethrow(where(c, tag));
    if (!m && dead) require_alive(c.root, c);
    return m;
  }

  std::vector<int> lost_ranks() const {
    std::vector<int> all;
    for (int r = 0; r < size(); ++r)
      if (r != rank_ && group_->is_gone(r)) all.push_back(r);
    return all;
  }
  thread_engine shrink() {
    call const c{operation::shrink};
    group_->mark.check(c);
    if (group_->over) group_->rethrow(message(c));
    auto [group, place] = group_->shrink(rank_, message(c, " of ", size(), " ranks"));
    return {std::move(group), place};
  }
  void abort(std::string const& why) { group_->abort(rank_, message("rank ", rank_, " has ended it: ", why)); }

  away_guard away() {
    group_->go_away(rank_, true);
    return away_guard([group = group_, rank = rank_] { group->go_away(rank, false); });
  }

 private:
  struct waiting_for {
    waiting_for(thread_group::seat& s, int r) : seat(s) { seat.waits_for = r; }
    waiting_for(waiting_for const&) = delete;
    waiting_for& operator=(waiting_for const&) = delete;
    ~waiting_for() { seat.waits_for = -1; }
    thread_group::seat& seat;
  };

  static std::string where(call const& c, int tag) { return tag == any_tag ? message(c) : message(c, ", tag ", tag); }
  /// Throws unless messages to and from rank r go on.
  DOVETAIL_COLD void require_alive(int r, call const& c) {
    if (group_->over) group_->rethrow(message(c));
    if (group_->is_lost(rank_))
      throw rank_lost(message(c, ": the others have lost this rank: ", group_->why_lost(rank_)), rank_);
    if (group_->is_lost(r)) throw rank_lost(message(c, ": ", group_->why_lost(r)), r);
  }
  /// The oldest message that c.root, or any rank, has sent: its number of bytes is c.count or any. Within the deadline,
  /// or however long it takes. What has been sent comes before the news that its sender is gone, which comes once from
  /// each rank where any may send.
  DOVETAIL_COLD envelope await(call const& c, int tag, bool hurry) {
    auto& mine = group_->at(rank_);
    group_->mark.check(c);
    waiting_for const w(mine, c.root);
    mine.gave_up_on = -1;
    auto const since = thread_group::clock::now();
    for (;;) {
      // The order matters: what is sent, or goes wrong, after this load changes the word and ends the wait.
      auto const before = mine.mail_signal.load();
      bool const gone = c.root >= 0 && (group_->at(c.root).arrived.load() & thread_group::left) != 0;
      bool const over = group_->over, dead = c.root >= 0 && (group_->is_lost(c.root) || group_->is_lost(rank_));
      int const newly = c.root < 0 ? newly_gone() : -1;
      if (auto const m = mine.mail.find(c.root, tag)) return *m;
      if (over) group_->rethrow(where(c, tag));
      if (dead) {
        mine.gave_up_on = c.root;
        require_alive(c.root, c);
      }
      if (gone) gone_silent(c.root, where(c, tag), message("rank ", c.root, " has left and sent no such message"));
      if (!hurry && (size() == 1 || c.root == rank_))
        throw rank_lost(message(where(c, tag), ": this rank has sent itself no such message"), rank_);
      if (newly >= 0) {
        told_[static_cast<std::size_t>(newly)] = 1;
        throw rank_lost(message(where(c, tag), ": ", group_->why_lost(newly)), newly);
      }
      if (c.root < 0 && size() > 1 && std::count(told_.begin(), told_.end(), 1) + 1 == size())
        throw rank_lost(message(where(c, tag), ": all other ranks are gone"), -1);
      int const last = c.root < 0 ? rank_ : group_->behind(c.root, rank_);
      auto const until = hurry ? group_->give_up(last, since) : thread_group::clock::now() + std::chrono::hours(1);
      if (mine.mail_signal.wait([&](std::uint32_t v) { return v != before; }, group_->options.spin, until) || !hurry)
        continue;
      if (c.root < 0) {
        if (thread_group::clock::now() < group_->give_up(rank_, since)) continue;
        throw rank_lost(message(where(c, tag), ": nobody sent anything for ", late()), -1);
      }
      int const blamed = group_->behind(c.root, rank_);  // may have changed meanwhile
      if (thread_group::clock::now() < group_->give_up(blamed, since)) continue;
      std::string const between = blamed == c.root ? "" : message(", for which rank ", c.root, " waits,");
      gone_silent(blamed, where(c, tag), message("rank ", blamed, between, " sent nothing for ", late()));
    }
  }
  /// As lost(), of a message: another rank may have been lost before, which is no reason here.
  [[noreturn]] DOVETAIL_COLD void gone_silent(int r, std::string const& where, std::string const& reason) {
    // It may have given up on a rank that it waited for, and come no more because of that.
    if (int const x = group_->at(r).gave_up_on; x >= 0 && x != rank_ && group_->is_lost(x)) {
      group_->at(rank_).gave_up_on = x;
      throw rank_lost(message(where, ": rank ", r, " waited for rank ", x, ": ", group_->why_lost(x)), x);
    }
    group_->fail(r, false, reason);
    group_->at(rank_).gave_up_on = r;
    if (group_->over) group_->rethrow(where);
    throw rank_lost(message(where, ": ", reason), r);
  }
  /// A rank that is gone and of which await has not said so yet, or -1.
  int newly_gone() {
    told_.resize(ranks());
    for (int r = 0; r < size(); ++r)
      if (r != rank_ && !told_[static_cast<std::size_t>(r)] && group_->is_gone(r)) return r;
    return -1;
  }

  DOVETAIL_COLD void put_when_there_is_room(call const& c, std::byte const* data, int tag) {
    auto& to = group_->at(c.root);
    auto const full = [&] {
      return message("the mailbox of rank ", c.root, " is full: it has not received ", to.mail.size(),
                     " messages (threads_options::mailbox)");
    };
    if (c.root == rank_) throw comm_error(message(c, ", tag ", tag, ": ", full()), rank_);
    waiting_for const w(group_->at(rank_), c.root);
    auto const since = thread_group::clock::now();
    while (!to.mail.put(rank_, tag, {data, c.count}, group_->options.mailbox)) {
      require_alive(c.root, c);
      if ((to.arrived.load() & thread_group::left) != 0) gone_silent(c.root, message(c), full() + ", and has left");
      int const blamed = group_->behind(c.root, rank_);
      if (thread_group::clock::now() >= group_->give_up(blamed, since))
        gone_silent(blamed, message(c), message(full(), " for ", late()));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  std::size_t ranks() const { return static_cast<std::size_t>(group_->ranks); }
  posting& post(std::size_t r) { return group_->seats[r].posts[posted_]; }
  static void copy(std::byte* to, std::byte const* from, std::size_t n) {
    if (to != from && n != 0) std::memcpy(to, from, n);
  }
  /// Peers in a rotated order, so that the ranks do not all read from rank 0 first.
  template <class F>
  void for_peers_first(F f) {
    for (std::size_t i = 1; i <= ranks(); ++i) f((static_cast<std::size_t>(rank_) + i) % ranks());
  }

  void all_reduce_small(call const& c, std::byte* data, std::size_t bytes, ordered_reduce combine) {
    publish({c});
    copy(group_->at(rank_).small[posted_], data, bytes);
    meet(c);
    compare(c);
    for (std::size_t r = 0; r < ranks(); ++r) sources_[r] = group_->seats[r].small[posted_];
    combine(&data, 1, sources_.data(), ranks(), c.count);
  }

  /// Posts, meets, checks that all ranks ask for the same, works, meets. Nobody leaves this function, by whatever
  /// way, while a peer may still be at work on this rank's arrays.
  template <class Work>
  void together(posting const& mine, Work const& work) {
    together(
        mine, [](void const* of) { (*static_cast<Work const*>(of))(); }, &work);
  }
  void together(posting const& mine, void (*work)(void const*), void const* of) {
    publish(mine);
    try {
      meet(mine.call);
      compare(mine.call);
      auto& reading = group_->at(rank_).reading;
      reading.store(1, std::memory_order_seq_cst);
      if (group_->broken.load(std::memory_order_seq_cst)) {
        reading.store(0, std::memory_order_release);
        group_->rethrow(where(mine.call));
      }
      try {
        work(of);
      } catch (...) {
        reading.store(0, std::memory_order_release);
        throw;
      }
      reading.store(0, std::memory_order_release);
      meet(mine.call);
    } catch (...) {
      if (!group_->broken) group_->fail(rank_, false, message("rank ", rank_, " failed in ", mine.call));
      for (int r = 0; r < size(); ++r)  // a peer that is at work never waits: this ends
        while (group_->at(r).reading.load(std::memory_order_seq_cst) != 0) std::this_thread::yield();
      throw;
    }
  }

  void publish(posting const& mine) {
    group_->mark.check(mine.call);
    ++sequence_;
    if (group_->broken.load(std::memory_order_acquire)) group_->rethrow(where(mine.call));
    posted_ = (phase_ + 1) & 1u;
    group_->at(rank_).posts[posted_] = mine;
  }

  void meet(call const& c) {
    ++phase_;
    group_->at(rank_).arrived.add(thread_group::one_phase);
    std::uint32_t const target = phase_ * thread_group::one_phase;
    auto const reached = [target](std::uint32_t v) {
      return static_cast<std::int32_t>((v & ~3u) - target) >= 0;  // wraps around with the counter
    };
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      auto& peer = group_->at(r).arrived;
      auto const come = [&](std::uint32_t v) { return reached(v) || (v & 3u) != 0; };
      bool in_time = come(peer.load());
      int blamed = r;
      if (!in_time) {
        waiting_for const w(group_->at(rank_), r);
        auto const since = thread_group::clock::now();
        in_time = peer.wait(come, group_->options.spin, group_->give_up(group_->behind(r, rank_), since));
        while (!in_time && thread_group::clock::now() < group_->give_up(blamed = group_->behind(r, rank_), since))
          in_time = peer.wait(come, {}, group_->give_up(blamed, since));
      }
      auto const v = peer.load();
      if (reached(v)) continue;
      if (group_->broken) group_->rethrow(where(c));
      if (in_time) lost(r, where(c), message("rank ", r, " has left: it returned or destroyed its communicator"));
      std::string others;
      for (int q = r + 1; q < size(); ++q)
        if (!reached(group_->at(q).arrived.load()) && q != rank_ && blamed == r) others += message(" and rank ", q);
      if (blamed != r) others = message(", for which rank ", r, " waits,");
      lost(blamed, where(c), message("rank ", blamed, others, " did not come for ", late()));
    }
  }

  /// All ranks see the same postings, so all name the same rank.
  void compare(call const& c) {
    bool same = true;
    for (std::size_t r = 0; r < ranks(); ++r) same = same && post(r).call == c;
    if (same) [[likely]]
      return;
    std::vector<call> calls;
    for (std::size_t r = 0; r < ranks(); ++r) calls.push_back(post(r).call);
    std::size_t const odd = odd_one_out(calls);
    diverged(static_cast<int>(odd), where(c), message("rank ", odd, " called ", calls[odd]));
  }

  DOVETAIL_COLD std::string where(call const& c) const {
    return message(c, ", operation ", sequence_, " of ", size(), " ranks");
  }
  DOVETAIL_COLD std::string late() const {
    return message(group_->options.deadline.count(),
                   " ms, the deadline: it is blocked or slow (threads_options::deadline can be raised)");
  }
  [[noreturn]] DOVETAIL_COLD void lost(int r, std::string const& where, std::string const& reason) {
    group_->fail(r, false, reason);
    group_->rethrow(where);
  }
  [[noreturn]] DOVETAIL_COLD void diverged(int r, std::string const& where, std::string const& reason) {
    group_->fail(r, true, reason + ": every rank must call the same operations with the same sizes, in the same order");
    group_->rethrow(where);
  }

  std::shared_ptr<thread_group> group_;
  int rank_ = 0;
  std::uint32_t phase_ = 0;
  std::uint32_t posted_ = 0;
  std::uint64_t sequence_ = 0;
  comm::traffic traffic_;
  subject about_;
  std::vector<std::byte const*> sources_;
  std::vector<std::byte*> outs_;
  std::vector<char> told_;  // that a rank is gone, to who waits for any
};

}  // namespace dovetail::comm::detail
