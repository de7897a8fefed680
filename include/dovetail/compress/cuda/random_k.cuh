// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>

#include <dovetail/compress/context.hpp>
#include <dovetail/compress/cuda/codec.cuh>
#include <dovetail/compress/cuda/elements.cuh>
#include <dovetail/compress/random_k.hpp>
#include <dovetail/compress/random_runs.hpp>
#include <dovetail/core/cuda_launch.hpp>
#include <dovetail/core/finite.hpp>

// compress::random_k, block_random_k and their scaled forms on a device: a run's place follows from its number, so that
// each run has a thread, or a warp where it has several elements.
namespace dovetail::compress::cuda {
namespace detail {

using compress::detail::random_runs;

/// f(element, where it is in the payload) for all that is sent.
template <class F>
__device__ void each_sent(random_runs const& runs, std::size_t n, F const& f) {
  if (runs.single()) {
    for (std::size_t i = first_thing(); i < runs.count(); i += all_threads()) f(runs.at(i).first, i);
    return;
  }
  for (std::size_t i = first_thing() / warp; i < runs.count(); i += all_threads() / warp) {
    auto const run = runs.at(i);
    for (std::size_t j = lane(); j < run.length; j += warp) {
      std::size_t const place = run.first + j;  // a run may lie over the end
      f(place < n ? place : place - n, run.before + j);
    }
  }
}
template <class T>
__global__ __launch_bounds__(threads) void gather_sent(T const* x, std::size_t n, random_runs runs, std::byte* out) {
  each_sent(runs, n, [&](std::size_t from, std::size_t at) { put<float>(out + 4 * at, x[from]); });
}
/// One thread: what is not finite and not sent must be seen.
template <class T>
__global__ void show_non_finite(T const* found, std::byte* out) {
  if (*found) put<float>(out, not_a_number<float>());
}
template <class T>
__global__ __launch_bounds__(threads) void add_sent(std::byte const* payload, std::size_t n, random_runs runs,
                                                    float weight, T* out) {
  each_sent(runs, n, [&](std::size_t to, std::size_t at) {
    out[to] = sum_of(out[to], product_of(weight, get<float>(payload + 4 * at)));
  });
}

template <class Codec, bool Scaled>
struct run_form {
  using state = workspace;
  static std::size_t scratch(Codec const&, std::size_t) { return sizeof(std::uint32_t); }
  static void encode(Codec const& codec, device_span<float const> values, workspace& s, std::byte* out,
                     context const& where) {
    using dovetail::cuda::launch;
    std::size_t const n = values.size();
    auto const runs = codec.runs(n, where);
    auto* const found = s.scratch<std::uint32_t>();
    s.clear_scratch(sizeof *found);
    launch("random elements", s.device(), blocks_of(runs), threads, gather_sent<float>, values.data(), n, runs, out);
    launch("a look at all elements", s.device(), blocks_for((n + 15) / 16), threads, find_non_finite<float>,
           values.data(), n, found);
    launch("a mark of what is not finite", s.device(), 1, 1, show_non_finite<std::uint32_t>, found, out);
  }
  static void decode_add(Codec const& codec, std::byte const* payload, device_span<float> out, float weight,
                         workspace& s, context const& where) {
    std::size_t const n = out.size();
    auto const runs = codec.runs(n, where);
    if (Scaled) weight = compress::detail::scaled_by(weight, n, codec.count(n));
    dovetail::cuda::launch("a codec's sum", s.device(), blocks_of(runs), threads, add_sent<float>, payload, n, runs,
                           weight, out.data());
  }

 private:
  static unsigned blocks_of(random_runs const& runs) {
    return blocks_for(runs.single() ? runs.count() : warp * runs.count());
  }
};

}  // namespace detail

template <bool Scaled>
struct form<basic_random_k<Scaled>> : detail::run_form<basic_random_k<Scaled>, Scaled> {};
template <bool Scaled>
struct form<basic_block_random_k<Scaled>> : detail::run_form<basic_block_random_k<Scaled>, Scaled> {};

}  // namespace dovetail::compress::cuda
