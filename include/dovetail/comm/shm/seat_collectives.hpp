// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <span>
#include <utility>
#include <vector>

#include <mpi.h>  // a part of comm::mpi, and of no use without it

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/comm/shm/shared_seats.hpp>
#include <dovetail/core/shard.hpp>

namespace dovetail::comm::detail {

/// One collective through shared seats, in steps: every rank stages a window of what others take, all meet, each takes
/// its part. With two staging buffers in turn that is one meeting a step: who has taken its part stages the next window
/// while others still take theirs. At the first meeting the ranks compare what they ask for, before anything is taken.
///
/// Where ranks may read each other's memory, long parts are read where they lie instead, which takes a meeting at the
/// end: only then may their owners change them. What is reduced is staged also there: it is read only once anyway. So
/// is a broadcast: its root and the others work at the same time.
///
/// `meeting.wait()` returns when all ranks have come, or throws; `meeting.differ(postings)` must throw;
/// `meeting.give_up(why)` tells the others that this rank will not come; `meeting.abandoned(by)` must throw.
template <class Meeting>
class seat_collectives {
 public:
  static constexpr std::size_t chunk = shared_seats::chunk;
  /// So far every rank combines everything itself, which saves a meeting.
  static constexpr std::size_t whole_up_to(int ranks) { return (ranks == 2 ? 256 : 16) * std::size_t{1024}; }
  /// What is moved is staged by so much at a time, and from so much a rank on not staged where that is possible.
  static constexpr std::size_t moved_at_once = 256 * 1024, single_copy_from = 64 * 1024;
  /// Meetings are signs of life: nobody reads for longer than this takes.
  static constexpr std::size_t read_at_once = std::size_t{32} << 20;

  seat_collectives(shared_seats& seats, call const& c, std::uint64_t number, Meeting meeting)
      : seats_(seats), call_(c), number_(number), meeting_(std::move(meeting)) {}

  void barrier() {
    meet();
    seats_.turn();
  }
  /// For what is not made here: all come, and the first time they compare what they ask for.
  void meet() { meet({}); }

  /// `in` is this rank's shard, or its place in `out`.
  void all_gather(std::byte const* in, std::byte* out) {
    auto const own = call_.shard_bytes(size(), rank());
    move(
        {in, own.size()}, 1,
        [&] {
          if (in != out + own.begin) copy(out + own.begin, in, own.size());
        },
        [&](int r) {
          auto const s = call_.shard_bytes(size(), r);
          return part{out + s.begin, 0, s.size()};
        });
  }
  /// Returns the offsets of the ranks' parts in `all`.
  std::vector<std::size_t> all_gather_v(std::span<std::byte const> in, std::vector<std::byte>& all) {
    std::vector<std::size_t> offsets;
    auto const of = [&](int r) {
      auto const i = static_cast<std::size_t>(r);
      if (offsets.empty()) {  // the ranks have met: how much they bring is known
        try {
          offsets.push_back(0);
          for (int q = 0; q < size(); ++q) offsets.push_back(offsets.back() + seats_.said(q).from.bytes);
          all.resize(offsets.back());
        } catch (std::exception const& e) {
          seats_.give_up();
          meeting_.give_up(e.what());
          throw;
        }
        copy(all.data() + offsets[static_cast<std::size_t>(rank())], in.data(), in.size());
      }
      return part{all.data() + offsets[i], 0, offsets[i + 1] - offsets[i]};
    };
    move(
        {in.data(), in.size()}, 1, [] {}, of);
    return offsets;
  }
  /// Rank r has bytes parts(r) of `all`, and gets the others'.
  template <class Parts>
  void exchange_parts(std::byte* all, Parts parts) {
    range const own = parts(rank());
    move(
        {all + own.begin, own.size()}, 1, [] {},
        [&](int r) {
          range const theirs = parts(r);
          return part{all + theirs.begin, 0, theirs.size()};
        });
  }
  void all_to_all(std::byte const* in, std::byte* out) {
    std::size_t const n = call_.bytes() / static_cast<std::size_t>(size());
    auto const of = [&](int r) { return static_cast<std::size_t>(r) * n; };
    move(
        {in, call_.bytes()}, size(), [&] { copy(out + of(rank()), in + of(rank()), n); },
        [&](int r) {
          return part{out + of(r), of(rank()), n};
        });
  }
  /// In small pieces, of which a staging buffer holds several: the others wait for the root alone, which is ahead of
  /// them. It waits when it turns to the other buffer, and at the end, until they have left what comes next.
  void broadcast(std::byte* data, std::size_t bytes, int from) {
    bool const root = rank() == from;
    std::size_t const piece = std::clamp<std::size_t>(std::bit_ceil(bytes / 4), 4096, 32768);
    auto const pieces_here = static_cast<std::uint32_t>(chunk / piece);
    for (std::size_t at = 0; at == 0 || at < bytes; at += piece) {
      std::size_t const n = left(bytes, at, piece);
      if (at != 0 && at % chunk == 0) {
        if (root) await(-1, pieces_here - 1);
        seats_.turn();
      }
      std::byte* const there = seats_.staging(from) + at % chunk;
      if (root) copy(there, data + at, n);
      if (at == 0)
        come({}, [] {});
      else
        seats_.arrive();
      if (root) continue;
      await(from, 0);
      copy(data + at, there, n);
    }
    if (root && bytes != 0) await(-1, static_cast<std::uint32_t>((bytes - 1) % chunk / piece));
    seats_.turn();
  }

  void reduce_scatter(std::byte* data, ordered_reduce combine) {
    std::size_t const window = window_of(size());
    auto const own = call_.shard_bytes(size(), rank());
    for (std::size_t at = 0; at == 0 || at < call_.shard_bytes(size(), 0).size(); at += window) {
      for_peers([&](int r) {
        auto const s = call_.shard_bytes(size(), r);
        copy(slot(rank(), r, window), data + s.begin + at, left(s.size(), at, window));
      });
      meet({});
      if (std::size_t const n = left(own.size(), at, window)) {
        std::byte* const out = data + own.begin + at;
        combine_from([&](int r) { return r == rank() ? out : slot(r, rank(), window); }, &out, 1, combine, n);
      }
      seats_.turn();
    }
  }
  void all_reduce(std::byte* data, ordered_reduce combine) {
    std::size_t const n = call_.bytes();
    bool const whole = n <= whole_up_to(size());
    for (std::size_t at = 0; at == 0 || at < n; at += chunk) {
      std::size_t const now = std::min(chunk, n - at);
      std::byte *const mine = seats_.staging(rank()), *const here = data + at;
      // One's own shard is combined where it lies: only the peers' shards are staged.
      auto const own = whole ? range{0, now} : part_of(now, rank());
      copy(mine, here, whole ? now : own.begin);
      if (!whole) copy(mine + own.end, here + own.end, now - own.end);
      meet({});
      if (!own.empty()) {
        std::byte* const outs[] = {here + own.begin, mine + own.begin};
        combine_from([&](int r) { return (r == rank() ? here : seats_.staging(r)) + own.begin; }, outs, whole ? 1 : 2,
                     combine, own.size());
      }
      if (!whole) {
        meet({});
        for_peers([&](int r) {
          auto const theirs = part_of(now, r);
          copy(here + theirs.begin, seats_.staging(r) + theirs.begin, theirs.size());
        });
      }
      seats_.turn();
    }
  }

 private:
  using array = shared_seats::array;
  /// What this rank takes from another one's array, and where it puts that.
  struct part {
    std::byte* to;
    std::size_t offset, bytes;
  };

  int rank() const { return seats_.rank(); }
  int size() const { return seats_.size(); }
  /// One's neighbours first: not all read the same rank at once.
  template <class F>
  void for_peers(F f) const {
    for (int i = 1; i < size(); ++i) f((rank() + i) % size());
  }
  static void copy(std::byte* to, std::byte const* from, std::size_t n) {
    if (n != 0) std::memcpy(to, from, n);
  }
  static std::size_t left(std::size_t bytes, std::size_t at, std::size_t window) {
    return at < bytes ? std::min(window, bytes - at) : 0;
  }
  /// The part of `bytes` that rank r combines for all.
  range part_of(std::size_t bytes, int r) const {
    std::size_t const width = size_of(call_.type);
    auto const s = shard(bytes / width, size(), r);
    return {s.begin * width, s.end * width};
  }
  /// A staging buffer has a slot for each rank that takes something of its own, or one for all.
  static std::size_t window_of(int slots) {
    return slots == 1 ? moved_at_once : chunk / static_cast<std::size_t>(slots) / 64 * 64;
  }
  std::byte* slot(int owner, int r, std::size_t window) const {
    return seats_.staging(owner) + static_cast<std::size_t>(r) * window;
  }

  /// Who leaves by an exception says so first: others may be reading its memory, which is its caller's again.
  void wait() {
    try {
      meeting_.wait();
    } catch (...) {
      seats_.give_up();
      throw;
    }
  }
  void meet(array mine) {
    if (compared_) {
      seats_.arrive();
      wait();
    } else {
      come(mine, [] {});
    }
  }
  /// Waits for one rank, or for all (-1), but not until they are where this one is: they may be so far behind.
  void await(int r, std::uint32_t behind) {
    seats_.await(r, behind);
    wait();
  }
  /// The first meeting; meanwhile() is what this rank does for itself until the others are there.
  template <class F>
  void come(array mine, F meanwhile) {
    shared_seats::posting const posted{call_, number_};
    seats_.say({posted, mine});
    seats_.arrive();
    meanwhile();
    wait();
    compared_ = true;
    bool same = true;
    for (int r = 0; r < size(); ++r) same = same && seats_.said(r).what == posted;
    if (same) [[likely]]
      return;
    std::vector<shared_seats::posting> all;
    for (int r = 0; r < size(); ++r) all.push_back(seats_.said(r).what);
    seats_.give_up();
    meeting_.differ(all);
  }

  /// Everybody's `mine` to everybody: of rank r's this rank takes from(r), asked when they have met. With a slot for
  /// each rank an array has as many equal pieces, one for each.
  template <class Own, class From>
  void move(array mine, int slots, Own own, From from) {
    std::size_t const window = window_of(slots), piece = mine.bytes / static_cast<std::size_t>(slots);
    auto const stage = [&](std::size_t at) {
      std::size_t const n = left(piece, at, window);
      if (slots == 1) return copy(seats_.staging(rank()), mine.data + at, n);
      for_peers([&](int r) { copy(slot(rank(), r, window), mine.data + static_cast<std::size_t>(r) * piece + at, n); });
    };
    auto const read = [&](std::size_t bytes) { return seats_.single_copy() && bytes >= single_copy_from; };
    if (!read(piece)) stage(0);
    come(mine, own);
    std::size_t extent = 0;
    for (int r = 0; r < size(); ++r) extent = std::max(extent, from(r).bytes);
    if (read(extent)) {
      if (directly(extent, from)) return;
      stage(0);
      meet({});
    }
    for (std::size_t at = 0;;) {
      for_peers([&](int r) {
        auto const p = from(r);
        copy(p.to + at, slots == 1 ? seats_.staging(r) : slot(r, rank(), window), left(p.bytes, at, window));
      });
      seats_.turn();
      at += window;
      if (at >= extent) return;
      stage(at);
      meet({});
    }
  }
  /// False, on all ranks, when one of them was not allowed to.
  template <class From>
  bool directly(std::size_t extent, From from) {
    for (std::size_t at = 0; at < extent; at += read_at_once) {
      for_peers([&](int r) {
        auto const p = from(r);
        std::size_t const n = left(p.bytes, at, read_at_once);
        if (n != 0 && !seats_.read(r, p.to + at, seats_.said(r).from.data + p.offset + at, n)) seats_.could_not_read();
      });
      meet({});
      if (int const r = seats_.who_gave_up(); r >= 0) meeting_.abandoned(r);
    }
    seats_.turn();
    return seats_.all_could_read();
  }
  template <class Source>
  void combine_from(Source source, std::byte* const* outs, std::size_t out_count, ordered_reduce combine,
                    std::size_t bytes) {
    auto& sources = seats_.sources();
    for (int r = 0; r < size(); ++r) sources[static_cast<std::size_t>(r)] = source(r);
    combine(outs, out_count, sources.data(), sources.size(), bytes / size_of(call_.type));
  }

  shared_seats& seats_;
  call const call_;
  std::uint64_t const number_;
  Meeting meeting_;
  bool compared_ = false;
};

}  // namespace dovetail::comm::detail
