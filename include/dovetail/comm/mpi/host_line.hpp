// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <mpi.h>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/host_row.hpp>
#include <dovetail/comm/mpi/job.hpp>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/comm/shm/seat_collectives.hpp>
#include <dovetail/comm/shm/shared_seats.hpp>
#include <dovetail/core/buffer.hpp>

namespace dovetail::comm::detail {

/// A reduction along a line of hosts, in rank order: host 0 adds up a window of the array and sends that to host 1,
/// whose ranks add to it, and so on; what the last host has is the result, which comes back from host to host as far as
/// somebody wants it. Windows follow each other, so that all links are busy both ways: n bytes take the time of n bytes
/// on a link. Each lane does this for a part of the array.
///
/// Every rank makes the same steps. In step k its host stages and adds up window k, and hands out the result of window
/// k - lag: of the last host that of the step before, of each host before it two steps later than of the one behind it,
/// one for the way there and one for the way back. So a rank waits in a step only for what others do in earlier steps
/// of theirs, or in this one nearer to either end of the line.
///
/// One meeting a step is enough. Before it a rank writes to its seat: its part of window k, and, if it speaks, the
/// result of window k - lag. After it the others read both. The seat has two buffers in turn, so what is written in
/// step k + 2 is written after the meeting of step k + 1, when all have left step k.
template <class Meeting>
class host_line {
 public:
  /// What messages are under way to and from: it stays where it is when MPI cannot take them back.
  using memory = buffer<std::byte>;

  /// `here` is nothing where this rank is alone on its host.
  host_line(mpi_job& job, call const& c, std::optional<seat_collectives<Meeting>>& here, memory& rings,
            ordered_reduce combine)
      : job_(job),
        row_(*job.row),
        call_(c),
        here_(here),
        seats_(job.row_seats),
        combine_(combine),
        first_(row_.host == 0),
        last_(row_.host + 1 == row_.hosts()),
        wide_(host_row::widens(c) ? 2 : 1),
        lanes_(static_cast<std::size_t>(row_.lanes)) {
    std::size_t const longest = lane(0).size(), behind = static_cast<std::size_t>(row_.hosts() - 1 - row_.host);
    // Some windows for each place of the line, which is then full for most of the time.
    std::size_t const fits =
        std::min({longest_window, shared_seats::chunk / (lanes_ + 1), job.options.largest_message / wide_});
    window_ =
        std::min(fits, std::max(shortest_window, longest / (8 * static_cast<std::size_t>(row_.hosts())))) / 64 * 64;
    if (window_ == 0) window_ = 8 / wide_;  // messages of a few bytes, by the caller's wish
    windows_ = (longest + window_ - 1) / window_;
    lag_ = std::min(2 * behind + 1, windows_);
    sources_.reserve(static_cast<std::size_t>(row_.here()) + 1);
    if (row_.speaks()) lay_out(rings);
  }

  /// `wanted` of the results is written to data.
  void run(std::byte* data, range wanted) {
    if (row_.speaks())
      for (std::size_t k = 0; k < come_.size(); ++k) await_sums(k), await_results(k);
    for (std::size_t k = 0; k < windows_ + lag_; ++k) {
      std::size_t const done = k - lag_;  // of use from step lag on
      if (here_ && k < windows_) stage(data, k);
      if (k >= lag_ && row_.speaks()) hand_on(data, wanted, done);
      if (here_) here_->meet();
      if (k < windows_ && row_.speaks()) add_up(data, k);
      if (!here_) continue;
      if (k >= lag_)
        for (int l = 0; l < row_.lanes; ++l) take(data, wanted, window_of(l, done), result_of(l));
      seats_.turn();
    }
    for (auto& s : come_) finish(s, sums);
    for (auto& s : sums_) finish(s, last_ ? results : sums);
    for (auto& s : back_) finish(s, results);
  }

 private:
  static constexpr int sums = 0, results = 1;  // the phases of the operation
  /// Of a lane at a time: longer ones fill the line more slowly, shorter ones cost more messages and meetings.
  static constexpr std::size_t longest_window = 64 * 1024, shortest_window = 32 * 1024;
  /// Messages under way of each kind. Four are enough for none to wait; and a host may be late.
  static constexpr std::size_t most_slots = 6;

  /// An array for a window, and the message from or to it.
  struct slot {
    std::byte* data = nullptr;
    mpi_flow* flow = nullptr;
  };
  using ring = std::vector<slot>;
  static slot& at(ring& r, std::size_t k) { return r[k % r.size()]; }

  void lay_out(memory& rings) {
    std::size_t const slots = std::min(lag_ + 2, most_slots);
    if (std::size_t const all = slots * window_ * (2 * wide_ + 1); rings.size() < all) rings = memory(all);
    std::byte* free = rings.data();
    for (auto const& [r, bytes] :
         {std::pair(&come_, window_ * wide_), std::pair(&sums_, window_ * wide_), std::pair(&back_, window_)})
      for (std::size_t i = 0; i < slots; ++i) r->push_back({std::exchange(free, free + bytes)});
  }

  range lane(int l) const { return call_.shard_bytes(row_.lanes, l); }
  range window_of(int l, std::size_t k) const {
    auto const all = lane(l);
    std::size_t const begin = std::min(all.end, all.begin + k * window_);
    return {begin, std::min(all.end, begin + window_)};
  }
  range own_window(std::size_t k) const { return window_of(row_.place(), k); }
  /// Of the result of window k what host h sends back.
  std::size_t sent_back(int h, std::size_t k) const {
    auto const w = own_window(k);
    return std::clamp(row_.wanted_before(h, call_), w.begin, w.end) - w.begin;
  }
  int neighbor(int step) const { return row_.first(row_.host + step) + row_.place(); }

  void start(slot& s, int phase, mpi_flow::direction way, int step, std::size_t n) {
    if (n != 0) s.flow = job_.start(call_, phase, way, {neighbor(step), s.data, n});
  }
  void finish(slot& s, int phase) {
    if (s.flow) job_.finish(call_, phase, std::exchange(s.flow, nullptr));
  }
  void await_sums(std::size_t k) {
    if (!first_ && k < windows_) start(at(come_, k), sums, mpi_flow::receives, -1, own_window(k).size() * wide_);
  }
  void await_results(std::size_t k) {
    if (!last_ && k < windows_) start(at(back_, k), results, mpi_flow::receives, +1, sent_back(row_.host + 1, k));
  }

  /// Of each lane's window the part that another rank adds up.
  void stage(std::byte const* data, std::size_t k) {
    for (int l = 0; l < row_.lanes; ++l)
      if (auto const w = window_of(l, k); l != row_.place() && !w.empty())
        std::memcpy(staged_by(row_.place(), l), data + w.begin, w.size());
  }
  std::byte* staged_by(int p, int l) const { return seats_.staging(p) + static_cast<std::size_t>(l) * window_; }
  /// Behind what it stages.
  std::byte* result_of(int l) const { return seats_.staging(l) + lanes_ * window_; }

  /// The result of a window, to this host and to the one before.
  void hand_on(std::byte* data, range wanted, std::size_t done) {
    auto& s = at(last_ ? sums_ : back_, done);
    auto const w = own_window(done);
    std::size_t const n = last_ ? w.size() : sent_back(row_.host + 1, done);
    if (!last_) finish(s, results);
    if (!here_)
      take(data, wanted, {w.begin, w.begin + n}, s.data);
    else if (n != 0)
      std::memcpy(result_of(row_.place()), s.data, n);
    if (last_) return;  // which sends it as soon as it is added up
    if (!first_) start(s, results, mpi_flow::sends, -1, sent_back(row_.host, done));
    if (done == 0) return;
    finish(at(back_, done - 1), results);  // that has gone on meanwhile: its slot is free
    await_results(done - 1 + back_.size());
  }
  void add_up(std::byte const* data, std::size_t k) {
    auto &so_far = at(come_, k), &sum = at(sums_, k);
    auto const w = own_window(k);
    finish(so_far, sums);
    finish(sum, last_ ? results : sums);
    if (!w.empty()) {
      sources_.clear();
      if (!first_ && wide_ == 1) sources_.push_back(so_far.data);
      for (int p = 0; p < row_.here(); ++p)
        sources_.push_back(p == row_.place() ? data + w.begin : staged_by(p, row_.place()));
      std::size_t const n = w.size() / size_of(call_.type);
      if (wide_ == 1)
        combine_(&sum.data, 1, sources_.data(), sources_.size(), n);
      else
        (call_.type == dtype::f16 ? widened_reducer<fp16>(last_) : widened_reducer<bf16>(last_))(
            sum.data, first_ ? nullptr : reinterpret_cast<float const*>(so_far.data), sources_.data(), sources_.size(),
            n);
    }
    await_sums(k + come_.size());
    if (last_)
      start(sum, results, mpi_flow::sends, -1, sent_back(row_.host, k));
    else
      start(sum, sums, mpi_flow::sends, +1, w.size() * wide_);
  }
  static void take(std::byte* data, range wanted, range window, std::byte const* from) {
    std::size_t const begin = std::max(wanted.begin, window.begin), end = std::min(wanted.end, window.end);
    if (begin < end) std::memcpy(data + begin, from + (begin - window.begin), end - begin);
  }

  mpi_job& job_;
  host_row const& row_;
  call const& call_;
  std::optional<seat_collectives<Meeting>>& here_;
  shared_seats& seats_;
  ordered_reduce const combine_;
  bool const first_, last_;
  std::size_t const wide_, lanes_;  // bytes of a sum under way for one of an element's
  std::size_t window_ = 0, windows_ = 0, lag_ = 0;
  ring come_, sums_, back_;  // sums from the host before, this host's, results from the host behind
  std::vector<std::byte const*> sources_;
};

}  // namespace dovetail::comm::detail
