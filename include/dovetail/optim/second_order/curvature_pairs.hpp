// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/optim/second_order/flat_vectors.hpp>

namespace dovetail::optim::detail {

/// What L-BFGS remembers: the last pairs s (change of the weights) and y (change of the gradient), and the inner
/// products of all of them. With these and the products with the gradient, the two-loop recursion runs on a few numbers
/// in double precision and the direction is one pass over the vectors (Chen, Wang & Zhou, Large-scale L-BFGS using
/// MapReduce, NIPS 2014): ranks that hold parts of the vectors add up all products of a step at once.
template <class T>
class curvature_pairs {
  using vector_pair = basic_vector_pair<T>;

 public:
  curvature_pairs() = default;
  curvature_pairs(std::size_t n, std::size_t capacity)
      : n_(n),
        capacity_(possible(n, capacity)),
        vectors_(2 * capacity * n),
        gram_(4 * capacity * capacity),
        work_(7 * capacity + 1) {
    pairs_.reserve(4 * capacity + 2);
    coefficients_.reserve(2 * capacity + 1);
  }

  std::size_t capacity() const { return capacity_; }
  /// Pairs that were ever pushed; the last `size()` of them are here, pair k in place k % capacity.
  std::int64_t& pushed() { return pushed_; }
  std::int64_t pushed() const { return pushed_; }
  std::size_t size() const { return std::min(capacity_, static_cast<std::size_t>(pushed_)); }
  std::size_t newest() const { return static_cast<std::size_t>(pushed_ - 1) % capacity_; }
  std::span<T> s(std::size_t place) { return vector(place); }
  std::span<T> y(std::size_t place) { return vector(capacity_ + place); }
  std::span<double> gram() { return gram_.span(); }
  void clear() { pushed_ = 0; }

  /// Replaces the oldest pair.
  void push(std::span<T const> s, std::span<T const> y, step_context const& context) {
    ++pushed_;
    std::size_t const m = capacity_, at = newest(), n = size();
    std::copy(s.begin(), s.end(), this->s(at).begin());
    std::copy(y.begin(), y.end(), this->y(at).begin());
    pairs_.clear();
    for (std::size_t own : {at, m + at})
      for (std::size_t k = 0; k < n; ++k)
        for (std::size_t other : {k, m + k}) pairs_.push_back({vector(own).data(), vector(other).data()});
    auto const sums = work_.span().first(pairs_.size());
    inner_products(n_, std::span<vector_pair const>(pairs_), sums, context);
    std::size_t i = 0;
    for (std::size_t own : {at, m + at})
      for (std::size_t k = 0; k < n; ++k)
        for (std::size_t other : {k, m + k}) gram_[own * 2 * m + other] = gram_[other * 2 * m + own] = sums[i++];
  }

  /// out = factor H g with H the inverse BFGS matrix of the pairs, begun at gamma times the identity (Nocedal & Wright,
  /// algorithm 7.4). There must be a pair.
  void apply(std::span<T const> g, double gamma, double factor, std::span<T> out, step_context const& context) {
    std::size_t const m = capacity_, n = size();
    pairs_.clear();
    for (std::size_t k = 0; k < n; ++k)
      for (std::size_t j : {k, m + k}) pairs_.push_back({vector(j).data(), g.data()});
    auto const products = work_.span().first(2 * m), d = work_.span().subspan(2 * m, 2 * m + 1),
               alpha = work_.span().subspan(4 * m + 1, m), sums = work_.span().subspan(5 * m + 1, 2 * m);
    inner_products(n_, std::span<vector_pair const>(pairs_), sums, context);
    for (std::size_t k = 0; k < n; ++k) products[k] = sums[2 * k], products[m + k] = sums[2 * k + 1];
    // d holds the coefficients over s…, y… and g of the vector that the recursion works on.
    std::fill(d.begin(), d.end(), 0.0);
    d[2 * m] = 1;
    auto const times = [&](std::size_t j) {
      double sum = d[2 * m] * products[j];
      for (std::size_t k = 0; k < n; ++k) sum += d[k] * product(k, j) + d[m + k] * product(m + k, j);
      return sum;
    };
    for (std::size_t k = 0; k < n; ++k) {  // from the newest
      std::size_t const i = place(k);
      alpha[i] = times(i) / product(i, m + i);
      d[m + i] -= alpha[i];
    }
    for (double& x : d) x *= gamma;
    for (std::size_t k = n; k-- > 0;) {  // from the oldest
      std::size_t const i = place(k);
      d[i] += alpha[i] - times(m + i) / product(i, m + i);
    }
    combine(g, factor, d, out, context);
  }

  /// Inner product of two of s… and y…, by number.
  double product(std::size_t a, std::size_t b) const { return gram_[a * 2 * capacity_ + b]; }

  friend bool operator==(curvature_pairs const& a, curvature_pairs const& b) {
    return a.n_ == b.n_ && a.capacity_ == b.capacity_ && a.pushed_ == b.pushed_ && a.vectors_ == b.vectors_ &&
           a.gram_ == b.gram_;
  }

 private:
  /// As many pairs, if their numbers, and those of their products, can be counted in bytes.
  static std::size_t possible(std::size_t n, std::size_t capacity) {
    constexpr std::size_t most = std::numeric_limits<std::ptrdiff_t>::max();
    require(capacity <= std::size_t{1} << 28 && capacity <= most / (2 * sizeof(T)) / std::max<std::size_t>(n, 1),
            "L-BFGS: a history of ", capacity, " pairs for ", n,
            " parameters is more than memory can hold: 5 to 20 pairs are usual");
    return capacity;
  }
  std::span<T> vector(std::size_t j) { return vectors_.span().subspan(j * n_, n_); }
  /// Where the pair that is `age` younger ones away from the newest lies.
  std::size_t place(std::size_t age) const { return (newest() + capacity_ - age) % capacity_; }

  /// out = factor (sum of coefficients times vectors), in registers: one pass.
  void combine(std::span<T const> g, double factor, std::span<double const> d, std::span<T> out,
               step_context const& context) {
    using pack = simd::pack_of<T>;
    std::size_t const m = capacity_, n = size();
    coefficients_.clear();
    coefficients_.push_back({static_cast<T>(factor * d[2 * m]), g.data()});
    for (std::size_t k = 0; k < n; ++k)
      for (std::size_t j : {k, m + k}) coefficients_.push_back({static_cast<T>(factor * d[j]), vector(j).data()});
    parallel_for(context.threads, n_, blocks_per_thread * sum_block, [&](range part) {
      each_pack<T>(part.size(), [&](std::size_t i, auto const& load, std::size_t length) {
        pack sum = T{0};
        for (auto const& [c, v] : coefficients_) sum = sum + c * load(std::span<T const>(v + part.begin, part.size()));
        T* const to = out.data() + part.begin + i;
        if (length == static_cast<std::size_t>(pack::lanes)) return sum.store(to);
        T room[pack::lanes];
        sum.store(room);
        std::copy_n(room, length, to);
      });
    });
  }

  std::size_t n_ = 0, capacity_ = 0;
  std::int64_t pushed_ = 0;
  buffer<T> vectors_;  // s_0 … s_(capacity - 1), y_0 …
  buffer<double> gram_;
  // Room of a call, so that it allocates nothing; no part of the value.
  buffer<double> work_;
  std::vector<vector_pair> pairs_;
  std::vector<std::pair<T, T const*>> coefficients_;
};

}  // namespace dovetail::optim::detail
