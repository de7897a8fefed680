// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/state.hpp>

// What synchronizers, tables and other codecs ask of a codec beyond the concept, with defaults for those who say
// nothing.
namespace dovetail::compress {

/// State of a codec that remembers nothing.
struct no_state {
  std::vector<named_tensor> tensors(std::string const& /*prefix*/) { return {}; }
  friend bool operator==(no_state const&, no_state const&) = default;
};

namespace detail {
template <class C>
constexpr int rounds() {
  if constexpr (requires { C::rounds; })
    return C::rounds;
  else
    return 1;
}
template <class C>
struct wire_type {
  using type = void;
};
template <class C>
requires requires { typename C::wire_type; }
struct wire_type<C> {
  using type = typename C::wire_type;
};
}  // namespace detail

/// Exchanges that one bucket takes: 1 unless the codec says `rounds`.
template <class C>
inline constexpr int rounds_of = detail::rounds<C>();

/// Element type of a summable codec's payload, void for others.
template <class C>
using wire_type_of = typename detail::wire_type<C>::type;

/// Bytes of the payload of `round` for `b`: exact if the codec is of fixed size, otherwise at most. Takes the most
/// detailed of wire_size(bucket, round), wire_size(bucket) and wire_size(n) that the codec has: a low-rank codec needs
/// the shapes.
template <class C>
constexpr std::size_t wire_size(C const& codec, bucket const& b, int round = 0) {
  if constexpr (requires { codec.wire_size(b, round); })
    return codec.wire_size(b, round);
  else if constexpr (requires { codec.wire_size(b); })
    return codec.wire_size(b);
  else
    return codec.wire_size(b.size());
}

/// The name for messages and tables: what the codec's `name()` says, otherwise "codec".
template <class C>
std::string name_of(C const& codec) {
  if constexpr (requires { std::string(codec.name()); })
    return std::string(codec.name());
  else
    return "codec";
}

/// Throws argument_error unless `out` can take what `codec` may write for n elements.
inline void require_room(std::string_view codec, std::size_t n, std::size_t needed, std::span<std::byte const> out) {
  require(out.size() >= needed, codec, ": the payload of ", n, " elements takes ", needed, " bytes, the buffer has ",
          out.size(), ": size it by wire_size");
}

/// Throws input_error unless `payload` has the size that a fixed-size codec writes for n elements.
inline void require_payload(std::string_view codec, std::size_t n, std::size_t expected,
                            std::span<std::byte const> payload) {
  require<input_error>(payload.size() == expected, codec, ": a payload of ", payload.size(), " bytes for ", n,
                       " elements, where ", expected, " are written: it is truncated, or ranks disagree on the bucket");
}

}  // namespace dovetail::compress
