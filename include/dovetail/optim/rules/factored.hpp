// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/directions/factored.hpp>
#include <dovetail/optim/directions/row_wise.hpp>
#include <dovetail/optim/directions/sign.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// Rules that remember a number per row and column instead of one per weight. Their update is stored between two passes,
// in room for the largest tensor.

namespace dovetail::optim {

/// min(largest, 1 / sqrt(t)), t the step from 1: Adafactor's rate (Shazeer & Stern, ICML 2018, section 8).
struct relative_step {
  float largest = 1e-2f;  ///< rate of the first 1 / largest^2 steps
  static constexpr auto describe() {
    return policy{"relative_step", field{"largest", &relative_step::largest, ranges::positive}};
  }
  float operator()(std::int64_t step) const {
    return std::min(largest, static_cast<float>(1 / std::sqrt(static_cast<double>(step + 1))));
  }
};

/// Adafactor (Shazeer & Stern, ICML 2018) as in PyTorch: steps relative to the size of each tensor. Weight decay is
/// decoupled and follows the same rate. State: n + m numbers for a matrix {n, m}.
struct adafactor {
  schedule lr = relative_step{};  ///< in units of each tensor's own size
  float decay = -0.8f;            ///< the averages keep 1 - t^decay in step t
  float epsilon = 1.1920929e-7f;  ///< the least mean of squares
  float smallest_rms = 1e-3f;     ///< the least size that a tensor is taken to have
  float clipping = 1;             ///< the largest rms of an update, before the tensor's size
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"adafactor",
                  field{"lr", &adafactor::lr},
                  field{"decay", &adafactor::decay, bounds{.high = 0}},
                  field{"epsilon", &adafactor::epsilon, ranges::not_negative},
                  field{"smallest_rms", &adafactor::smallest_rms, ranges::not_negative},
                  field{"clipping", &adafactor::clipping, ranges::positive},
                  field{"weight_decay", &adafactor::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_adafactor, add_decayed_weights, scale_by_learning_rate>;
  rule stages() const {
    return {scale_by_adafactor{decay, epsilon, smallest_rms, clipping}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// SM3 (Anil et al., NeurIPS 2019), AdaGrad with one number per row and column, and momentum: m <- b m + (1 - b) u,
/// w <- w - lr (m + weight_decay w) with b = momentum. State: the momentum, and n + m numbers for a matrix
/// {n, m}. Wants a warm-up.
struct sm3 {
  schedule lr = 0.1f;
  float momentum = 0.9f;
  float epsilon = 1e-8f;  ///< added under the root
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"sm3", field{"lr", &sm3::lr}, field{"momentum", &sm3::momentum, ranges::share},
                  field{"epsilon", &sm3::epsilon, ranges::not_negative},
                  field{"weight_decay", &sm3::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_sm3, accumulate_average, add_decayed_weights, scale_by_learning_rate>;
  rule stages() const {
    return {scale_by_sm3{epsilon}, accumulate_average{momentum}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Row-wise AdaGrad (Mudigere et al., ISCA 2022), for embedding tables: one number per row. Weight decay is coupled.
struct row_wise_adagrad {
  schedule lr = 1e-2f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"row_wise_adagrad", field{"lr", &row_wise_adagrad::lr},
                  field{"epsilon", &row_wise_adagrad::epsilon, ranges::not_negative},
                  field{"weight_decay", &row_wise_adagrad::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_row_wise_adagrad, scale_by_learning_rate>;
  rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_row_wise_adagrad{epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
