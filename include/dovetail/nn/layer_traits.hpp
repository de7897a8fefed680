// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/member_constant.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/nn/layer.hpp>

// The only place that looks at the members of layers (nn/layer.hpp lists them). A network is made of what stands here,
// and refuses a layer with a member that would be left out.

namespace dovetail::nn {

namespace detail {

/// Takes what a layer's `factors` gives.
struct factors_sink {
  void operator()(kfac_statistics) const {}
};

template <class T>
inline constexpr bool is_tensor_array = false;
template <std::size_t N>
inline constexpr bool is_tensor_array<std::array<tensor_plan, N>> = true;

namespace layer_members {
DOVETAIL_MEMBER(output)
DOVETAIL_MEMBER(check)
DOVETAIL_MEMBER(parameters)
DOVETAIL_MEMBER(buffers)
DOVETAIL_MEMBER(scratch)
DOVETAIL_MEMBER(flops)
DOVETAIL_MEMBER(factors)
DOVETAIL_MEMBER_CONSTANT(in_place)
DOVETAIL_MEMBER_CONSTANT(keeps_output)
DOVETAIL_MEMBER_CONSTANT(takes_tokens)
}  // namespace layer_members

}  // namespace detail

/// What a layer is and has: the answers of all questions that a network asks, with the defaults of nn/layer.hpp.
template <class L>
struct layer_traits {
  static constexpr bool in_place = detail::layer_members::in_place_or<L>(false);
  static constexpr bool keeps_output = detail::layer_members::keeps_output_or<L>(true);
  static constexpr bool takes_tokens = detail::layer_members::takes_tokens_or<L>(false);

  static constexpr bool has_parameters = requires(shape const& in) {
    requires detail::is_tensor_array<std::remove_cvref_t<decltype(L::parameters(in))>>;
  };
  static constexpr bool has_buffers = requires(shape const& in) {
    requires detail::is_tensor_array<std::remove_cvref_t<decltype(L::buffers(in))>>;
  };
  static constexpr bool has_scratch = requires(shape const& in) {
    { L::scratch(in) } -> std::convertible_to<scratch_plan>;
  };
  static constexpr bool has_flops = requires(shape const& in) {
    { L::flops(in) } -> std::convertible_to<std::int64_t>;
  };
  template <class At>
  static constexpr bool has_check = requires {
    { L::template check<At>() } -> std::same_as<void>;
  };
  template <class Backend>
  static constexpr bool has_forward = requires(layer_call<Backend> const& c) {
    L::forward(c);
  };
  template <class Backend>
  static constexpr bool has_backward = requires(layer_call<Backend> const& c) {
    L::backward(c);
  };
  template <class Backend>
  static constexpr bool has_factors = requires(layer_call<Backend> const& c, detail::factors_sink const& f) {
    L::factors(c, f);
  };

  /// Of what is no layer the input, so that one mistake gives one message.
  static constexpr shape output(shape const& in) {
    if constexpr (layer<L>)
      return L::output(in);
    else
      return in;
  }
  static constexpr auto parameters(shape const& in) {
    if constexpr (has_parameters)
      return L::parameters(in);
    else
      return std::array<tensor_plan, 0>{};
  }
  static constexpr auto buffers(shape const& in) {
    if constexpr (has_buffers)
      return L::buffers(in);
    else
      return std::array<tensor_plan, 0>{};
  }
  static constexpr scratch_plan scratch(shape const& in) {
    if constexpr (has_scratch)
      return L::scratch(in);
    else
      return {};
  }
  static constexpr std::int64_t flops(shape const& in) {
    if constexpr (has_flops)
      return L::flops(in);
    else
      return output(in).size();
  }
};

namespace detail {

/// Each breach of nn/layer.hpp, in the order in which they are looked for.
enum class layer_fault : std::uint8_t {
  none,
  no_layer,
  in_place,
  keeps_output,
  takes_tokens,
  parameters,
  buffers,
  scratch,
  flops,
  check,
  late_tokens
};

template <class L, class At, bool First>
consteval layer_fault fault_of_layer() {
  using enum layer_fault;
  using traits = layer_traits<L>;
  namespace members = layer_members;
  if constexpr (!layer<L>) {
    return no_layer;
  } else {
    if (members::in_place_misfits<L, bool>()) return in_place;
    if (members::keeps_output_misfits<L, bool>()) return keeps_output;
    if (members::takes_tokens_misfits<L, bool>()) return takes_tokens;
    // Names are looked for where a call is not possible only: a layer that is as it should be costs no more.
    if constexpr (!traits::has_parameters)
      if (members::has_parameters<L>) return parameters;
    if constexpr (!traits::has_buffers)
      if (members::has_buffers<L>) return buffers;
    if constexpr (!traits::has_scratch)
      if (members::has_scratch<L>) return scratch;
    if constexpr (!traits::has_flops)
      if (members::has_flops<L>) return flops;
    if constexpr (!traits::template has_check<At>)
      if (members::has_check<L>) return check;
    return traits::takes_tokens && !First ? late_tokens : none;
  }
}

/// Refuses a layer for its first breach.
template <class L, class At, layer_fault Fault>
struct check_layer {
  using enum layer_fault;
#define DOVETAIL_BREACH(fault, reason) DOVETAIL_REQUIRE(Fault != fault, reason, L, At)
  DOVETAIL_BREACH(no_layer, "not a layer: it needs `static constexpr shape output(shape const& in)`, see nn/layer.hpp");
  DOVETAIL_BREACH(in_place, "the layer's `in_place` is not `static constexpr bool in_place = ...`");
  DOVETAIL_BREACH(keeps_output, "the layer's `keeps_output` is not `static constexpr bool keeps_output = ...`");
  DOVETAIL_BREACH(takes_tokens, "the layer's `takes_tokens` is not `static constexpr bool takes_tokens = ...`");
  DOVETAIL_BREACH(parameters,
                  "the layer's `parameters` cannot be called as `static constexpr std::array<tensor_plan, N> "
                  "parameters(shape const& in)`");
  DOVETAIL_BREACH(buffers,
                  "the layer's `buffers` cannot be called as `static constexpr std::array<tensor_plan, N> "
                  "buffers(shape const& in)`");
  DOVETAIL_BREACH(scratch,
                  "the layer's `scratch` cannot be called as `static constexpr scratch_plan scratch(shape const& in)`");
  DOVETAIL_BREACH(flops,
                  "the layer's `flops` cannot be called as `static constexpr std::int64_t flops(shape const& in)`");
  DOVETAIL_BREACH(check, "the layer's `check` cannot be called as `template <class At> static constexpr void check()`");
  DOVETAIL_BREACH(late_tokens, "this layer reads tokens and must be the first of its network");
#undef DOVETAIL_BREACH
  static constexpr bool holds = Fault == none;
};
template <class L, class At>
struct check_layer<L, At, layer_fault::none> {
  static constexpr bool holds = true;
};

/// Refuses a layer that is not what nn/layer.hpp says, one whose output for its input is not known when it is compiled,
/// and then an input that the layer itself refuses.
template <class L, class At, bool Known, bool First>
constexpr bool checked() {
  if constexpr (!Known)  // a message is a type: only who needs one makes it
    DOVETAIL_REQUIRE(
        Known,
        "the layer's `output` is no constant for this input: it is a `static constexpr` function of a shape "
        "that throws nothing",
        L, At);
  constexpr auto fault = fault_of_layer<L, At, First>();
  static_assert(check_layer<L, At, fault>::holds);
  if constexpr (fault == layer_fault::none && layer_traits<L>::template has_check<At>) L::template check<At>();
  return true;
}

/// Refuses a layer whose plan for its input is not known when it is compiled.
template <class L, class At>
constexpr bool planned() {
  constexpr bool fits = requires {
    typename std::bool_constant<(static_cast<void>(layer_traits<L>::parameters(At::input)),
                                 static_cast<void>(layer_traits<L>::buffers(At::input)),
                                 static_cast<void>(layer_traits<L>::scratch(At::input)),
                                 static_cast<void>(layer_traits<L>::flops(At::input)), true)>;
  };
  if constexpr (!fits)
    DOVETAIL_REQUIRE(
        fits,
        "the layer's `parameters`, `buffers`, `scratch` or `flops` is no constant for this input: they are "
        "`static constexpr` functions of a shape that throw nothing",
        L, At);
  return fits;
}

/// Refuses a layer that cannot be computed by a backend.
template <class L, class At, class Backend>
constexpr bool computed() {
  using traits = layer_traits<L>;
  if constexpr (!traits::template has_forward<Backend>)
    DOVETAIL_REQUIRE(traits::template has_forward<Backend>,
                     "the layer's `forward` cannot be called as `static void forward(layer_call<Backend> const& call)`",
                     L, At, Backend);
  if constexpr (!traits::template has_backward<Backend>)
    DOVETAIL_REQUIRE(
        traits::template has_backward<Backend>,
        "the layer's `backward` cannot be called as `static void backward(layer_call<Backend> const& call)`", L, At,
        Backend);
  if constexpr (!traits::template has_factors<Backend>)
    DOVETAIL_REQUIRE(!layer_members::has_factors<L>,
                     "the layer's `factors` cannot be called as `static void factors(layer_call<Backend> const& call, "
                     "f)`, where f is called with kfac_statistics",
                     L, At, Backend);
  return true;
}

}  // namespace detail
}  // namespace dovetail::nn
