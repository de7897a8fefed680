// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <span>
#include <vector>

#include <dovetail/core/shard.hpp>
#include <dovetail/optim/optimizer_traits.hpp>

// How ranks divide a rule's state among them, each having a part of every tensor (sync/shard.hpp).
//
// A state that can be divided lists its arrays, `std::vector<divisible_array> divisible_arrays()`: the same ones of a
// tensor and of any part of it that is not empty. That is all it takes to put the undivided state together and to cut
// it.
//
// A rule whose elements belong together in blocks says `static constexpr std::size_t division_block`: bounds of parts
// then lie at multiples of it, counted from a tensor's beginning, or between tensors. One that keeps weights itself has
//
//   share(parameters, state, exchange) const     with `state` of a part and the whole `parameters`, after a step
//
// which calls exchange(arrays) for those of whole tensors, each rank having its part of them, and makes again what it
// derives from weights that other ranks changed.

namespace dovetail::optim {

/// In place of a tensor: an array that is equal on all ranks.
inline constexpr std::size_t everywhere = static_cast<std::size_t>(-1);

/// An array, and which elements of a tensor each of its items belongs to.
struct divisible_array {
  std::size_t tensor;  ///< its place in the list, or `everywhere`
  std::size_t block;   ///< elements of the tensor that one item is for; `undivided`: the array is for all of them
  std::size_t width;   ///< bytes of an item
  std::span<std::byte> bytes;

  /// Bytes of the array of a tensor, or of a part of it that begins with a block, of n elements.
  std::size_t size(std::size_t n) const { return block == undivided ? bytes.size() : (n + block - 1) / block * width; }
  /// What belongs to elements r of the tensor, if this is the array of all of it.
  std::span<std::byte> of(range r) const {
    if (r.empty()) return {};
    return bytes.subspan(block == undivided ? 0 : r.begin / block * width, size(r.size()));
  }
};

/// The values of a tensor: one for every `block` elements of it.
template <class T>
divisible_array divided(std::size_t tensor, std::span<T> values, std::size_t block = 1) {
  return {tensor, block, sizeof(T), std::as_writable_bytes(values)};
}
/// Values that are equal on all ranks.
template <class T>
divisible_array equal_everywhere(std::span<T> values) {
  return divided(everywhere, values);
}
template <class T>
divisible_array equal_everywhere(T& value) {
  return equal_everywhere(std::span<T>(&value, 1));
}

/// A state that ranks can divide.
template <class State>
concept divisible_state = requires(State& s) {
  { s.divisible_arrays() } -> std::same_as<std::vector<divisible_array>>;
};

}  // namespace dovetail::optim
