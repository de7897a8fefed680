// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <mpi.h>

#include <dovetail/comm/away.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/envelope.hpp>
#include <dovetail/comm/mpi/host_collectives.hpp>
#include <dovetail/comm/mpi/job.hpp>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/comm/shm/seat_collectives.hpp>
#include <dovetail/comm/topology.hpp>
#include <dovetail/core/buffer.hpp>

namespace dovetail::comm::detail {

/// The collectives: of ranks on one host through memory that they share (seat_collectives.hpp); of ranks on several
/// hosts, in a row, from host to host (host_collectives.hpp); else, and where it is little, over MPI's point-to-point
/// messages by direct exchange: everybody sends everybody's part at once, and sums what came in rank order. Copies
/// share one state.
class mpi_engine {
 public:
  explicit mpi_engine(std::shared_ptr<mpi_job> job) : job_(std::move(job)), work_(std::make_shared<scratch>()) {
    if (auto hosts = job_->peers().topology(); hosts.hosts() > 1) work_->hosts = std::move(hosts);
  }

  int rank() const { return job_->rank(); }
  int size() const { return job_->size(); }
  bool has_spare_core() const { return job_->peers().spare_core(); }
  comm::traffic& traffic() { return job_->traffic; }
  comm::traffic const& traffic() const { return job_->traffic; }
  subject& about() { return about_; }
  comm::topology const& topology() const { return work_->hosts; }
  /// Of several hosts, where collectives go from host to host.
  host_row const* row() const { return job_->row ? &*job_->row : nullptr; }
  mpi_job& job() { return *job_; }
  char const* transport() const {
    auto const& seats = job_->seats;
    if (job_->row) return "messages from host to host";
    return !seats.usable() ? "messages" : seats.single_copy() ? "shared memory, single copy" : "shared memory";
  }

  void all_reduce(call const& c, std::byte* data, ordered_reduce combine) {
    begin(c);
    if (is_native(c)) return native(c, data);
    if (job_->seats.usable()) return through_seats(c).all_reduce(data, combine);
    if (job_->row ? job_->row->is_little(c.bytes()) : c.bytes() <= host_row::little_bytes) {
      auto* const from = room(c.bytes() * ranks());
      clear();
      for_peers([&](int r) {
        work_->sends.push_back({r, data, c.bytes()});
        work_->recvs.push_back({r, from + at(r) * c.bytes(), c.bytes()});
      });
      exchange(c, 0);
      for (int r = 0; r < size(); ++r) work_->sources[at(r)] = r == rank() ? data : from + at(r) * c.bytes();
      combine(&data, 1, work_->sources.data(), ranks(), c.count);
      return;
    }
    if (job_->row && job_->row->reduces(c)) return by_hosts(c, [&](auto& hosts) { hosts.all_reduce(data, combine); });
    scatter(c, data, combine);
    gather(c, 1, data + c.shard_bytes(size(), rank()).begin, data);
  }

  void reduce_scatter(call const& c, std::byte* data, ordered_reduce combine) {
    begin(c);
    if (job_->seats.usable()) return through_seats(c).reduce_scatter(data, combine);
    if (job_->row && job_->row->reduces(c))
      return by_hosts(c, [&](auto& hosts) { hosts.reduce_scatter(data, combine); });
    scatter(c, data, combine);
  }

  void all_gather(call const& c, std::byte const* in, std::byte* out) {
    begin(c);
    if (job_->seats.usable()) return through_seats(c).all_gather(in, out);
    if (job_->row && job_->row->moves(c.bytes())) return by_hosts(c, [&](auto& hosts) { hosts.all_gather(in, out); });
    auto const own = c.shard_bytes(size(), rank());
    copy(out + own.begin, in, own.size());
    gather(c, 0, out + own.begin, out);
  }

  /// What collectives are made of, for algorithms from elsewhere.
  void begin_steps(call const& c) { begin(c, false); }
  template <class Piece>
  void exchange_step(call const& c, std::span<Piece const> sends, std::span<Piece const> recvs) {
    clear();
    for (auto const& p : sends) work_->sends.push_back({p.peer, p.data, p.bytes});
    for (auto const& p : recvs) work_->recvs.push_back({p.peer, p.data, p.bytes});
    job_->exchange(c, 0, work_->sends, work_->recvs);
  }

  std::vector<std::size_t> all_gather_v(std::span<std::byte const> in, std::vector<std::byte>& all) {
    call const c{operation::all_gather_v, dtype::u8, reduction::sum, -1, 0, about_};
    begin(c);
    if (job_->seats.usable()) return through_seats(c).all_gather_v(in, all);
    auto& sizes = work_->sizes;
    sizes.assign(ranks(), 0);
    sizes[at(rank())] = in.size();
    call const lengths{operation::all_gather_v, dtype::u64, reduction::sum, -1, ranks(), about_};
    auto* const s = reinterpret_cast<std::byte*>(sizes.data());
    gather(lengths, 0, s + 8 * at(rank()), s);
    std::vector<std::size_t> offsets(ranks() + 1);
    for (int r = 0; r < size(); ++r) offsets[at(r) + 1] = offsets[at(r)] + sizes[at(r)];
    all.resize(offsets.back());
    copy(all.data() + offsets[at(rank())], in.data(), in.size());
    if (job_->row && job_->row->moves(all.size())) {
      by_hosts(c, [&](auto& hosts) { hosts.all_gather_v(all.data(), offsets); });
      return offsets;
    }
    clear();
    for_peers([&](int r) {
      work_->sends.push_back({r, const_cast<std::byte*>(in.data()), in.size()});
      work_->recvs.push_back({r, all.data() + offsets[at(r)], offsets[at(r) + 1] - offsets[at(r)]});
    });
    exchange(lengths, 1);
    return offsets;
  }

  void all_to_all(call const& c, std::byte const* in, std::byte* out) {
    begin(c);
    if (job_->seats.usable()) return through_seats(c).all_to_all(in, out);
    std::size_t const chunk = c.bytes() / ranks();
    copy(out + at(rank()) * chunk, in + at(rank()) * chunk, chunk);
    clear();
    for_peers([&](int r) {
      work_->sends.push_back({r, const_cast<std::byte*>(in) + at(r) * chunk, chunk});
      work_->recvs.push_back({r, out + at(r) * chunk, chunk});
    });
    exchange(c, 0);
  }

  /// A binomial tree of the ranks, or of hosts.
  void broadcast(call const& c, std::byte* data) {
    begin(c);
    if (job_->seats.usable()) return through_seats(c).broadcast(data, c.bytes(), c.root);
    if (job_->row && job_->row->moves(c.bytes())) return by_hosts(c, [&](auto& hosts) { hosts.broadcast(data); });
    int const d = (rank() - c.root + size()) % size();
    auto const at_distance = [&](int distance) { return (distance + c.root) % size(); };
    clear();
    if (d != 0) {
      work_->recvs.push_back({at_distance(binomial_parent(d)), data, c.bytes()});
      exchange(c, 0);
    }
    clear();
    binomial_children(d, size(), [&](int child) { work_->sends.push_back({at_distance(child), data, c.bytes()}); });
    if (!work_->sends.empty()) exchange(c, 0);
  }

  void barrier() { meet({operation::barrier, dtype::u8, reduction::sum, -1, 0, about_}); }

  away_guard away() {
    job_->watch().go_away(true);
    return away_guard([job = job_] { job->watch().go_away(false); });
  }

  mpi_engine split(int color, int key) {
    call const c{operation::split};
    begin(c);
    struct place {
      std::int32_t color, key;
    };
    std::vector<place> places(ranks(), place{color, key});
    if (job_->seats.usable()) {
      call const all{operation::split, dtype::u64, reduction::sum, -1, ranks(), about_};
      auto* const to = reinterpret_cast<std::byte*>(places.data());
      through_seats(all).all_gather(to + at(rank()) * sizeof(place), to);
    } else {
      places = job_->share(c, place{color, key});
    }
    // And everybody is there.
    std::vector<int> members;
    for (int r = 0; r < size(); ++r)
      if (places[at(r)].color == color) members.push_back(r);
    std::sort(members.begin(), members.end(),
              [&](int a, int b) { return std::pair(places[at(a)].key, a) < std::pair(places[at(b)].key, b); });
    return mpi_engine(job_->split(c, color, key, members));
  }

  void send(call const& c, std::byte const* data, int tag) {
    job_->begin(c);
    job_->send(c, data, tag);
  }
  void recv(call const& c, std::byte* data, int tag) { job_->recv(c, data, tag); }
  envelope receive(call const& c, std::vector<std::byte>& data, int tag) { return job_->receive(c, data, tag); }
  envelope wait_message(call const& c, int tag) { return job_->wait_message(c, tag, false); }
  std::optional<envelope> probe(call const& c, int tag) { return job_->probe(c, tag); }
  std::vector<int> lost_ranks() const { return job_->lost_ranks(); }
  mpi_engine shrink() {
    call const c{operation::shrink};
    job_->begin(c);
    return mpi_engine(job_->shrink(c));
  }
  void abort(std::string const& why) { job_->watch().abort(why); }

 private:
  /// How the ranks of one host meet in an operation. They are ranks first, first + 1, ... of all.
  struct seat_meeting {
    void wait() const {
      if (seats.all_reached()) return;
      job.wait_until(
          c, -1,
          [&] {
            job.advance_flows();
            return seats.all_reached();
          },
          [&] {
            std::vector<int> late;
            for (int r = 0; r < seats.size(); ++r)
              if (!seats.reached(r)) late.push_back(first + r);
            return late;
          },
          seat_rest{seats});
    }
    void differ(std::vector<shared_seats::posting> const& all) const {
      auto const odd = odd_one_out(all);
      if (odd == all.size()) return;
      int const r = first + static_cast<int>(odd);
      auto const why = message("rank ", r, " called ", all[odd].asked, " as operation ", all[odd].number);
      // Of several hosts these are some of the ranks: who is odd is for all to say.
      if (seats.size() != job.size()) job.watch().misfit(r, c, why);
      job.watch().diverged(r, c, why);
    }
    void give_up(std::string const& why) const { job.watch().give_up(message("rank ", job.rank(), " threw: ", why)); }
    /// What this rank read of another's memory may be anything: that one has given up.
    [[noreturn]] void abandoned(int by) const {
      job.watch().read_notices();
      job.watch().go_on(c);
      job.watch().lost(job.rank(), c,
                       message("rank ", first + by, " has given up this operation while rank ", job.rank(),
                               " was still reading its memory: it came too late, or another rank was lost"));
    }
    mpi_job& job;
    call const& c;
    shared_seats& seats;
    int first = 0;
  };
  struct seat_rest {
    static constexpr bool woken = true;
    void operator()(std::chrono::nanoseconds d) const { seats.rest(d); }
    shared_seats& seats;
  };
  seat_collectives<seat_meeting> through_seats(call const& c) {
    return {job_->seats, c, job_->watch().sequence, seat_meeting{*job_, c, job_->seats}};
  }

  template <class F>
  void by_hosts(call const& c, F f) {
    auto& row = *job_->row;
    host_collectives<seat_meeting> hosts(*job_, c, seat_meeting{*job_, c, job_->row_seats, row.first(row.host)},
                                         work_->memory);
    keeping_memory([&] { f(hosts); });
  }

  struct scratch {
    std::vector<mpi_job::piece> sends, recvs;
    std::vector<std::byte const*> sources;
    std::vector<std::uint64_t> sizes;
    std::vector<call> calls;
    buffer<std::byte> memory;
    comm::topology hosts;  // empty: one
  };

  std::size_t ranks() const { return static_cast<std::size_t>(size()); }
  static std::size_t at(int r) { return static_cast<std::size_t>(r); }
  static void copy(std::byte* to, std::byte const* from, std::size_t n) {
    if (to != from && n != 0) std::memmove(to, from, n);
  }
  std::byte* room(std::size_t n) {
    work_->sources.resize(ranks());
    if (work_->memory.size() < n) work_->memory = buffer<std::byte>(n);
    return work_->memory.data();
  }
  void clear() {
    work_->sends.clear();
    work_->recvs.clear();
  }
  template <class F>
  void for_peers(F f) {
    for (int i = 1; i < size(); ++i) f((rank() + i) % size());
  }
  void exchange(call const& c, int phase) {
    keeping_memory([&] { job_->exchange(c, phase, work_->sends, work_->recvs); });
  }
  template <class F>
  void keeping_memory(F f) {
    try {
      f();
    } catch (...) {
      job_->abandon_flows();
      // MPI may still write to the scratch memory: it stays.
      if (job_->unfinished()) static_cast<void>(new std::shared_ptr<scratch>(work_));
      throw;
    }
  }

  void begin(call const& c, bool may_meet = true) {
    job_->begin(c);
    // Ranks that meet in shared memory compare their calls anyway.
    if (!job_->options.check || size() == 1 || (may_meet && job_->seats.usable() && !is_native(c))) return;
    auto& calls = work_->calls;
    calls.assign(ranks(), c);
    clear();
    for_peers([&](int r) {
      work_->sends.push_back({r, reinterpret_cast<std::byte*>(&calls[at(rank())]), sizeof(call)});
      work_->recvs.push_back({r, reinterpret_cast<std::byte*>(&calls[at(r)]), sizeof(call)});
    });
    exchange(c, mpi_job::checking);
    check(c, calls);
  }
  void check(call const& c, std::vector<call> const& calls) {
    auto const odd = odd_one_out(calls);
    if (odd < calls.size())
      job_->watch().diverged(static_cast<int>(odd), c, message("rank ", odd, " called ", calls[odd]));
  }

  void scatter(call const& c, std::byte* data, ordered_reduce combine) {
    auto const own = c.shard_bytes(size(), rank());
    auto* const from = room(own.size() * ranks());
    clear();
    for_peers([&](int r) {
      auto const theirs = c.shard_bytes(size(), r);
      work_->sends.push_back({r, data + theirs.begin, theirs.size()});
      work_->recvs.push_back({r, from + at(r) * own.size(), own.size()});
    });
    exchange(c, 0);
    std::byte* const out = data + own.begin;
    for (int r = 0; r < size(); ++r) work_->sources[at(r)] = r == rank() ? out : from + at(r) * own.size();
    combine(&out, 1, work_->sources.data(), ranks(), own.size() / size_of(c.type));
  }
  void gather(call const& c, int phase, std::byte* own, std::byte* out) {
    clear();
    for_peers([&](int r) {
      auto const theirs = c.shard_bytes(size(), r);
      work_->sends.push_back({r, own, c.shard_bytes(size(), rank()).size()});
      work_->recvs.push_back({r, out + theirs.begin, theirs.size()});
    });
    exchange(c, phase);
  }

  void meet(call const& c) {
    begin(c);
    if (job_->seats.usable()) return through_seats(c).barrier();
    clear();
    for_peers([&](int r) {
      work_->sends.push_back({r, nullptr, 0});
      work_->recvs.push_back({r, nullptr, 0});
    });
    exchange(c, 0);
  }

  bool is_native(call const& c) const {
    return c.op == operation::all_reduce && job_->options.order == mpi_order::native &&
           native_type(c.type) != MPI_DATATYPE_NULL;
  }
  static MPI_Datatype native_type(dtype t) {
    switch (t) {
      case dtype::f64:
        return MPI_DOUBLE;
      case dtype::f32:
        return MPI_FLOAT;
      case dtype::i64:
        return MPI_INT64_T;
      case dtype::i32:
        return MPI_INT32_T;
      case dtype::u64:
        return MPI_UINT64_T;
      case dtype::u32:
        return MPI_UINT32_T;
      case dtype::u16:
        return MPI_UINT16_T;
      case dtype::u8:
        return MPI_UINT8_T;
      case dtype::f16:
      case dtype::bf16:
        break;
    }
    return MPI_DATATYPE_NULL;
  }
  void native(call const& c, std::byte* data) {
    MPI_Op const how = c.how == reduction::sum ? MPI_SUM : c.how == reduction::min ? MPI_MIN : MPI_MAX;
    std::size_t const most = (std::size_t{1} << 30) / size_of(c.type);
    for (std::size_t i = 0; i < c.count; i += most) {
      int const n = static_cast<int>(std::min(most, c.count - i));
      job_->native(c, [&] {
        return MPI_Allreduce(MPI_IN_PLACE, data + i * size_of(c.type), n, native_type(c.type), how, job_->handle());
      });
    }
  }

  std::shared_ptr<mpi_job> job_;
  std::shared_ptr<scratch> work_;
  subject about_;
};

}  // namespace dovetail::comm::detail
