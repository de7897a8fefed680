// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/optim/matrix/lapack.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/span_math.hpp>
#include <dovetail/optim/stages.hpp>
#include <dovetail/optim/tensorwise.hpp>

// Natural gradients by Kronecker factors. Of a layer y = W a, with gradients g of the outputs, the Fisher matrix is
// taken to be A (x) S with A = E[a a^T] and S = E[g g^T]; a bias right behind its weight ("0.weight", "0.bias") belongs
// to the matrix as a column, with a 1 at the end of a. Convolutions are layers of patches, whose sums over pixels are
// A's and means S's (Grosse & Martens, ICML 2016). The averages come from what backward shows to
// gradient_pass::observe, which sync::all_reduce and train::trainer set by themselves; targets are the batch's (the
// empirical Fisher) unless the caller observes a pass with targets drawn from the model. Tensors that no layer shows
// are left as they are.

namespace dovetail::optim {

namespace detail {

/// What K-FAC and EKFAC remember of a weight {out, in…}, with m = out and n = in + 1.
struct kronecker {
  std::size_t m = 0, n = 0;  ///< orders of S and of A, the bias's column included

  explicit kronecker(shape const& s) {
    if (s.rank < 2 || s.size() == 0) return;
    m = static_cast<std::size_t>(s[0]);
    n = static_cast<std::size_t>(s.size() / s[0]) + 1;
  }
  std::size_t size() const { return n * n + m * m; }

  /// True if the tensor behind this one is the layer's bias.
  static bool has_bias(tensor_update const& t) {
    std::string_view const weight = t.name, suffix = "weight";
    return t.next_name && weight.ends_with(suffix) && t.next_update.size() == t.rows() &&
           *t.next_name == std::string(weight.substr(0, weight.size() - suffix.size())) + "bias";
  }

  /// Adds scale a a^T and g g^T / (scale positions) of a layer, the two halves of `sums`, and counts it behind them.
  void add(layer_factors const& f, std::span<float> sums) const {
    auto const rows = static_cast<std::size_t>(f.rows), in = n - 1;
    std::vector<float> a(rows * n);
    for (std::size_t r = 0; r < rows; ++r) {
      std::copy_n(f.inputs + r * in, in, a.data() + r * n);
      a[r * n + in] = 1;
    }
    lapack::gram(lapack::as::transposed, n, rows, f.scale, a.data(), n, 1, sums.data());
    float const share = 1 / (f.scale * static_cast<float>(f.positions));
    lapack::gram(lapack::as::transposed, m, rows, share, f.output_gradients, m, 1, sums.data() + n * n);
    sums[size()] += 1;
  }
  /// Moves what has been added into the running averages: kept share min(1 - 1/k, decay) at the k-th time.
  void take_in(std::span<float> sums, std::span<float> averages, float decay) const {
    if (sums[size()] == 0) return;
    float const k = averages[size()] + 1, kept = std::min(1 - 1 / k, decay);
    map(
        averages.first(size()), [kept](simd::pack x, simd::pack y) { return kept * x + (1 - kept) * y; },
        std::span<float const>(averages.first(size())), std::span<float const>(sums.first(size())));
    averages[size()] = k;
    std::fill_n(sums.begin(), size() + 1, 0.0f);
  }
  /// The first `order` rows and columns of A.
  std::vector<float> input_average(std::span<float const> averages, std::size_t order) const {
    std::vector<float> a(order * order);
    for (std::size_t i = 0; i < order; ++i) std::copy_n(averages.data() + i * n, order, a.data() + i * order);
    return a;
  }
  /// The gradient of weight and bias as one matrix {m, order}, and back.
  static void join(tensor_update const& t, std::size_t order, float* to) {
    for (std::size_t r = 0; r < t.rows(); ++r) {
      std::copy_n(t.row(r).data(), t.columns(), to + r * order);
      if (order > t.columns()) to[r * order + t.columns()] = t.next_update[r];
    }
  }
  static void part(tensor_update const& t, std::size_t order, float const* from) {
    for (std::size_t r = 0; r < t.rows(); ++r) {
      std::copy_n(from + r * order, t.columns(), t.row(r).data());
      if (order > t.columns()) t.next_update[r] = from[r * order + t.columns()];
    }
  }
};

}  // namespace detail

/// K-FAC (Martens & Grosse, ICML 2015, sections 3, 5 and 6.3): u <- (S + sqrt(damping) / pi I)^-1 u (A + pi
/// sqrt(damping) I)^-1 with pi^2 = (tr A / order of A) / (tr S / order of S), inverses renewed every `interval` steps.
/// Each layer's inverses are worked out by one rank.
struct scale_by_kfac {
  float decay = 0.95f;
  float damping = 1e-3f;
  std::int64_t interval = 10;
  static constexpr bool tensorwise = true;

  std::vector<named_shape> arrays(shape const& s) const {
    detail::kronecker const k(s);
    auto const n = static_cast<std::int64_t>(k.size());
    if (!n) return {};
    return {{"pending", shape{n + 1}}, {"factors", shape{n + 1}}, {"inverses", shape{n}}};
  }
  bool due(std::int64_t t) const { return t == 1 || t % interval == 0; }
  double cost(shape const& s) const {
    detail::kronecker const k(s);
    return std::pow(k.n, 3) + std::pow(k.m, 3);
  }
  void collect(tensor_update const& t, layer_factors const& f) const {
    if (!t.arrays.empty()) detail::kronecker(t.shape).add(f, t.array(0));
  }
  std::span<float> pending(tensor_update const& t) const { return t.arrays.empty() ? std::span<float>{} : t.array(0); }
  static std::span<float> solution(tensor_update const& t) { return t.array(2); }

  void observe(tensor_update const& t) const {
    if (!t.arrays.empty()) detail::kronecker(t.shape).take_in(t.array(0), t.array(1), decay);
  }
  void solve(tensor_update const& t) const {
    detail::kronecker const k(t.shape);
    if (t.array(1)[k.size()] == 0) return;  // never observed
    std::size_t const order = t.columns() + (detail::kronecker::has_bias(t) ? 1 : 0);
    auto const a = k.input_average(t.array(1), order);
    auto const s = t.array(1).subspan(k.n * k.n, k.m * k.m);
    auto const mean_of_diagonal = [](std::span<float const> x, std::size_t n) {
      double sum = 0;
      for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i * n + i]);
      return sum / static_cast<double>(n);
    };
    double const mean_a = mean_of_diagonal(a, order), mean_s = mean_of_diagonal(s, k.m);
    double const pi = mean_a > 0 && mean_s > 0 ? std::sqrt(mean_a / mean_s) : 1;
    double const root = std::sqrt(static_cast<double>(damping));
    lapack::inverse(a, order, pi * root, t.array(2).first(order * order));
    lapack::inverse(s, k.m, root / pi, t.array(2).subspan(k.n * k.n));
  }
  void apply(tensor_update const& t) const {
    if (t.arrays.empty()) return;
    detail::kronecker const k(t.shape);
    if (t.array(1)[k.size()] == 0) return;
    std::size_t const order = t.columns() + (detail::kronecker::has_bias(t) ? 1 : 0), n = k.m * order;
    auto const work = t.work(2 * n);
    float *const u = work.data(), *const v = u + n;
    detail::kronecker::join(t, order, u);
    using lapack::as;
    lapack::multiply(as::it_is, as::it_is, k.m, order, k.m, 1, t.array(2).data() + k.n * k.n, k.m, u, order, 0, v,
                     order);
    lapack::multiply(as::it_is, as::it_is, k.m, order, order, 1, v, order, t.array(2).data(), order, 0, u, order);
    detail::kronecker::part(t, order, u);
  }
};

/// EKFAC (George et al., NeurIPS 2018, algorithm 1): in the eigenbases P of S and Q of A, renewed every `interval`
/// steps, u <- P ((P^T u Q) / (s + damping)) Q^T, with s the running average of (P^T g)^2 (Q^T a)^2, which begins in
/// new bases as the product of their eigenvalues. Each layer's bases are worked out by one rank.
struct scale_by_ekfac {
  float decay = 0.95f;
  float damping = 1e-3f;
  std::int64_t interval = 10;
  static constexpr bool tensorwise = true;

  std::vector<named_shape> arrays(shape const& s) const {
    detail::kronecker const k(s);
    auto const n = static_cast<std::int64_t>(k.size()), mn = static_cast<std::int64_t>(k.m * k.n);
    if (!n) return {};
    return {{"pending", shape{n + 1 + mn}},
            {"factors", shape{n + 1}},
            {"bases", shape{n + static_cast<std::int64_t>(k.n + k.m)}},
            {"second_moments", shape{mn}}};
  }
  bool due(std::int64_t t) const { return t == 1 || t % interval == 0; }
  double cost(shape const& s) const {
    detail::kronecker const k(s);
    return std::pow(k.n, 3) + std::pow(k.m, 3);
  }
  void collect(tensor_update const& t, layer_factors const& f) const {
    if (t.arrays.empty()) return;
    detail::kronecker const k(t.shape);
    k.add(f, t.array(0));
    if (t.step > 1 && t.array(1)[k.size()] > 0) add_second_moments(t, k, f);
  }
  std::span<float> pending(tensor_update const& t) const { return t.arrays.empty() ? std::span<float>{} : t.array(0); }
  static std::span<float> solution(tensor_update const& t) { return t.array(2); }

  void observe(tensor_update const& t) const {
    if (t.arrays.empty()) return;
    detail::kronecker const k(t.shape);
    bool const seen = t.array(0)[k.size()] > 0;
    k.take_in(t.array(0), t.array(1), decay);
    auto const fresh = t.array(0).subspan(k.size() + 1), s = t.array(3);
    if (seen && t.step > 1)
      detail::map(
          s, [d = decay](simd::pack x, simd::pack y) { return d * x + (1 - d) * y; }, s, fresh);
    std::fill(fresh.begin(), fresh.end(), 0.0f);
  }
  void solve(tensor_update const& t) const {
    detail::kronecker const k(t.shape);
    if (t.array(1)[k.size()] == 0) return;
    std::size_t const order = order_of(t);
    auto const to = t.array(2);
    auto const keep = [&](lapack::eigen_system const& e, std::size_t n, std::size_t basis, std::size_t values) {
      std::copy(e.vectors.begin(), e.vectors.end(), to.begin() + static_cast<std::ptrdiff_t>(basis));  // as rows
      for (std::size_t i = 0; i < n; ++i) to[values + i] = static_cast<float>(std::max(e.values[i], 0.0));
    };
    keep(lapack::eigen(k.input_average(t.array(1), order), order), order, 0, k.size());
    keep(lapack::eigen(t.array(1).subspan(k.n * k.n, k.m * k.m), k.m), k.m, k.n * k.n, k.size() + k.n);
  }
  void apply(tensor_update const& t) const {
    if (t.arrays.empty()) return;
    detail::kronecker const k(t.shape);
    if (t.array(1)[k.size()] == 0) return;
    std::size_t const order = order_of(t), n = k.m * order;
    auto const s = t.array(3);
    if (due(t.step)) {
      auto const values = t.array(2).subspan(k.size());
      for (std::size_t i = 0; i < k.m; ++i)
        for (std::size_t j = 0; j < order; ++j) s[i * order + j] = values[k.n + i] * values[j];
    }
    auto const work = t.work(2 * n);
    float *const u = work.data(), *const v = u + n;
    float const *const q = t.array(2).data(), *const p = q + k.n * k.n;
    detail::kronecker::join(t, order, u);
    using lapack::as;
    lapack::multiply(as::it_is, as::it_is, k.m, order, k.m, 1, p, k.m, u, order, 0, v, order);
    lapack::multiply(as::it_is, as::transposed, k.m, order, order, 1, v, order, q, order, 0, u, order);
    auto const view = work.first(n);
    detail::map(
        view, [d = damping](simd::pack x, simd::pack y) { return x / (y + d); }, view, s.first(n));
    lapack::multiply(as::transposed, as::it_is, k.m, order, k.m, 1, p, k.m, u, order, 0, v, order);
    lapack::multiply(as::it_is, as::it_is, k.m, order, order, 1, v, order, q, order, 0, u, order);
    detail::kronecker::part(t, order, u);
  }

 private:
  static std::size_t order_of(tensor_update const& t) { return t.columns() + (detail::kronecker::has_bias(t) ? 1 : 0); }
  /// Squares of a layer's gradients, row by row, in the bases of the last step.
  static void add_second_moments(tensor_update const& t, detail::kronecker const& k, layer_factors const& f) {
    auto const rows = static_cast<std::size_t>(f.rows);
    std::size_t const order = order_of(t);
    std::vector<float> a(rows * order), g(rows * k.m), rotated(rows * std::max(order, k.m));
    for (std::size_t r = 0; r < rows; ++r) {
      std::copy_n(f.inputs + r * (k.n - 1), k.n - 1, a.data() + r * order);
      if (order == k.n) a[r * order + k.n - 1] = 1;
    }
    float const *const q = t.array(2).data(), *const p = q + k.n * k.n;
    auto const square = [&](std::vector<float>& x, std::size_t n, float const* basis) {
      lapack::multiply(lapack::as::it_is, lapack::as::transposed, rows, n, n, 1, x.data(), n, basis, n, 0,
                       rotated.data(), n);
      detail::map(
          x, [](simd::pack y) { return y * y; }, std::span<float const>(rotated.data(), rows * n));
    };
    std::copy_n(f.output_gradients, rows * k.m, g.data());
    square(a, order, q);
    square(g, k.m, p);
    lapack::multiply(lapack::as::transposed, lapack::as::it_is, k.m, order, rows, 1 / f.scale, g.data(), k.m, a.data(),
                     order, 1, t.array(0).data() + k.size() + 1, order);
  }
};

/// K-FAC (Martens & Grosse, ICML 2015) with momentum, the gradient times the inverse of an approximate Fisher matrix of
/// each layer: m <- momentum m + u, w <- w - lr (m + weight_decay w). State of a layer {out, in}: momentum,
/// and 3 ((in + 1)^2 + out^2) numbers.
struct kfac {
  schedule lr = 1e-2f;
  float momentum = 0.9f;
  float decay = 0.95f;         ///< share of the averages of factors that a step keeps
  float damping = 1e-3f;       ///< added to the Fisher matrix: the larger, the shorter and the more like SGD a step is
  std::int64_t interval = 10;  ///< steps from one renewal of the inverses to the next
  float weight_decay = 0;

  using rule = chain<scale_by_kfac, accumulate_momentum, add_decayed_weights, scale_by_learning_rate>;
  rule stages() const {
    return {scale_by_kfac{decay, damping, interval}, accumulate_momentum{momentum}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// EKFAC (George et al., NeurIPS 2018) with momentum, the gradient scaled in the eigenbases of K-FAC's factors:
/// m <- momentum m + u, w <- w - lr (m + weight_decay w). State of a layer {out, in}: momentum,
/// and 3 ((in + 1)^2 + out^2) + 2 out (in + 1) numbers.
struct ekfac {
  schedule lr = 1e-2f;
  float momentum = 0.9f;
  float decay = 0.95f;         ///< share of all averages that a step keeps
  float damping = 1e-3f;       ///< added to the second moments: the larger, the shorter and the more like SGD a step is
  std::int64_t interval = 10;  ///< steps from one renewal of the bases to the next
  float weight_decay = 0;

  using rule = chain<scale_by_ekfac, accumulate_momentum, add_decayed_weights, scale_by_learning_rate>;
  rule stages() const {
    return {scale_by_ekfac{decay, damping, interval}, accumulate_momentum{momentum}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
