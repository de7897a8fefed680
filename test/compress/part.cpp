// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A part of the registry, PART of test::codec_parts, every codec of it compiled for all that goes through them; without
// PART, all of them.
#include <cstddef>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "codec_of.hpp"
#include "parts.hpp"
#include "registry.hpp"

namespace test {
namespace {

using all = decltype(codec_registry());
template <std::size_t I>
using codec_at = decltype(std::declval<std::tuple_element_t<I, all>>().codec);

/// The first entry of the same type: those that differ in their settings only are compiled once.
template <std::size_t I, std::size_t J = 0>
consteval std::size_t first_alike() {
  if constexpr (std::is_same_v<codec_at<I>, codec_at<J>>)
    return J;
  else
    return first_alike<I, J + 1>();
}

template <std::size_t Part, std::size_t I>
void add([[maybe_unused]] all const& registry, [[maybe_unused]] codec_list& to) {
  if constexpr (first_alike<I>() % codec_parts == Part) {
    auto const& e = std::get<I>(registry);
    to[I] = std::make_unique<codec_of<codec_at<I>>>(e.label, e.codec, e.promised);
  }
}

template <std::size_t Part>
void add_all(codec_list& to) {
  auto const registry = codec_registry();
  to.resize(std::tuple_size_v<all>);
  [&]<std::size_t... I>(std::index_sequence<I...>) { (add<Part, I>(registry, to), ...); }
  (std::make_index_sequence<std::tuple_size_v<all>>{});
}

}  // namespace

#if defined(PART)
template <>
void add_codecs<PART>(codec_list& to) {
  add_all<PART>(to);
}
#else
template <>
void add_codecs<0>(codec_list& to) {
  add_all<0>(to);
}
template <>
void add_codecs<1>(codec_list& to) {
  add_all<1>(to);
}
template <>
void add_codecs<2>(codec_list& to) {
  add_all<2>(to);
}
template <>
void add_codecs<3>(codec_list& to) {
  add_all<3>(to);
}
#endif

}  // namespace test
