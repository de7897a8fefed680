// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>
#include <type_traits>

#include <dovetail/core/refuse.hpp>
#include <dovetail/nn/layer.hpp>

// Blocks: layers that stand in a list as one. A network takes them apart into one flat list, so that each layer inside
// has a place, noise, weights and a plan of its own, as every other one has; where a block begins and ends, marks in
// the list say.
namespace dovetail::nn {

/// Layers one behind the other: y = f(x). Its tensors are named by their place in it: "1.0.weight".
template <class... Layers>
struct sequence {};

/// The other path of a residual, which must be the first in its list; its tensors are called "1.shortcut.0.weight".
template <class... Layers>
struct shortcut {};

/// y = x + f(x), of an f that keeps the shape; y = s(x) + f(x) of residual<shortcut<S...>, F...>, whose two paths must
/// give the same shape. He et al., Deep residual learning for image recognition, CVPR 2016. Tensors of f are named
/// "1.0.weight", whether there is a shortcut or not.
template <class... Layers>
struct residual {};

namespace detail {

template <class... Layers>
struct layer_list {};

/// What stands in the flat list of a network: a layer, or a mark.
enum class node : std::uint8_t {
  layer,
  open,           ///< a sequence begins
  close,          ///< and ends
  fork,           ///< a residual begins: what comes here is wanted again
  fork_shortcut,  ///< the same, and the path that comes first is the shortcut
  turn,           ///< the shortcut ends, and the other path begins
  join            ///< a residual ends: the sum of both paths
};

/// A mark, in the form of a layer that does nothing. `Block` is the residual that ends.
template <node Kind, class Block = void>
struct mark {
  static constexpr bool keeps_output = false;
  static constexpr shape output(shape const& in) { return in; }
  static constexpr std::int64_t flops(shape const& in) { return Kind == node::join ? in.size() : 0; }
  static void forward(auto const&) {}
  static void backward(auto const&) {}
};
template <class L>
inline constexpr node node_of = node::layer;
template <node Kind, class Block>
inline constexpr node node_of<mark<Kind, Block>> = Kind;

/// One list of some: eight at a time, so that many are no deep recursion.
template <class... Lists>
struct concatenated {
  using type = layer_list<>;
};
template <class... A>
struct concatenated<layer_list<A...>> {
  using type = layer_list<A...>;
};
template <class... A, class... B, class... Rest>
struct concatenated<layer_list<A...>, layer_list<B...>, Rest...> : concatenated<layer_list<A..., B...>, Rest...> {};
template <class... A, class... B, class... C, class... D, class... E, class... F, class... G, class... H, class... Rest>
struct concatenated<layer_list<A...>, layer_list<B...>, layer_list<C...>, layer_list<D...>, layer_list<E...>,
                    layer_list<F...>, layer_list<G...>, layer_list<H...>, Rest...>
    : concatenated<layer_list<A..., B..., C..., D..., E..., F..., G..., H...>, Rest...> {};

/// A layer or a block as a flat list.
template <class L>
struct expanded {
  static constexpr bool is_block = false;
  using type = layer_list<L>;
};
template <class... Layers>
using flat_list = typename concatenated<typename expanded<Layers>::type...>::type;

template <class... Layers>
struct expanded<sequence<Layers...>> {
  static constexpr bool is_block = true;
  DOVETAIL_REQUIRE(sizeof...(Layers) > 0, "a sequence needs at least one layer", sequence<Layers...>);
  using type =
      typename concatenated<layer_list<mark<node::open>>, flat_list<Layers...>, layer_list<mark<node::close>>>::type;
};
template <class... Layers>
struct expanded<residual<Layers...>> {
  static constexpr bool is_block = true;
  DOVETAIL_REQUIRE(sizeof...(Layers) > 0, "a residual needs at least one layer", residual<Layers...>);
  using type = typename concatenated<layer_list<mark<node::fork>>, flat_list<Layers...>,
                                     layer_list<mark<node::join, residual<Layers...>>>>::type;
};
template <class... Side, class... Layers>
struct expanded<residual<shortcut<Side...>, Layers...>> {
  using block = residual<shortcut<Side...>, Layers...>;
  static constexpr bool is_block = true;
  DOVETAIL_REQUIRE(sizeof...(Side) > 0 && sizeof...(Layers) > 0,
                   "a residual with a shortcut needs at least one layer on either path", block);
  using type =
      typename concatenated<layer_list<mark<node::fork_shortcut>>, flat_list<Side...>, layer_list<mark<node::turn>>,
                            flat_list<Layers...>, layer_list<mark<node::join, block>>>::type;
};
template <class... Layers>
struct expanded<shortcut<Layers...>> {
  static constexpr bool is_block = true;
  template <class L>
  static constexpr bool stands_first = false;
  DOVETAIL_REQUIRE(stands_first<shortcut<Layers...>>, "a shortcut must be the first in the list of a residual",
                   shortcut<Layers...>);
  using type = layer_list<>;
};

}  // namespace detail
}  // namespace dovetail::nn
