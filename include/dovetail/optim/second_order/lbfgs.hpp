// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstddef>
#include <span>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/second_order/curvature_pairs.hpp>
#include <dovetail/optim/second_order/minimize.hpp>

namespace dovetail::optim {

/// Limited-memory BFGS (Nocedal & Wright, Numerical Optimization, 2nd edition, algorithm 7.5), for minimize: d = -H g,
/// H the inverse BFGS matrix of the last `history` pairs s, y, begun at s·y / y·y times the identity. A pair whose
/// curvature s·y is not above smallest_cosine |s| |y| is left out, so H stays positive definite. Memory: 2 history
/// numbers per parameter.
struct lbfgs {
  std::size_t history = 10;
  double smallest_cosine = 1e-8;
  strong_wolfe line_search{};
  static constexpr auto describe() {
    return policy{"lbfgs", field{"history", &lbfgs::history, ranges::count},
                  field{"smallest_cosine", &lbfgs::smallest_cosine, ranges::share},
                  field{"line_search", &lbfgs::line_search}};
  }
  void check() const { check_policy(line_search); }

  template <class T>
  using memory = detail::curvature_pairs<T>;
  template <class T>
  memory<T> init(basic_parameter_list<T> const& parameters) const {
    check_policy(*this);
    return {parameters.flat_size(), history};
  }
  template <class T>
  void direction(memory<T>& pairs, std::span<T const> g, std::span<T> d, step_context const& context) const {
    if (pairs.size() == 0) {
      steepest_descent::memory none;
      return steepest_descent::direction(none, g, d, context);
    }
    std::size_t const s = pairs.newest(), y = pairs.capacity() + s;
    pairs.apply(g, pairs.product(s, y) / pairs.product(y, y), -1, d, context);
  }
  template <class T>
  void learn(memory<T>& pairs, std::span<T const> s, std::span<T const> y, step_context const& context) const {
    detail::basic_vector_pair<T> const wanted[]{{s.data(), y.data()}, {s.data(), s.data()}, {y.data(), y.data()}};
    double sums[3];
    detail::inner_products(s.size(), wanted, sums, context);
    if (sums[0] > smallest_cosine * std::sqrt(sums[1]) * std::sqrt(sums[2])) pairs.push(s, y, context);
  }
  template <class T>
  static bool forget(memory<T>& pairs) {
    bool const any = pairs.size() > 0;
    pairs.clear();
    return any;
  }
};

}  // namespace dovetail::optim
