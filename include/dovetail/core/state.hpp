// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/shape.hpp>

// State as a list of named views: what is saved and loaded without knowing whose it is.
namespace dovetail {

/// Element types of tensors in files and on the wire.
enum class dtype : std::uint8_t { f64, f32, f16, bf16, i64, i32, u64, u32, u16, u8 };

/// Bytes of one element.
constexpr std::size_t size_of(dtype t) {
  switch (t) {
    case dtype::f64:
    case dtype::i64:
    case dtype::u64:
      return 8;
    case dtype::f32:
    case dtype::i32:
    case dtype::u32:
      return 4;
    case dtype::f16:
    case dtype::bf16:
    case dtype::u16:
      return 2;
    case dtype::u8:
      break;
  }
  return 1;
}

template <class T>
constexpr dtype dtype_of() {
  if constexpr (std::is_same_v<T, double>)
    return dtype::f64;
  else if constexpr (std::is_same_v<T, float>)
    return dtype::f32;
  else if constexpr (std::is_same_v<T, fp16>)
    return dtype::f16;
  else if constexpr (std::is_same_v<T, bf16>)
    return dtype::bf16;
  else if constexpr (std::is_same_v<T, std::int64_t>)
    return dtype::i64;
  else if constexpr (std::is_same_v<T, std::int32_t>)
    return dtype::i32;
  else if constexpr (std::is_same_v<T, std::uint64_t>)
    return dtype::u64;
  else if constexpr (std::is_same_v<T, std::uint32_t>)
    return dtype::u32;
  else if constexpr (std::is_same_v<T, std::uint16_t>)
    return dtype::u16;
  else {
    static_assert(sizeof(T) == 1 && std::is_trivially_copyable_v<T>, "no dtype for this element type");
    return dtype::u8;
  }
}

/// The largest number of steps that a state may claim: what a double still counts exactly, because schedules and
/// corrections are worked out in doubles. A microsecond each, these are 285 years.
inline constexpr std::int64_t largest_count = std::int64_t{1} << 53;
constexpr bool is_count(std::int64_t n) { return n >= 0 && n < largest_count; }

/// Throws `Error` unless n can be a number of steps; `whose` begins the message.
template <class Error = argument_error>
void check_count(std::int64_t n, std::string_view whose) {
  require<Error>(is_count(n), whose, " is ", n, ": it counts, from 0 to below 2^53, so this is damaged or not a count");
}

/// What becomes of a rank's piece of state when a run goes on with another number of ranks.
enum class state_kind : std::uint8_t {
  /// Equal on all ranks, or of so little weight that any rank's will do: every rank goes on with rank 0's.
  replicated,
  /// Floats whose sum over ranks counts (what error feedback still owes the model): the sum is conserved, and shared
  /// out
  /// evenly. A piece may hold some elements of the whole that is named before an "@": "whole@<first>" those from that
  /// one
  /// on. "whole@<first>.<more>", and "whole@sum", this rank's shard of them, stand beside others of the same elements.
  summed,
  /// Elements of a whole that a session which divides weights (`acquire`) divides among ranks, "whole@<first>" those
  /// from that one on: ranks that divide it otherwise take what is theirs from the pieces of all.
  sharded,
  /// Of no use to another rank, and with no rule for other ranks: another number of ranks is refused.
  own
};

/// A writable view of one named piece of state. It holds until the next step: states may change places. A state (of an
/// optimizer, a codec, a synchronizer) lists its pieces with `tensors(prefix)`; saving reads through the views, loading
/// writes through them.
struct named_tensor {
  std::string name;
  dovetail::dtype type;
  dovetail::shape shape;
  std::span<std::byte> bytes;
  bool counts = false;  ///< int64 numbers of steps or the like: what cannot be one is refused when it is loaded
  state_kind kind = state_kind::replicated;
};

template <class T>
named_tensor make_named_tensor(std::string name, std::span<T> values, shape s) {
  return {std::move(name), dtype_of<T>(), s, std::as_writable_bytes(values), false};
}
template <class T>
named_tensor make_named_tensor(std::string name, std::span<T> values) {
  return make_named_tensor(std::move(name), values, shape{static_cast<std::int64_t>(values.size())});
}
/// A scalar.
template <class T>
named_tensor make_named_tensor(std::string name, T& value) {
  return make_named_tensor(std::move(name), std::span<T>(&value, 1), shape{});
}
/// A number of steps, or of anything else that begins at 0 and grows by 1.
inline named_tensor make_named_count(std::string name, std::int64_t& value) {
  auto t = make_named_tensor(std::move(name), value);
  t.counts = true;
  return t;
}

}  // namespace dovetail
