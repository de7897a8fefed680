// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/linalg/tensor_functions.hpp>
#include <dovetail/optim/matrix/algebra.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedules.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
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

  /// Order of A without the column of a bias that is not there.
  template <class Algebra>
  static std::size_t order(basic_tensor_update<Algebra> const& t) {
    std::string_view const weight = t.name, suffix = "weight";
    bool const has_bias = t.next_name && weight.ends_with(suffix) && t.next_update.size() == t.rows() &&
                          *t.next_name == std::string(weight.substr(0, weight.size() - suffix.size())) + "bias";
    return t.columns() + (has_bias ? 1 : 0);
  }
  /// Where S begins in an array of A and S.
  std::size_t outputs() const { return n * n; }

  /// The layer's inputs {rows, order}, with a 1 behind each where the bias's column is.
  template <class Algebra>
  void inputs(Algebra const& algebra, basic_kfac_statistics<typename Algebra::real> const& f, std::size_t order,
              typename Algebra::span to) const {
    auto&& matrix = matrices_of(algebra);
    auto const rows = static_cast<std::size_t>(f.rows), in = n - 1;
    matrix.copy(rows, in, typename Algebra::const_span(f.inputs, rows * in), in, to, order);
    if (order == n) matrix.fill(rows, 1, 1, to.subspan(in), n);
  }
  template <class Algebra>
  typename Algebra::const_span output_gradients(basic_kfac_statistics<typename Algebra::real> const& f) const {
    return {f.output_gradients, static_cast<std::size_t>(f.rows) * m};
  }
  /// Adds scale a a^T and g g^T / (scale positions) of a layer, the two halves of `sums`, and counts it behind them.
  template <class Algebra>
  void add(Algebra const& algebra, basic_kfac_statistics<typename Algebra::real> const& f,
           typename Algebra::span sums) const {
    using lapack::as;
    auto&& matrix = matrices_of(algebra);
    auto const rows = static_cast<std::size_t>(f.rows);
    auto const a = algebra.work(rows * n);
    inputs(algebra, f, n, a);
    matrix.gram(as::transposed, n, rows, f.scale, a, n, 1, sums);
    float const share = 1 / (f.scale * static_cast<float>(f.positions));
    matrix.gram(as::transposed, m, rows, share, output_gradients<Algebra>(f), m, 1, sums.subspan(outputs()));
    auto const count = sums.subspan(size(), 1);
    algebra.map(count, add_one{}, count);
  }
  /// Moves what has been added into the running averages: kept share min(1 - 1/k, decay) at the k-th time. False if
  /// nothing has been added.
  template <class Algebra>
  bool take_in(Algebra const& algebra, typename Algebra::span sums, typename Algebra::span averages,
               float decay) const {
    if (algebra.value(sums, size()) == 0) return false;
    auto const k = static_cast<float>(algebra.value(averages, size())) + 1, kept = std::min(1 - 1 / k, decay);
    auto const old = averages.first(size()), count = averages.subspan(size(), 1);
    algebra.map(old, average{kept, 1 - kept}, old, sums.first(size()));
    algebra.map(count, add_one{}, count);
    algebra.fill(sums.first(size() + 1), 0);
    return true;
  }
  /// False if no layer has been seen.
  template <class Algebra>
  bool known(Algebra const& algebra, typename Algebra::const_span averages) const {
    return algebra.value(averages, size()) != 0;
  }
  /// The first `order` rows and columns of A, in the algebra's work.
  template <class Algebra>
  typename Algebra::const_span input_average(Algebra const& algebra, typename Algebra::const_span averages,
                                             std::size_t order) const {
    auto const a = algebra.work(order * order);
    matrices_of(algebra).copy(order, order, averages, n, a, order);
    return a;
  }
  /// The gradient of weight and bias as one matrix {m, order}, and back.
  template <class Algebra>
  static void join(basic_tensor_update<Algebra> const& t, std::size_t order, typename Algebra::span to) {
    auto&& matrix = matrices_of(t.algebra);
    matrix.copy(t.rows(), t.columns(), t.update, t.columns(), to, order);
    if (order > t.columns()) matrix.copy(t.rows(), 1, t.next_update, 1, to.subspan(t.columns()), order);
  }
  template <class Algebra>
  static void part(basic_tensor_update<Algebra> const& t, std::size_t order, typename Algebra::const_span from) {
    auto&& matrix = matrices_of(t.algebra);
    matrix.copy(t.rows(), t.columns(), from, order, t.update, t.columns());
    if (order > t.columns()) matrix.copy(t.rows(), 1, from.subspan(t.columns()), order, t.next_update, 1);
  }

  struct add_one {
    template <class T>
    DOVETAIL_INLINE T operator()(T x) const {
      return x + 1.0f;
    }
  };
};

}  // namespace detail

/// K-FAC (Martens & Grosse, ICML 2015, sections 3, 5 and 6.3): u <- (S + sqrt(damping) / pi I)^-1 u (A + pi
/// sqrt(damping) I)^-1 with pi^2 = (tr A / order of A) / (tr S / order of S), inverses renewed every `interval` steps.
/// Each layer's inverses are worked out by one rank.
struct scale_by_kfac {
  using kind = tensorwise;
  float decay = 0.95f;
  float damping = 1e-3f;
  std::int64_t interval = 10;
  static constexpr auto describe() {
    return policy{"scale_by_kfac", field{"decay", &scale_by_kfac::decay, ranges::share},
                  field{"damping", &scale_by_kfac::damping, ranges::positive},
                  field{"interval", &scale_by_kfac::interval, ranges::count}};
  }

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
  template <class Algebra>
  void collect(basic_tensor_update<Algebra> const& t, basic_kfac_statistics<typename Algebra::real> const& f) const {
    if (!t.arrays.empty()) detail::kronecker(t.shape).add(t.algebra, f, t.array(0));
  }
  template <class Algebra>
  typename Algebra::span unreduced_statistics(basic_tensor_update<Algebra> const& t) const {
    return t.arrays.empty() ? typename Algebra::span{} : t.array(0);
  }
  template <class Algebra>
  static auto solution(basic_tensor_update<Algebra> const& t) {
    return t.array(2);
  }

  template <class Algebra>
  void observe(basic_tensor_update<Algebra> const& t) const {
    if (!t.arrays.empty()) detail::kronecker(t.shape).take_in(t.algebra, t.array(0), t.array(1), decay);
  }
  template <class Algebra>
  void solve(basic_tensor_update<Algebra> const& t) const {
    detail::kronecker const k(t.shape);
    if (!k.known(t.algebra, t.array(1))) return;
    auto&& matrix = matrices_of(t.algebra);
    std::size_t const order = k.order(t);
    auto const a = k.input_average(t.algebra, t.array(1), order);
    auto const s = t.array(1).subspan(k.outputs(), k.m * k.m);
    double const mean_a = t.algebra.value(matrix.trace(a, order)) / static_cast<double>(order);
    double const mean_s = t.algebra.value(matrix.trace(s, k.m)) / static_cast<double>(k.m);
    double const pi = mean_a > 0 && mean_s > 0 ? std::sqrt(mean_a / mean_s) : 1;
    double const root = std::sqrt(static_cast<double>(damping));
    matrix.inverse(a, order, pi * root, t.array(2).first(order * order));
    matrix.inverse(s, k.m, root / pi, t.array(2).subspan(k.outputs(), k.m * k.m));
  }
  template <class Algebra>
  void apply(basic_tensor_update<Algebra> const& t) const {
    if (t.arrays.empty()) return;
    detail::kronecker const k(t.shape);
    if (!k.known(t.algebra, t.array(1))) return;
    using lapack::as;
    auto&& matrix = matrices_of(t.algebra);
    std::size_t const order = k.order(t), n = k.m * order;
    auto const work = t.work(2 * n), u = work.first(n), v = work.subspan(n);
    auto const a = t.array(2), s = a.subspan(k.outputs());
    k.join(t, order, u);
    matrix.multiply(as::it_is, as::it_is, k.m, order, k.m, 1, s, k.m, u, order, 0, v, order);
    matrix.multiply(as::it_is, as::it_is, k.m, order, order, 1, v, order, a, order, 0, u, order);
    k.part(t, order, u);
  }
};

/// EKFAC (George et al., NeurIPS 2018, algorithm 1): in the eigenbases P of S and Q of A, renewed every `interval`
/// steps, u <- P ((P^T u Q) / (s + damping)) Q^T, with s the running average of (P^T g)^2 (Q^T a)^2, which begins in
/// new bases as the product of their eigenvalues. Each layer's bases are worked out by one rank.
struct scale_by_ekfac {
  using kind = tensorwise;
  float decay = 0.95f;
  float damping = 1e-3f;
  std::int64_t interval = 10;
  static constexpr auto describe() {
    return policy{"scale_by_ekfac", field{"decay", &scale_by_ekfac::decay, ranges::share},
                  field{"damping", &scale_by_ekfac::damping, ranges::positive},
                  field{"interval", &scale_by_ekfac::interval, ranges::count}};
  }

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
  template <class Algebra>
  void collect(basic_tensor_update<Algebra> const& t, basic_kfac_statistics<typename Algebra::real> const& f) const {
    if (t.arrays.empty()) return;
    detail::kronecker const k(t.shape);
    k.add(t.algebra, f, t.array(0));
    if (t.step > 1 && k.known(t.algebra, t.array(1))) add_second_moments(t, k, f);
  }
  template <class Algebra>
  typename Algebra::span unreduced_statistics(basic_tensor_update<Algebra> const& t) const {
    return t.arrays.empty() ? typename Algebra::span{} : t.array(0);
  }
  template <class Algebra>
  static auto solution(basic_tensor_update<Algebra> const& t) {
    return t.array(2);
  }

  template <class Algebra>
  void observe(basic_tensor_update<Algebra> const& t) const {
    if (t.arrays.empty()) return;
    detail::kronecker const k(t.shape);
    bool const seen = k.take_in(t.algebra, t.array(0), t.array(1), decay);
    auto const fresh = t.array(0).subspan(k.size() + 1), s = t.array(3);
    if (seen && t.step > 1) t.algebra.map(s, detail::average{decay, 1 - decay}, s, fresh);
    t.algebra.fill(fresh, 0);
  }
  template <class Algebra>
  void solve(basic_tensor_update<Algebra> const& t) const {
    detail::kronecker const k(t.shape);
    if (!k.known(t.algebra, t.array(1))) return;
    auto&& matrix = matrices_of(t.algebra);
    std::size_t const order = k.order(t);
    auto const to = t.array(2), values = to.subspan(k.size());
    matrix.eigen(k.input_average(t.algebra, t.array(1), order), order, to.first(order * order), values.first(order));
    matrix.eigen(t.array(1).subspan(k.outputs(), k.m * k.m), k.m, to.subspan(k.outputs(), k.m * k.m),
                 values.subspan(k.n, k.m));
  }
  template <class Algebra>
  void apply(basic_tensor_update<Algebra> const& t) const {
    if (t.arrays.empty()) return;
    detail::kronecker const k(t.shape);
    if (!k.known(t.algebra, t.array(1))) return;
    using lapack::as;
    auto&& matrix = matrices_of(t.algebra);
    std::size_t const order = k.order(t), n = k.m * order;
    auto const s = t.array(3).first(n);
    if (due(t.step)) {  // products of eigenvalues
      auto const values = t.array(2).subspan(k.size());
      matrix.multiply(as::it_is, as::it_is, k.m, order, 1, 1, values.subspan(k.n), 1, values, order, 0, s, order);
    }
    auto const work = t.work(2 * n), u = work.first(n), v = work.subspan(n);
    auto const q = t.array(2), p = q.subspan(k.outputs());
    k.join(t, order, u);
    matrix.multiply(as::it_is, as::it_is, k.m, order, k.m, 1, p, k.m, u, order, 0, v, order);
    matrix.multiply(as::it_is, as::transposed, k.m, order, order, 1, v, order, q, order, 0, u, order);
    t.algebra.map(u, divide{damping}, u, s);
    matrix.multiply(as::transposed, as::it_is, k.m, order, k.m, 1, p, k.m, u, order, 0, v, order);
    matrix.multiply(as::it_is, as::it_is, k.m, order, order, 1, v, order, q, order, 0, u, order);
    k.part(t, order, u);
  }

  // ---- for the algebra; public, because a device's kernels take nothing else
  struct divide {
    float damping;
    template <class T>
    DOVETAIL_INLINE T operator()(T u, T moment) const {
      return u / (moment + damping);
    }
  };
  struct square {
    template <class T>
    DOVETAIL_INLINE T operator()(T x) const {
      return x * x;
    }
  };

 private:
  /// Squares of a layer's gradients, row by row, in the bases of the last step.
  template <class Algebra>
  static void add_second_moments(basic_tensor_update<Algebra> const& t, detail::kronecker const& k,
                                 basic_kfac_statistics<typename Algebra::real> const& f) {
    using lapack::as;
    auto&& matrix = matrices_of(t.algebra);
    auto const rows = static_cast<std::size_t>(f.rows);
    std::size_t const order = k.order(t);
    auto const work = t.work(rows * (2 * order + k.m));
    auto const a = work.first(rows * order), rotated = work.subspan(rows * order, rows * order),
               g = work.subspan(2 * rows * order);
    auto const q = t.array(2), p = q.subspan(k.outputs());
    k.inputs(t.algebra, f, order, a);
    matrix.multiply(as::it_is, as::transposed, rows, order, order, 1, a, order, q, order, 0, rotated, order);
    t.algebra.map(rotated, square{}, rotated);
    matrix.multiply(as::it_is, as::transposed, rows, k.m, k.m, 1, k.template output_gradients<Algebra>(f), k.m, p, k.m,
                    0, g, k.m);
    t.algebra.map(g, square{}, g);
    matrix.multiply(as::transposed, as::it_is, k.m, order, rows, 1 / f.scale, g, k.m, rotated, order, 1,
                    t.array(0).subspan(k.size() + 1), order);
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
  static constexpr auto describe() {
    return policy{"kfac",
                  field{"lr", &kfac::lr},
                  field{"momentum", &kfac::momentum, ranges::share},
                  field{"decay", &kfac::decay, ranges::share},
                  field{"damping", &kfac::damping, ranges::positive},
                  field{"interval", &kfac::interval, ranges::count},
                  field{"weight_decay", &kfac::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_kfac, accumulate_momentum, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  Rule stages() const {
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
  static constexpr auto describe() {
    return policy{"ekfac",
                  field{"lr", &ekfac::lr},
                  field{"momentum", &ekfac::momentum, ranges::share},
                  field{"decay", &ekfac::decay, ranges::share},
                  field{"damping", &ekfac::damping, ranges::positive},
                  field{"interval", &ekfac::interval, ranges::count},
                  field{"weight_decay", &ekfac::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_ekfac, accumulate_momentum, add_decayed_weights, scale_by_learning_rate>;
  template <class Rule = rule>
  Rule stages() const {
    return {scale_by_ekfac{decay, damping, interval}, accumulate_momentum{momentum}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
