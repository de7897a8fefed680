// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <functional>
#include <type_traits>
#include <utility>

namespace dovetail::comm {

/// A world whose communicators are those of another one with something around them: `wrap(communicator&)`. For a
/// trainer, which is given a world.
template <class World, class Wrap>
class decorated_world {
 public:
  template <class W>
  decorated_world(W&& world, Wrap wrap) : world_(std::forward<W>(world)), wrap_(std::move(wrap)) {}

  auto size() const requires requires(World const& w) { w.size(); }
  { return world_.size(); }
  template <class F>
  void run(F&& f) {
    world_.run([&](auto& c) {
      auto wrapped = wrap_(c);
      std::invoke(f, wrapped);
    });
  }

 private:
  World world_;
  Wrap wrap_;
};
template <class W, class Wrap>
decorated_world(W&&, Wrap) -> decorated_world<std::remove_cvref_t<W>, Wrap>;

}  // namespace dovetail::comm
