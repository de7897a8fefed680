// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <dovetail/comm/arguments.hpp>
#include <dovetail/comm/away.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/nccl/check.hpp>
#include <dovetail/comm/nccl/control.hpp>
#include <dovetail/comm/nccl/engine.hpp>
#include <dovetail/comm/nccl/file_control.hpp>
#include <dovetail/comm/nccl/options.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/volume.hpp>
#include <dovetail/core/cuda.hpp>
#include <dovetail/core/cuda_span.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shard.hpp>

namespace dovetail::comm {

/// The promise of an operation of comm::nccl: a cheap handle, copies mean the same operation. Used by the rank's
/// thread. It holds the communicator, also when the operation is done: until it is gone, or nccl_ticket{} was assigned
/// to it, the communicator does not end, and the other ranks wait for that.
class nccl_ticket {
 public:
  nccl_ticket() = default;  ///< of nothing: done

  /// Returns when the operation, and those before it, are done on this rank's device. Throws rank_lost, rank_diverged
  /// or comm_error where it failed; may be called again.
  void wait() const {
    if (work_) engine_->wait(*work_);
  }
  /// Whether wait() would return, or throw, at once.
  bool ready() const { return !work_ || engine_->ready(*work_); }
  /// Whether wait() would throw, as far as is known.
  bool failed() const { return work_ && engine_->failed(*work_); }
  /// What is queued on `stream` from now on waits for the operation; the host does not. An operation that has failed,
  /// and was ended, lets the stream go on: wait() for it before its numbers are used for good.
  void wait_on(cudaStream_t stream) const {
    if (!work_) return;
    auto const here = engine_->device().use();
    cuda::check(cudaStreamWaitEvent(stream, work_->done.get(), 0), "cudaStreamWaitEvent");
  }

 private:
  friend class nccl_queue;
  nccl_ticket(std::shared_ptr<detail::nccl_engine> e, std::shared_ptr<detail::nccl_work> w)
      : engine_(std::move(e)), work_(std::move(w)) {}
  std::shared_ptr<detail::nccl_engine> engine_;
  std::shared_ptr<detail::nccl_work> work_;
};

namespace detail {

template <class T>
cuda::device_span<T> nccl_span(cuda::device_span<T> s) {
  return s;
}
template <class T>
cuda::device_span<T> nccl_span(cuda::device_buffer<T>& b) {
  return b;
}
template <class T>
cuda::device_span<T const> nccl_span(cuda::device_buffer<T> const& b) {
  return b;
}
template <class D>
concept nccl_data = requires(D& d) {
  nccl_span(d);
};
template <class D, bool = nccl_data<D>>
struct nccl_element {
  using type = std::remove_const_t<typename decltype(nccl_span(std::declval<D&>()))::element_type>;
};
template <class D>
struct nccl_element<D, false> {
  DOVETAIL_REQUIRE(nccl_data<D>,
                   "comm::nccl moves what is in a device's memory, and this is not known to be there: give it a "
                   "cuda::device_buffer, or cuda::device_span{pointer, n} of a device's addresses",
                   D);
  using type = float;
};
template <class D>
using nccl_element_t = typename nccl_element<std::remove_reference_t<D>>::type;

}  // namespace detail

/// Starts operations on a stream; holds the communicator as tickets do. Arrays must stay alive and untouched, by host
/// and device, until the operation is done, but what is queued on the same stream before and behind it is in order with
/// it.
class nccl_queue {
 public:
  /// data[i] becomes, on every rank, the reduction of all ranks' data[i], in NCCL's order: see comm::nccl.
  template <class D>
  nccl_ticket all_reduce(D&& data, reduction how = reduction::sum) const {
    auto const s = writable<D, true>(data);
    using T = detail::nccl_element_t<D>;
    auto const c = call_of<T>(operation::all_reduce, how, -1, s.size());
    return start(c, "ncclAllReduce", [&, p = s.data()] {
      return ncclAllReduce(p, p, s.size(), detail::nccl_type<T>(), detail::nccl_operation(how), handle(), stream_);
    });
  }
  /// shard(n, size(), rank()) of data becomes the reduction; the rest of data is unspecified afterwards.
  template <class D>
  nccl_ticket reduce_scatter(D&& data, reduction how = reduction::sum) const {
    auto const s = writable<D, true>(data);
    using T = detail::nccl_element_t<D>;
    auto const c = call_of<T>(operation::reduce_scatter, how, -1, s.size());
    auto const own = shard(s.size(), size(), rank());
    auto const type = detail::nccl_type<T>();
    auto const with = detail::nccl_operation(how);
    return start(c, "ncclReduceScatter", [&, p = s.data()] {
      if (s.size() % ranks() == 0)
        return ncclReduceScatter(p, p + own.begin, own.size(), type, with, handle(), stream_);
      // NCCL scatters equal parts only: each part to its own rank.
      return together([&](auto const& call) {
        for (int r = 0; r < size(); ++r)
          if (auto const part = shard(s.size(), size(), r); !part.empty())
            call(ncclReduce(p + part.begin, p + part.begin, part.size(), type, with, r, handle(), stream_));
      });
    });
  }
  /// Every rank brings shard(n, size(), rank()) of data and gets all of it.
  template <class D>
  nccl_ticket all_gather(D&& data) const {
    auto const s = writable<D, false>(data);
    using T = detail::nccl_element_t<D>;
    auto const c = call_of<T>(operation::all_gather, reduction::sum, -1, s.size());
    auto const own = c.shard_bytes(size(), rank());
    return start(c, "ncclAllGather", [&, p = bytes_of(s)] {
      if (s.size() % ranks() == 0) return ncclAllGather(p + own.begin, p, own.size(), ncclUint8, handle(), stream_);
      return together([&](auto const& call) {
        for (int r = 0; r < size(); ++r)
          if (auto const part = c.shard_bytes(size(), r); !part.empty())
            call(ncclBroadcast(p + part.begin, p + part.begin, part.size(), ncclUint8, r, handle(), stream_));
      });
    });
  }
  /// out becomes the ranks' `in` one after another: out.size() == size() × in.size(). `in` may be its own place in out.
  template <class I, class D>
  nccl_ticket all_gather(I&& in, D&& out) const {
    auto const s = writable<D, false>(out);
    using T = detail::nccl_element_t<D>;
    cuda::device_span<T const> const from = readable<T>(in);
    detail::check_all_gather({from.data(), from.size(), s.data(), s.size()}, size(), rank());
    auto const c = call_of<T>(operation::all_gather, reduction::sum, -1, s.size());
    return start(c, "ncclAllGather",
                 [&] { return ncclAllGather(from.data(), s.data(), from.size_bytes(), ncclUint8, handle(), stream_); });
  }
  /// size() equal chunks each way: chunk q of `in` goes to rank q, which finds it as chunk rank(). No overlap.
  template <class I, class D>
  nccl_ticket all_to_all(I&& in, D&& out) const {
    auto const s = writable<D, false>(out);
    using T = detail::nccl_element_t<D>;
    cuda::device_span<T const> const from = readable<T>(in);
    detail::check_all_to_all({from.data(), from.size(), s.data(), s.size()}, size());
    auto const c = call_of<T>(operation::all_to_all, reduction::sum, -1, s.size());
    std::size_t const chunk = c.bytes() / ranks();
    return start(c, "ncclSend and ncclRecv", [&] {
      auto const* const p = reinterpret_cast<std::byte const*>(from.data());
      auto* const q = bytes_of(s);
      return together([&](auto const& call) {
        for (int r = 0; r < size(); ++r) {
          auto const at = static_cast<std::size_t>(r) * chunk;
          call(ncclSend(p + at, chunk, ncclUint8, r, handle(), stream_));
          call(ncclRecv(q + at, chunk, ncclUint8, r, handle(), stream_));
        }
      });
    });
  }
  /// data of rank `root` becomes data of every rank.
  template <class D>
  nccl_ticket broadcast(D&& data, int root) const {
    check_rank("broadcast from root ", root);
    auto const s = writable<D, false>(data);
    auto const c = call_of<detail::nccl_element_t<D>>(operation::broadcast, reduction::sum, root, s.size());
    return start(c, "ncclBroadcast",
                 [&, p = s.data()] { return ncclBroadcast(p, p, s.size_bytes(), ncclUint8, root, handle(), stream_); });
  }
  /// A message to rank `to`, which receives as many bytes. Nothing is copied meanwhile: it is done when `to` has it.
  template <class D>
  nccl_ticket send(D&& data, int to) const {
    check_rank("send to rank ", to);
    using T = detail::nccl_element_t<D>;
    cuda::device_span<T const> const s = readable<T>(data);
    auto const c = call_of<T>(operation::send, reduction::sum, to, s.size());
    return start(c, "ncclSend", [&] { return ncclSend(s.data(), s.size_bytes(), ncclUint8, to, handle(), stream_); });
  }
  /// The next message from rank `from`: there are no tags.
  template <class D>
  nccl_ticket recv(D&& data, int from) const {
    check_rank("recv from rank ", from);
    auto const s = writable<D, false>(data);
    auto const c = call_of<detail::nccl_element_t<D>>(operation::recv, reduction::sum, from, s.size());
    return start(c, "ncclRecv", [&] { return ncclRecv(s.data(), s.size_bytes(), ncclUint8, from, handle(), stream_); });
  }
  /// Both at once: all may call it. NCCL does not say which of the two was late: rank_lost is of the one that is known
  /// to be lost, or of rank -1.
  template <class I, class D>
  nccl_ticket sendrecv(I&& out, int to, D&& in, int from) const {
    check_rank("send to rank ", to);
    check_rank("recv from rank ", from);
    auto const s = writable<D, false>(in);
    using T = detail::nccl_element_t<D>;
    cuda::device_span<T const> const o = readable<T>(out);
    bool const sends = s.empty();  // only
    auto const c = sends ? call_of<T>(operation::send, reduction::sum, to, o.size())
                         : call_of<T>(operation::recv, reduction::sum, from, s.size());
    return queue(
        c, {o.size_bytes(), s.size_bytes(), 1}, "ncclSend and ncclRecv",
        [&] {
          return together([&](auto const& call) {
            if (!o.empty()) call(ncclSend(o.data(), o.size_bytes(), ncclUint8, to, handle(), stream_));
            if (!s.empty()) call(ncclRecv(s.data(), s.size_bytes(), ncclUint8, from, handle(), stream_));
          });
        },
        o.empty() && s.empty(), sends || o.empty() ? -1 : to);
  }
  /// Done when the streams of all ranks have come to it.
  nccl_ticket barrier() const {
    call const c{operation::barrier, dtype::u8, reduction::sum, -1, 0, engine_->about()};
    return queue(c, volume_of(c, size(), rank()), "ncclAllReduce",
                 [&, p = engine_->word()] { return ncclAllReduce(p, p, 1, ncclInt32, ncclSum, handle(), stream_); });
  }

 private:
  friend class nccl;
  nccl_queue(std::shared_ptr<detail::nccl_engine> e, cudaStream_t s) : engine_(std::move(e)), stream_(s) {}

  int rank() const { return engine_->rank(); }
  int size() const { return engine_->size(); }
  std::size_t ranks() const { return static_cast<std::size_t>(size()); }
  ncclComm_t handle() const { return engine_->handle(); }

  template <class T>
  call call_of(operation op, reduction how, int root, std::size_t n) const {
    static_assert(movable<T>, "comm::nccl moves numbers and bytes");
    return {op, dtype_of_element<T>(), how, root, n, engine_->about()};
  }
  template <class T>
  static constexpr dtype dtype_of_element() {
    if constexpr (std::is_same_v<T, std::byte>)
      return dtype::u8;
    else
      return dtype_of<T>();
  }
  /// The elements of `data`, which are not const.
  template <class D, bool Reduces, class X>
  static auto writable(X& data) {
    using T = detail::nccl_element_t<D>;
    if constexpr (Reduces)
      DOVETAIL_REQUIRE(
          detail::nccl_reducible<T>,
          "comm::nccl reduces what NCCL can: float, double, fp16, bf16, and integers of 32 and 64 bits and "
          "of 8 without a sign; it has none of 16",
          T);
    if constexpr (detail::nccl_data<std::remove_reference_t<D>>)
      return cuda::device_span<T>(detail::nccl_span(data));
    else
      return cuda::device_span<T>();
  }
  template <class T, class X>
  static cuda::device_span<T const> readable(X& data) {
    static_assert(std::is_same_v<T, detail::nccl_element_t<X>>, "both arrays must be of one type of element");
    if constexpr (detail::nccl_data<std::remove_reference_t<X>>)
      return detail::nccl_span(data);
    else
      return {};
  }
  template <class T>
  static std::byte* bytes_of(cuda::device_span<T> s) {
    return reinterpret_cast<std::byte*>(s.data());
  }
  void check_rank(char const* what, int r) const { detail::check_rank(what, r, size()); }
  /// Calls that NCCL makes one operation of; the first error, or what the end says.
  template <class F>
  static ncclResult_t together(F const& f) {
    ncclResult_t first = ncclGroupStart();
    f([&](ncclResult_t code) {
      if (detail::nccl_goes_on(first) && code != ncclSuccess) first = code;
    });
    ncclResult_t const end = ncclGroupEnd();  // also behind an error: groups nest
    return detail::nccl_goes_on(first) ? end : first;
  }
  /// NCCL's calls, which move what comm::endpoint would count of this one.
  template <class Calls>
  nccl_ticket start(call const& c, char const* name, Calls const& calls) const {
    return queue(c, volume_of(c, size(), rank()), name, calls, c.bytes() == 0);
  }
  /// Nothing to move is not NCCL's affair.
  template <class Calls>
  nccl_ticket queue(call const& c, comm::traffic const& moves, char const* name, Calls const& calls,
                    bool nothing = false, int also_to = -1) const {
    return {engine_, engine_->start(
                         c, stream_, moves, name, [&] { return nothing ? ncclSuccess : calls(); }, also_to)};
  }

  std::shared_ptr<detail::nccl_engine> engine_;
  cudaStream_t stream_;
};

/// One rank's end of a communicator over NCCL: collectives on arrays in a device's memory, by the names of
/// comm::endpoint. A call returns when the operation is done; on(stream) starts it and returns a ticket. A handle:
/// copies mean the same rank, and must not be used by two threads at once.
///
/// Ranks are those of a control communicator of the host's: threads, processes over MPI, or of a rendezvous file. It
/// carries NCCL's identifier, compares what ranks call, and knows who is lost. Each rank has a device: the caller's, or
/// its place on its host modulo the devices there. NCCL wants a device for each rank; ranks that share one, in tests,
/// are processes with a different NCCL_HOSTID each in their environment.
///
/// Sums are not in rank order: NCCL chooses an order by size, topology and version, rounds half types at every hop, and
/// may choose another one in the next run. It says that an all-reduce leaves identical copies on all ranks.
///
/// A rank that does not come within the deadline makes the others throw rank_lost; divergence makes them throw
/// rank_diverged; what no rank is to blame for is comm_error of rank -1. What ran on the device is ended first
/// (revoked, or aborted), so nothing waits behind it. Then every operation throws the same; shrink() makes a
/// communicator of those who are left. Construction is collective; the end of the last copy, queue and ticket waits for
/// that of the other ranks, up to the deadline, and never hangs.
class nccl {
 public:
  /// NCCL leaves identical copies on all ranks, of a sum in an order of its own, which may be another one in the next
  /// call.
  static constexpr sum_order sums = sum_order::same_on_all;

  /// The device is the rank's place on its host modulo the devices; the stream is one of its own.
  template <detail::nccl_controls C>
  explicit nccl(C& control, nccl_options options = {}) : nccl(control_of(control), std::nullopt, options) {}
  /// The caller's device and stream.
  template <detail::nccl_controls C>
  nccl(C& control, cuda::device const& where, nccl_options options = {}) : nccl(control_of(control), where, options) {}
  explicit nccl(nccl_rendezvous const& at, nccl_options options = {})
      : nccl(std::make_unique<detail::nccl_file_control>(at, options.deadline), std::nullopt, options) {}
  nccl(nccl_rendezvous const& at, cuda::device const& where, nccl_options options = {})
      : nccl(std::make_unique<detail::nccl_file_control>(at, options.deadline), where, options) {}

  int rank() const { return engine_->rank(); }
  int size() const { return engine_->size(); }
  /// The device, and the stream on which operations run that are given none.
  cuda::device const& device() const { return engine_->device(); }
  /// NCCL's communicator, which is non-blocking, for calls of NCCL's that are not here; it stays this object's. nullptr
  /// where it had to be aborted.
  ncclComm_t handle() const { return engine_->handle(); }
  /// What this rank has moved so far, of operations that are done: counted as comm::endpoint counts it.
  comm::traffic traffic() const { return engine_->traffic(); }
  /// Of which step, and of which bucket of it, the following collectives are: see comm::endpoint.
  void about(subject const& s) { engine_->about() = s; }

  /// Operations that are started on a stream of this rank's device and return tickets.
  nccl_queue on(cudaStream_t stream) const { return {engine_, stream}; }
  /// The same on device().stream.
  nccl_queue start() const { return {engine_, engine_->device().stream}; }

  template <class D>
  void all_reduce(D&& data, reduction how = reduction::sum) {
    start().all_reduce(data, how).wait();
  }
  template <class D>
  void reduce_scatter(D&& data, reduction how = reduction::sum) {
    start().reduce_scatter(data, how).wait();
  }
  template <class D>
  void all_gather(D&& data) {
    start().all_gather(data).wait();
  }
  template <class I, class D>
  void all_gather(I&& in, D&& out) {
    start().all_gather(in, out).wait();
  }
  template <class I, class D>
  void all_to_all(I&& in, D&& out) {
    start().all_to_all(in, out).wait();
  }
  template <class D>
  void broadcast(D&& data, int root) {
    start().broadcast(data, root).wait();
  }
  template <class D>
  void send(D&& data, int to) {
    start().send(data, to).wait();
  }
  template <class D>
  void recv(D&& data, int from) {
    start().recv(data, from).wait();
  }
  template <class I, class D>
  void sendrecv(I&& out, int to, D&& in, int from) {
    start().sendrecv(out, to, in, from).wait();
  }
  /// Returns when every rank has come, and what was queued on device().stream before is done.
  void barrier() { start().barrier().wait(); }
  /// Waits for all that was started.
  void wait() { engine_->wait_all(); }

  /// A communicator of the ranks that gave the same color (>= 0), ordered by (key, rank), on the same devices.
  nccl split(int color, int key) {
    require(color >= 0, "split: color ", color, ": colors are not negative");
    return nccl(engine_->split(color, key));
  }
  nccl duplicate() { return split(0, rank()); }
  std::vector<int> lost_ranks() const { return engine_->lost_ranks(); }
  /// A communicator of the ranks that are left, called by all of them, after rank_lost: the control communicator says
  /// who they are.
  nccl shrink() { return nccl(engine_->shrink()); }
  /// Ends it for all ranks. Not collective.
  void abort(std::string const& why) { engine_->abort(why); }
  /// As of comm::endpoint; the others wait at their next meeting (nccl_options::check).
  away_guard away() { return engine_->away(); }

 private:
  nccl(std::unique_ptr<detail::nccl_control> control, std::optional<cuda::device> where, nccl_options const& options)
      : engine_(std::make_shared<detail::nccl_engine>(std::move(control), where, options)) {}
  explicit nccl(std::shared_ptr<detail::nccl_engine> e) : engine_(std::move(e)) {}

  /// A duplicate: the caller's own operations on `control` do not mix with these.
  template <class C>
  static std::unique_ptr<detail::nccl_control> control_of(C& control) {
    auto own = control.split(0, control.rank());
    return std::make_unique<detail::nccl_control_of<decltype(own)>>(std::move(own));
  }

  std::shared_ptr<detail::nccl_engine> engine_;
};

}  // namespace dovetail::comm
