// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <type_traits>
#include <utility>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/optim/second_order/flat_vectors.hpp>
#include <dovetail/optim/second_order/minimize.hpp>

// Curvature without a matrix: products of the Hessian, or of what stands for it, with vectors.

namespace dovetail::optim {

/// Called with a vector v over the flat index space, it writes A v into `out`, for a symmetric matrix A of curvatures
/// at the present weights. It may overwrite the gradients of the parameters; weights are as before when it returns. One
/// that gains by knowing the gradient of the present weights has `hold_gradient(std::span<float const>)`, which
/// hessian_free calls before the first product of a step, and `release_gradient()`, which is called after the last one.
template <class C, class T = float>
concept hvp = requires(C& c, std::span<T const> v, std::span<T> out) {
  c(v, out);
};

namespace detail {

/// Calls f(way) with the weights moved to w + way v for each of `ways`, as shares of step = reach (1 + |w|) / |v|, and
/// puts w back, also when f throws. Returns the step; 0 if v is, or vanishes in the numbers' precision.
template <class T, class F>
double move_along(basic_parameter_list<T> const& p, std::type_identity_t<std::span<T const>> v,
                  std::type_identity_t<std::span<T>> w, double reach, std::initializer_list<double> ways,
                  step_context const& context, F const& f) {
  using item = basic_parameter<T>;
  gather(p, &item::weight, w);
  basic_vector_pair<T> const wanted[]{{w.data(), w.data()}, {v.data(), v.data()}};
  double sums[2];
  inner_products(w.size(), wanted, sums, context);
  double const length = norm_from(sums[1], v, context);
  if (!(length > 0)) return 0;
  double const step = reach * (1 + norm_from(sums[0], std::span<T const>(w), context)) / length;
  if (!is_finite(step) || step > (std::is_same_v<T, float> ? 1e30 : 1e290)) return 0;
  struct restore {
    basic_parameter_list<T> const& p;
    std::span<T> w;
    ~restore() { scatter(w, p, &item::weight); }
  } const at_the_end{p, w};
  for (double const way : ways) {
    move_to(p, w, way * step, v, context);
    f(way);
  }
  return step;
}
}  // namespace detail

/// Calls f(1) and f(-1) with the weights moved by a step along v and against it, for a central difference, and puts
/// them back from `w`, which is room for them. Returns the step, 0 if there is none to be made. The step balances what
/// the numbers lose in it, eps |f| / step, with step^2 times the third derivative: cbrt(eps).
template <class T, class F>
double move_both_ways(basic_parameter_list<T> const& p, std::type_identity_t<std::span<T const>> v,
                      std::type_identity_t<std::span<T>> w, step_context const& context, F const& f) {
  constexpr double root = std::is_same_v<T, float> ? 0.00492156660115 : 6.0554544523933e-6;
  return detail::move_along(p, v, w, root, {1, -1}, context, f);
}

namespace detail {

/// While it lives, a product that has `hold_gradient` knows the gradient of the present weights, which must stay.
template <class Product, class T>
class lent_gradient {
 public:
  lent_gradient(Product& product, std::span<T> gradient) : product_(product) {
    if constexpr (holds) product.hold_gradient(gradient);
  }
  lent_gradient(lent_gradient const&) = delete;
  lent_gradient& operator=(lent_gradient const&) = delete;
  ~lent_gradient() {
    if constexpr (holds) product_.release_gradient();
  }

 private:
  static constexpr bool holds = requires(Product & p, std::span<T> g) {
    p.hold_gradient(g);
    p.release_gradient();
  };
  Product& product_;
};

}  // namespace detail

/// The product of an objective's Hessian with a vector, by a difference of gradients. Between hold_gradient, which
/// hessian_free calls, and release_gradient it is one-sided: one evaluation a product, of errors some 1e-3
/// (of doubles, 1e-7) of the largest curvature times |v| for smooth objectives of ordinary scale (the step is that of
/// Andrei, Accelerated conjugate gradient algorithm with finite difference Hessian/vector product approximation, J.
/// Comput. Appl. Math. 2009). Otherwise it is central: two evaluations, errors of some 1e-5 (1e-10). Overwrites the
/// gradients. Memory: 2 numbers per parameter. Refers to the objective and the list.
template <class Objective, class T = float>
class hessian_product {
  using item = basic_parameter<T>;

 public:
  hessian_product(Objective& f, basic_parameter_list<T>& p, step_context context = {})
      : f_(&f), p_(&p), context_(std::move(context)), weights_(p.flat_size()), gradient_(p.flat_size()) {}

  void operator()(std::span<T const> v, std::span<T> out) {
    require(v.size() == p_->flat_size() && out.size() == v.size(), "hessian_product: vectors of ", v.size(), " and ",
            out.size(), " elements for ", p_->flat_size(), " parameters");
    auto const evaluate = [&](double way) {
      static_cast<void>((*f_)(*p_));
      detail::gather(*p_, &item::gradient, way > 0 ? out : gradient_.span());
    };
    constexpr double root = std::is_same_v<T, float> ? 3.4526698e-4 : 1.4901161e-8;  // of the numbers' epsilon
    double const step = held_ ? detail::move_along(*p_, v, weights_.span(), root, {1}, context_, evaluate)
                              : move_both_ways(*p_, v, weights_.span(), context_, evaluate);
    auto const factor = static_cast<T>(step > 0 ? (held_ ? 1 : 0.5) / step : 0);
    if (step == 0) return std::fill(out.begin(), out.end(), T{0});
    detail::map_vectors(
        context_, out, [factor](auto a, auto b) { return factor * (a - b); }, out, gradient_.span());
  }

  /// `gradient` is that of the weights, which stay until release_gradient().
  void hold_gradient(std::span<T const> gradient) {
    require(gradient.size() == gradient_.size(), "hessian_product: a gradient of ", gradient.size(), " elements for ",
            gradient_.size(), " parameters");
    std::copy(gradient.begin(), gradient.end(), gradient_.begin());
    held_ = true;
  }
  /// The same, evaluated here: for an objective that is one of several summands.
  void hold_gradient() {
    static_cast<void>((*f_)(*p_));
    detail::gather(*p_, &item::gradient, gradient_.span());
    held_ = true;
  }
  void release_gradient() { held_ = false; }

 private:
  Objective* f_;
  basic_parameter_list<T>* p_;
  step_context context_;
  buffer<T> weights_, gradient_;
  bool held_ = false;
};

namespace detail {
template <class T>
void draw_signs_of(random_stream const& stream, std::span<T> z) {
  for (std::size_t i = 0; i < z.size(); i += 128) {
    auto const words = stream.words(static_cast<std::uint32_t>(i / 128));
    for (std::size_t k = 0; k < 128 && i + k < z.size(); ++k) z[i + k] = words[k / 32] >> (k % 32) & 1u ? T{1} : T{-1};
  }
}
}  // namespace detail
/// Fills z with -1 and 1, each as likely as the other (Rademacher): bits of a stream.
inline void draw_signs(random_stream const& stream, std::span<float> z) { detail::draw_signs_of(stream, z); }
inline void draw_signs(random_stream const& stream, std::span<double> z) { detail::draw_signs_of(stream, z); }

namespace detail {
template <class T, class Product>
void hutchinson_diagonal_of(Product& product, random_stream stream, std::span<T> diagonal, int samples) {
  require(samples > 0, "hutchinson_diagonal: ", samples, " samples: at least one is needed");
  buffer<T> z(diagonal.size()), az(diagonal.size());
  std::fill(diagonal.begin(), diagonal.end(), T{0});
  auto const share = 1 / static_cast<T>(samples);
  std::uint32_t const first = stream.tensor;
  for (int k = 0; k < samples; ++k) {
    stream.tensor = first + static_cast<std::uint32_t>(k);
    draw_signs(stream, z.span());
    product(std::span<T const>(z.span()), az.span());
    detail::map(
        diagonal, [share](auto d, auto a, auto b) { return d + share * (a * b); }, diagonal, z.span(), az.span());
  }
}
}  // namespace detail
/// Hutchinson's estimate of the diagonal of a matrix: the mean over `samples` of z * A z, elementwise, z of signs
/// (Bekas, Kokiopoulou & Saad, Appl. Numer. Math. 2007). Unbiased; its variance per sample is that of the off-diagonal
/// part: the sum over the row of their squares. `stream` names the draw: give the step's number, so that no two are
/// alike; ranks that share a product need the same.
template <class Product>
requires hvp<Product>
void hutchinson_diagonal(Product&& product, random_stream stream, std::span<float> diagonal, int samples = 1) {
  detail::hutchinson_diagonal_of(product, stream, diagonal, samples);
}
template <class Product, detail::of_doubles Vector>
requires hvp<Product, double>
void hutchinson_diagonal(Product&& product, random_stream stream, Vector&& diagonal, int samples = 1) {
  detail::hutchinson_diagonal_of(product, stream, std::span<double>(diagonal), samples);
}

/// The Gauss-Newton-Bartlett estimate of a diagonal: count × g², g the mean gradient over `count` predictions for
/// targets that were drawn from the model itself (nn::sampled_gradients), as it lies in the parameters (Liu et al.,
/// Sophia, ICLR 2024, algorithm 2). Unbiased for the Gauss-Newton matrix of the mean of a negative log-likelihood.
template <class T>
void bartlett_diagonal(basic_parameter_list<T> const& p, std::int64_t count,
                       std::type_identity_t<std::span<T>> diagonal) {
  require(diagonal.size() == p.flat_size(), "bartlett_diagonal: room for ", diagonal.size(), " elements, there are ",
          p.flat_size(), " parameters");
  require(count > 0, "bartlett_diagonal: a mean over ", count, " predictions: there is at least one");
  detail::gather(p, &basic_parameter<T>::gradient, diagonal);
  detail::map(
      diagonal, [n = static_cast<T>(count)](auto g) { return n * (g * g); }, diagonal);
}

}  // namespace dovetail::optim
