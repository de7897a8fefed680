// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include <dovetail/core/error.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/step.hpp>

// Where a step's first load comes from. Decoding and averaging happen in registers: decode, average and step are one
// pass over memory.

namespace dovetail::optim {

/// Says how to read the gradient of a parameter list:
///   bytes()                bytes read per parameter
///   check(parameters)      throws argument_error if the source does not fit the list
///   at(parameters, i)      a cursor at the first element of tensor i
/// A cursor is a small value: `load(i)` gives pack::lanes elements from element i on; `advanced(n)` stands n elements
/// further; `padded(n, room)` gives at least 16 readable elements of which the first n are the cursor's (`room`: 64
/// bytes of scratch); `continued_by(n, next)` says that `next` is advanced(n). It may have `prefetch(i)`, and, where it
/// is cheaper to decode many elements together, `window(n, room)`: a cursor of numbers that are in `room`, whose size
/// window_room says, for the next n <= 4096 elements.
template <class S>
concept gradient_source = std::copyable<S> &&
    requires(S const s, parameter_list const& p, std::size_t i, std::byte* room) {
  { s.bytes() } -> std::convertible_to<double>;
  s.check(p);
  { s.at(p, i).load(i) } -> std::same_as<simd::pack>;
  { s.at(p, i).advanced(i) } -> std::same_as<decltype(s.at(p, i))>;
  { s.at(p, i).padded(i, room) } -> std::same_as<decltype(s.at(p, i))>;
  { s.at(p, i).continued_by(i, s.at(p, i)) } -> std::same_as<bool>;
};

namespace detail {

template <class Cursor>
concept has_window = requires(Cursor const c, std::span<float> room) {
  { c.window(room.size(), room).data } -> std::convertible_to<float const*>;
  { Cursor::window_room } -> std::convertible_to<std::size_t>;
};

/// What may stand where a source is expected: what is none is refused with a reason, unless a step_context is meant.
template <class S>
concept source_argument = gradient_source<S> || !std::convertible_to<S const&, step_context>;

/// Refuses what is no gradient source.
template <class S>
struct must_be_a_source {
  static constexpr bool bytes = requires(S const& s) {
    { s.bytes() } -> std::convertible_to<double>;
  };
  static constexpr bool check = requires(S const& s, parameter_list const& p) { s.check(p); };
  static constexpr bool load = requires(S const& s, parameter_list const& p, std::size_t i) {
    { s.at(p, i).load(i) } -> std::same_as<simd::pack>;
  };
  DOVETAIL_REQUIRE(bytes,
                   "this is not a gradient source: it has no `double bytes() const` (see optim/gradient_source.hpp: "
                   "gradient::dense, gradient::scaled, gradient::half, gradient::decoded)",
                   S);
  DOVETAIL_REQUIRE(!bytes || check,
                   "the gradient source's `check` cannot be called as `check(parameter_list const&) const`", S);
  DOVETAIL_REQUIRE(!bytes || !check || load,
                   "the gradient source's `at` cannot be called as `cursor at(parameter_list const&, std::size_t "
                   "tensor) const`, for a cursor with `simd::pack load(std::size_t i) const`",
                   S);
  DOVETAIL_REQUIRE(!bytes || !check || !load || gradient_source<S>,
                   "the gradient source's cursor, or the source, is no copyable value with `cursor "
                   "advanced(std::size_t) const`, `cursor padded(std::size_t, std::byte*) const` and `bool "
                   "continued_by(std::size_t, cursor) const`",
                   S);
  static constexpr bool holds = gradient_source<S>;
};

inline void check_factor(char const* source, float const& factor) {
  if (!ranges::finite.holds(static_cast<double>(factor)))
    dovetail::detail::refuse(source, "factor", static_cast<double>(factor), ranges::finite);
}
}  // namespace detail

namespace gradient {

/// The parameters' own gradients.
struct dense {
  template <class T>
  struct cursor_of {
    using pack = simd::pack_of<T>;
    T const* data;
    DOVETAIL_INLINE pack load(std::size_t i) const { return pack::load(data + i); }
    DOVETAIL_INLINE void prefetch(std::size_t i) const { __builtin_prefetch(data + i); }
    cursor_of advanced(std::size_t n) const { return {data + n}; }
    cursor_of padded(std::size_t n, std::byte* room) const {
      std::memset(room, 0, 64);
      std::memcpy(room, data, n * sizeof(T));
      return {reinterpret_cast<T const*>(room)};
    }
    bool continued_by(std::size_t n, cursor_of next) const { return next.data == data + n; }
  };
  using cursor = cursor_of<float>;
  static constexpr double bytes() { return 4; }
  template <class T, class Space>
  static void check(basic_parameter_list<T, Space> const& p) {
    require(!p.has_opaque(),
            "optimizer: gradients of this parameter list are elsewhere: pass the source that has "
            "them, such as gradient::half");
  }
  template <class T, class Space>
  static cursor_of<T> at(basic_parameter_list<T, Space> const& p, std::size_t i) {
    return {p[i].gradient.data()};
  }
};

/// The parameters' own gradients times a factor: undoes a loss scale, or turns a sum into a mean.
struct scaled {
  float factor = 1;

  template <class T>
  struct cursor_of {
    dense::cursor_of<T> from;
    float factor;
    DOVETAIL_INLINE simd::pack_of<T> load(std::size_t i) const { return factor * from.load(i); }
    DOVETAIL_INLINE void prefetch(std::size_t i) const { from.prefetch(i); }
    cursor_of advanced(std::size_t n) const { return {from.advanced(n), factor}; }
    cursor_of padded(std::size_t n, std::byte* room) const { return {from.padded(n, room), factor}; }
    bool continued_by(std::size_t n, cursor_of next) const { return from.continued_by(n, next.from); }
  };
  using cursor = cursor_of<float>;
  static constexpr double bytes() { return 4; }
  template <class T, class Space>
  void check(basic_parameter_list<T, Space> const& p) const {
    detail::check_factor("gradient::scaled", factor);
    dense::check(p);
  }
  template <class T, class Space>
  cursor_of<T> at(basic_parameter_list<T, Space> const& p, std::size_t i) const {
    return {dense::at(p, i), factor};
  }
};

/// Gradients in half precision (fp16 or bf16), one span per parameter, times a factor.
template <class Half>
struct half {
  static_assert(std::is_same_v<Half, fp16> || std::is_same_v<Half, bf16>, "gradient::half reads fp16 or bf16");
  std::span<std::span<Half const> const> values;
  float factor = 1;

  struct cursor {
    Half const* data;
    float factor;
    DOVETAIL_INLINE simd::pack load(std::size_t i) const {
      simd::pack p;
      for (int k = 0; k < simd::pack::lanes; ++k) p.v[k] = static_cast<float>(data[i + static_cast<std::size_t>(k)]);
      return factor * p;
    }
    cursor advanced(std::size_t n) const { return {data + n, factor}; }
    cursor padded(std::size_t n, std::byte* room) const {
      std::memset(room, 0, 64);
      std::memcpy(room, data, n * sizeof(Half));
      return {reinterpret_cast<Half const*>(room), factor};
    }
    bool continued_by(std::size_t n, cursor next) const { return next.data == data + n; }
  };
  static constexpr double bytes() { return 2; }
  template <class Space>
  void check(basic_parameter_list<float, Space> const& p) const {
    detail::check_factor("gradient::half", factor);
    require(values.size() == p.size(), "gradient::half has ", values.size(), " spans for ", p.size(),
            " parameters: pass one per parameter, in the list's order");
    for (std::size_t i = 0; i < p.size(); ++i)
      require(values[i].size() == p[i].size(), "gradient::half: parameter '", p[i].name, "' has ", p[i].size(),
              " elements, its gradient ", values[i].size());
  }
  template <class Space>
  cursor at(basic_parameter_list<float, Space> const&, std::size_t i) const {
    return {values[i].data(), factor};
  }
};

}  // namespace gradient

namespace detail {
/// Refuses a source of floats where parameters are doubles.
template <class T, class Source>
consteval bool gives() {
  DOVETAIL_REQUIRE(
      (std::is_same_v<T, float> || std::is_same_v<Source, gradient::dense> || std::is_same_v<Source, gradient::scaled>),
      "this source gives floats, and the parameters are doubles: their gradients are the list's own", Source);
  return true;
}
}  // namespace detail

}  // namespace dovetail::optim
