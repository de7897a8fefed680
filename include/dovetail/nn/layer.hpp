// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/philox.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shape.hpp>

namespace dovetail::nn {

/// Extents of one sample: shape{1, 28, 28} an image, shape{50} 50 features or tokens, shape{50, 64} a sequence.
using dovetail::shape;

/// How a tensor starts. `uniform` is PyTorch's default, U(-1/sqrt(fan), 1/sqrt(fan)).
enum class initial : std::uint8_t { uniform, normal, zero, one };

/// One tensor of a layer: its name without the layer's index, its extents, and how it starts.
struct tensor_plan {
  char const* name = "";
  dovetail::shape shape{};
  initial start = initial::uniform;
  std::int64_t fan = 1;
};

/// Floats that a layer keeps from forward to backward, beside its input and its output.
struct scratch_plan {
  std::int64_t per_sample = 0;
  std::int64_t fixed = 0;
};

/// The place of a layer in its network; compile errors print it.
template <int Index, shape Input>
struct at {
  static constexpr int index = Index;
  static constexpr dovetail::shape input = Input;
};

/// What a layer is handed. Inside a network activations lie so that every kernel finds contiguous rows:
///   {F}        batch × F
///   {T, F}     T × batch × F          (time-major: one step of all sequences is one matrix)
///   {C, H, W}  batch × H × W × C      (channels last)
/// Whatever its shape, an activation is `rows` × last extent (channels of an image).
template <class Backend>
struct layer_call {
  Backend& backend;
  std::int64_t batch = 0;
  shape in{}, out{};                     ///< of one sample
  float const* weights = nullptr;        ///< this layer's tensors, one behind the other
  float const* x = nullptr;              ///< input; the caller's own memory in the first layer
  std::int32_t const* tokens = nullptr;  ///< batch × T, for a first layer that takes tokens
  float* y = nullptr;                    ///< output
  float* scratch = nullptr;              ///< batch × per_sample + fixed floats
  bool training = false;                 ///< noise is wanted
  random_stream noise{};                 ///< this layer's own stream

  // Backward only.
  float* dy = nullptr;      ///< gradient of the output; may be overwritten
  float* dx = nullptr;      ///< gradient of the input; null when nobody reads it, dy itself in an in-place layer
  float* dw = nullptr;      ///< gradients of the tensors
  bool accumulate = false;  ///< add to dw instead of overwriting it

  float beta() const { return accumulate ? 1.f : 0.f; }
  std::int64_t in_size() const { return batch * in.size(); }
  std::int64_t out_size() const { return batch * out.size(); }
};

/// Number of rows of an activation of `batch` samples of shape `s`, and the width of a row.
constexpr std::int64_t width(shape const& s) { return s.rank == 0 ? 1 : s.rank == 3 ? s[0] : s[s.rank - 1]; }
constexpr std::int64_t rows(shape const& s, std::int64_t batch) { return batch * (s.size() / width(s)); }

/// A layer is a type of constants and static functions; it holds nothing. Needed: `output(shape)` and, for a backend,
/// `forward(layer_call)` and `backward(layer_call)`. Where they differ from the defaults below, it also says
///   check<at<Index, Input>>()   refuses an input with DOVETAIL_REQUIRE
///   parameters(shape)           std::array<tensor_plan, N>                        default: none
///   scratch(shape)              scratch_plan                                      default: none
///   flops(shape)                of a forward pass of one sample                   default: one per output
///   in_place                    y may overwrite x, and backward reads y, not x    default: false
///   keeps_output                backward reads y, so nobody may overwrite it      default: true
///   takes_tokens                reads `tokens`; must be first                     default: false
///   factors(layer_call, f)      before backward: calls f(kfac_statistics), core/batch.hpp     default: it has none
template <class L>
concept layer = requires(shape const& in) {
  { L::output(in) } -> std::same_as<shape>;
};

namespace detail {

template <class L>
constexpr auto parameters_of(shape const& in) {
  if constexpr (requires { L::parameters(in); })
    return L::parameters(in);
  else
    return std::array<tensor_plan, 0>{};
}
template <class L>
constexpr scratch_plan scratch_of(shape const& in) {
  if constexpr (requires { L::scratch(in); })
    return L::scratch(in);
  else
    return {};
}
template <class L>
constexpr std::int64_t flops_of(shape const& in) {
  if constexpr (requires { L::flops(in); })
    return L::flops(in);
  else
    return L::output(in).size();
}
template <class L>
constexpr bool in_place_of() {
  if constexpr (requires { L::in_place; })
    return L::in_place;
  else
    return false;
}
template <class L>
constexpr bool keeps_output_of() {
  if constexpr (requires { L::keeps_output; })
    return L::keeps_output;
  else
    return true;
}
template <class L>
constexpr bool takes_tokens_of() {
  if constexpr (requires { L::takes_tokens; })
    return L::takes_tokens;
  else
    return false;
}
template <class L, class At>
constexpr bool checked() {
  DOVETAIL_REQUIRE(layer<L>, "not a layer: it needs static shape output(shape), see nn/layer.hpp", L, At);
  if constexpr (takes_tokens_of<L>())
    DOVETAIL_REQUIRE(At::index == 0, "this layer reads tokens and must be the first of its network", L, At);
  if constexpr (requires { L::template check<At>(); }) L::template check<At>();
  return true;
}

}  // namespace detail
}  // namespace dovetail::nn
