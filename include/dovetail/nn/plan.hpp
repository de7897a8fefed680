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

namespace dovetail::nn::detail {

/// A tensor of a network: which layer it belongs to, and what the layer says of it.
struct placed_tensor {
  int layer = 0;
  tensor_plan plan;
};

/// What a pack expanded in braces was evaluated for, from left to right: in_order({(f<Layers>(), 0)...}). A fold over a
/// comma would nest as deep as the network, and Clang ends at 256.
constexpr void in_order(std::initializer_list<int>) {}

/// Refuses the first layer that does not fit what comes before it. Shapes of a misfit are still computed, so that
/// one mistake gives one message.
template <class Shapes, class... Layers, std::size_t... I>
constexpr bool check_layers(std::index_sequence<I...>) {
  in_order({static_cast<int>(checked<Layers, at<static_cast<int>(I), Shapes::value[I]>, I != Shapes::known>())...});
  return true;
}
/// The same of a layer whose plan is no constant; asked after all fit, since a layer may plan for those inputs only.
template <class Shapes, class... Layers, std::size_t... I>
constexpr bool check_plans(std::index_sequence<I...>) {
  in_order({static_cast<int>(planned<Layers, at<static_cast<int>(I), Shapes::value[I]>>())...});
  return true;
}
/// The same of a layer that `Backend` cannot compute.
template <class Backend, class Shapes, class... Layers, std::size_t... I>
constexpr bool check_calls(std::index_sequence<I...>) {
  in_order({static_cast<int>(computed<Layers, at<static_cast<int>(I), Shapes::value[I]>, Backend>())...});
  return true;
}

template <shape Input, class... Layers>
struct inferred_shapes {
  /// Shapes behind the first `count` layers; those behind others are the last of these.
  static constexpr auto behind(std::size_t count) {
    std::array<shape, sizeof...(Layers) + 1> s{Input};
    std::size_t i = 0;
    in_order({(s[i + 1] = i < count ? layer_traits<Layers>::output(s[i]) : s[i], ++i, 0)...});
    return s;
  }
  /// As many layers as have an output that is a constant.
  template <std::size_t Count = sizeof...(Layers)>
  static consteval std::size_t count_known() {
    if constexpr (requires { typename std::bool_constant<(static_cast<void>(behind(Count)), true)>; })
      return Count;
    else
      return count_known<Count - 1>();
  }
  static constexpr std::size_t known = count_known();
  static constexpr auto value = behind(known);
};

constexpr bool without_empty_extents(shape const& s) {
  for (int i = 0; i < s.rank; ++i)
    if (s[i] < 1) return false;
  return true;
}

/// All that follows from a list of layers, as plain arrays: computed once per network, no recursion over types.
template <shape Input, class... Layers>
struct plan {
  DOVETAIL_REQUIRE(without_empty_extents(Input), "every extent of a network's input is at least 1", at<0, Input>);
  static constexpr std::size_t depth = sizeof...(Layers);
  static constexpr auto shapes = inferred_shapes<Input, Layers...>::value;
  static_assert(check_layers<inferred_shapes<Input, Layers...>, Layers...>(std::index_sequence_for<Layers...>{}));
  static_assert(check_plans<inferred_shapes<Input, Layers...>, Layers...>(std::index_sequence_for<Layers...>{}));
  template <class Backend>
  static constexpr bool computed_by =
      check_calls<Backend, inferred_shapes<Input, Layers...>, Layers...>(std::index_sequence_for<Layers...>{});

  static constexpr std::array<bool, depth> takes_tokens{layer_traits<Layers>::takes_tokens...};
  static constexpr std::array<bool, depth> may_run_in_place{layer_traits<Layers>::in_place...};
  static constexpr std::array<bool, depth> keeps_output{layer_traits<Layers>::keeps_output...};
  /// Layer i writes its output over its input. The first never does: its input is the caller's.
  static constexpr auto in_place = [] {
    std::array<bool, depth> r{};
    for (std::size_t i = 1; i < depth; ++i) r[i] = may_run_in_place[i] && !keeps_output[i - 1];
    return r;
  }();

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
    for (std::size_t i = 0; i < depth; ++i) n += (in_place[i] ? 0 : shapes[i + 1].size()) + scratch[i].per_sample;
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
};

}  // namespace dovetail::nn::detail
