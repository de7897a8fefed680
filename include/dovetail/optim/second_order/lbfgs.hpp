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
/// floats per parameter.
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

  using memory = detail::curvature_pairs;
  memory init(std::size_t n) const {
    check_policy(*this);
    return {n, history};
  }
  void direction(memory& pairs, std::span<float const> g, std::span<float> d, step_context const& options) const {
    if (pairs.size() == 0) {
      steepest_descent::memory none;
      return steepest_descent::direction(none, g, d, options);
    }
    std::size_t const s = pairs.newest(), y = pairs.capacity() + s;
    pairs.apply(g, pairs.product(s, y) / pairs.product(y, y), -1, d, options);
  }
  void learn(memory& pairs, std::span<float const> s, std::span<float const> y, step_context const& options) const {
    detail::vector_pair const wanted[]{{s.data(), y.data()}, {s.data(), s.data()}, {y.data(), y.data()}};
    double sums[3];
    detail::inner_products(s.size(), wanted, sums, options);
    if (sums[0] > smallest_cosine * std::sqrt(sums[1]) * std::sqrt(sums[2])) pairs.push(s, y, options);
  }
  static bool forget(memory& pairs) {
    bool const any = pairs.size() > 0;
    pairs.clear();
    return any;
  }
};

}  // namespace dovetail::optim
