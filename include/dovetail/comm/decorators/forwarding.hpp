// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/communicator_traits.hpp>
#include <dovetail/comm/envelope.hpp>
#include <dovetail/comm/topology.hpp>

namespace dovetail::comm {

namespace detail {
/// Whether it is one rank's end of a group; what is not is a world, where such ends come from.
template <class C>
concept one_ranks_end = requires(C const& c) {
  c.rank();
  c.size();
  c.traffic();
};
template <class C>
concept receives_any = requires(C& c, std::vector<std::byte>& data) {
  c.probe(0, 0);
  c.wait_message(0, 0);
  c.recv(data, 0, 0);
};
}  // namespace detail

/// The base of what stands around a communicator: all of its operations, each passed on to the communicator through
///
///     template <class F> void around(comm::call const& c, F const& operation);   // by default: operation()
///
/// of Derived; what a Derived declares itself is called in its stead. split, duplicate and shrink are wrapped again:
/// Derived::wrap(part). It holds a communicator of its own, or refers to the caller's, which must then outlive it.
/// Around a world of one rank a process (comm::self, comm::mpi) it is such a world, too.
template <class Derived, class C>
class forwarding {
  static_assert(detail::must_be_a_communicator<C>::holds);

 public:
  using communicator = Derived;
  static constexpr sum_order sums = communicator_traits<C>::sums;

  explicit forwarding(C& inner) : inner_(&inner) {}
  explicit forwarding(C&& inner) : own_(std::move(inner)) {}
  /// What it stands around.
  C& inner() { return own_ ? *own_ : *inner_; }
  C const& inner() const { return own_ ? *own_ : *inner_; }

  int rank() const { return inner().rank(); }
  int size() const { return inner().size(); }
  comm::traffic traffic() const { return inner().traffic(); }
  comm::topology topology() const { return topology_of(inner()); }
  void about(subject const& s) {
    about_ = s;
    if constexpr (communicator_traits<C>::has_about) inner().about(s);
  }
  void allow_other_thread() {
    if constexpr (communicator_traits<C>::asks_for_threads) inner().allow_other_thread();
  }
  bool has_spare_core() const {
    if constexpr (communicator_traits<C>::knows_cores)
      return inner().has_spare_core();
    else
      return true;
  }
  auto away() { return inner().away(); }

  template <class T>
  void all_reduce(std::span<T> data, reduction how = reduction::sum) {
    self().around(a_call<T>(operation::all_reduce, data.size(), -1, how), [&] { inner().all_reduce(data, how); });
  }
  template <class T>
  void reduce_scatter(std::span<T> data, reduction how = reduction::sum) {
    self().around(a_call<T>(operation::reduce_scatter, data.size(), -1, how), [&] {
      if (how == reduction::sum)
        inner().reduce_scatter(data);  // all that a communicator must have
      else if constexpr (requires { inner().reduce_scatter(data, how); })
        inner().reduce_scatter(data, how);
      else
        throw argument_error(message("reduce_scatter(", name_of(how), "): the communicator has sums only"));
    });
  }
  template <class T>
  void all_gather(std::span<T> data) {
    self().around(a_call<T>(operation::all_gather, data.size()), [&] { inner().all_gather(data); });
  }
  template <class T>
  void all_gather(std::type_identity_t<std::span<T const>> in, std::span<T> out) {
    self().around(a_call<T>(operation::all_gather, out.size()), [&] { inner().all_gather(in, out); });
  }
  std::vector<std::size_t> all_gather_v(std::span<std::byte const> in, std::vector<std::byte>& all) {
    std::vector<std::size_t> offsets;
    self().around(a_call<std::byte>(operation::all_gather_v, 0), [&] { offsets = inner().all_gather_v(in, all); });
    return offsets;
  }
  template <class T>
  void all_to_all(std::type_identity_t<std::span<T const>> in, std::span<T> out) {
    self().around(a_call<T>(operation::all_to_all, in.size()), [&] { inner().all_to_all(in, out); });
  }
  template <class T>
  void broadcast(std::span<T> data, int root) {
    self().around(a_call<T>(operation::broadcast, data.size(), root), [&] { inner().broadcast(data, root); });
  }
  void send(std::span<std::byte const> data, int to, int tag = 0) {
    self().around(a_call<std::byte>(operation::send, data.size(), to), [&] { inner().send(data, to, tag); });
  }
  void recv(std::span<std::byte> data, int from, int tag = 0) {
    self().around(a_call<std::byte>(operation::recv, data.size(), from), [&] { inner().recv(data, from, tag); });
  }
  envelope recv(std::vector<std::byte>& data, int from = any_rank, int tag = any_tag) requires detail::receives_any<C> {
    envelope m;
    self().around(a_call<std::byte>(operation::wait_message, 0, from), [&] { m = inner().recv(data, from, tag); });
    return m;
  }
  void sendrecv(std::span<std::byte const> out, int to, std::span<std::byte> in, int from, int tag = 0) {
    self().send(out, to, tag);
    self().recv(in, from, tag);
  }
  envelope wait_message(int from = any_rank, int tag = any_tag) requires detail::receives_any<C> {
    envelope m;
    self().around(a_call<std::byte>(operation::wait_message, 0, from), [&] { m = inner().wait_message(from, tag); });
    return m;
  }
  std::optional<envelope> probe(int from = any_rank, int tag = any_tag) requires detail::receives_any<C> {
    return inner().probe(from, tag);
  }
  void barrier() {
    self().around(a_call<std::byte>(operation::barrier, 0), [&] { inner().barrier(); });
  }

  auto split(int color, int key) {
    return part(operation::split, [&] { return inner().split(color, key); });
  }
  auto duplicate() requires requires(C& c) { c.duplicate(); }
  {
    return part(operation::split, [&] { return inner().duplicate(); });
  }
  auto shrink() requires requires(C& c) { c.shrink(); }
  {
    return part(operation::shrink, [&] { return inner().shrink(); });
  }
  std::vector<int> lost_ranks() const requires requires(C const& c) { c.lost_ranks(); }
  { return inner().lost_ranks(); }
  void abort(std::string const& why) requires requires(C& c) { c.abort(why); }
  { inner().abort(why); }

  /// Where the communicator is a world.
  template <class F>
  void run(F&& f) requires requires(C& c, void (*g)(C&)) {
    c.run(g);
  }
  {
    inner().run([&](auto&) { std::invoke(std::forward<F>(f), self()); });
  }

  /// What a Derived has instead, if it wants.
  template <class F>
  void around(call const&, F const& operation) {
    operation();
  }

 protected:
  template <class T>
  call a_call(operation op, std::size_t count, int root = -1, reduction how = reduction::sum) const {
    return {op, dtype_of<T>(), how, root, count, about_};
  }
  subject const& subject_of_calls() const { return about_; }

 private:
  Derived& self() { return static_cast<Derived&>(*this); }
  template <class Make>
  auto part(operation op, Make const& make) {
    std::optional<decltype(make())> made;
    self().around(a_call<std::byte>(op, 0), [&] { made.emplace(make()); });
    return self().wrap(std::move(*made));
  }

  std::optional<C> own_;
  C* inner_ = nullptr;
  subject about_;
};

}  // namespace dovetail::comm
