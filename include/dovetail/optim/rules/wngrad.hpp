// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/named_optimizer.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

// u is the update that arrives, w the weight, t the step from 1. All norms, as in |u|^2, are over all tensors.

namespace dovetail::optim {

/// b <- b + |u|^2 / b; u <- u / b (Wu, Ward & Bottou, WNGrad: Learn the Learning Rate in Gradient Descent, 2018).
struct scale_by_wngrad {
  using kind = reducing;
  float initial = 1;  ///< b before the first step: the inverse of the largest rate
  static constexpr auto describe() {
    return policy{"scale_by_wngrad", field{"initial", &scale_by_wngrad::initial, ranges::positive}};
  }
  static constexpr reduction needs{};
  static constexpr std::array scalars{"b"};
  constexpr double initial_scalar(std::size_t) const { return static_cast<double>(initial); }

  struct kernel {
    DOVETAIL_HD float factor(norms n, double& b) const {
      b += n.update * n.update / b;
      return static_cast<float>(1 / b);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T factor) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};

/// WNGrad (Wu, Ward & Bottou, 2018): one rate for all weights, which falls with the squares of the gradients' norms.
/// 2 passes, 20 bytes.
struct wngrad {
  schedule lr = 1;
  float initial = 1;  ///< inverse of the largest rate, which no step reaches
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"wngrad", field{"lr", &wngrad::lr}, field{"initial", &wngrad::initial, ranges::positive},
                  field{"weight_decay", &wngrad::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_wngrad, scale_by_learning_rate>;
  template <class Rule = rule>
  constexpr Rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_wngrad{initial}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
