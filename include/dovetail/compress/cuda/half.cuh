// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include <dovetail/compress/context.hpp>
#include <dovetail/compress/cuda/codec.cuh>
#include <dovetail/compress/cuda/elements.cuh>
#include <dovetail/compress/half.hpp>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/quantize_kernels.hpp>
#include <dovetail/core/cuda_access.cuh>
#include <dovetail/core/cuda_launch.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/half.hpp>

// compress::fp16, bf16, stochastic_bf16 and identity on a device: one number an element, by itself.
namespace dovetail::compress::cuda {
namespace detail {

template <class Half>
struct scaled_half {
  using type = std::uint16_t;
  float scale;
  __device__ type operator()(float x, std::size_t) const {
    // A product with a NaN is a NaN of another kind than on the host.
    return Half(is_nan(x) ? x : product_of(x, scale)).bits;
  }
};
struct random_bf16 {
  using type = std::uint16_t;
  element_random key;
  __device__ type operator()(float x, std::size_t i) const {
    auto const u = std::bit_cast<std::uint32_t>(x);
    if (!is_finite(x)) return static_cast<type>((u | (is_nan(x) ? 0x400000u : 0u)) >> 16);
    std::uint32_t const up = u + (key.word(static_cast<std::uint32_t>(i)) >> 16);
    // The largest numbers would become infinite: they are rounded down.
    return static_cast<type>(((up & 0x7fffffffu) >= 0x7f800000u ? u : up) >> 16);
  }
};
struct same_float {
  using type = float;
  __device__ type operator()(float x, std::size_t) const { return x; }
};

template <class Cast>
__global__ __launch_bounds__(threads) void cast_elements(Cast cast, float const* x, std::size_t n, std::byte* out) {
  using type = typename Cast::type;
  bool const fours = is_aligned<float4>(x) && reinterpret_cast<std::uintptr_t>(out) % (4 * sizeof(type)) == 0;
  for (std::size_t i = 4 * first_thing(); i < n; i += 4 * all_threads()) {
    if (fours && n - i >= 4) {
      auto const v = dovetail::cuda::detail::load_four(x + i);
      dovetail::cuda::detail::store_four(
          reinterpret_cast<type*>(out) + i,
          dovetail::cuda::detail::four_of<type>{cast(v.x, i), cast(v.y, i + 1), cast(v.z, i + 2), cast(v.w, i + 3)});
    } else {
      for (std::size_t j = i; j < n && j < i + 4; ++j) put<type>(out + sizeof(type) * j, cast(x[j], j));
    }
  }
}

template <class Number>
struct weighted_numbers {
  std::byte const* payload;
  float weight;
  __device__ void operator()(std::size_t first, unsigned count, float (&x)[4]) const {
    for (unsigned j = 0; j < count; ++j)
      x[j] = product_of(weight, static_cast<float>(get<Number>(payload + sizeof(Number) * (first + j))));
  }
};

/// A codec of one number an element, which `Cast` makes.
template <class Number>
struct cast_form {
  using state = workspace;
  template <class Codec>
  static std::size_t scratch(Codec const&, std::size_t) {
    return 0;
  }
  template <class Cast>
  static void cast(Cast const& c, device_span<float const> values, workspace& s, std::byte* out) {
    dovetail::cuda::launch("a codec's cast", s.device(), blocks_for((values.size() + 3) / 4), threads,
                           cast_elements<Cast>, c, values.data(), values.size(), out);
  }
  static void add(std::byte const* payload, device_span<float> out, float weight, workspace& s) {
    queue_add(s.device(), weighted_numbers<Number>{payload, weight}, out);
  }
};

}  // namespace detail

template <class Half>
struct form<half<Half>> : detail::cast_form<Half> {
  static void encode(half<Half> const& codec, device_span<float const> values, workspace& s, std::byte* out,
                     context const&) {
    form::cast(detail::scaled_half<Half>{codec.scale}, values, s, out);
  }
  static void decode_add(half<Half> const& codec, std::byte const* payload, device_span<float> out, float weight,
                         workspace& s, context const&) {
    form::add(payload, out, weight / codec.scale, s);
  }
};
template <>
struct form<stochastic_bf16> : detail::cast_form<dovetail::bf16> {
  static void encode(stochastic_bf16 const&, device_span<float const> values, workspace& s, std::byte* out,
                     context const& where) {
    cast(detail::random_bf16{element_random(where.own_random())}, values, s, out);
  }
  static void decode_add(stochastic_bf16 const&, std::byte const* payload, device_span<float> out, float weight,
                         workspace& s, context const&) {
    add(payload, out, weight, s);
  }
};
template <>
struct form<identity> : detail::cast_form<float> {
  static void encode(identity const&, device_span<float const> values, workspace& s, std::byte* out, context const&) {
    cast(detail::same_float{}, values, s, out);
  }
  static void decode_add(identity const&, std::byte const* payload, device_span<float> out, float weight, workspace& s,
                         context const&) {
    add(payload, out, weight, s);
  }
};

}  // namespace dovetail::compress::cuda
