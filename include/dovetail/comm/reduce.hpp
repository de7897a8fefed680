// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The arithmetic of all collectives: P arrays combined element by element in rank order. One function per (element
// type, reduction), written with vectors, because a loop of unknown length is not vectorized at -O2; some are compiled
// once per cpu_level (reduce.inc.hpp), all with the same bits.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <dovetail/comm/call.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/dispatch.hpp>
#include <dovetail/core/vectors.hpp>

namespace dovetail::comm {

/// Combines n elements of each of `sources` in the order of the sources and stores the result in every one of `outs`.
/// An out may be one of the sources; apart from that the arrays must not overlap.
using ordered_reduce = void (*)(std::byte* const* outs, std::size_t out_count, std::byte const* const* sources,
                                std::size_t source_count, std::size_t n);

/// Adds n elements of the sources, which are halves, to partial[0 .. n), or where that is nullptr to nothing, in their
/// order and in fp32. out may be partial.
using widened_reduce = void (*)(std::byte* out, float const* partial, std::byte const* const* sources,
                                std::size_t source_count, std::size_t n);

namespace detail {

/// One cache line of accumulators.
template <class A>
constexpr std::size_t line_size = 64 / sizeof(A);

template <class T, reduction How>
struct accumulator {
  using type = T;
};
template <reduction How>
struct accumulator<fp16, How> {
  using type = float;
};
template <reduction How>
struct accumulator<bf16, How> {
  using type = float;
};
template <>
struct accumulator<std::int32_t, reduction::sum> {
  using type = std::uint32_t;  // wraps around by definition
};
template <>
struct accumulator<std::int64_t, reduction::sum> {
  using type = std::uint64_t;
};

// A peer's lines lie in its caches: too far for the hardware's own prefetcher. Measured for two ranks at 16 MB:
// 1.54 ms without, 0.96 ms with 1 KB, 0.81 ms with 2 KB.
inline constexpr std::size_t prefetch_bytes = 2048;

/// The addresses of the arrays. With their number known (not 0) they stay in registers: for two ranks that is a third
/// of the time of an all-reduce.
template <std::size_t Count, class Pointer>
struct addresses {
  DOVETAIL_INLINE addresses(Pointer const* all, std::size_t) {
    for (std::size_t i = 0; i < Count; ++i) p[i] = all[i];
  }
  DOVETAIL_INLINE Pointer operator[](std::size_t i) const { return p[i]; }
  static constexpr std::size_t count = Count;
  Pointer p[Count];
};
template <class Pointer>
struct addresses<0, Pointer> {
  DOVETAIL_INLINE addresses(Pointer const* all, std::size_t n) : p(all), count(n) {}
  DOVETAIL_INLINE Pointer operator[](std::size_t i) const { return p[i]; }
  Pointer const* p;
  std::size_t count;
};

#define DOVETAIL_KERNELS <dovetail/comm/reduce.inc.hpp>
#include <dovetail/core/kernel_levels.inc.hpp>

/// Wider registers are for sums, which is what gradients are reduced by: of halves, which are converted to floats and
/// back (fp16 by instructions of these levels), and of floats, where a store of a whole line leaves more of them under
/// way (for two ranks 33 us instead of 38 at 1 MB).
template <class T, reduction How, std::size_t Outs, std::size_t Sources>
ordered_reduce lines_for_this_processor() {
#if DOVETAIL_X86_LEVELS
  constexpr bool sum = How == reduction::sum, halves = std::is_same_v<T, fp16> || std::is_same_v<T, bf16>;
  if constexpr (sum && (halves || std::is_same_v<T, float>))
    if (supported_cpu_level() == cpu_level::avx512) return &avx512::reduce_lines<T, How, Outs, Sources>;
  if constexpr (sum && halves)
    if (supported_cpu_level() == cpu_level::avx2) return &avx2::reduce_lines<T, How, Outs, Sources>;
#endif
  return &baseline::reduce_lines<T, How, Outs, Sources>;
}

template <class T, reduction How>
void reduce_in_order(std::byte* const* outs, std::size_t out_count, std::byte const* const* sources,
                     std::size_t source_count, std::size_t n) {
  using A = typename accumulator<T, How>::type;
  constexpr std::size_t step = line_size<A>;
  std::size_t const whole = n / step * step * sizeof(T), rest = n * sizeof(T) - whole;
  auto const lines = source_count != 2 || out_count > 2 ? lines_for_this_processor<T, How, 0, 0>()
                     : out_count == 2                   ? lines_for_this_processor<T, How, 2, 2>()
                                                        : lines_for_this_processor<T, How, 1, 2>();
  lines(outs, out_count, sources, source_count, whole);
  if (rest == 0) return;
  alignas(64) std::byte padded[64]{};  // the tail takes the same path, and so the same rounding
  baseline::line<A> sum, next;
  std::memcpy(padded, sources[0] + whole, rest);
  baseline::load_line<T>(sum, padded);
  for (std::size_t s = 1; s < source_count; ++s) {
    std::memcpy(padded, sources[s] + whole, rest);
    baseline::load_line<T>(next, padded);
    baseline::combine<How>(sum, next);
  }
  baseline::store_line<T>(padded, sum);
  for (std::size_t o = 0; o < out_count; ++o) std::memcpy(outs[o] + whole, padded, rest);
}

template <class T, class Out>
widened_reduce widened_for_this_processor() {
#if DOVETAIL_X86_LEVELS
  if (supported_cpu_level() == cpu_level::avx512) return &avx512::widened_lines<T, Out>;
  if (supported_cpu_level() == cpu_level::avx2) return &avx2::widened_lines<T, Out>;
#endif
  return &baseline::widened_lines<T, Out>;
}

}  // namespace detail

/// For sums of halves that go on elsewhere: the floats of the sum so far, or the halves in which it ends.
template <class T>
requires std::same_as<T, fp16> || std::same_as<T, bf16> widened_reduce widened_reducer(bool ends) {
  return ends ? detail::widened_for_this_processor<T, T>() : detail::widened_for_this_processor<T, float>();
}

/// The function that combines arrays of T by `how`. A program compiles those of the types that it reduces.
template <reducible T>
constexpr ordered_reduce reducer(reduction how) {
  switch (how) {
    case reduction::min:
      return &detail::reduce_in_order<T, reduction::min>;
    case reduction::max:
      return &detail::reduce_in_order<T, reduction::max>;
    case reduction::sum:
      break;
  }
  return &detail::reduce_in_order<T, reduction::sum>;
}

}  // namespace dovetail::comm
