// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include <dovetail/core/config.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/rule_needs.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/sync/contribution.hpp>

namespace dovetail::sync {

/// The direction of one_bit_adam. For `warmup_steps` steps m <- b1 m + (1 - b1) u, v <- b2 v + (1 - b2) u^2; from then
/// on u is the average itself, m <- u, and v stays. u <- m / (sqrt(v) + epsilon), behind the warmup 0 where v is 0: of
/// an element that had no gradient so far nobody knows the size of a step, and a codec's error there would be divided
/// by 0.
struct scale_by_one_bit_adam {
  using kind = optim::elementwise;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  std::int64_t warmup_steps = 1000;
  static constexpr auto describe() {
    return policy{"scale_by_one_bit_adam", field{"beta1", &scale_by_one_bit_adam::beta1, ranges::share},
                  field{"beta2", &scale_by_one_bit_adam::beta2, ranges::share},
                  field{"epsilon", &scale_by_one_bit_adam::epsilon, ranges::not_negative},
                  field{"warmup_steps", &scale_by_one_bit_adam::warmup_steps, ranges::count}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel {
    float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0, epsilon = 0;
    bool warm = false;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      if (warm) {
        m = u;
      } else {
        m = beta1 * m + one_minus_beta1 * u;
        v = beta2 * v + one_minus_beta2 * u * u;
      }
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v) const {
      T const u = m / (simd::sqrt(v) + epsilon);
      return warm ? simd::select(v > 0.0f, u, T(0.0f)) : u;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            static_cast<float>(1 - static_cast<double>(beta1)),
            beta2,
            static_cast<float>(1 - static_cast<double>(beta2)),
            optim::detail::root_epsilon(epsilon),
            t > warmup_steps};
  }
};

/// 1-bit Adam (Tang et al., ICML 2021, algorithm 1): Adam without bias correction, for `warmup_steps` steps; then the
/// average of squares stays as it is, and ranks agree on the average of gradients instead of the gradient, which a
/// codec of one bit can carry because the direction no longer depends on it nonlinearly:
///
///     sync::one_bit_adam const opt{.lr = 1e-3f, .warmup_steps = 500};
///     sync::all_reduce const sync{compress::after{opt.warmup_steps, compress::identity{},
///                                                 compress::error_feedback{compress::sign{}}}};
///
/// What each of P ranks hands over is m / P + (1 - b1) (g - m / P), whose sum is the next m: `contribute`. Nothing of a
/// step that is skipped is kept. Weight decay is decoupled. A codec counts skipped steps as well, this rule the steps
/// that were made. Gradients are replaced by the average in memory. 1 pass, 28 bytes.
///
/// An element without a gradient during the whole warmup (a word that did not occur) is not trained behind it.
///
/// Errors: argument_error for a gradient factor other than 1 where ranks contribute.
struct one_bit_adam {
  optim::schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  std::int64_t warmup_steps = 1000;
  static constexpr auto describe() {
    return policy{"one_bit_adam",
                  field{"lr", &one_bit_adam::lr},
                  field{"beta1", &one_bit_adam::beta1, ranges::share},
                  field{"beta2", &one_bit_adam::beta2, ranges::share},
                  field{"epsilon", &one_bit_adam::epsilon, ranges::not_negative},
                  field{"weight_decay", &one_bit_adam::weight_decay, ranges::not_negative},
                  field{"warmup_steps", &one_bit_adam::warmup_steps, ranges::count}};
  }
  using rule = optim::chain<scale_by_one_bit_adam, optim::add_decayed_weights, optim::scale_by_learning_rate>;
  static constexpr optim::rule_needs needs{.whole_tensors = false};

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
  void contribute(basic_parameter_list<T> const&, optim::basic_state<T> const& s, std::size_t first,
                  std::span<T> gradients, int ranks) const {
    if (s.steps() < warmup_steps) return;
    detail::contribute_average(gradients, s.slot(0).subspan(first, gradients.size()), beta1, ranks);
  }
  template <class T>
  optim::step_result step(basic_parameter_list<T> const& parameters, optim::basic_state<T>& s,
                          optim::step_context context = {}) const {
    auto const chain = stages<T>();
    if (s.steps() < warmup_steps) return chain.step(parameters, s, context);
    detail::contribute_alone(*this, parameters, s, context);
    return chain.step(parameters, s, context);
  }

 private:
  template <class Later, class Rule = optim::detail::later<Later, rule>>
  Rule stages() const {
    optim::detail::check_hyperparameters(*this);
    return {scale_by_one_bit_adam{beta1, beta2, epsilon, warmup_steps}, optim::add_decayed_weights{weight_decay},
            optim::scale_by_learning_rate{lr}};
  }
};

}  // namespace dovetail::sync
