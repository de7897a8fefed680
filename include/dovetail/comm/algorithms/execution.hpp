// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Executes a schedule step by step, over anything that moves messages.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include <dovetail/comm/algorithms/schedule.hpp>
#include <dovetail/comm/reduce.hpp>

namespace dovetail::comm {

/// What moves the messages of a schedule. A send copies, or keeps the bytes moving by itself: it does not wait for the
/// receiver. Messages from one rank to another arrive in the order in which they were sent.
///   send(peer, data, size)
///   recv(peer, data, size)        waits, up to the deadline
///   try_recv(peer, data, size)    false: it is not there yet
template <class T>
concept transport = requires(T& t, int peer, std::byte const* out, std::byte* in, std::size_t size) {
  t.send(peer, out, size);
  t.recv(peer, in, size);
  { t.try_recv(peer, in, size) } -> std::same_as<bool>;
};

/// Bytes that go to a peer, or come from it.
struct message_piece {
  int peer = 0;
  std::byte* data = nullptr;
  std::size_t bytes = 0;
};

/// What makes a step as a whole, from and to the caller's memory: it returns when all has come, and when what was sent
/// may be written to again. No two sends, and no two receives, have the same peer.
template <class T>
concept step_transport = requires(T& t, std::span<message_piece const> pieces) {
  t.exchange(/*sends*/ pieces, /*recvs*/ pieces);
};

/// One execution of a schedule: a state machine, so that an operation can go on in the background of another thread's
/// work, or be waited for (over a step_transport only the latter). The schedule, the arrays, the scratch memory and the
/// transport must outlive it; the arrays belong to it until it is done. An error of the transport ends it.
template <class T>
requires transport<T> || step_transport<T>
class execution {
 public:
  /// The same on all ranks: longer messages travel in pieces, which keeps mailboxes small and caches warm.
  static constexpr std::size_t largest_piece = std::size_t{1} << 20;

  execution(schedule const& s, T& over, std::byte const* input, std::byte* data, std::byte* scratch,
            std::size_t element_size, ordered_reduce combine)
      : schedule_(&s),
        over_(&over),
        input_(input),
        data_(data),
        scratch_(scratch),
        element_size_(element_size),
        combine_(combine) {}

  bool done() const { return step_ == schedule_->steps.size(); }
  /// Goes on as far as it can without waiting. True when it is done.
  bool advance() requires transport<T> {
    return run([this](int from, std::byte* to, std::size_t n) { return over_->try_recv(from, to, n); });
  }
  /// Goes on to the end.
  void wait() {
    if constexpr (step_transport<T>)
      for (; !done(); ++step_) exchange(schedule_->steps[step_]);
    else
      run([this](int from, std::byte* to, std::size_t n) {
        over_->recv(from, to, n);
        return true;
      });
  }

 private:
  /// The i-th message to a peer goes in the i-th round, as its receiver expects it.
  void exchange(schedule_step const& step) {
    for (std::size_t round = 0;; ++round) {
      auto const collect = [&](std::vector<transfer> const& all, std::vector<message_piece>& to, bool out) {
        to.clear();
        for (std::size_t i = 0; i < all.size(); ++i) {
          auto const& t = all[i];
          if (t.what.size == 0) continue;
          std::size_t before = 0;
          for (std::size_t j = 0; j < i; ++j) before += all[j].peer == t.peer && all[j].what.size != 0;
          auto* const data = out ? const_cast<std::byte*>(read(t.what)) : write(t.what);
          if (before == round) to.push_back({t.peer, data, t.what.size});
        }
      };
      collect(step.sends, sends_, true);
      collect(step.recvs, recvs_, false);
      if (sends_.empty() && recvs_.empty()) break;
      over_->exchange(std::span<message_piece const>(sends_), std::span<message_piece const>(recvs_));
    }
    for (auto const& w : step.then) work(w);
  }

  template <class Receive>
  bool run(Receive const& receive) {
    for (; !done(); ++step_, piece_ = 0) {
      auto const& step = schedule_->steps[step_];
      for (std::size_t const n = pieces(step); piece_ < n; ++piece_, received_ = 0, sent_ = false) {
        if (!sent_)
          for (auto const& t : step.sends)
            if (auto const p = piece_of(t); p.size != 0) over_->send(t.peer, read(p), p.size);
        sent_ = true;
        for (; received_ < step.recvs.size(); ++received_) {
          auto const& t = step.recvs[received_];
          auto const p = piece_of(t);
          if (p.size != 0 && !receive(t.peer, write(p), p.size)) return false;
        }
      }
      for (auto const& w : step.then) work(w);
    }
    return true;
  }

  static std::size_t pieces(schedule_step const& step) {
    std::size_t longest = 0;
    for (auto const& t : step.sends) longest = std::max(longest, t.what.size);
    for (auto const& t : step.recvs) longest = std::max(longest, t.what.size);
    return (longest + largest_piece - 1) / largest_piece;
  }
  region piece_of(transfer const& t) const {
    auto const from = std::min(t.what.size, piece_ * largest_piece);
    return {t.what.where, t.what.begin + from, std::min(t.what.size - from, largest_piece)};
  }
  std::byte const* read(region const& r) const {
    return (r.where == memory::input ? input_ : r.where == memory::data ? data_ : scratch_) + r.begin;
  }
  std::byte* write(region const& r) const { return (r.where == memory::data ? data_ : scratch_) + r.begin; }

  void work(local_work const& w) {
    if (w.to.size == 0) return;
    auto* const to = write(w.to);
    if (w.from.size() == 1) {
      if (auto const* const from = read(w.from.front()); from != to) std::memmove(to, from, w.to.size);
      return;
    }
    sources_.clear();
    for (auto const& r : w.from) sources_.push_back(read(r));
    combine_(&to, 1, sources_.data(), sources_.size(), w.to.size / element_size_);
  }

  schedule const* schedule_;
  T* over_;
  std::byte const* input_;
  std::byte* data_;
  std::byte* scratch_;
  std::size_t element_size_;
  ordered_reduce combine_;
  std::vector<std::byte const*> sources_;
  std::vector<message_piece> sends_, recvs_;  // of a step_transport
  std::size_t step_ = 0, piece_ = 0, received_ = 0;
  bool sent_ = false;
};

}  // namespace dovetail::comm
