// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <type_traits>
#include <utility>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/decorators/decorated_world.hpp>
#include <dovetail/comm/decorators/forwarding.hpp>

namespace dovetail::comm {

/// A communicator with a function around its operations, made by decorate. The parts that split, duplicate and shrink
/// make have a copy of the function.
template <class C, class Decorator>
class decorated : public forwarding<decorated<C, Decorator>, C> {
  using base = forwarding<decorated<C, Decorator>, C>;

 public:
  template <class Inner>
  decorated(Inner&& inner, Decorator decorator) : base(std::forward<Inner>(inner)), decorator_(std::move(decorator)) {}

  Decorator const& decorator() const { return decorator_; }
  template <class F>
  void around(call const& c, F const& operation) {
    decorator_(base::inner(), c, operation);
  }
  template <class Part>
  auto wrap(Part part) const {
    return decorated<Part, Decorator>(std::move(part), decorator_);
  }

 private:
  Decorator decorator_;
};

/// `communicator` with `decorator(communicator&, comm::call const&, operation)` called for each of its operations,
/// which happens when the decorator calls operation():
///
///     auto timed = comm::decorate(comm, [](auto& inner, comm::call const& c, auto const& operation) {
///       auto const begin = std::chrono::steady_clock::now();
///       operation();
///       …
///     });
///
/// Refers to a communicator that is given by name, which must outlive it; holds one that is moved into it. Of a world:
/// a world of such communicators, each with a copy of the decorator, for a trainer. probe, lost_ranks, abort and away
/// are passed on without it.
template <class C, class Decorator>
auto decorate(C&& communicator, Decorator decorator) {
  using inner = std::remove_cvref_t<C>;
  if constexpr (detail::one_ranks_end<inner>)
    return decorated<inner, Decorator>(std::forward<C>(communicator), std::move(decorator));
  else
    return decorated_world(std::forward<C>(communicator), [decorator = std::move(decorator)](auto& c) {
      return decorated<std::remove_cvref_t<decltype(c)>, Decorator>(c, decorator);
    });
}

}  // namespace dovetail::comm
