// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/philox.hpp>
#include <dovetail/optim/cuda/formats.cuh>
#include <dovetail/optim/cuda/pass_math.cuh>
#include <dovetail/optim/cuda/state.cuh>

// Passes over slots and weights in other formats than fp32: a warp unpacks a block of 256 elements into registers, runs
// the chain, and packs what it wrote.

namespace dovetail::optim::cuda::detail {

inline constexpr std::uint32_t warps = threads / 32;

/// True of policies that keep slots in another format than fp32.
template <class Slots>
inline constexpr bool packs = !std::is_same_v<Slots, optim::detail::copied_slots>;
/// True of policies that keep weights in halves, spans of them in `values`.
template <class Weights>
consteval bool has_halves() {
  return requires(Weights const& w) { w.values[0].data(); };
}
template <class Weights>
using half_of = std::remove_pointer_t<decltype(std::declval<Weights const&>().values[0].data())>;
template <class Weights>
std::vector<void*> halves_of(Weights const& weights, std::size_t tensors) {
  std::vector<void*> all(tensors);
  if constexpr (has_halves<Weights>())
    for (std::size_t i = 0; i < tensors; ++i) all[i] = weights.values[i].data();
  return all;
}

/// A tensor among those that are kept in blocks.
struct stored_tensor {
  std::size_t begin;  ///< in every slot array: a multiple of 256
  void* half;         ///< its weights' halves, if there are any
};

/// What passes read and write beside the parameter list.
template <class Slots, std::size_t Count>
struct stored_arrays {
  typename Slots::code* codes[Count ? Count : 1];
  float* scales[Count ? Count : 1];
  std::uint16_t* low;
  stored_tensor const* tensors;
  std::uint64_t slot_seed, weight_seed;  ///< of the rounding
};

/// Pass P on a piece, whose blocks the warps share.
template <class Flow, std::size_t P, class Gradient, class Slots, class Weights>
struct stored_body : pass_memory<Flow, P, Gradient> {
  using math = pass_math<Flow, P>;
  using memory = pass_memory<Flow, P, Gradient>;
  using math::each_slot, math::pass, math::slots;
  using memory::gradient, memory::input, memory::read, memory::read_gradient, memory::update, memory::weight;

  /// True if all of a tensor's blocks begin at boundaries of four elements in its gradients, weights and halves. Slot
  /// arrays have theirs at multiples of 256.
  __device__ bool aligned(stored_tensor const& tensor) const {
    auto const lies = [](void const* p, std::size_t bytes) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; };
    bool all = true;
    if constexpr (math::reads(math::input_bit)) all = all && lies(input, 4 * sizeof *input);
    if constexpr (math::both) all = all && lies(gradient, 4 * sizeof *gradient);
    if constexpr (math::reads(weight_bit) || math::writes(weight_bit)) {
      all = all && lies(weight, 4 * sizeof(float));
      if constexpr (has_halves<Weights>()) all = all && lies(tensor.half, 4 * sizeof(half_of<Weights>));
    }
    return all;
  }

  /// The block at element `at` of the piece, `n` elements long; `flat`: where it begins in every slot array. `Whole`:
  /// of 256 elements, in a tensor that is aligned.
  template <bool Whole>
  __device__ __forceinline__ void block(stored_arrays<Slots, slots> const& a, stored_tensor const& tensor,
                                        piece const& c, std::uint32_t at, std::size_t flat, std::uint32_t n,
                                        std::uint64_t step) {
    std::size_t const number = (flat - tensor.begin) / storage_block;
    float w[block_share] = {}, u[block_share] = {}, g[block_share] = {}, s[slots + 1][block_share] = {};
    weight_block const own{weight ? weight + at : nullptr, half(tensor, number), a.low ? a.low + flat : nullptr, n,
                           Whole};
    if constexpr (math::reads(weight_bit)) weight_format<Weights>::load(own, w);
    if constexpr (math::reads(math::input_bit)) {
      typename memory::input_type x[block_share];
      load_share(input + at, n, x, Whole);
      for (int k = 0; k < block_share; ++k) u[k] = read(x[k]);
    }
    if constexpr (math::both) {
      std::remove_cvref_t<decltype(*gradient)> x[block_share];
      load_share(gradient + at, n, x, Whole);
      for (int k = 0; k < block_share; ++k) g[k] = read_gradient(x[k]);
    }
    each_slot([&](auto i) {
      if constexpr (math::reads(slot_bit(i))) {
        typename Slots::code codes[block_share];
        load_share(static_cast<typename Slots::code const*>(a.codes[i] + flat), n, codes, Whole);
        slot_format<Slots>::decode(codes, Slots::scaled ? a.scales[i][flat / storage_block] : 1.0f, s[i]);
      }
    });
#pragma unroll
    for (int k = 0; k < block_share; ++k) {
      if (!Whole && place_of(k) >= n) {  // what is behind the end is zero, whatever its codes say, and out of sums
        each_slot([&](auto i) { s[i][k] = 0; });
        continue;
      }
      float own_slots[slots + 1];
      each_slot([&](auto i) { own_slots[i] = s[i][k]; });
      this->element(w[k], u[k], g[k], own_slots);
      each_slot([&](auto i) { s[i][k] = own_slots[i]; });
    }
    std::uint64_t const word = optim::detail::block_word(number, slots + 1);
    each_slot([&](auto i) {
      if constexpr (math::writes(slot_bit(i))) {
        typename Slots::code codes[block_share];
        random_stream const random{a.slot_seed, c.tensor};
        float const scale =
            slot_format<Slots>::encode(s[i], optim::codes::word_of_step(random.word(word + i), step), codes);
        store_share(a.codes[i] + flat, n, codes, Whole);
        if constexpr (Slots::scaled)
          if (warp_lane() == 0) a.scales[i][flat / storage_block] = scale;
      }
    });
    if constexpr (math::writes(weight_bit)) {
      random_stream const random{a.weight_seed, c.tensor, step};
      weight_format<Weights>::store(own, w, random.word(word + slots));
    }
    if constexpr (pass.stores) store_share(update + at, n, u, Whole);
  }

 private:
  __device__ static void* half(stored_tensor const& tensor, std::size_t number) {
    if constexpr (has_halves<Weights>())
      return static_cast<half_of<Weights>*>(tensor.half) + number * storage_block;
    else
      return nullptr;
  }
};

/// Blocks of threads that a multiprocessor must hold at once. Packing computes more than it moves: a third block hides
/// its latencies, for some registers of two slots that spill (H100: 8 bits 993 us instead of 1147 at 2^27, bf16 743
/// instead of 801; fp32 slots lose 4 % by it).
template <class Slots, std::size_t Count>
inline constexpr int blocks_at_once = packs<Slots>&& Count <= 2 ? 3 : 1;

template <class Flow, std::size_t P, class Gradient, class Slots, class Weights>
__global__ __launch_bounds__(threads, (blocks_at_once<Slots, Flow::slots>)) void run_stored_pass(
    typename Flow::kernels const* kernels, float const* factors, step_record const* record, piece const* pieces,
    std::size_t count, Gradient read, stored_arrays<Slots, Flow::slots> arrays, float* update, double* partials) {
  using body_type = stored_body<Flow, P, Gradient, Slots, Weights>;
  if constexpr (P > 0)
    if (record->skipped) return;
  auto const step = static_cast<std::uint64_t>(record->steps - 1);  // applied before this one
  for (std::size_t p = blockIdx.x; p < count; p += gridDim.x) {
    piece const c = pieces[p];
    body_type body{};
    body.begin(c, kernels, factors, read, update);
    constexpr auto whole = static_cast<std::uint32_t>(storage_block);
    stored_tensor const tensor = arrays.tensors[c.tensor];
    bool const aligned = body.aligned(tensor);
    for (std::uint32_t at = threadIdx.x / 32 * whole; at < c.count; at += warps * whole)
      if (aligned && c.count - at >= whole)
        body.template block<true>(arrays, tensor, c, at, c.slot + at, whole, step);
      else
        body.template block<false>(arrays, tensor, c, at, c.slot + at, c.count - at < whole ? c.count - at : whole,
                                   step);
    body.leave_sums(partials, p);
  }
}

/// A slot's first value.
template <class Slots>
__global__ __launch_bounds__(threads) void fill_stored(piece const* pieces, std::size_t count, float value,
                                                       typename Slots::code* codes, float* scales) {
  for (std::size_t p = blockIdx.x; p < count; p += gridDim.x) {
    piece const c = pieces[p];
    constexpr auto whole = static_cast<std::uint32_t>(storage_block);
    for (std::uint32_t at = threadIdx.x / 32 * whole; at < c.count; at += warps * whole) {
      std::uint32_t const n = c.count - at < whole ? c.count - at : whole;
      float x[block_share];
      for (int k = 0; k < block_share; ++k) x[k] = place_of(k) < n ? value : 0.0f;
      typename Slots::code own[block_share];
      float const scale = slot_format<Slots>::encode(x, 0, own);
      store_share(codes + c.slot + at, n, own);
      if constexpr (Slots::scaled)
        if (warp_lane() == 0) scales[(c.slot + at) / storage_block] = scale;
    }
  }
}

}  // namespace dovetail::optim::cuda::detail
