// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include <dovetail/core/parameters.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/engine/plan.hpp>
#include <dovetail/optim/gradient_source.hpp>

// The loop of one pass on the host. Its body is the chain's own functions, inlined, on machine registers. An element's
// bits depend on its values only: not on its position, the tensor's size or memory, or on threads.

namespace dovetail::optim {

namespace detail {

/// The cursor of a pass's first load.
template <class T, class Source, bool Stored>
struct cursor_type {
  using type = decltype(std::declval<Source const&>().at(std::declval<basic_parameter_list<T> const&>(), 0));
};
template <class T, class Source>
struct cursor_type<T, Source, true> {
  using type = gradient::dense::cursor_of<T>;
};
/// What a loop reads of a source: the numbers of a window, or what the source's cursor loads.
template <class T, class Source>
using loop_source =
    std::conditional_t<has_window<typename cursor_type<T, Source, false>::type>, gradient::dense, Source>;

/// A cursor, opened for the next elements.
template <class Cursor>
struct opened {
  static constexpr bool in_windows = false;
  Cursor operator()(Cursor const& c, std::size_t /*n*/) { return c; }
};
template <has_window Cursor>
struct opened<Cursor> {
  static constexpr bool in_windows = true;
  float room[Cursor::window_room];
  auto operator()(Cursor const& c, std::size_t n) { return c.window(n, room); }
};

/// The cursor of what a pass does not load.
struct no_cursor {
  no_cursor advanced(std::size_t) const { return {}; }
  no_cursor padded(std::size_t, std::byte*) const { return {}; }
  static constexpr bool continued_by(std::size_t, no_cursor) { return true; }
};

/// Elements by which loops ask for memory early.
inline constexpr std::size_t ahead = 512;

template <class T, std::size_t Slots, class Cursor, class Gradient>
struct arrays {
  T* weight;
  Cursor input;       ///< the gradient, or the stored update
  Gradient gradient;  ///< the gradient, if the pass loads both
  float factor;       ///< of gradients
  std::array<T*, Slots> slot;
  T* update = nullptr;  ///< where the pass stores it, if it does
};

/// Pass P of a flow over n elements of type T that lie contiguously in every array.
template <class T, class Flow, std::size_t P, class Source, int Lanes = simd::pack::lanes>
struct pass_loop {
  static constexpr plan all = Flow::make();
  static constexpr pass_plan pass = all.pass[P];
  static constexpr std::size_t slots = Flow::slots, round = 64 / sizeof(T);  // a cache line
  static constexpr std::uint64_t input_bit = pass.from_update ? update_bit : gradient_bit;
  using kernels = typename Flow::kernels;
  static constexpr bool both = all.loads_both(P);
  using sums = std::array<double, pass.sums()>;
  using cursor = typename cursor_type<T, Source, pass.from_update>::type;
  using gradient_cursor = std::conditional_t<both, typename cursor_type<T, Source, false>::type, no_cursor>;
  using view = arrays<T, slots, cursor, gradient_cursor>;
  static constexpr bool reads(std::uint64_t bit) { return (pass.reads & bit) != 0; }
  static constexpr bool writes(std::uint64_t bit) { return (pass.writes & bit) != 0; }

  /// `factors` of all stages; `update` is where the pass stores it, if it does.
  static sums run(kernels const& k, float const* factors, view const& a, std::size_t n) {
    auto const loop = best_loop();
    std::size_t const whole = n - n % round;
    sums s{};
    if (whole) s = loop(k, factors, a, whole, round);
    if (n > whole) {
      sums const t = tail(loop, k, factors, a, whole, n - whole);
      for (std::size_t i = 0; i < s.size(); ++i) s[i] += t[i];
    }
    return s;
  }

  template <class F>
  DOVETAIL_INLINE static void each_slot(F const& f) {
    each<slots>(f);
  }

 private:
  using loop_type = sums (*)(kernels const&, float const*, view const&, std::size_t, std::size_t);
  static loop_type best_loop() {
#if DOVETAIL_WIDE_LOOPS
    if constexpr (std::is_same_v<T, float>)  // a step of doubles waits for memory in narrow registers, too
      if (__builtin_cpu_supports("avx2")) return wide_loop;
#endif
    return narrow_loop;
  }

  /// The rest of fewer than `round` elements goes through the same machine code, on padded copies.
  template <class Loop>
  static sums tail(Loop const& loop, kernels const& k, float const* f, view const& a, std::size_t at, std::size_t n) {
    alignas(64) T copies[2 + slots][round] = {};
    alignas(64) std::byte room[64], second[both ? 64 : 1];
    view b{
        copies[0],        a.input.advanced(at).padded(n, room), a.gradient.advanced(at).padded(n, second), a.factor, {},
        copies[1 + slots]};
    std::size_t const bytes = n * sizeof(T);
    if constexpr (reads(weight_bit)) std::memcpy(copies[0], a.weight + at, bytes);
    for (std::size_t i = 0; i < slots; ++i) {
      b.slot[i] = copies[1 + i];
      if (reads(slot_bit(i))) std::memcpy(copies[1 + i], a.slot[i] + at, bytes);
    }
    sums const s = loop(k, f, b, round, n);
    if constexpr (writes(weight_bit)) std::memcpy(a.weight + at, copies[0], bytes);
    if constexpr (pass.stores) std::memcpy(a.update + at, copies[1 + slots], bytes);
    for (std::size_t i = 0; i < slots; ++i)
      if (writes(slot_bit(i))) std::memcpy(a.slot[i] + at, copies[1 + i], bytes);
    return s;
  }

  // n is a multiple of `round`; of each round only the first `counted` elements enter the sums. Never inlined or
  // cloned: that the rest runs through this very code is what makes bits independent of positions.
#if defined(__GNUC__) && !defined(__clang__)
#define DOVETAIL_ONE_COPY __attribute__((noinline, noclone))
#else
#define DOVETAIL_ONE_COPY DOVETAIL_NOINLINE
#endif
  DOVETAIL_ONE_COPY static sums narrow_loop(kernels const& k, float const* factors, view const& a, std::size_t n,
                                            std::size_t counted) {
    return loop<simd::pack_of<T>>(k, factors, a, n, counted);
  }
#if DOVETAIL_WIDE_LOOPS
  __attribute__((target("avx2"), flatten)) DOVETAIL_ONE_COPY static sums wide_loop(kernels const& k,
                                                                                   float const* factors, view const& a,
                                                                                   std::size_t n, std::size_t counted) {
    return loop<simd::wide>(k, factors, a, n, counted);
  }
#endif
#undef DOVETAIL_ONE_COPY

  template <class Pack, class Cursor>
  DOVETAIL_INLINE static Pack load_input(Cursor const& input, std::size_t i) {
    if constexpr (std::is_same_v<Pack, simd::pack_of<T>>)
      return input.load(i);
    else if constexpr (std::is_same_v<Cursor, gradient::dense::cursor>)
      return Pack::load(input.data + i);
    else
      return {input.load(i), input.load(i + simd::pack::lanes)};
  }
  template <class Pack>
  DOVETAIL_INLINE static sums loop(kernels const& kernel, [[maybe_unused]] float const* factor, view const& a,
                                   std::size_t n, [[maybe_unused]] std::size_t counted) {
    using pack = Pack;
    using traits = simd::loop_traits<Pack>;
    constexpr std::size_t lanes = pack::lanes, unroll = round / lanes, turns = traits::turns;
    // Local copies: stores to arrays cannot change them, so they stay in registers.
    kernels const k = kernel;
    auto const arrays = a;
    pack f[Flow::factors + 1];
    if constexpr (P > 0)
      for (std::size_t i = 0; i < Flow::factors; ++i) f[i] = factor[i];
    typename traits::sum_type sum[pass.sums() + 1][turns];
    typename traits::mask keep[unroll];
    if constexpr (pass.reduces)
      for (std::size_t r = 0; r < unroll; ++r)
        simd::first_lanes(keep[r], static_cast<int>(counted) - static_cast<int>(r * lanes));

    auto const body = [&](std::size_t i, [[maybe_unused]] std::size_t r) __attribute__((always_inline)) {
      element_of<pack> x{0.0f, 0.0f, 0.0f};
      auto& [w, u, g] = x;
      pack slot[slots + 1];
      if constexpr (reads(weight_bit)) w = pack::load(arrays.weight + i);
      if constexpr (reads(input_bit)) u = load_input<Pack>(arrays.input, i);
      // A factor of 1 changes no bit, and a step waits for memory: one loop for all factors.
      if constexpr (both) g = arrays.factor * load_input<Pack>(arrays.gradient, i);
      if constexpr (!pass.from_update) g = u = arrays.factor * u;
      each_slot([&](auto s) __attribute__((always_inline)) {
        if constexpr (reads(slot_bit(s)))
          slot[s] = pack::load(arrays.slot[s] + i);
        else
          slot[s] = 0.0f;
      });
      u = Flow::template run<pass.begin, pass.advance_from, pass.end>(k, x, slot, f);
      if constexpr (pass.update_norm) {
        auto const counts = simd::keep(keep[r], u);
        sum[0][r % turns].add(counts, counts);
      }
      if constexpr (pass.weight_norm) sum[pass.update_norm][r % turns].add(w, w);  // padded with zeros
      if constexpr (pass.measured > 0) {
        auto const terms = Flow::template measure<pass.end>(k, x, slot);
        each<pass.measured>([&](auto m) __attribute__((always_inline)) {
          sum[pass.own_sums() + m][r % turns].add(simd::keep(keep[r], terms[m].a), simd::keep(keep[r], terms[m].b));
        });
      }
      each_slot([&](auto s) __attribute__((always_inline)) {
        if constexpr (writes(slot_bit(s))) slot[s].store(arrays.slot[s] + i);
      });
      if constexpr (pass.stores) u.store(arrays.update + i);
      if constexpr (pass.applies) (w + u).store(arrays.weight + i);
    };
    for (std::size_t i = 0; i < n; i += round) {
      // A round is one cache line of each array; asking for lines early lets narrow registers keep the bus as busy as
      // wide ones do. Past the end of an array this is harmless.
      if constexpr (reads(weight_bit)) __builtin_prefetch(arrays.weight + i + ahead);
      if constexpr (reads(input_bit) && requires { arrays.input.prefetch(i); }) arrays.input.prefetch(i + ahead);
      if constexpr (both && requires { arrays.gradient.prefetch(i); }) arrays.gradient.prefetch(i + ahead);
      each_slot([&](auto s) __attribute__((always_inline)) {
        if constexpr (reads(slot_bit(s))) __builtin_prefetch(arrays.slot[s] + i + ahead);
      });
      body(i, 0);
      if constexpr (unroll >= 2) body(i + lanes, 1);
      if constexpr (unroll >= 4) {
        body(i + 2 * lanes, 2);
        body(i + 3 * lanes, 3);
      }
    }
    sums s{};
    for (std::size_t i = 0; i < s.size(); ++i)
      for (auto const& turn : sum[i]) s[i] += turn.total();
    return s;
  }

  template <std::size_t N, class F>
  DOVETAIL_INLINE static void each(F const& f) {
    [&]<std::size_t... S>(std::index_sequence<S...>) __attribute__((always_inline)) {
      (f(std::integral_constant<std::size_t, S>{}), ...);
    }
    (std::make_index_sequence<N>{});
  }
};

}  // namespace detail

}  // namespace dovetail::optim
