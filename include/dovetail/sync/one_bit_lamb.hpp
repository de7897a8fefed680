// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/engine/tensorwise_calls.hpp>
#include <dovetail/optim/linalg/algebra.hpp>
#include <dovetail/optim/linalg/span_math.hpp>
#include <dovetail/optim/linalg/tensor_functions.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/rule_needs.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/stages/reducing.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/optim/tensorwise.hpp>
#include <dovetail/sync/contribution.hpp>

namespace dovetail::sync {

/// The direction of one_bit_lamb, of each tensor x. For `warmup_steps` steps that of LAMB:
///   m <- b1 m + (1 - b1) u,  v <- b2 v + (1 - b2) u^2,  d = m / (sqrt(v) + epsilon),  r = d + weight_decay x
///   c = |x| / |r| within [min_coefficient, max_coefficient],  c_mean <- c_beta c_mean + (1 - c_beta) c,  u <- c r
/// where c is 1, and not a part of c_mean, if a norm is 0; c_mean begins with the first c. From then on u is s times
/// the average itself, v and c_mean stay, and z, which begins as v, follows the gradient that the average tells of:
///   m' = u / s,  z <- b2 z + (1 - b2) ((m' - b1 m) / (1 - b1))^2,  m <- m',  d and r as before, d = 0 where v is 0
///   f = max (sqrt(v) + epsilon) / (sqrt(z) + epsilon);  of the share a = min(1, |d| / |r|) alone: f <- a f + 1 - a;
///   f within [min_factor, max_factor], and within factor_change of the last one;  u <- f c_mean r
struct scale_by_one_bit_lamb {
  using kind = optim::tensorwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-6f;
  float weight_decay = 0.01f;
  float coefficient_beta = 0.9f;
  float min_coefficient = 0.01f, max_coefficient = 10;
  float min_factor = 0.5f, max_factor = 4;
  float factor_change = 0.1f;
  std::int64_t warmup_steps = 1000;
  static constexpr auto describe() {
    return policy{"scale_by_one_bit_lamb",
                  field{"beta1", &scale_by_one_bit_lamb::beta1, ranges::share},
                  field{"beta2", &scale_by_one_bit_lamb::beta2, ranges::share},
                  field{"epsilon", &scale_by_one_bit_lamb::epsilon, ranges::not_negative},
                  field{"weight_decay", &scale_by_one_bit_lamb::weight_decay, ranges::not_negative},
                  field{"coefficient_beta", &scale_by_one_bit_lamb::coefficient_beta, ranges::share},
                  field{"min_coefficient", &scale_by_one_bit_lamb::min_coefficient, ranges::not_negative},
                  field{"max_coefficient", &scale_by_one_bit_lamb::max_coefficient, ranges::positive},
                  field{"min_factor", &scale_by_one_bit_lamb::min_factor, ranges::positive},
                  field{"max_factor", &scale_by_one_bit_lamb::max_factor, ranges::positive},
                  field{"factor_change", &scale_by_one_bit_lamb::factor_change, ranges::share},
                  field{"warmup_steps", &scale_by_one_bit_lamb::warmup_steps, ranges::count}};
  }
  void check() const {
    optim::detail::check_bounds("scale_by_one_bit_lamb", min_coefficient, max_coefficient);
    optim::detail::check_bounds("scale_by_one_bit_lamb", min_factor, max_factor);
  }

  /// m, v and z; c_mean, f and s, which are 0 as long as there is none.
  enum array_index : std::size_t { exp_avg, exp_avg_sq, exp_avg_sq_fresh, coefficient, factor, scale };
  static std::vector<named_shape> arrays(shape const& x) {
    return {{"exp_avg", x},       {"exp_avg_sq", x},  {"exp_avg_sq_fresh", x}, {"coefficient", shape{1}},
            {"factor", shape{1}}, {"scale", shape{1}}};
  }

  template <class T>
  void apply(optim::basic_tensor_update<optim::basic_host_algebra<T>> const& t) const {
    t.step <= warmup_steps ? apply_lamb(t) : apply_average(t);
  }

  /// Behind the last step of the warmup: z <- v, f <- 1, and s <- common / root of the mean of m^2.
  template <class T>
  static void freeze(std::span<optim::basic_tensor_array<T>> kept, double common) {
    std::ranges::copy(kept[exp_avg_sq].values.span(), kept[exp_avg_sq_fresh].values.span().begin());
    T& c = kept[coefficient].values[0];
    if (!(c > 0)) c = 1;
    kept[factor].values[0] = 1;
    double const own = root_mean_square(kept[exp_avg].values.span());
    // Bounded, so that what is multiplied by it is finite and can be divided again.
    kept[scale].values[0] = own > 0 ? static_cast<T>(std::clamp(common / own, 0x1p-60, 0x1p60)) : T{1};
  }
  template <class T>
  static double root_mean_square(std::span<T> x) {
    return x.empty() ? 0 : std::sqrt(optim::sum_of_squares(std::span<T const>(x)) / static_cast<double>(x.size()));
  }

 private:
  template <class T>
  using update = optim::basic_tensor_update<optim::basic_host_algebra<T>>;
  template <class T>
  using pack = simd::pack_of<T>;
  static double complement(float share) { return 1 - static_cast<double>(share); }

  template <class T>
  void apply_lamb(update<T> const& t) const {
    using optim::detail::map;
    std::span<T> const u = t.update, m = t.array(exp_avg), v = t.array(exp_avg_sq);
    auto const fresh1 = static_cast<T>(complement(beta1)), fresh2 = static_cast<T>(complement(beta2));
    auto const of = [](std::span<T> x) { return std::span<T const>(x); };
    map(
        m, [b = beta1, fresh1](pack<T> x, pack<T> g) { return b * x + fresh1 * g; }, of(m), of(u));
    map(
        v, [b = beta2, fresh2](pack<T> x, pack<T> g) { return b * x + fresh2 * g * g; }, of(v), of(u));
    map(
        u, [e = optim::detail::root_epsilon(epsilon)](pack<T> x, pack<T> y) { return x / (simd::sqrt(y) + e); }, of(m),
        of(v));
    decay(t);
    double const weight = std::sqrt(optim::sum_of_squares(t.weight)), length = std::sqrt(optim::sum_of_squares(of(u)));
    if (!(weight > 0 && length > 0)) return;
    double const c =
        std::clamp(weight / length, static_cast<double>(min_coefficient), static_cast<double>(max_coefficient));
    T& mean = t.array(coefficient)[0];
    double const kept = mean > 0 ? static_cast<double>(coefficient_beta) : 0;
    mean = static_cast<T>(kept * static_cast<double>(mean) + (1 - kept) * c);
    optim::detail::scale(u, c);
  }

  template <class T>
  void apply_average(update<T> const& t) const {
    using optim::detail::map;
    std::span<T> const u = t.update, m = t.array(exp_avg), v = t.array(exp_avg_sq), z = t.array(exp_avg_sq_fresh);
    auto const e = static_cast<T>(optim::detail::root_epsilon(epsilon));
    auto const of_change = static_cast<T>(1 / complement(beta1)), fresh = static_cast<T>(complement(beta2));
    auto const of = [](std::span<T> x) { return std::span<T const>(x); };
    optim::detail::scale(u, 1 / static_cast<double>(t.array(scale)[0]));
    map(
        z,
        [=, b1 = beta1, b2 = beta2](pack<T> x, pack<T> before, pack<T> now) {
          pack<T> const g = of_change * (now - b1 * before);
          return b2 * x + fresh * g * g;
        },
        of(z), of(m), of(u));
    std::ranges::copy(u, m.begin());
    // Of an element that had no gradient so far nobody knows the size of a step.
    map(
        u, [e](pack<T> x, pack<T> y) { return simd::select(y > T{0}, x / (simd::sqrt(y) + e), pack<T>(T{0})); }, of(m),
        of(v));
    auto const ratio = optim::detail::largest_of(
        [e](pack<T> x, pack<T> y) {
          return simd::select(x > T{0}, (simd::sqrt(x) + e) / (simd::sqrt(y) + e), pack<T>(T{0}));
        },
        of(v), of(z));
    double f = ratio > 0 ? static_cast<double>(ratio) : 1;
    double const moment = std::sqrt(optim::sum_of_squares(of(u)));
    if (weight_decay > 0) {
      decay(t);
      double const length = std::sqrt(optim::sum_of_squares(of(u))), share = moment < length ? moment / length : 1;
      f = share * f + 1 - share;
    }
    T& last = t.array(factor)[0];
    f = std::clamp(f, static_cast<double>(min_factor), static_cast<double>(max_factor));
    f = std::clamp(f, static_cast<double>(last) * complement(factor_change),
                   static_cast<double>(last) * (1 + static_cast<double>(factor_change)));
    last = static_cast<T>(f);
    optim::detail::scale(u, f * static_cast<double>(t.array(coefficient)[0]));
  }

  /// u <- u + weight_decay x.
  template <class T>
  void decay(update<T> const& t) const {
    if (weight_decay > 0)
      optim::detail::map(
          t.update, [d = weight_decay](pack<T> u, pack<T> x) { return u + d * x; }, std::span<T const>(t.update),
          t.weight);
  }
};

/// 1-bit LAMB (Li et al., 1-bit LAMB: Communication Efficient Large-Scale Large-Batch Training with LAMB's Convergence
/// Speed, HiPC 2022, algorithm 1): LAMB without bias correction for `warmup_steps` steps; then the average of squares
/// stays as it is, and ranks agree on the average of gradients, which a codec of one bit can carry (sync::one_bit_adam
/// says why, and what of that holds here, too). LAMB's ratio of norms cannot be found from a direction with a frozen
/// average of squares: each tensor keeps the mean of its ratios in the warmup, and adapts it by how far the squares of
/// the gradients that the averages tell of have moved from the frozen ones.
///
///     sync::one_bit_lamb const opt{.lr = 1e-2f, .warmup_steps = 500};
///     sync::all_reduce const sync{compress::after{opt.warmup_steps, compress::identity{},
///                                                 compress::error_feedback{compress::sign{}}}};
///
/// What each of P ranks hands over is s (b1 m / P + (1 - b1) g): s, found at the end of the warmup, gives every tensor
/// the same root of the mean square, so that tensors can share a scale of the codec. Sums of g are what the rule takes
/// for the gradient. Nothing of a step that is skipped is kept. A codec counts skipped steps as well, this rule the
/// steps that were made. 12 bytes of state an element, and three numbers a tensor.
///
/// Other than the authors' program it takes c_mean from its first ratio on instead of from 0, so that a short warmup
/// does not shorten steps, and gives an element without a gradient during the whole warmup no step.
///
/// Errors: argument_error for a gradient factor other than 1 where ranks contribute, and for bounds that are reversed.
struct one_bit_lamb {
  optim::schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-6f;
  float weight_decay = 0.01f;
  float coefficient_beta = 0.9f;                        ///< what the mean of a tensor's ratios keeps
  float min_coefficient = 0.01f, max_coefficient = 10;  ///< bounds of a ratio
  float min_factor = 0.5f, max_factor = 4;              ///< bounds of its factor behind the warmup
  float factor_change = 0.1f;                           ///< of the last factor, in one step
  std::int64_t warmup_steps = 1000;
  static constexpr auto describe() {
    return policy{"one_bit_lamb",
                  field{"lr", &one_bit_lamb::lr},
                  field{"beta1", &one_bit_lamb::beta1, ranges::share},
                  field{"beta2", &one_bit_lamb::beta2, ranges::share},
                  field{"epsilon", &one_bit_lamb::epsilon, ranges::not_negative},
                  field{"weight_decay", &one_bit_lamb::weight_decay, ranges::not_negative},
                  field{"coefficient_beta", &one_bit_lamb::coefficient_beta, ranges::share},
                  field{"min_coefficient", &one_bit_lamb::min_coefficient, ranges::not_negative},
                  field{"max_coefficient", &one_bit_lamb::max_coefficient, ranges::positive},
                  field{"min_factor", &one_bit_lamb::min_factor, ranges::positive},
                  field{"max_factor", &one_bit_lamb::max_factor, ranges::positive},
                  field{"factor_change", &one_bit_lamb::factor_change, ranges::share},
                  field{"warmup_steps", &one_bit_lamb::warmup_steps, ranges::count}};
  }
  using rule = optim::chain<scale_by_one_bit_lamb, optim::scale_by_learning_rate>;
  static constexpr optim::rule_needs needs{};

  // Templates, so that a program which includes this and does not use it compiles no chain.
  template <class T>
  optim::basic_state<T> init(basic_parameter_list<T> const& parameters) const {
    return stages<T>().init(parameters);
  }
  template <class T>
  void check_state(basic_parameter_list<T> const& parameters, optim::basic_state<T> const& s) const {
    stages<T>().check_state(parameters, s);
  }
  template <class T>
  void check_next_step(basic_parameter_list<T> const& parameters, optim::basic_state<T> const& s,
                       optim::step_context const& context) const {
    stages<T>().check_next_step(parameters, s, context);
  }
  /// Of elements first, first + 1, … of all parameters: makes of this rank's gradients what ranks are to add up.
  template <class T>
  void contribute(basic_parameter_list<T> const& parameters, optim::basic_state<T> const& s, std::size_t first,
                  std::span<T> gradients, int ranks) const {
    if (s.steps() < warmup_steps) return;
    std::vector<T> turned;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      auto const& p = parameters[i];
      std::size_t const begin = std::max(first, parameters.offset(i)),
                        end = std::min(first + gradients.size(), parameters.offset(i + 1));
      if (begin >= end) continue;
      auto const kept = s.arrays(0, i);
      auto m = kept[scale_by_one_bit_lamb::exp_avg].values.span();
      if (p.transposed) {  // states are by rows, gradients as in memory
        turned.resize(m.size());
        optim::detail::turn<T>(p.logical_shape(), m.data(), turned.data(), true);
        m = turned;
      }
      detail::contribute_average(gradients.subspan(begin - first, end - begin),
                                 m.subspan(begin - parameters.offset(i), end - begin), beta1, ranks,
                                 static_cast<double>(kept[scale_by_one_bit_lamb::scale].values[0]));
    }
  }
  template <class T>
  optim::step_result step(basic_parameter_list<T> const& parameters, optim::basic_state<T>& s,
                          optim::step_context context = {}) const {
    auto const chain = stages<T>();
    if (s.steps() >= warmup_steps) {
      detail::contribute_alone(*this, parameters, s, context);
      return chain.step(parameters, s, context);
    }
    auto const result = chain.step(parameters, s, context);
    if (s.steps() == warmup_steps) freeze(parameters, s);
    return result;
  }

 private:
  template <class Later, class Rule = optim::detail::later<Later, rule>>
  Rule stages() const {
    optim::detail::check_hyperparameters(*this);
    return {scale_by_one_bit_lamb{beta1, beta2, epsilon, weight_decay, coefficient_beta, min_coefficient,
                                  max_coefficient, min_factor, max_factor, factor_change, warmup_steps},
            optim::scale_by_learning_rate{lr}};
  }
  template <class T>
  static void freeze(basic_parameter_list<T> const& parameters, optim::basic_state<T>& s) {
    double total = 0;
    int tensors = 0;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      auto const own =
          scale_by_one_bit_lamb::root_mean_square(s.arrays(0, i)[scale_by_one_bit_lamb::exp_avg].values.span());
      total += own;
      tensors += own > 0;
    }
    for (std::size_t i = 0; i < parameters.size(); ++i)
      scale_by_one_bit_lamb::freeze(s.arrays(0, i), tensors > 0 ? total / tensors : 0);
  }
};

}  // namespace dovetail::sync
