// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/comm/arguments.hpp>
#include <dovetail/comm/away.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/envelope.hpp>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/comm/topology.hpp>
#include <dovetail/comm/volume.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm {

/// One rank's end of a communicator: the typed interface that all backends share. It checks arguments and counts
/// traffic; the engine moves untyped arrays, and combines them with the function it is given. Every rank calls the same
/// collectives in the same order. Throws argument_error for sizes and ranks that cannot be, rank_lost and rank_diverged
/// as the engine finds out. After rank_lost every later collective throws the same; messages between the others go on,
/// and shrink() makes a communicator of them. After rank_diverged, and after abort(), every operation throws.
template <class Engine>
class endpoint {
  /// An engine may have `comm::topology const& topology() const`; empty, or missing: all ranks are on one host.
  static constexpr bool knows_hosts = requires(Engine const& e) { e.topology(); };
  static constexpr bool knows_row = requires(Engine const& e) {
    { e.row() } -> std::convertible_to<host_row const*>;
  };

 public:
  static constexpr sum_order sums = sum_order::rank_order;

  explicit endpoint(Engine engine) : engine_(std::move(engine)) {}

  int rank() const { return engine_.rank(); }
  int size() const { return engine_.size(); }
  /// Whether a thread beside one that computes on each rank finds a core of its own. Asks the system.
  bool has_spare_core() const { return engine_.has_spare_core(); }
  /// Which ranks share a host.
  comm::topology topology() const { return hosts().empty() ? comm::topology::one_host(size()) : hosts(); }
  /// What this rank has moved so far; operations that failed are not counted.
  comm::traffic traffic() const { return engine_.traffic(); }

  /// Says of which step, and of which bucket of it, the following collectives are, until something else is said; {}:
  /// nothing. Ranks that are at another one throw rank_diverged instead of adding up what does not belong together.
  void about(subject const& s) { engine_.about() = s; }

  /// data[i] becomes, on every rank, the reduction of all ranks' data[i], in rank order.
  template <reducible T>
  void all_reduce(std::span<T> data, reduction how = reduction::sum) {
    call const c{operation::all_reduce, dtype_of<T>(), how, -1, data.size(), engine_.about()};
    engine_.all_reduce(c, bytes_of(data), reducer<T>(how));
    count(c);
  }
  /// shard(n, size(), rank()) of data becomes the reduction; the rest of data is unspecified afterwards.
  template <reducible T>
  void reduce_scatter(std::span<T> data, reduction how = reduction::sum) {
    call const c{operation::reduce_scatter, dtype_of<T>(), how, -1, data.size(), engine_.about()};
    engine_.reduce_scatter(c, bytes_of(data), reducer<T>(how));
    count(c);
  }
  /// Every rank brings shard(n, size(), rank()) of data and gets all of it.
  template <movable T>
  void all_gather(std::span<T> data) {
    call const c{operation::all_gather, dtype_of<T>(), reduction::sum, -1, data.size(), engine_.about()};
    engine_.all_gather(c, bytes_of(data) + c.shard_bytes(size(), rank()).begin, bytes_of(data));
    count(c);
  }
  /// out becomes the ranks' `in` one after another: out.size() == size() × in.size(). `in` may be its own place in out.
  template <movable T>
  void all_gather(std::type_identity_t<std::span<T const>> in, std::span<T> out) {
    detail::check_all_gather({in.data(), in.size(), out.data(), out.size()}, size(), rank());
    call const c{operation::all_gather, dtype_of<T>(), reduction::sum, -1, out.size(), engine_.about()};
    engine_.all_gather(c, reinterpret_cast<std::byte const*>(in.data()), bytes_of(out));
    count(c);
  }
  /// The ranks' `in`, which may differ in length, one after another into `all` (resized; must not contain `in`).
  /// Returns size() + 1 offsets: rank r's part is [offsets[r], offsets[r + 1]).
  std::vector<std::size_t> all_gather_v(std::span<std::byte const> in, std::vector<std::byte>& all) {
    auto offsets = engine_.all_gather_v(in, all);
    auto const* const row = this->row();
    auto const off_host = row && row->moves(all.size())
                              ? row->sent_to_each_host(in.size())
                              : detail::bytes_off_host(hosts(), rank(), [&](int) { return in.size(); });
    count({(offsets.size() - 2) * in.size(), all.size() - in.size(), 1, off_host});
    return offsets;
  }
  /// size() equal chunks each way: chunk q of `in` goes to rank q, which finds it as chunk rank(). No overlap.
  template <movable T>
  void all_to_all(std::type_identity_t<std::span<T const>> in, std::span<T> out) {
    detail::check_all_to_all({in.data(), in.size(), out.data(), out.size()}, size());
    call const c{operation::all_to_all, dtype_of<T>(), reduction::sum, -1, in.size(), engine_.about()};
    engine_.all_to_all(c, reinterpret_cast<std::byte const*>(in.data()), bytes_of(out));
    count(c);
  }
  /// data of rank `root` becomes data of every rank.
  template <movable T>
  void broadcast(std::span<T> data, int root) {
    check_rank("broadcast from root ", root);
    call const c{operation::broadcast, dtype_of<T>(), reduction::sum, root, data.size(), engine_.about()};
    engine_.broadcast(c, bytes_of(data));
    count(c);
  }
  /// A message to rank `to`. The bytes are copied: send returns without waiting for the receiver.
  void send(std::span<std::byte const> data, int to, int tag = 0) {
    check_rank("send to rank ", to);
    check_tag(tag);
    call const c{operation::send, dtype::u8, reduction::sum, to, data.size()};
    engine_.send(c, data.data(), tag);
    count(c);
  }
  /// The oldest message from rank `from` with this tag. Throws rank_diverged when it has another size.
  void recv(std::span<std::byte> data, int from, int tag = 0) {
    check_rank("recv from rank ", from);
    check_tag(tag);
    call const c{operation::recv, dtype::u8, reduction::sum, from, data.size()};
    engine_.recv(c, data.data(), tag);
    count(c);
  }
  /// The oldest message from rank `from`, or from any, with this tag, or with any: `data` becomes its bytes, and the
  /// envelope says whose it was. Waits for it up to the deadline.
  envelope recv(std::vector<std::byte>& data, int from = any_rank, int tag = any_tag) {
    check_message(from, tag);
    auto const m = engine_.receive({operation::wait_message, dtype::u8, reduction::sum, from, 0}, data, tag);
    count({0, data.size(), 1});
    return m;
  }
  /// Sends `out` to rank `to`, which copies it, then receives `in` from rank `from`: all may call it at once.
  void sendrecv(std::span<std::byte const> out, int to, std::span<std::byte> in, int from, int tag = 0) {
    send(out, to, tag);
    recv(in, from, tag);
  }
  /// Whether there is such a message, and which one, without waiting.
  std::optional<envelope> probe(int from = any_rank, int tag = any_tag) {
    check_message(from, tag);
    return engine_.probe({operation::wait_message, dtype::u8, reduction::sum, from, 0}, tag);
  }
  /// Waits for a message, which stays to be received: asleep, and however long it takes, because a server has no other
  /// work. Throws rank_lost when `from` is gone; where any rank may send, once for each rank that is lost or has left,
  /// behind what it had sent, and, when no other is left, of rank -1.
  envelope wait_message(int from = any_rank, int tag = any_tag) {
    check_message(from, tag);
    return engine_.wait_message({operation::wait_message, dtype::u8, reduction::sum, from, 0}, tag);
  }
  /// Returns when every rank has come.
  void barrier() {
    engine_.barrier();
    count({0, 0, 1});
  }
  /// A communicator of the ranks that gave the same color (>= 0), ordered by (key, rank). Its traffic is its own.
  endpoint split(int color, int key) {
    require(color >= 0, "split: color ", color, ": colors are not negative");
    endpoint part(engine_.split(color, key));
    count({0, 0, 1});
    return part;
  }
  /// The same ranks, in a communicator of its own: its collectives have an order of their own, and its messages do not
  /// mix with those of this one. Collective.
  endpoint duplicate() { return split(0, rank()); }

  /// The other ranks that nothing will come from any more, as far as this one knows: lost, or left by themselves.
  std::vector<int> lost_ranks() const { return engine_.lost_ranks(); }
  /// A communicator of the ranks that are left, in their order; called by all of them, after rank_lost. Waits for those
  /// that are neither lost nor here, for the deadline, and goes on without them. Throws rank_lost, of this rank itself,
  /// where the others have done so. Of this communicator only messages still work.
  endpoint shrink() {
    endpoint rest(engine_.shrink());
    count({0, 0, 1});
    return rest;
  }
  /// Ends this communicator for all ranks: what they wait in, or call next, throws rank_lost with this rank's number
  /// and `why`. For errors that the others cannot know of. Not collective.
  void abort(std::string const& why) { engine_.abort(why); }

  /// For code of the caller's that may take longer than the deadline while other ranks wait for this one (saving,
  /// evaluating, a callback): as long as the guard lives they go on waiting. Not collective: call it on any rank.
  ///
  ///     auto const away = comm.away();
  ///     write_to_the_slow_disk();
  away_guard away() { return engine_.away(); }

 protected:
  Engine& engine() { return engine_; }

 private:
  template <class T>
  static std::byte* bytes_of(std::span<T> s) {
    return reinterpret_cast<std::byte*>(s.data());
  }
  void check_rank(char const* what, int r) const { detail::check_rank(what, r, size()); }
  void check_message(int from, int tag) const { detail::check_message(from, tag, size()); }
  static void check_tag(int tag) { detail::check_tag(tag); }
  comm::topology const& hosts() const {
    static comm::topology const unknown;
    if constexpr (knows_hosts)
      return engine_.topology();
    else
      return unknown;
  }
  host_row const* row() const {
    if constexpr (knows_row)
      return engine_.row();
    else
      return nullptr;
  }
  void count(call const& c) { count(volume_of(c, size(), rank(), hosts(), row())); }
  void count(comm::traffic const& moved) { engine_.traffic() = engine_.traffic() + moved; }

  Engine engine_;
};

}  // namespace dovetail::comm
