// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <dovetail/nn/block.hpp>

// What reads what in a flat list of layers and marks. Activations are numbered: 0 is the network's input, i + 1 what
// position i gives.
namespace dovetail::nn::detail {

template <std::size_t N>
struct wiring {
  std::array<std::size_t, N> source{};  ///< activation that position i reads
  std::array<std::size_t, N> other{};   ///< a join's second one
  std::array<std::size_t, N> level{};   ///< of a fork, a turn and a join: residuals around its own
  std::array<bool, N> in_place{};       ///< writes its output over its input
  std::array<bool, N> owns{};           ///< has memory for its output
  std::size_t result = 0;               ///< activation that the network ends in
  std::size_t levels = 0;               ///< residuals in residuals, at most
};

/// An output overwrites an input that nobody else reads, if neither backward pass wants it. The network's input is the
/// caller's and never overwritten.
template <std::size_t N>
constexpr wiring<N> wire(std::array<node, N> const& nodes, std::array<bool, N> const& may_run_in_place,
                         std::array<bool, N> const& keeps_output) {
  wiring<N> w;
  std::array<std::size_t, N + 1> readers{}, forks{};
  std::size_t depth = 0, now = 0;
  for (std::size_t i = 0; i < N; ++i) {
    w.source[i] = now;
    switch (nodes[i]) {
      case node::layer:
        ++readers[now];
        now = i + 1;
        break;
      case node::fork:
      case node::fork_shortcut:
        w.level[i] = depth;
        forks[depth++] = now;
        if (depth > w.levels) w.levels = depth;
        break;
      case node::turn:
        w.level[i] = depth - 1;
        std::swap(now, forks[depth - 1]);
        break;
      case node::join:
        w.level[i] = --depth;
        w.other[i] = forks[depth];
        ++readers[now];
        ++readers[forks[depth]];
        now = i + 1;
        break;
      case node::open:
      case node::close:
        break;
    }
  }
  w.result = now;
  for (std::size_t i = 0; i < N; ++i) {
    if (nodes[i] != node::layer && nodes[i] != node::join) continue;
    std::size_t const v = w.source[i];
    bool const may = nodes[i] == node::join || may_run_in_place[i];
    w.in_place[i] = may && v > 0 && readers[v] == 1 && !keeps_output[v - 1];
    w.owns[i] = !w.in_place[i];
  }
  return w;
}

/// Where something stands: its place in the network, in the block there, and so on. What is deeper than `longest` is
/// counted and not kept, so that the network can say so.
struct path {
  static constexpr int of_shortcut = -1, longest = 24;
  int length = 1;
  std::array<int, longest> steps{};

  constexpr void enter(int first = 0) {
    ++length;
    last() = first;
  }
  constexpr void leave() { --length; }
  constexpr int& last() { return steps[static_cast<std::size_t>(kept() - 1)]; }
  constexpr int kept() const { return fits() ? length : longest; }
  constexpr bool fits() const { return length <= longest; }
};

/// The path of each position; a mark's is that of its block.
template <std::size_t N>
constexpr std::array<path, N> paths_of(std::array<node, N> const& nodes) {
  std::array<path, N> all{};
  path p;
  for (std::size_t i = 0; i < N; ++i) {
    if (nodes[i] == node::close || nodes[i] == node::join) p.leave();
    if (nodes[i] == node::turn) {
      p.leave();
      p.last() = 0;
    }
    all[i] = p;
    switch (nodes[i]) {
      case node::layer:
      case node::close:
      case node::join:
        ++p.last();
        break;
      case node::fork_shortcut:
        p.enter(path::of_shortcut);
        p.enter();
        break;
      case node::open:
      case node::fork:
        p.enter();
        break;
      case node::turn:
        break;
    }
  }
  return all;
}

}  // namespace dovetail::nn::detail
