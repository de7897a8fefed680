// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/second_order/flat_vectors.hpp>
#include <dovetail/optim/second_order/hvp.hpp>

namespace dovetail::optim {

/// How conjugate_gradient ended.
struct solution {
  int products = 0;
  double value = 0;                 ///< x·A x / 2 - b·x
  double residual = 0;              ///< |b - A x|
  bool converged = false;           ///< |b - A x| <= residual |b|
  bool negative_curvature = false;  ///< A is not positive definite along the last direction; x is where it was met
};

/// Preconditioned conjugate gradients: minimizes x·A x / 2 - b·x, that is, solves A x = b for a positive definite A
/// that is known by its products, from the given x on. Ends after `products`, when |b - A x| <= residual |b|, or when
/// the last k = max(10, i / 10) of i iterations have improved the value by less than k `progress` of it (Martens, Deep
/// learning via Hessian-free optimization, ICML 2010, section 4.4), or at a direction of negative curvature.
/// `inverse_diagonal` is the inverse of a diagonal preconditioner, or empty.
struct conjugate_gradient {
  int products = 250;
  double progress = 5e-4;
  double residual = 1e-4;
  static constexpr auto describe() {
    return policy{"conjugate_gradient", field{"products", &conjugate_gradient::products, ranges::count},
                  field{"progress", &conjugate_gradient::progress, ranges::not_negative},
                  field{"residual", &conjugate_gradient::residual, ranges::not_negative}};
  }

  /// `watch(i, x, value)` is called after product i.
  template <hvp Product, class Watch>
  solution solve(Product&& a, std::span<float const> b, std::span<float const> inverse_diagonal, std::span<float> x,
                 step_context const& context, Watch const& watch) const {
    return solve_for<float>(a, b, inverse_diagonal, x, context, watch);
  }
  template <class Product, detail::of_doubles X, class Watch>
  requires hvp<Product, double> solution solve(Product&& a, std::span<double const> b,
                                               std::span<double const> inverse_diagonal, X&& x,
                                               step_context const& context, Watch const& watch)
  const { return solve_for<double>(a, b, inverse_diagonal, std::span<double>(x), context, watch); }
  template <hvp Product>
  solution solve(Product&& a, std::span<float const> b, std::span<float> x, step_context const& context = {}) const {
    return solve_for<float>(a, b, {}, x, context, [](int, std::span<float const>, double) {});
  }
  template <class Product, detail::of_doubles X>
  requires hvp<Product, double> solution solve(Product&& a, std::span<double const> b, X&& x,
                                               step_context const& context = {})
  const {
    return solve_for<double>(a, b, {}, std::span<double>(x), context, [](int, std::span<double const>, double) {});
  }

 private:
  template <class T, class Product, class Watch>
  solution solve_for(Product& a, std::span<T const> b, std::span<T const> inverse_diagonal, std::span<T> x,
                     step_context const& context, Watch const& watch) const {
    check_policy(*this);
    require(x.size() == b.size() && (inverse_diagonal.empty() || inverse_diagonal.size() == b.size()),
            "conjugate_gradient: x has ", x.size(), " elements, b ", b.size(), ", the preconditioner ",
            inverse_diagonal.size(), ": they must be as long as each other");
    std::size_t const n = b.size();
    buffer<T> residual_of(n), preconditioned(inverse_diagonal.empty() ? 0 : n), direction(n), product(n);
    auto const r = residual_of.span(), z = inverse_diagonal.empty() ? r : preconditioned.span(), p = direction.span(),
               ap = product.span();
    solution s;
    std::vector<double> values;
    double const b_norm = detail::norm_of(b, context);
    // Residuals are kept in units of a power of two near |b|, so that products with them neither overflow nor vanish.
    double const unit = detail::unit_near<T>(b_norm);
    auto const factor = static_cast<T>(1 / unit);
    double rz = 0;
    auto const measure = [&] {  // after a change of r
      if (!inverse_diagonal.empty())
        detail::map_vectors(
            context, z, [](auto u, auto m) { return u * m; }, r, inverse_diagonal);
      detail::basic_vector_pair<T> const wanted[]{
          {r.data(), z.data()}, {r.data(), r.data()}, {x.data(), r.data()}, {x.data(), b.data()}};
      double sums[4];
      detail::inner_products(n, wanted, sums, context);
      rz = sums[0];
      s.residual = unit * std::sqrt(sums[1]);
      s.value = -0.5 * (unit * sums[2] + sums[3]);
      values.push_back(s.value);
    };
    if (detail::norm_of(std::span<T const>(x), context) > 0) {
      a(std::span<T const>(x), ap);
      ++s.products;
      detail::map_vectors(
          context, r, [factor](auto u, auto v) { return factor * (u - v); }, b, ap);
    } else {
      detail::map_vectors(
          context, r, [factor](auto u) { return factor * u; }, b);
    }
    measure();
    std::copy(z.begin(), z.end(), p.begin());
    while (s.products < products && s.residual > residual * b_norm && rz > 0) {
      a(std::span<T const>(p), ap);
      ++s.products;
      double const curvature = detail::inner_product(p, ap, context);
      if (!(curvature > 0)) {  // or NaN
        s.negative_curvature = true;
        break;
      }
      double const alpha = rz / curvature;
      auto const add = [](double by) { return [c = static_cast<T>(by)](auto u, auto v) { return u + c * v; }; };
      detail::map_vectors(context, x, add(unit * alpha), x, p);
      detail::map_vectors(context, r, add(-alpha), r, ap);
      double const before = rz;
      measure();
      watch(static_cast<int>(values.size()) - 1, std::span<T const>(x), s.value);
      if (settled(values)) break;
      detail::map_vectors(context, p, add(rz / before), z, p);
    }
    s.converged = s.residual <= residual * b_norm;
    return s;
  }
  bool settled(std::vector<double> const& values) const {
    std::size_t const i = values.size() - 1, k = std::max<std::size_t>(10, i / 10);
    if (i <= k || values[i] >= 0) return false;
    return (values[i] - values[i - k]) / values[i] < static_cast<double>(k) * progress;
  }
};

}  // namespace dovetail::optim
