// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shape.hpp>

// Rules that divide by the diagonal of the Hessian are given estimates of it (optim::hessian_diagonal) outside of the
// step and every few steps: a step stays one pass over memory.

namespace dovetail::optim {

/// An observation: an estimate of the diagonal of the Hessian, in the flat index space of the parameters
/// (hutchinson_diagonal, bartlett_diagonal); on a device, of its memory. Given to a rule every few steps, between
/// steps, the same on all ranks.
template <class T>
struct basic_hessian_diagonal {
  std::span<T const> estimate;
};
using hessian_diagonal = basic_hessian_diagonal<float>;

/// What an estimate of a diagonal is averaged over: nothing; the inner extents of a tensor of rank 3 or more (the
/// kernel of a convolution); all extents but the first (a row: what belongs to one output).
enum class spatial : std::uint8_t { none, kernel, row };

namespace detail {
inline constexpr char spatial_names[] = "none kernel row";
/// Elements of one block of a tensor.
inline std::size_t block_of(spatial average, shape const& s) {
  int const first = average == spatial::kernel ? 2 : 1;
  if (average == spatial::none || s.rank <= first) return 1;
  std::size_t n = 1;
  for (int d = first; d < s.rank; ++d) n *= static_cast<std::size_t>(s[d]);
  return n;
}
/// Elements that a stage's estimate of tensor p is averaged over. Throws argument_error if this rank has a part of the
/// tensor that divides them.
template <class Stage, class T>
std::size_t averaged_over([[maybe_unused]] Stage const& stage, [[maybe_unused]] basic_parameter<T> const& p) {
  if constexpr (requires { stage.average; }) {
    auto const block = block_of(stage.average, p.logical_whole());
    auto const n = static_cast<std::size_t>(p.shape.size());
    if (n == 0) return 1;
    require(block == 1 || (p.first % block == 0 && n % block == 0 &&
                           (!p.transposed || n == static_cast<std::size_t>(p.whole.size()))),
            "optimizer: the estimate of '", p.name, "' is averaged over ", block, " elements, and this rank has ", n,
            " from ", p.first, " on: give sync::shard bounds at multiples of ", block);
    return block;
  } else {
    return 1;
  }
}
/// What a stage is given of tensor p's estimate: its averages, if the stage has a member `average`, in `room`.
template <class Stage, class T>
std::span<T const> averaged_estimate([[maybe_unused]] Stage const& stage, [[maybe_unused]] basic_parameter<T> const& p,
                                     [[maybe_unused]] std::vector<T>& room,
                                     std::type_identity_t<std::span<T const>> estimate) {
  if constexpr (requires { stage.average; }) {
    auto const block = averaged_over(stage, p);
    if (block == 1) return estimate;
    room.resize(estimate.size());
    std::size_t const blocks = estimate.size() / block;
    for (std::size_t b = 0; b < blocks; ++b) {
      auto const at = [&](std::size_t k) { return p.transposed ? k * blocks + b : b * block + k; };
      double sum = 0;
      for (std::size_t k = 0; k < block; ++k) sum += static_cast<double>(estimate[at(k)]);
      for (std::size_t k = 0; k < block; ++k) room[at(k)] = static_cast<T>(sum / static_cast<double>(block));
    }
    return std::span<T const>(room).first(estimate.size());
  } else {
    return estimate;
  }
}
}  // namespace detail

}  // namespace dovetail::optim
