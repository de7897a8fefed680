// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>
#include <utility>

#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/layer_traits.hpp>
#include <dovetail/nn/wiring.hpp>

namespace dovetail::nn::detail {

/// A tensor of a network: which layer it belongs to, and what the layer says of it.
struct placed_tensor {
  int layer = 0;
  tensor_plan plan;
};

/// What a pack expanded in braces was evaluated for, from left to right: in_order({(f<Layers>(), 0)...}). A fold over a
/// comma would nest as deep as the network, and Clang ends at 256.
constexpr void in_order(std::initializer_list<int>) {}

/// The place of position I of a flat list with shapes, for messages.
template <class Shapes, std::size_t I, class = std::make_index_sequence<Shapes::nested ? path::longest - 1 : 0>>
struct place_of {
  using type = at<static_cast<int>(I), Shapes::value[I]>;
};
template <class Shapes, std::size_t I, class Within>
struct nested_place;
template <class Shapes, std::size_t I, std::size_t... K>
struct nested_place<Shapes, I, std::index_sequence<K...>> {
  using type = at<Shapes::paths[I].steps[0], Shapes::value[I], Shapes::paths[I].steps[K + 1]...>;
};
template <class Shapes, std::size_t I>
requires(Shapes::nested) struct place_of<Shapes, I, std::make_index_sequence<path::longest - 1>>
    : nested_place<Shapes, I, std::make_index_sequence<static_cast<std::size_t>(Shapes::paths[I].kept() - 1)>> {
};
template <class Shapes, std::size_t I>
using place = typename place_of<Shapes, I>::type;

/// Refuses the first layer that does not fit what comes before it. Shapes of a misfit are still computed, so that
/// one mistake gives one message.
template <class Shapes, class... Layers, std::size_t... I>
constexpr bool check_layers(std::index_sequence<I...>) {
  in_order({static_cast<int>(checked<Layers, place<Shapes, I>, I != Shapes::known, I == Shapes::first>())...});
  return true;
}
/// The same of a layer whose plan is no constant; asked after all fit, since a layer may plan for those inputs only.
template <class Shapes, class... Layers, std::size_t... I>
constexpr bool check_plans(std::index_sequence<I...>) {
  in_order({static_cast<int>(planned<Layers, place<Shapes, I>>())...});
  return true;
}
/// The same of a layer that `Backend` cannot compute.
template <class Backend, class Shapes, class... Layers, std::size_t... I>
constexpr bool check_calls(std::index_sequence<I...>) {
  in_order({static_cast<int>(computed<Layers, place<Shapes, I>, Backend>())...});
  return true;
}
/// Refuses a residual whose two paths give different shapes.
template <class Join>
struct sum_of;
template <class Block>
struct sum_of<mark<node::join, Block>> {
  template <class At, shape Other>
  static constexpr void check() {
    DOVETAIL_REQUIRE(
        At::input == Other,
        "a residual adds its input to the output of its layers, and they differ in shape: change that of the input by "
        "nn::residual<nn::shortcut<...>, ...>",
        Block, At, at<At::index, Other>);
  }
};
template <class L, class Shapes, std::size_t I>
constexpr bool checked_sum() {
  return true;
}
template <class Join, class Shapes, std::size_t I>
requires(node_of<Join> == node::join) constexpr bool checked_sum() {
  constexpr bool fits = Shapes::value[I] == Shapes::others[I];
  if constexpr (!fits) sum_of<Join>::template check<place<Shapes, I>, Shapes::others[I]>();
  return fits;
}
template <class Shapes, class... Layers, std::size_t... I>
constexpr bool check_sums(std::index_sequence<I...>) {
  if constexpr (Shapes::nested) in_order({static_cast<int>(checked_sum<Layers, Shapes, I>())...});
  return true;
}

template <shape Input, class... Layers>
struct inferred_shapes {
  static constexpr std::size_t depth = sizeof...(Layers);
  static constexpr std::array<node, depth> nodes{node_of<Layers>...};
  /// Whether there are blocks.
  static constexpr bool nested = [] {
    for (auto const n : nodes)
      if (n != node::layer) return true;
    return false;
  }();
  static constexpr auto paths = [] {
    if constexpr (nested)
      return paths_of(nodes);
    else
      return 0;
  }();
  static constexpr bool paths_fit = [] {
    if constexpr (nested)
      for (auto const& p : paths)
        if (!p.fits()) return false;
    return true;
  }();
  /// Where the first layer stands that reads the network's input.
  static constexpr std::size_t first = [] {
    std::size_t i = 0;
    while (i < depth && nodes[i] == node::open) ++i;
    return i;
  }();

  struct shapes {
    std::array<shape, depth + 1> value{};
    std::array<shape, depth + 1> others{};  ///< of the other path, where a residual ends
  };
  /// Shapes behind the first `count` layers; those behind others are the last of these.
  static constexpr shapes behind(std::size_t count) {
    shapes r{};
    auto& s = r.value;
    s[0] = Input;
    std::array<shape, nested ? depth : 1> forks{};
    std::size_t i = 0, top = 0;
    auto const turn = [&] {
      if (nodes[i] == node::fork || nodes[i] == node::fork_shortcut) forks[top++] = s[i];
      if (nodes[i] == node::turn) std::swap(s[i + 1], forks[top - 1]);
      if (nodes[i] == node::join) r.others[i] = forks[--top];
    };
    in_order({(s[i + 1] = i < count ? layer_traits<Layers>::output(s[i]) : s[i], nested ? turn() : void(), ++i, 0)...});
    return r;
  }
  /// As many layers as have an output that is a constant.
  template <std::size_t Count = depth>
  static consteval std::size_t count_known() {
    if constexpr (requires { typename std::bool_constant<(static_cast<void>(behind(Count)), true)>; })
      return Count;
    else
      return count_known<Count - 1>();
  }
  static constexpr std::size_t known = count_known();
  static constexpr auto all = behind(known);
  static constexpr auto const& value = all.value;
  static constexpr auto const& others = all.others;
};

constexpr bool without_empty_extents(shape const& s) {
  for (int i = 0; i < s.rank; ++i)
    if (s[i] < 1) return false;
  return true;
}

/// All that follows from a flat list of layers and marks, as plain arrays: computed once per network, no recursion over
/// types.
template <shape Input, class... Layers>
struct flat_plan {
  DOVETAIL_REQUIRE(without_empty_extents(Input), "every extent of a network's input is at least 1", at<0, Input>);
  using inferred = inferred_shapes<Input, Layers...>;
  DOVETAIL_REQUIRE(
      inferred::paths_fit,
      "blocks are nested too deeply: the path to a layer has at most 24 steps, one for each block around it "
      "and another for each shortcut",
      at<0, Input>);
  using indices = std::index_sequence_for<Layers...>;
  using layers = layer_list<Layers...>;
  static constexpr std::size_t depth = sizeof...(Layers);
  static constexpr bool nested = inferred::nested;
  static constexpr auto const& nodes = inferred::nodes;
  static constexpr auto const& paths = inferred::paths;
  static constexpr auto shapes = inferred::value;
  static_assert(check_layers<inferred, Layers...>(indices{}));
  static_assert(check_sums<inferred, Layers...>(indices{}));
  static_assert(check_plans<inferred, Layers...>(indices{}));
  template <class Backend>
  static constexpr bool computed_by = check_calls<Backend, inferred, Layers...>(indices{});

  static constexpr std::array<bool, depth> takes_tokens{layer_traits<Layers>::takes_tokens...};
  static constexpr std::array<bool, depth> may_run_in_place{layer_traits<Layers>::in_place...};
  static constexpr std::array<bool, depth> keeps_output{layer_traits<Layers>::keeps_output...};
  static constexpr auto wires = wire(nodes, may_run_in_place, keeps_output);
  static constexpr bool input_is_tokens =
      inferred::first < depth && takes_tokens[inferred::first < depth ? inferred::first : 0];

  static constexpr auto tensors_per_layer = [] {
    std::array<std::size_t, depth> n{};
    std::size_t i = 0;
    in_order({(n[i] = layer_traits<Layers>::parameters(shapes[i]).size(), ++i, 0)...});
    return n;
  }();
  static constexpr std::size_t tensor_count = [] {
    std::size_t n = 0;
    for (auto const k : tensors_per_layer) n += k;
    return n;
  }();
  static constexpr auto tensors = [] {
    std::array<placed_tensor, tensor_count> r{};
    std::size_t i = 0, at = 0;
    auto const place = [&](auto const& list) {
      for (auto const& t : list) r[at++] = {static_cast<int>(i), t};
      ++i;
    };
    in_order({(place(layer_traits<Layers>::parameters(shapes[i])), 0)...});
    return r;
  }();
  /// First flat index of layer i's weights; [depth] is their number.
  static constexpr auto offsets = [] {
    std::array<std::size_t, depth + 1> r{};
    for (auto const& t : tensors)
      r[static_cast<std::size_t>(t.layer) + 1] += static_cast<std::size_t>(t.plan.shape.size());
    for (std::size_t i = 0; i < depth; ++i) r[i + 1] += r[i];
    return r;
  }();
  /// The same of what is kept and not trained.
  static constexpr auto buffers_per_layer = [] {
    std::array<std::size_t, depth> n{};
    std::size_t i = 0;
    in_order({(n[i] = layer_traits<Layers>::buffers(shapes[i]).size(), ++i, 0)...});
    return n;
  }();
  static constexpr std::size_t buffer_count = [] {
    std::size_t n = 0;
    for (auto const k : buffers_per_layer) n += k;
    return n;
  }();
  static constexpr auto buffers = [] {
    std::array<placed_tensor, buffer_count> r{};
    std::size_t i = 0, at = 0;
    auto const place = [&](auto const& list) {
      for (auto const& t : list) r[at++] = {static_cast<int>(i), t};
      ++i;
    };
    if constexpr (buffer_count > 0) in_order({(place(layer_traits<Layers>::buffers(shapes[i])), 0)...});
    return r;
  }();
  static constexpr auto buffer_offsets = [] {
    std::array<std::size_t, depth + 1> r{};
    for (auto const& t : buffers)
      r[static_cast<std::size_t>(t.layer) + 1] += static_cast<std::size_t>(t.plan.shape.size());
    for (std::size_t i = 0; i < depth; ++i) r[i + 1] += r[i];
    return r;
  }();
  /// The first layer with weights: backward ends there, and nobody computes the gradient of its input.
  static constexpr std::size_t first_trained = [] {
    std::size_t i = 0;
    while (i < depth && tensors_per_layer[i] == 0) ++i;
    return i;
  }();

  static constexpr std::array<scratch_plan, depth> scratch = [] {
    std::array<scratch_plan, depth> r{};
    std::size_t i = 0;
    in_order({(r[i] = layer_traits<Layers>::scratch(shapes[i]), ++i, 0)...});
    return r;
  }();
  /// Floats per sample that live from forward to backward: outputs, in-place ones once, and what layers keep.
  static constexpr std::int64_t activation_floats = [] {
    std::int64_t n = 0;
    for (std::size_t i = 0; i < depth; ++i) n += (wires.owns[i] ? shapes[i + 1].size() : 0) + scratch[i].per_sample;
    return n;
  }();
  static constexpr std::int64_t largest_output = [] {
    std::int64_t n = 0;
    for (std::size_t i = 1; i <= depth; ++i) n = std::max(n, shapes[i].size());
    return n;
  }();
  static constexpr std::int64_t flops = [] {
    std::int64_t n = 0;
    std::size_t i = 0;
    in_order({(n += layer_traits<Layers>::flops(shapes[i]), ++i, 0)...});
    return n;
  }();
  /// The positions at which the Tops layers and blocks of the network's own list begin, and `depth`.
  template <std::size_t Tops>
  static constexpr std::array<std::size_t, Tops + 1> tops() {
    std::array<std::size_t, Tops + 1> r{};
    std::size_t at = 0;
    for (std::size_t i = 0; i < depth; ++i) {
      if constexpr (nested) {
        bool const begins = nodes[i] != node::close && nodes[i] != node::join && nodes[i] != node::turn;
        if (paths[i].length > 1 || !begins) continue;
      }
      r[at++] = i;
    }
    r[Tops] = depth;
    return r;
  }
};

/// Of an array with an entry per position of a plan, and one behind, those of the layers and blocks of its own list.
template <class Plan, std::size_t Tops, class T>
constexpr std::array<T, Tops + 1> of_own_list(std::array<T, Plan::depth + 1> const& all) {
  if constexpr (Plan::nested) {
    constexpr auto at = Plan::template tops<Tops>();
    std::array<T, Tops + 1> r{};
    for (std::size_t i = 0; i < at.size(); ++i) r[i] = all[at[i]];
    return r;
  } else {
    return all;
  }
}

template <shape Input, class List>
struct plan_of_list;
template <shape Input, class... Layers>
struct plan_of_list<Input, layer_list<Layers...>> {
  using type = flat_plan<Input, Layers...>;
};
/// Whether there are blocks among some; no fold, since Clang ends those at 256.
constexpr bool any_of(std::initializer_list<bool> all) {
  for (bool const one : all)
    if (one) return true;
  return false;
}
template <shape Input, bool Nested, class... Layers>
struct plan_for {
  using type = flat_plan<Input, Layers...>;
};
template <shape Input, class... Layers>
struct plan_for<Input, true, Layers...> : plan_of_list<Input, flat_list<Layers...>> {};
/// That of a network's list, with its blocks taken apart.
template <shape Input, class... Layers>
using plan = typename plan_for<Input, any_of({expanded<Layers>::is_block...}), Layers...>::type;

}  // namespace dovetail::nn::detail
