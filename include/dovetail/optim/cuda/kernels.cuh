// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include <cub/block/block_reduce.cuh>

#include <dovetail/optim/cuda/access.cuh>
#include <dovetail/optim/cuda/algebra_kernels.cuh>
#include <dovetail/optim/cuda/pass_math.cuh>
#include <dovetail/optim/cuda/state.cuh>
#include <dovetail/optim/engine/plan.hpp>
#include <dovetail/optim/engine/stage_traits.hpp>
#include <dovetail/optim/stage.hpp>

// The kernels of a step. They run the chain's own functions (optim::detail::flow) with T = simd::element. No kernel
// waits for the host: the step counter, this step's constants, norms and the decision to skip all stay in device
// memory.

namespace dovetail::optim::cuda::detail {

using optim::detail::flow;

// ---- before the first pass: this step's constants

/// What stands for a stage in device code: the stage; its bytes, if it holds a schedule, a function of the host that
/// the stage's prepare does not call, since it is given the rate; or only a mark, if it has no kernel.
template <class Stage>
struct bytes_of {
  alignas(Stage) unsigned char bytes[sizeof(Stage)];
};
template <class Stage>
struct whole_tensors_of {};
template <class Stage>
auto for_device(Stage const& s) {
  using traits = stage_traits<Stage>;
  if constexpr (traits::is_tensorwise) {
    return whole_tensors_of<Stage>{};
  } else if constexpr (std::is_trivially_copyable_v<Stage>) {
    return s;
  } else {
    static_assert(traits::takes_rate,
                  "a stage's hyperparameters travel to the device as bytes: they must be trivially copyable, but for a "
                  "schedule, which prepare(step, rate) does not call");
    bytes_of<Stage> copy;
    std::memcpy(copy.bytes, static_cast<void const*>(&s), sizeof(Stage));
    return copy;
  }
}
template <class Stage>
__device__ kernel_of<Stage> prepare_one(Stage const& s, std::int64_t t, float rate) {
  if constexpr (stage_traits<Stage>::takes_rate)
    return s.prepare(t, rate);
  else
    return s.prepare(t);
}
template <class Stage>
__device__ kernel_of<Stage> prepare_one(bytes_of<Stage> const& s, std::int64_t t, float rate) {
  return reinterpret_cast<Stage const*>(s.bytes)->prepare(t, rate);
}
template <class Stage>
__device__ kernel_of<Stage> prepare_one(whole_tensors_of<Stage> const&, std::int64_t, float) {
  return {};
}

/// One thread, for one group of hyperparameters; `rates` are its tables, one for each stage with a rate. The last one,
/// which `counts`, counts the step as applied; `decide` takes that back when it skips.
template <class Flow, class... Parts>
__global__ void prepare(std::tuple<Parts...> stages, rate_table const* rates, step_record* record, scalar_array scalars,
                        typename Flow::kernels* kernels, bool counts) {
  std::int64_t const done = record->steps, t = done + 1;
  float rate[Flow::rates + 1] = {};
  for (std::size_t r = 0; r < Flow::rates; ++r) {
    std::int64_t i = 0;
    if (rates[r].count) {
      i = done - rates[r].base;
      if (i < 0 || i >= rates[r].count) {
        record->outrun = 1;
        i = i < 0 ? 0 : rates[r].count - 1;
      }
    }
    rate[r] = rates[r].value[static_cast<std::size_t>(i)];
  }
  [&]<std::size_t... S>(std::index_sequence<S...>) {
    ((std::get<S>(*kernels) = prepare_one(std::get<S>(stages), t, rate[Flow::first_rate[S]])), ...);
    (optim::detail::begin_stage<typename Flow::template stage<S>>(
         std::get<S>(*kernels), [&](std::size_t c) { return scalars.of(Flow::first_scalar[S] + c)[0]; }),
     ...);
  }
  (std::make_index_sequence<sizeof...(Parts)>{});
  if (!counts) return;
  record->steps = t;
  record->gradient_norm = -1;
  record->lr = Flow::rates ? rate[Flow::rates - 1] : 1.0f;
  record->skipped = 0;
}

// ---- a pass over memory

template <std::size_t Slots>
struct slot_arrays {
  float* data[Slots ? Slots : 1];
};

/// True if `p` lies in its groups of four as `weight` does in its own.
template <class T>
__device__ __forceinline__ bool lies_as(T const* p, float const* weight) {
  return (reinterpret_cast<std::uintptr_t>(p) / sizeof(T) - reinterpret_cast<std::uintptr_t>(weight) / sizeof(float)) %
             4 ==
         0;
}

/// Pass P of a flow on one piece per block, everything in fp32 but perhaps the gradient.
template <class Flow, std::size_t P, class Gradient>
struct pass_body : pass_memory<Flow, P, Gradient> {
  using math = pass_math<Flow, P>;
  using memory = pass_memory<Flow, P, Gradient>;
  using math::each_slot, math::pass, math::slots;
  using memory::gradient, memory::input, memory::read, memory::read_gradient, memory::update, memory::weight;

  float* slot[slots + 1];

  __device__ __forceinline__ void one(std::size_t i) {
    float w = 0, u = 0, g = 0, s[slots + 1] = {};
    if constexpr (math::reads(weight_bit)) w = weight[i];
    if constexpr (math::reads(math::input_bit)) u = read(input[i]);
    if constexpr (math::both) g = read_gradient(gradient[i]);
    each_slot([&](auto n) {
      if constexpr (math::reads(slot_bit(n))) s[n] = slot[n][i];
    });
    this->element(w, u, g, s);
    each_slot([&](auto n) {
      if constexpr (math::writes(slot_bit(n))) slot[n][i] = s[n];
    });
    if constexpr (math::writes(weight_bit)) weight[i] = w;
    if constexpr (pass.stores) update[i] = u;
  }

  /// Four elements from i on, where all arrays allow it.
  __device__ __forceinline__ void four(std::size_t i) {
    four_of<float> w{}, u{}, g{}, s[slots + 1] = {};
    if constexpr (math::reads(weight_bit)) w = load_four<float>(weight + i);
    if constexpr (math::reads(math::input_bit)) {
      auto const x = load_four(input + i);
      u = {read(x.x), read(x.y), read(x.z), read(x.w)};
    }
    if constexpr (math::both) {
      auto const x = load_four(gradient + i);
      g = {read_gradient(x.x), read_gradient(x.y), read_gradient(x.z), read_gradient(x.w)};
    }
    each_slot([&](auto n) {
      if constexpr (math::reads(slot_bit(n))) s[n] = load_four<float>(slot[n] + i);
    });
    this->four_lanes(w, u, g, s);
    each_slot([&](auto n) {
      if constexpr (math::writes(slot_bit(n))) store_four(slot[n] + i, s[n]);
    });
    if constexpr (math::writes(weight_bit)) store_four(weight + i, w);
    if constexpr (pass.stores) store_four(update + i, u);
  }

  __device__ void run(std::uint32_t count) {
    // The weights decide where 16-byte accesses begin; arrays that are aligned otherwise go element by element.
    bool together = lies_as(input, weight);
    if constexpr (pass.stores) together = together && lies_as(update, weight);
    if constexpr (math::both) together = together && lies_as(gradient, weight);
    each_slot([&](auto n) { together = together && lies_as(slot[n], weight); });
    if (!together) {
      for (std::uint32_t i = threadIdx.x; i < count; i += threads) one(i);
      return;
    }
    auto const to_boundary = static_cast<std::uint32_t>((4 - reinterpret_cast<std::uintptr_t>(weight) / 4 % 4) % 4);
    std::uint32_t const head = to_boundary < count ? to_boundary : count;
    std::uint32_t const whole = head + (count - head) / 4 * 4;
    for (std::uint32_t i = head + 4 * threadIdx.x; i < whole; i += 4 * threads) four(i);
    // At most three elements in front and three behind: threads 0-2 and 3-5.
    if (threadIdx.x < head) one(threadIdx.x);
    if (threadIdx.x >= 3 && threadIdx.x - 3 < count - whole) one(whole + threadIdx.x - 3);
  }
};

/// Pass P over all pieces; `partials` gets its sums per piece if the pass reduces.
template <class Flow, std::size_t P, class Gradient>
__global__ __launch_bounds__(threads) void run_pass(typename Flow::kernels const* kernels, float const* factors,
                                                    step_record const* record, piece const* pieces, std::size_t count,
                                                    Gradient read, slot_arrays<Flow::slots> slots, float* update,
                                                    double* partials) {
  using body_type = pass_body<Flow, P, Gradient>;
  if constexpr (P > 0)
    if (record->skipped) return;
  for (std::size_t p = blockIdx.x; p < count; p += gridDim.x) {
    piece const c = pieces[p];
    body_type body{};
    body.begin(c, kernels, factors, read, update);
    body_type::each_slot([&](auto n) { body.slot[n] = slots.data[n] + c.slot; });
    body.run(c.count);
    body.leave_sums(partials, p);
  }
}

// ---- between two passes. All sums run in one order, whatever the device: a step's bits are the same in every run.

/// The sum of x[stride i] over i in [begin, end) by a block; the result is thread 0's.
template <int Threads>
__device__ double sum_strided(double const* x, std::size_t begin, std::size_t end, std::size_t stride) {
  using reduce = cub::BlockReduce<double, Threads>;
  __shared__ typename reduce::TempStorage room;
  double s = 0;
  for (std::size_t i = begin + threadIdx.x; i < end; i += Threads) s += x[stride * i];
  double const total = reduce(room).Sum(s);
  __syncthreads();
  return total;
}

/// A block per tensor: its pieces' partial sums, `count` of each.
template <class Flow>
__global__ __launch_bounds__(threads) void add_pieces(step_record const* record, std::size_t const* first,
                                                      std::size_t tensors, std::size_t count, double const* partials,
                                                      double* sums) {
  if (record->skipped) return;
  for (std::size_t i = blockIdx.x; i < tensors; i += gridDim.x)
    for (std::size_t k = 0; k < count; ++k) {
      double const s = sum_strided<threads>(partials + k, first[i], first[i + 1], count);
      if (threadIdx.x == 0) sums[count * i + k] = s;
    }
}

/// The factors of stage S behind pass P for one tensor. What is remembered per tensor changes here; what is remembered
/// of all tensors together is what the first group's kernel makes of it, and is written to `next`.
template <class Flow, std::size_t P, std::size_t S>
__device__ __forceinline__ void decide_factors(typename Flow::kernels const* kernels, std::uint32_t group,
                                               double const* sums, double const* totals, std::size_t tensor,
                                               scalar_array scalars, float* row, double* next) {
  using stage = typename Flow::template stage<S>;
  constexpr plan all = Flow::make();
  if constexpr (stage_traits<stage>::factors > 0)
    if constexpr (all.point[S] == P) {
      constexpr std::size_t count = all.pass[P].sums(),
                            own = stage_traits<stage>::measured > 0 ? all.pass[P].own_sums() : 0;
      constexpr std::size_t held = stage_traits<stage>::scalars;
      constexpr bool per_tensor = stage::needs.per_tensor;
      double now[held + 1];
      auto const own_sums = (per_tensor ? sums + count * tensor : totals) + own;
      if (held > 0 && !per_tensor && tensor == 0) {
        for (std::size_t c = 0; c < held; ++c) now[c] = scalars.of(Flow::first_scalar[S] + c)[0];
        optim::detail::factor_of<stage>(std::get<S>(kernels[0]), own_sums, now, std::make_index_sequence<held>{});
        for (std::size_t c = 0; c < held; ++c) next[Flow::first_scalar[S] + c] = now[c];
      }
      for (std::size_t c = 0; c < held; ++c) now[c] = scalars.of(Flow::first_scalar[S] + c)[per_tensor ? tensor : 0];
      auto const factors =
          optim::detail::factor_of<stage>(std::get<S>(kernels[group]), own_sums, now, std::make_index_sequence<held>{});
      float* const to = row + Flow::first_factor[S];
      if constexpr (std::is_arithmetic_v<std::remove_const_t<decltype(factors)>>)
        *to = static_cast<float>(factors);
      else
        for (std::size_t f = 0; f < factors.size(); ++f) to[f] = factors[f];
      if (per_tensor)
        for (std::size_t c = 0; c < held; ++c) scalars.of(Flow::first_scalar[S] + c)[tensor] = now[c];
    }
}

/// Keeps what stage S now remembers of all tensors together.
template <class Flow, std::size_t P, std::size_t S>
__device__ __forceinline__ void keep_scalars(double const* next, scalar_array scalars) {
  using stage = typename Flow::template stage<S>;
  if constexpr (stage_traits<stage>::factors > 0)
    if constexpr (Flow::make().point[S] == P && !stage::needs.per_tensor)
      for (std::size_t c = 0; c < stage_traits<stage>::scalars; ++c)
        scalars.of(Flow::first_scalar[S] + c)[0] = next[Flow::first_scalar[S] + c];
}

/// One block: the sums over all tensors, the decision to skip, and the factors that pass P's sums decide.
template <class Flow, std::size_t P>
__global__ __launch_bounds__(threads) void decide(typename Flow::kernels const* kernels, std::uint32_t const* group_of,
                                                  std::size_t tensors, double const* sums, double* totals,
                                                  scalar_array scalars, float* factors, step_record* record) {
  constexpr plan all = Flow::make();
  constexpr std::size_t count = all.pass[P].sums();
  __shared__ bool skip;
  __shared__ double next[max_slots];
  if (record->skipped) return;
  for (std::size_t k = 0; k < count; ++k) {
    double const total = sum_strided<threads>(sums + k, 0, tensors, count);
    if (threadIdx.x == 0) totals[k] = total;
  }
  if (threadIdx.x == 0) {
    skip = all.pass[P].skips(totals[0]);
    if (P == all.gradient_pass()) record->gradient_norm = sqrt(totals[0]);
    if (skip) {
      record->skipped = 1;
      record->steps -= 1;
    }
  }
  __syncthreads();
  if (skip) return;
  for (std::size_t i = threadIdx.x; i < tensors; i += threads) [&]<std::size_t... S>(std::index_sequence<S...>) {
      (decide_factors<Flow, P, S>(kernels, group_of[i], sums, totals, i, scalars, factors + i * Flow::factors, next),
       ...);
    }
  (std::make_index_sequence<Flow::stages>{});
  __syncthreads();
  if (threadIdx.x == 0 && tensors) [&]<std::size_t... S>(std::index_sequence<S...>) {
      (keep_scalars<Flow, P, S>(next, scalars), ...);
    }
  (std::make_index_sequence<Flow::stages>{});
}

/// Sets `flag` if a number is not finite, and clears it otherwise. One block.
template <class T>
__global__ __launch_bounds__(threads) void find_non_finite(T const* x, std::size_t n, std::int32_t* flag) {
  __shared__ std::int32_t found;
  if (threadIdx.x == 0) found = 0;
  __syncthreads();
  for (std::size_t i = threadIdx.x; i < n; i += threads)
    if (!is_finite(x[i])) found = 1;
  __syncthreads();
  if (threadIdx.x == 0) *flag = found;
}

/// What `stage` makes of an estimate of the Hessian's diagonal of a tensor, unless the flag is set: of its averages
/// over `block` elements, one behind the other or, in a column-major tensor, `blocks` apart.
template <class Stage>
__global__ __launch_bounds__(threads) void take_in_estimate(Stage stage, std::int32_t const* flag,
                                                            float const* estimate, float* slot, std::size_t blocks,
                                                            std::size_t block, bool column_major) {
  if (*flag) return;
  for (std::size_t b = blockIdx.x * std::size_t{threads} + threadIdx.x; b < blocks;
       b += gridDim.x * std::size_t{threads}) {
    std::size_t const first = column_major ? b : b * block, step = column_major ? blocks : 1;
    float mean = estimate[first];
    if (block > 1) {
      double sum = 0;
      for (std::size_t k = 0; k < block; ++k) sum += static_cast<double>(estimate[first + k * step]);
      mean = static_cast<float>(sum / static_cast<double>(block));
    }
    for (std::size_t k = 0; k < block; ++k) slot[first + k * step] = stage.observed(slot[first + k * step], mean);
  }
}

/// A slot's first value. A template so that every program may have its own copy of it.
template <class T>
__global__ void fill(T* p, std::size_t n, T value) {
  for (std::size_t i = blockIdx.x * std::size_t{threads} + threadIdx.x; i < n; i += gridDim.x * std::size_t{threads})
    p[i] = value;
}

}  // namespace dovetail::optim::cuda::detail
