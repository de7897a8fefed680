// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: reduce.hpp includes this file once per cpu_level, in a namespace and a target region of its own.
#if defined(DOVETAIL_KERNEL_LANES)

constexpr int line_registers = 16 / lanes;

/// One cache line of accumulators.
template <class A>
struct line {
  register_of<A> v[line_registers];
};

// Conversions are not unrolled: those of the baseline are long, and a program pays for them with compile time.
template <class T, class A>
DOVETAIL_HOST_INLINE void load_line(line<A>& to, std::byte const* from) {
  if constexpr (std::is_same_v<T, fp16>) {
    for (int i = 0; i < line_registers; ++i) to.v[i] = fp16_to_float(load<u16s>(from + 2 * lanes * i));
  } else if constexpr (std::is_same_v<T, bf16>) {
    for (int i = 0; i < line_registers; ++i) to.v[i] = bf16_to_float(load<u16s>(from + 2 * lanes * i));
  } else {
    DOVETAIL_UNROLL_4
    for (int i = 0; i < line_registers; ++i) to.v[i] = load<register_of<A>>(from + 4 * lanes * i);
  }
}
template <class T, class A>
DOVETAIL_HOST_INLINE void store_line(std::byte* to, line<A> const& from) {
  if constexpr (std::is_same_v<T, fp16>) {
    for (int i = 0; i < line_registers; ++i) store(to + 2 * lanes * i, fp16_from(from.v[i]));
  } else if constexpr (std::is_same_v<T, bf16>) {
    for (int i = 0; i < line_registers; ++i) store(to + 2 * lanes * i, bf16_from(from.v[i]));
  } else {
    DOVETAIL_UNROLL_4
    for (int i = 0; i < line_registers; ++i) store(to + 4 * lanes * i, from.v[i]);
  }
}
template <reduction How, class A>
DOVETAIL_HOST_INLINE void combine(line<A>& into, line<A> const& with) {
  DOVETAIL_UNROLL_4
  for (int i = 0; i < line_registers; ++i) {
    if constexpr (How == reduction::sum)
      into.v[i] += with.v[i];
    else if constexpr (How == reduction::min)
      into.v[i] = min(into.v[i], with.v[i]);
    else
      into.v[i] = max(into.v[i], with.v[i]);
  }
}

/// The whole lines of reduce_in_order: `bytes` of every array.
template <class T, reduction How, std::size_t Outs, std::size_t Sources>
void reduce_lines(std::byte* const* out_arrays, std::size_t out_count, std::byte const* const* source_arrays,
                  std::size_t source_count, std::size_t bytes) {
  using A = typename accumulator<T, How>::type;
  addresses<Outs, std::byte*> const outs(out_arrays, out_count);
  addresses<Sources, std::byte const*> const sources(source_arrays, source_count);
  for (std::size_t at = 0; at < bytes; at += line_size<A> * sizeof(T)) {
    line<A> sum, next;
    load_line<T>(sum, sources[0] + at);
    __builtin_prefetch(sources[0] + at + prefetch_bytes);
    for (std::size_t s = 1; s < sources.count; ++s) {
      load_line<T>(next, sources[s] + at);
      __builtin_prefetch(sources[s] + at + prefetch_bytes);
      combine<How>(sum, next);
    }
    for (std::size_t o = 0; o < outs.count; ++o) store_line<T>(outs[o] + at, sum);
  }
}

/// The lines of a widened_reduce, and what is left of the last one.
template <class T, class Out>
void widened_lines(std::byte* out, float const* partial, std::byte const* const* sources, std::size_t source_count,
                   std::size_t n) {
  constexpr std::size_t step = line_size<float>;
  for (std::size_t at = 0; at < n; at += step) {
    std::size_t const here = n - at < step ? n - at : step;
    alignas(64) std::byte padded[64]{};
    auto const whole = [&](std::byte const* from, std::size_t width) -> std::byte const* {
      if (here == step) return from;
      std::memcpy(padded, from, here * width);  // the tail takes the same path, and so the same rounding
      return padded;
    };
    line<float> sum, next;
    std::size_t s = 0;
    if (partial)
      load_line<float>(sum, whole(reinterpret_cast<std::byte const*>(partial + at), sizeof(float)));
    else
      load_line<T>(sum, whole(sources[s++] + at * sizeof(T), sizeof(T)));
    for (; s < source_count; ++s) {
      load_line<T>(next, whole(sources[s] + at * sizeof(T), sizeof(T)));
      combine<reduction::sum>(sum, next);
    }
    store_line<Out>(here == step ? out + at * sizeof(Out) : padded, sum);
    if (here != step) std::memcpy(out + at * sizeof(Out), padded, here * sizeof(Out));
  }
}

#endif
