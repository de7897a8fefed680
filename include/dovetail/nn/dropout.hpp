// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>
#include <cstring>

#include <dovetail/core/philox.hpp>
#include <dovetail/nn/layer.hpp>

namespace dovetail::nn {

namespace detail {
/// to[i] = from[i] / (1 - rate) where element i of the stream says keep, else 0. Elements [begin, end), begin % 4 == 0.
DOVETAIL_NOINLINE inline void drop(float* to, float const* from, std::size_t begin, std::size_t end, float rate,
                                   random_stream const& random) {
  float const kept = 1.f / (1.f - rate);
  for (std::size_t i = begin; i < end; i += 4) {
    auto const words = random.words(static_cast<std::uint32_t>(i / 4));
    for (std::size_t k = 0; k < 4 && i + k < end; ++k)
      to[i + k] = random_stream::to_uniform(words[k]) >= rate ? from[i + k] * kept : 0.f;
  }
}
}  // namespace detail

/// Each element is zero with probability Rate while training, the others are divided by 1 - Rate; nothing happens
/// otherwise. The mask comes from the stream (seed, layer, step, rank) and is made again for the backward pass, so it
/// takes no memory and no state. Srivastava et al. 2014.
template <float Rate>
struct dropout {
  static constexpr bool in_place = true;
  static constexpr bool keeps_output = false;

  template <class At>
  static constexpr void check() {
    DOVETAIL_REQUIRE(Rate >= 0 && Rate < 1, "dropout<Rate> needs a rate in [0, 1)", dropout, At);
  }
  static constexpr shape output(shape const& in) { return in; }

  template <class Backend>
  static void forward(layer_call<Backend> const& c) {
    apply(c, c.y, c.x);
  }
  template <class Backend>
  static void backward(layer_call<Backend> const& c) {
    if (c.dx) apply(c, c.dx, c.dy);
  }

 private:
  static void apply(auto const& c, float* to, float const* from) {
    auto const n = static_cast<std::size_t>(c.out_size());
    if (c.training && Rate > 0)
      c.backend.parallel(
          n, [&](std::size_t begin, std::size_t end) { detail::drop(to, from, begin, end, Rate, c.noise); });
    else if (to != from)
      std::memcpy(to, from, n * sizeof(float));
  }
};

}  // namespace dovetail::nn
