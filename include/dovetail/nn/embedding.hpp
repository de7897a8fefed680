// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstring>

#include <dovetail/core/error.hpp>
#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

/// A row of a table for each token: {T} tokens -> {T, D}. Tensor: weight {V, D}, standard normal at first.
/// Throws input_error on a token outside [0, V).
template <int Vocabulary, int Dim>
struct embedding {
  static constexpr bool takes_tokens = true;
  static constexpr bool keeps_output = false;

  template <class At>
  static constexpr void check() {
    DOVETAIL_REQUIRE(Vocabulary > 0 && Dim > 0, "an embedding needs a vocabulary and a dimension", embedding, At);
    DOVETAIL_REQUIRE(At::input.rank == 1, "an embedding reads tokens: the network's input must be nn::shape{steps}",
                     embedding, At);
  }
  static constexpr shape output(shape const& in) { return {in.rank ? in[0] : 1, Dim}; }
  static constexpr auto parameters(shape const&) {
    return std::array{tensor_plan{"weight", {Vocabulary, Dim}, initial::normal}};
  }
  static constexpr std::int64_t flops(shape const&) { return 0; }

  template <class Backend>
  static void forward(layer_call<Backend> const& c) {
    each_token(c, [&](std::int32_t token, std::int64_t b, std::int64_t t, std::int64_t row) {
      require<input_error>(token >= 0 && token < Vocabulary, "embedding: token ", token, " of sample ", b,
                           ", position ", t, " is outside [0, ", Vocabulary, "): check the vocabulary of the data");
      std::memcpy(c.y + row * Dim, c.weights + std::int64_t{token} * Dim, Dim * sizeof(float));
    });
  }
  template <class Backend>
  static void backward(layer_call<Backend> const& c) {
    if (!c.accumulate) std::memset(c.dw, 0, std::size_t{Vocabulary} * Dim * sizeof(float));
    each_token(c, [&](std::int32_t token, std::int64_t, std::int64_t, std::int64_t row) {
      detail::add_to(c.dw + std::int64_t{token} * Dim, c.dy + row * Dim, Dim);
    });
  }

 private:
  static void each_token(auto const& c, auto&& visit) {
    auto const steps = c.in[0];
    for (std::int64_t t = 0, row = 0; t < steps; ++t)
      for (std::int64_t b = 0; b < c.batch; ++b, ++row) visit(c.tokens[b * steps + t], b, t, row);
  }
};

}  // namespace dovetail::nn
