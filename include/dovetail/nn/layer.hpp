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

/// The place of a layer in its network; compile errors print it. Within a block its place there follows, -1 for the
/// layers of a shortcut: at<1, shape, 0, 2> is the third layer of the first block of the second one.
template <int Index, shape Input, int... Within>
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
  float* buffers = nullptr;              ///< this layer's buffers, likewise
  float const* x = nullptr;              ///< input; the caller's own memory in the first layer
  std::int32_t const* tokens = nullptr;  ///< batch × T, for a first layer that takes tokens
  float* y = nullptr;                    ///< output
  float* scratch = nullptr;              ///< batch × per_sample + fixed floats
  bool training = false;                 ///< noise is wanted
  bool updates_buffers = false;          ///< forward in training: buffers take this batch in
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

/// A layer is a type of constants and static functions; it holds nothing. Needed are, for a backend,
///   static constexpr shape output(shape const&)
///   static void forward(layer_call<Backend> const&), static void backward(layer_call<Backend> const&)
/// Where they differ from the defaults below, it also says, all of it static and, but for `factors`, constexpr:
///   void check<at<Index, Input>>()                refuses an input with DOVETAIL_REQUIRE        default: takes any
///   std::array<tensor_plan, N> parameters(shape const&)                                         default: none
///   std::array<tensor_plan, N> buffers(shape const&)     what it keeps and does not train    default: none
///   scratch_plan scratch(shape const&)                                                          default: none
///   std::int64_t flops(shape const&)              of a forward pass of one sample               default: one an output
///   bool in_place                                 y may overwrite x, and backward reads y, not x  default: false
///   bool keeps_output                             backward reads y: nobody may overwrite it     default: true
///   bool takes_tokens                             reads `tokens`; must be first                 default: false
///   void factors(layer_call<Backend> const&, f)   before backward: calls f(kfac_statistics)     default: has none
/// A member of these names that cannot be used so is refused (nn/layer_traits.hpp).
template <class L>
concept layer = requires(shape const& in) {
  { L::output(in) } -> std::same_as<shape>;
};

}  // namespace dovetail::nn
