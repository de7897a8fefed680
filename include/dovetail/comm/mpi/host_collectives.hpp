// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
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

/// One collective of ranks on several hosts in a row: through memory that the ranks of a host share, and between hosts
/// by messages of which each host sends and receives what one rank would.
///
/// Sums keep the order of the ranks, and so the bits: host 0 adds up a window of the array and sends that to host 1,
/// whose ranks add to it, and so on; what the last host has is the result, which comes back from host to host. Windows
/// follow each other, so that all links are busy both ways: n bytes take the time of n bytes on a link. As many ranks
/// of each host as the smallest has, one per lane, do this each for a part of the array.
template <class Meeting>
class host_collectives {
 public:
  /// What is in messages under way: it stays when MPI cannot take them back.
  using memory = buffer<std::byte>;

  host_collectives(mpi_job& job, call const& c, Meeting meeting, memory& rings)
      : job_(job), row_(*job.row), call_(c), rings_(rings), seats_(job.row_seats) {
    if (row_.here() > 1) here_.emplace(seats_, c, job.watch().sequence, std::move(meeting));
  }

  void all_reduce(std::byte* data, ordered_reduce combine) { reduce(data, {0, call_.bytes()}, combine); }
  void reduce_scatter(std::byte* data, ordered_reduce combine) {
    reduce(data, call_.shard_bytes(job_.size(), row_.rank), combine);
  }

  /// A part goes to one rank of each other host, and from there to the others.
  void all_gather(std::byte const* in, std::byte* out) {
    auto const own = shard_of(row_.rank);
    if (in != out + own.begin && !own.empty()) std::memcpy(out + own.begin, in, own.size());
    gather(out, [this](int r) { return shard_of(r); });
  }
  /// `offsets` says which part of `all` each rank has brought.
  void all_gather_v(std::byte* all, std::vector<std::size_t> const& offsets) {
    gather(all, [&](int r) {
      auto const i = static_cast<std::size_t>(r);
      return range{offsets[i], offsets[i + 1]};
    });
  }

  /// To one rank of each host, along a binomial tree of the hosts, and from there to the others.
  void broadcast(std::byte* data) {
    int from = 0;
    for (int h = 0; h < row_.hosts(); ++h)
      if (call_.root >= row_.first(h)) from = h;
    auto const speaker = [&](int h) { return h == from ? call_.root : row_.first(h); };
    if (row_.rank == speaker(row_.host)) {
      int const hosts = row_.hosts(), d = (row_.host - from + hosts) % hosts, lowest = d == 0 ? hosts : d & -d;
      auto const at = [&](int distance) { return speaker((distance + from) % hosts); };
      if (d != 0) {
        mpi_job::piece const p[] = {{at(d - lowest), data, call_.bytes()}};
        job_.exchange(call_, 0, {}, p);
      }
      std::vector<mpi_job::piece> sends;
      int step = 1;
      while (step < lowest && d + step < hosts) step *= 2;
      for (step /= 2; step > 0; step /= 2)  // the farthest first: it has the largest tree below it
        if (step < lowest && d + step < hosts) sends.push_back({at(d + step), data, call_.bytes()});
      if (!sends.empty()) job_.exchange(call_, 0, sends, {});
    }
    if (here_) here_->broadcast(data, speaker(row_.host) - row_.first(row_.host));
  }

 private:
  using piece = mpi_job::piece;
  static constexpr int sums_so_far = 0, results = 1;  // phases
  /// Of a lane at a time: longer ones fill the line of hosts more slowly, shorter ones cost more messages.
  static constexpr std::size_t longest_window = 64 * 1024, shortest_window = 32 * 1024;

  range shard_of(int r) const { return call_.shard_bytes(job_.size(), r); }

  template <class Part>
  void gather(std::byte* out, Part part) {
    std::vector<piece> sends, recvs;
    auto const own = part(row_.rank);
    for (int h = 0; h < row_.hosts(); ++h)
      if (h != row_.host) sends.push_back({row_.bearer(h, row_.rank), out + own.begin, own.size()});
    for (bool const after : {false, true}) {
      auto const brought = row_.brought_by(row_.host, after, row_.place());
      for (auto r = static_cast<int>(brought.begin); r < static_cast<int>(brought.end); ++r)
        recvs.push_back({r, out + part(r).begin, part(r).size()});
    }
    job_.exchange(call_, 0, sends, recvs);
    if (!here_) return;
    auto const bytes_of = [&](range ranks) {
      return ranks.empty()
                 ? range{0, 0}
                 : range{part(static_cast<int>(ranks.begin)).begin, part(static_cast<int>(ranks.end) - 1).end};
    };
    here_->exchange_parts(out, [&](int p) { return part(row_.first(row_.host) + p); });
    for (bool const after : {false, true})
      here_->exchange_parts(out, [&](int p) { return bytes_of(row_.brought_by(row_.host, after, p)); });
  }

  /// What is under way of one window: an array of the ring, and the message from or to it.
  struct slot {
    std::byte* data = nullptr;
    mpi_flow* flow = nullptr;
  };
  struct ring {
    std::vector<slot> slots;
    slot& operator[](std::size_t window) { return slots[window % slots.size()]; }
  };

  range lane(int l) const { return call_.shard_bytes(row_.lanes, l); }
  range window_of(int l, std::size_t k) const {
    auto const all = lane(l);
    std::size_t const at = std::min(all.end, all.begin + k * window_);
    return {at, std::min(all.end, at + window_)};
  }
  int neighbor(int step) const { return row_.first(row_.host + step) + row_.place(); }
  void start(slot& s, int phase, mpi_flow::direction way, int peer, std::size_t n) {
    if (n != 0) s.flow = job_.start(call_, phase, way, {peer, s.data, n});
  }
  void finish(slot& s, int phase) {
    if (s.flow) job_.finish(call_, phase, std::exchange(s.flow, nullptr));
  }

  /// `wanted` of the results is written to data.
  void reduce(std::byte* data, range wanted, ordered_reduce combine) {
    std::size_t const longest = lane(0).size(), lanes = static_cast<std::size_t>(row_.lanes);
    bool const widens = host_row::widens(call_);
    std::size_t const behind = static_cast<std::size_t>(2 * (row_.hosts() - 1 - row_.host) + 1);
    std::size_t const line = static_cast<std::size_t>(2 * row_.hosts());
    // Some windows for each place of the line, that it is full for most of the time.
    std::size_t const fits =
        std::min({longest_window, shared_seats::chunk / (lanes + 1), job_.options.largest_message / (widens ? 2 : 1)});
    window_ = std::min(fits, std::max(shortest_window, longest / (4 * line))) / 64 * 64;
    if (window_ == 0) window_ = 8 / (widens ? 2 : 1);  // messages of a few bytes, by the caller's wish
    std::size_t const windows = (longest + window_ - 1) / window_, lag = std::min(behind, windows);
    bool const speaks = row_.speaks(), first = row_.is_first_host(), last = row_.is_last_host();
    std::size_t const own_lane = static_cast<std::size_t>(row_.place()), wide = widens ? 2 : 1,
                      width = size_of(call_.type);

    // Sums come from the host before, results from the one behind; `sums` is what this one adds up, results on the
    // last.
    ring come, sums, back;
    if (speaks) lay_out(come, sums, back, lag + 2, wide, first, last);
    auto const n_of = [&](std::size_t k) { return window_of(row_.place(), k).size(); };
    auto const await_sums = [&](std::size_t k) {
      if (!first && k < windows) start(come[k], sums_so_far, mpi_flow::receives, neighbor(-1), n_of(k) * wide);
    };
    auto const await_results = [&](std::size_t k) {
      if (!last && k < windows) start(back[k], results, mpi_flow::receives, neighbor(+1), n_of(k));
    };
    if (speaks)
      for (std::size_t k = 0; k < lag + 2; ++k) await_sums(k), await_results(k);

    for (std::size_t k = 0; k < windows + lag; ++k) {
      bool const has_result = k >= lag;
      std::size_t const done = has_result ? k - lag : 0;
      if (here_ && k < windows) stage(data, k);
      std::byte const* result = nullptr;
      if (has_result && speaks) {
        if (!last) finish(back[done], results);
        result = (last ? sums : back)[done].data;
        auto const w = window_of(row_.place(), done);
        if (here_)
          copy(seats_.staging(row_.place()) + lanes * window_, result, w.size());
        else
          take(data, wanted, w, result);
        if (!last && !first) start(back[done], results, mpi_flow::sends, neighbor(-1), w.size());
        if (!last && done > 0) {
          finish(back[done - 1], results);
          await_results(done - 1 + back.slots.size());
        }
      }
      if (here_) here_->meet();
      if (speaks && k < windows) {
        finish(come[k], sums_so_far);
        finish(sums[k], last ? results : sums_so_far);
        add_up(data, k, own_lane, first ? nullptr : come[k].data, sums[k].data, combine, widens, last, width);
        await_sums(k + come.slots.size());
        start(sums[k], last ? results : sums_so_far, mpi_flow::sends, neighbor(last ? -1 : +1),
              n_of(k) * (last ? 1 : wide));
      }
      if (here_ && has_result)
        for (int l = 0; l < row_.lanes; ++l)
          take(data, wanted, window_of(l, done), seats_.staging(l) + lanes * window_);
      if (here_) seats_.turn();
    }
    for (auto* const r : {&come, &sums, &back})
      for (auto& s : r->slots) finish(s, r == &back || (r == &sums && last) ? results : sums_so_far);
  }
  void lay_out(ring& come, ring& sums, ring& back, std::size_t slots, std::size_t wide, bool first, bool last) {
    std::size_t const all = slots * window_ * (2 * wide + 1);
    if (rings_.size() < all) rings_ = memory(all);
    std::byte* at = rings_.data();
    auto const take_room = [&](ring& r, std::size_t bytes, bool used) {
      r.slots.resize(slots);
      for (auto& s : r.slots) s.data = std::exchange(at, at + bytes);
      if (!used) r.slots.assign(slots, slot{});
    };
    take_room(come, window_ * wide, !first);
    take_room(sums, window_ * wide, true);
    take_room(back, window_, !last);
  }

  static void copy(std::byte* to, std::byte const* from, std::size_t n) {
    if (n != 0) std::memcpy(to, from, n);
  }
  /// Of each lane's window the part that another rank adds up.
  void stage(std::byte const* data, std::size_t k) {
    for (int l = 0; l < row_.lanes; ++l) {
      auto const w = window_of(l, k);
      if (l != row_.place())
        copy(seats_.staging(row_.place()) + static_cast<std::size_t>(l) * window_, data + w.begin, w.size());
    }
  }
  void take(std::byte* data, range wanted, range window, std::byte const* from) {
    std::size_t const begin = std::max(wanted.begin, window.begin), end = std::min(wanted.end, window.end);
    if (begin < end) copy(data + begin, from + (begin - window.begin), end - begin);
  }
  void add_up(std::byte const* data, std::size_t k, std::size_t own_lane, std::byte const* so_far, std::byte* to,
              ordered_reduce combine, bool widens, bool ends, std::size_t width) {
    auto const w = window_of(row_.place(), k);
    if (w.empty()) return;
    std::vector<std::byte const*>& from = sources_;
    from.clear();
    if (so_far && !widens) from.push_back(so_far);
    for (int p = 0; p < row_.here(); ++p)
      from.push_back(p == row_.place() ? data + w.begin : seats_.staging(p) + own_lane * window_);
    std::size_t const n = w.size() / width;
    if (!widens) return combine(&to, 1, from.data(), from.size(), n);
    auto const* const partial = reinterpret_cast<float const*>(so_far);
    auto const add = call_.type == dtype::f16 ? widened_reducer<fp16>(ends) : widened_reducer<bf16>(ends);
    add(to, partial, from.data(), from.size(), n);
  }

  mpi_job& job_;
  host_row const& row_;
  call const call_;
  memory& rings_;
  shared_seats& seats_;
  std::optional<seat_collectives<Meeting>> here_;  // nothing: this rank is alone on its host
  std::size_t window_ = 0;
  std::vector<std::byte const*> sources_;
};

}  // namespace dovetail::comm::detail
