// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1. The loss of the step is f, which step_context::loss
// gives and train::trainer sets by itself; <a, b> and |a|^2 are sums over all tensors.

namespace dovetail::optim {

/// u <- u min(max(f - lower_bound, 0) / (|u|^2 + epsilon), largest): Polyak's rate, bounded (Loizou et al., Stochastic
/// Polyak Step-size for SGD, AISTATS 2021, with c = 1). A zero gradient stays.
struct scale_by_polyak {
  using kind = reducing;
  float lower_bound = 0;  ///< of the loss
  float largest = 1;      ///< the largest rate
  float epsilon = 0;      ///< added to the denominator
  static constexpr auto describe() {
    return policy{"scale_by_polyak", field{"lower_bound", &scale_by_polyak::lower_bound, ranges::finite},
                  field{"largest", &scale_by_polyak::largest, ranges::positive},
                  field{"epsilon", &scale_by_polyak::epsilon, ranges::not_negative}};
  }
  static constexpr reduction needs{};

  struct kernel {
    float lower_bound = 0, largest = 0, epsilon = 0;
    double gap = 0;
    constexpr void evaluated(double loss) { gap = std::max(loss - static_cast<double>(lower_bound), 0.0); }
    DOVETAIL_HD float factor(norms n) const {
      double const d = n.update * n.update + static_cast<double>(epsilon);
      return d > 0 ? static_cast<float>(std::min(gap / d, static_cast<double>(largest))) : 1.0f;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {lower_bound, largest, epsilon}; }
};

/// SGD with Polyak's rate (Loizou et al., Stochastic Polyak Step-size for SGD, AISTATS 2021): each step goes to where
/// the loss would be at its lower bound if it were a plane. Needs step_context::loss. 2 passes, 20 bytes.
struct polyak_sgd {
  schedule lr = 1;        ///< factor of the rate that is found
  float lower_bound = 0;  ///< of the loss
  float largest = 1;      ///< the largest rate, before the factor
  float epsilon = 0;      ///< added to the denominator, in units of a squared gradient
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"polyak_sgd",
                  field{"lr", &polyak_sgd::lr},
                  field{"lower_bound", &polyak_sgd::lower_bound, ranges::finite},
                  field{"largest", &polyak_sgd::largest, ranges::positive},
                  field{"epsilon", &polyak_sgd::epsilon, ranges::not_negative},
                  field{"weight_decay", &polyak_sgd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_polyak, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_polyak{lower_bound, largest, epsilon},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
