// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <cub/block/block_reduce.cuh>

#include <dovetail/optim/cuda/access.cuh>
#include <dovetail/optim/cuda/algebra_kernels.cuh>
#include <dovetail/optim/cuda/gradients.cuh>
#include <dovetail/optim/cuda/table.cuh>
#include <dovetail/optim/engine/plan.hpp>
#include <dovetail/optim/stage.hpp>

// What all kernels of a pass share: the chain on one element, sums over a piece, and where a piece's memory is.

namespace dovetail::optim::cuda::detail {

/// Pass P of a flow on one element, wherever that comes from.
template <class Flow, std::size_t P>
struct pass_math {
  static constexpr plan all = Flow::make();
  static constexpr pass_plan pass = all.pass[P];
  static constexpr std::size_t slots = Flow::slots;
  static constexpr bool reads(std::uint64_t bit) { return (pass.reads & bit) != 0; }
  static constexpr bool writes(std::uint64_t bit) { return (pass.writes & bit) != 0; }
  using kernels = typename Flow::kernels;

  /// What the pass begins with: the gradient, or the stored update.
  static constexpr std::uint64_t input_bit = pass.from_update ? update_bit : gradient_bit;

  using number = simd::element;

  kernels k;
  number factors[Flow::factors + 1];
  double sum[pass.sums() + 1] = {};

  /// What piece `c` needs of groups and tensors.
  __device__ void choose(piece const& c, kernels const* all_kernels, float const* all_factors) {
    k = all_kernels[c.group];
    if constexpr (P > 0)
      for (std::size_t f = 0; f < Flow::factors; ++f) factors[f] = all_factors[c.tensor * Flow::factors + f];
  }

  /// True if the pass loads the gradient beside the stored update.
  static constexpr bool both = all.loads_both(P);

  /// The chain on one element; `w`, `u` and `s` are changed as the pass writes them. `u` comes as the pass's input.
  __device__ __forceinline__ void element(float& w, float& u, [[maybe_unused]] float g, float* s) {
    optim::detail::element_of<number> x{w, u, both ? g : u};
    number own[slots + 1];
    each_slot([&](auto n) { own[n] = s[n]; });
    x.u = Flow::template run<pass.begin, pass.advance_from, pass.end>(k, x, own, factors);
    if constexpr (pass.update_norm) add<0>(x.u, x.u);
    if constexpr (pass.weight_norm) add<pass.update_norm>(x.w, x.w);
    if constexpr (pass.measured > 0) {
      auto const terms = Flow::template measure<pass.end>(k, x, own);
      [&]<std::size_t... M>(std::index_sequence<M...>) { (add<pass.own_sums() + M>(terms[M].a, terms[M].b), ...); }
      (std::make_index_sequence<pass.measured>{});
    }
    if constexpr (pass.applies) w = (x.w + x.u).v;
    if constexpr (pass.stores) u = x.u.v;
    each_slot([&](auto n) { s[n] = own[n].v; });
  }

  /// The block's sums become those of piece `p`.
  __device__ void leave_sums(double* partials, std::size_t p) const {
    if constexpr (pass.reduces) {
      using reduce = cub::BlockReduce<double, threads>;
      __shared__ typename reduce::TempStorage room;
      constexpr std::size_t count = pass.sums();
      for (std::size_t n = 0; n < count; ++n) {
        double const total = reduce(room).Sum(sum[n]);
        if (threadIdx.x == 0) partials[count * p + n] = total;
        __syncthreads();  // the room is used again
      }
    }
  }

  template <std::size_t I>
  __device__ __forceinline__ void add(number a, number b) {
    sum[I] += static_cast<double>(a.v) * static_cast<double>(b.v);
  }
  template <class F>
  __device__ __forceinline__ static void each_slot(F const& f) {
    [&]<std::size_t... S>(std::index_sequence<S...>) { (f(std::integral_constant<std::size_t, S>{}), ...); }
    (std::make_index_sequence<slots>{});
  }
  /// Four elements that were loaded together.
  __device__ __forceinline__ void four_lanes(four_of<float>& w, four_of<float>& u, four_of<float> const& g,
                                             four_of<float>* s) {
    lane<&four_of<float>::x>(w, u, g, s);
    lane<&four_of<float>::y>(w, u, g, s);
    lane<&four_of<float>::z>(w, u, g, s);
    lane<&four_of<float>::w>(w, u, g, s);
  }

 private:
  template <float four_of<float>::*Lane>
  __device__ __forceinline__ void lane(four_of<float>& w, four_of<float>& u, four_of<float> const& g,
                                       four_of<float>* s) {
    float own[slots + 1];
    each_slot([&](auto n) { own[n] = s[n].*Lane; });
    element(w.*Lane, u.*Lane, g.*Lane, own);
    each_slot([&](auto n) { s[n].*Lane = own[n]; });
  }
};

/// The same, and where a piece's gradients, weights and stored update are.
template <class Flow, std::size_t P, class Gradient>
struct pass_memory : pass_math<Flow, P> {
  using pass_math<Flow, P>::pass;
  using reader = std::conditional_t<pass.from_update, plain_numbers, Gradient>;
  using input_type = typename reader::type;

  reader read;
  input_type const* input;
  Gradient read_gradient;  ///< of a pass that loads both
  typename Gradient::type const* gradient;
  float *weight, *update;

  __device__ void begin(piece const& c, typename Flow::kernels const* kernels, float const* factors,
                        Gradient const& source, float* updates) {
    this->choose(c, kernels, factors);
    weight = c.weight;
    if constexpr (pass.stores) update = updates + c.slot;
    if constexpr (pass.from_update) {
      input = updates + c.slot;
      if constexpr (pass_math<Flow, P>::both) {
        read_gradient = source;
        gradient = reinterpret_cast<typename Gradient::type const*>(c.gradient);
      }
    } else {
      read = source;
      input = reinterpret_cast<input_type const*>(c.gradient);
    }
  }
};

}  // namespace dovetail::optim::cuda::detail
