// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/flat_copy.hpp>
#include <dovetail/core/parallel.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/optim/linalg/span_math.hpp>
#include <dovetail/optim/step.hpp>

// Vectors over the flat index space, for methods that see all parameters as one vector: sums in double precision whose
// bits do not depend on threads, and which ranks that hold parts of the parameters add up
// (step_context::all_reduce_sums).

namespace dovetail::optim::detail {

/// Two vectors whose inner product is wanted; both have the length that the call says.
struct vector_pair {
  float const* a;
  float const* b;
};

/// Elements of one partial sum.
inline constexpr std::size_t sum_block = 4096;
/// Blocks that are worth a thread.
inline constexpr std::size_t blocks_per_thread = 16;

/// sums[k] = the inner product of pair k, over all ranks: one call of `all_reduce_sums` for all of them.
inline void inner_products(std::size_t n, std::span<vector_pair const> pairs, std::span<double> sums,
                           step_context const& options) {
  std::size_t const blocks = (n + sum_block - 1) / sum_block, count = pairs.size();
  auto const product = [&](std::size_t block, std::size_t k) {
    std::size_t const at = block * sum_block, length = std::min(sum_block, n - at);
    return dot({pairs[k].a + at, length}, {pairs[k].b + at, length});
  };
  std::fill(sums.begin(), sums.end(), 0.0);
  if (options.threads <= 1 || blocks < 2 * blocks_per_thread) {
    for (std::size_t b = 0; b < blocks; ++b)
      for (std::size_t k = 0; k < count; ++k) sums[k] += product(b, k);
  } else {
    std::vector<double> partial(blocks * count);
    parallel_for(options.threads, blocks, blocks_per_thread, [&](range part) {
      for (std::size_t b = part.begin; b < part.end; ++b)
        for (std::size_t k = 0; k < count; ++k) partial[b * count + k] = product(b, k);
    });
    for (std::size_t b = 0; b < blocks; ++b)
      for (std::size_t k = 0; k < count; ++k) sums[k] += partial[b * count + k];
  }
  if (options.all_reduce_sums) options.all_reduce_sums(sums.first(count));
}
inline double inner_product(std::span<float const> a, std::span<float const> b, step_context const& options) {
  vector_pair const pair{a.data(), b.data()};
  double sum = 0;
  inner_products(a.size(), {&pair, 1}, {&sum, 1}, options);
  return sum;
}

/// out[i] = f(in[i]…), f a function of machine registers; `out` may be one of the inputs.
template <class F, class... In>
void map_vectors(step_context const& options, std::span<float> out, F const& f, In const&... in) {
  parallel_for(options.threads, out.size(), blocks_per_thread * sum_block, [&](range part) {
    map(out.subspan(part.begin, part.size()), f, std::span<float const>(in).subspan(part.begin, part.size())...);
  });
}

/// What lies behind `member` (weights or gradients) of a list, to and from a vector. Throws argument_error if some of
/// it is elsewhere; every method gathers before it scatters.
inline void gather(parameter_list const& p, std::span<float> parameter::*member, std::span<float> to) {
  require(!p.has_opaque(),
          "optim: some tensors of this parameter list are elsewhere, where a method that sees all parameters as one "
          "vector cannot read them: give it a list with their memory");
  copy_to_flat(p, member, to);
}
inline void scatter(std::span<float const> from, parameter_list const& p, std::span<float> parameter::*member) {
  copy_from_flat(from, p, member);
}
/// The weights of a list become x + step d.
inline void move_to(parameter_list const& p, std::span<float const> x, double step, std::span<float const> d,
                    step_context const& options) {
  auto const a = static_cast<float>(step);
  for (std::size_t i = 0; i < p.size(); ++i)
    map_vectors(
        options, p[i].weight, [a](simd::pack from, simd::pack along) { return from + a * along; },
        x.subspan(p.offset(i), p[i].size()), d.subspan(p.offset(i), p[i].size()));
}

}  // namespace dovetail::optim::detail
