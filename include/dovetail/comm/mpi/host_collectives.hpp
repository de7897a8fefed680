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
#include <dovetail/comm/mpi/host_line.hpp>
#include <dovetail/comm/mpi/job.hpp>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/comm/shm/seat_collectives.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::detail {

/// One collective of ranks on several hosts in a row (host_row): through memory that the ranks of a host share, and
/// between hosts by messages of which each host sends and receives what one rank would.
template <class Meeting>
class host_collectives {
 public:
  using memory = typename host_line<Meeting>::memory;

  host_collectives(mpi_job& job, call const& c, Meeting meeting, memory& rings)
      : job_(job), row_(*job.row), call_(c), rings_(rings) {
    if (row_.here() > 1) here_.emplace(job.row_seats, c, job.watch().sequence, std::move(meeting));
  }

  void all_reduce(std::byte* data, ordered_reduce combine) {
    host_line<Meeting>(job_, call_, here_, rings_, combine).run(data, {0, call_.bytes()});
  }
  void reduce_scatter(std::byte* data, ordered_reduce combine) {
    host_line<Meeting>(job_, call_, here_, rings_, combine).run(data, shard_of(row_.rank));
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

  /// To one rank of each host, along a binomial tree of the hosts, and from there to the others: a piece at a time, so
  /// that hosts hand on one while the next is under way.
  void broadcast(std::byte* data) {
    int const hosts = row_.hosts(), root = row_.host_of(call_.root), d = (row_.host - root + hosts) % hosts;
    auto const at = [&](int distance) { return row_.speaker((distance + root) % hosts, call_.root); };
    bool const speaks = row_.rank == at(d);
    auto const spread = [&](std::byte* what, std::size_t n) {
      piece const from[] = {{at(binomial_parent(d)), what, n}};
      if (d != 0) job_.exchange(call_, 0, {}, from);
      std::vector<piece> sends;
      binomial_children(d, hosts, [&](int child) { sends.push_back({at(child), what, n}); });
      if (!sends.empty()) job_.exchange(call_, 0, sends, {});
    };
    // Pieces of arrays of other lengths may look alike.
    if (speaks && call_.bytes() > piece_bytes) {
      if (rings_.size() < sizeof(std::uint64_t)) rings_ = memory(sizeof(std::uint64_t));
      std::uint64_t total = call_.bytes();
      std::memcpy(rings_.data(), &total, sizeof total);
      spread(rings_.data(), sizeof total);
      std::memcpy(&total, rings_.data(), sizeof total);
      if (total != call_.bytes())
        job_.watch().misfit(at(binomial_parent(d)), call_,
                            message("rank ", at(binomial_parent(d)), " broadcasts ", total, " bytes where ",
                                    call_.bytes(), " were expected"));
    }
    for (std::size_t begin = 0; begin < call_.bytes(); begin += piece_bytes) {
      std::size_t const n = std::min(piece_bytes, call_.bytes() - begin);
      if (speaks) spread(data + begin, n);
      if (here_) here_->broadcast(data + begin, n, at(d) - row_.first(row_.host));
    }
  }

 private:
  using piece = mpi_job::piece;
  static constexpr std::size_t piece_bytes = std::size_t{4} << 20;

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

  mpi_job& job_;
  host_row const& row_;
  call const call_;
  memory& rings_;
  std::optional<seat_collectives<Meeting>> here_;  // nothing: this rank is alone on its host
};

}  // namespace dovetail::comm::detail
