// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <new>

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
  static constexpr scratch_plan scratch(shape const& in) { return {in.rank ? in[0] : 1, Vocabulary + 1}; }

  template <class Backend>
  static void forward(layer_call<Backend> const& c) {
    each_token(c, [&](std::int32_t token, std::int64_t b, std::int64_t t, std::int64_t row) {
      require<input_error>(token >= 0 && token < Vocabulary, "embedding: token ", token, " of sample ", b,
                           ", position ", t, " is outside [0, ", Vocabulary, "): check the vocabulary of the data");
      std::memcpy(c.y + row * Dim, c.weights + std::int64_t{token} * Dim, Dim * sizeof(float));
    });
  }
  /// Rows are sorted by token, so that those of a frequent one are added up as precisely as a bias's.
  template <class Backend>
  static void backward(layer_call<Backend> const& c) {
    auto const rows = static_cast<std::size_t>(c.in[0] * c.batch);
    auto* const ends = new (c.scratch) std::int32_t[Vocabulary + 1]();
    auto* const sorted = new (c.scratch + Vocabulary + 1) std::int32_t[rows];
    each_token(c, [&](std::int32_t token, std::int64_t, std::int64_t, std::int64_t) { ++ends[token + 1]; });
    for (int v = 0; v < Vocabulary; ++v) ends[v + 1] += ends[v];
    // ends[v] is where v's rows begin; with each that is placed it moves, to where they end.
    each_token(c, [&](std::int32_t token, std::int64_t, std::int64_t, std::int64_t row) {
      sorted[ends[token]++] = static_cast<std::int32_t>(row);
    });
    for (std::int32_t v = 0, begin = 0; v < Vocabulary; begin = ends[v++]) {
      if (begin == ends[v] && c.accumulate) continue;
      detail::sum_of_rows(
          c.dw + std::int64_t{v} * Dim, static_cast<std::size_t>(ends[v] - begin), Dim, c.accumulate,
          [&](std::size_t k) { return c.dy + std::int64_t{sorted[begin + static_cast<std::int32_t>(k)]} * Dim; });
    }
  }

 private:
  static void each_token(auto const& c, auto&& visit) {
    auto const steps = c.in[0];
    for (std::int64_t t = 0, row = 0; t < steps; ++t)
      for (std::int64_t b = 0; b < c.batch; ++b, ++row) visit(c.tokens[b * steps + t], b, t, row);
  }
};

}  // namespace dovetail::nn
