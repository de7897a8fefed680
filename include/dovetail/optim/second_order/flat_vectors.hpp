// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/flat_copy.hpp>
#include <dovetail/core/parallel.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/optim/linalg/span_math.hpp>
#include <dovetail/optim/step.hpp>

// Vectors over the flat index space, for methods that see all parameters as one vector: sums in double precision whose
// bits do not depend on threads, and which ranks that hold parts of the parameters add up
// (step_context::all_reduce_sums).

namespace dovetail::optim::detail {

/// What gives a span of doubles: asked first, so that a function of floats only is never asked about doubles.
template <class Vector>
concept of_doubles = std::is_convertible_v<Vector, std::span<double const>>;

/// Throws argument_error for what a method that evaluates its own losses and gradients cannot use of a context.
inline void check_objective_context(char const* whose, step_context const& context) {
  require(context.gradient_factor == 1, whose, ": the context's gradient_factor is ", context.gradient_factor,
          ": losses and gradients come from the objective, which scales both if they should be scaled");
}

/// Two vectors whose inner product is wanted; both have the length that the call says.
template <class T>
struct basic_vector_pair {
  T const* a;
  T const* b;
};

/// Elements of one partial sum.
inline constexpr std::size_t sum_block = 4096;
/// Blocks that are worth a thread.
inline constexpr std::size_t blocks_per_thread = 16;

/// sums[k] = the inner product of pair k, over all ranks: one call of `all_reduce_sums` for all of them.
template <class T>
void inner_products(std::size_t n, std::span<basic_vector_pair<T> const> pairs, std::span<double> sums,
                    step_context const& context) {
  std::size_t const blocks = (n + sum_block - 1) / sum_block, count = pairs.size();
  auto const product = [&](std::size_t block, std::size_t k) {
    std::size_t const at = block * sum_block, length = std::min(sum_block, n - at);
    return dot_of<T>({pairs[k].a + at, length}, {pairs[k].b + at, length});
  };
  std::fill(sums.begin(), sums.end(), 0.0);
  if (context.threads <= 1 || blocks < 2 * blocks_per_thread) {
    for (std::size_t b = 0; b < blocks; ++b)
      for (std::size_t k = 0; k < count; ++k) sums[k] += product(b, k);
  } else {
    std::vector<double> partial(blocks * count);
    parallel_for(context.threads, blocks, blocks_per_thread, [&](range part) {
      for (std::size_t b = part.begin; b < part.end; ++b)
        for (std::size_t k = 0; k < count; ++k) partial[b * count + k] = product(b, k);
    });
    for (std::size_t b = 0; b < blocks; ++b)
      for (std::size_t k = 0; k < count; ++k) sums[k] += partial[b * count + k];
  }
  if (context.all_reduce_sums) context.all_reduce_sums(sums.first(count));
}
template <class T, std::size_t N>
void inner_products(std::size_t n, basic_vector_pair<T> const (&pairs)[N], double (&sums)[N],
                    step_context const& context) {
  inner_products(n, std::span<basic_vector_pair<T> const>(pairs), std::span<double>(sums), context);
}
template <class T>
double inner_product_of(std::span<T const> a, std::span<T const> b, step_context const& context) {
  basic_vector_pair<T> const pair[]{{a.data(), b.data()}};
  double sum[1];
  inner_products(a.size(), pair, sum, context);
  return sum[0];
}
inline double inner_product(std::span<float const> a, std::span<float const> b, step_context const& context) {
  return inner_product_of(a, b, context);
}
inline double inner_product(std::span<double const> a, std::span<double const> b, step_context const& context) {
  return inner_product_of(a, b, context);
}

/// A power of two near x > 0, such that numbers T may be multiplied and divided by it; 1 for other x.
template <class T>
double unit_near(double x) {
  constexpr int most = std::is_same_v<T, float> ? 126 : 1022;
  return x > 0 && is_finite(x) ? std::exp2(std::clamp(std::ilogb(x), -most, most)) : 1;
}

/// The units of a loss and its gradient of norm `norm`: near the norm, but the loss must still be a number in them.
template <class T>
double unit_of(double norm, double loss) {
  constexpr double room = 0x1p-1000;
  return std::max(unit_near<T>(norm), room * unit_near<double>(std::abs(loss)));
}

/// out[i] = f(in[i]…), f a function of machine registers; `out` may be one of the inputs.
template <class T, class F, class... In>
void map_vectors(step_context const& context, std::span<T> out, F const& f, In const&... in) {
  parallel_for(context.threads, out.size(), blocks_per_thread * sum_block, [&](range part) {
    map(out.subspan(part.begin, part.size()), f, std::span<T const>(in).subspan(part.begin, part.size())...);
  });
}

/// |v| over all ranks, of which `squares` is v·v. Squares of doubles vanish below 1e-154 and overflow beyond 1e154:
/// then they are added up once more, in other units.
template <class T>
double norm_from(double squares, std::span<T const> v, step_context const& context) {
  if constexpr (std::is_same_v<T, double>)
    if (!is_finite(squares) || squares < 1e-290) {
      double const unit = is_finite(squares) ? 0x1p-600 : 0x1p600;
      buffer<double> scaled(v.size());
      map_vectors(
          context, scaled.span(), [factor = 1 / unit](auto x) { return factor * x; }, v);
      return unit * std::sqrt(inner_product(scaled.span(), scaled.span(), context));
    }
  return std::sqrt(squares);
}
/// |v|, over all ranks.
template <class T>
double norm_of(std::span<T const> v, step_context const& context) {
  return norm_from(inner_product(v, v, context), v, context);
}

/// What lies behind `member` (weights or gradients) of a list, to and from a vector. Throws argument_error if some of
/// it is elsewhere, or if the list is no longer what the vector was made for; every method gathers before it scatters,
/// which leaves out tensors that are new.
template <class T>
void gather(basic_parameter_list<T> const& p, std::span<T> basic_parameter<T>::*member,
            std::type_identity_t<std::span<T>> to) {
  require(!p.has_opaque(),
          "optim: some tensors of this parameter list are elsewhere, where a method that sees all parameters as one "
          "vector cannot read them: give it a list with their memory");
  require(p.flat_size() == to.size(), "optim: the parameter list has ", p.flat_size(), " weights, and had ", to.size(),
          " when this began: an objective reads weights and writes gradients, and leaves the list as it is");
  copy_to_flat(p, member, to);
}
template <class T>
void scatter(std::type_identity_t<std::span<T const>> from, basic_parameter_list<T> const& p,
             std::span<T> basic_parameter<T>::*member) {
  if (p.flat_size() == from.size()) return copy_from_flat(from, p, member);
  for (std::size_t i = 0; i < p.size() && p.offset(i + 1) <= from.size(); ++i)
    std::copy_n(from.data() + p.offset(i), (p[i].*member).size(), (p[i].*member).begin());
}
/// The weights of a list become x + step d.
template <class T>
void move_to(basic_parameter_list<T> const& p, std::type_identity_t<std::span<T const>> x, double step,
             std::type_identity_t<std::span<T const>> d, step_context const& context) {
  auto const a = static_cast<T>(step);
  for (std::size_t i = 0; i < p.size(); ++i)
    map_vectors(
        context, p[i].weight, [a](auto from, auto along) { return from + a * along; },
        x.subspan(p.offset(i), p[i].size()), d.subspan(p.offset(i), p[i].size()));
}

}  // namespace dovetail::optim::detail
