// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/directions/sign.hpp>
#include <dovetail/optim/rules/named.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// Rules of signs and averages.

namespace dovetail::optim {

/// signSGD (Bernstein et al., ICML 2018), a step of lr in every weight:
/// w <- w - lr (sign(g) + weight_decay w). 1 pass, 12 bytes.
struct sign_sgd {
  schedule lr = 1e-3f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"sign_sgd", field{"lr", &sign_sgd::lr},
                  field{"weight_decay", &sign_sgd::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_sign, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_sign{}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Signum (Bernstein et al., ICML 2018, algorithm 2), the sign of an average of gradients:
/// m <- momentum m + (1 - momentum) g, w <- w - lr (sign(m) + weight_decay w). 1 pass, 20 bytes.
struct signum {
  schedule lr = 1e-3f;
  float momentum = 0.9f;
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"signum", field{"lr", &signum::lr}, field{"momentum", &signum::momentum, ranges::share},
                  field{"weight_decay", &signum::weight_decay, ranges::not_negative}};
  }

  using rule = chain<accumulate_average, scale_by_sign, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {accumulate_average{momentum}, scale_by_sign{}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Lion (Chen et al., NeurIPS 2023), the sign of an average of gradients in which the newest counts more:
/// w <- w - lr (sign(b1 m + (1 - b1) g) + weight_decay w), m <- b2 m + (1 - b2) g. 1 pass, 20 bytes.
struct lion {
  schedule lr = 1e-4f;
  float beta1 = 0.9f;   ///< share of the average, rather than of this gradient, in the step
  float beta2 = 0.99f;  ///< share of the average that a step keeps
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"lion", field{"lr", &lion::lr}, field{"beta1", &lion::beta1, ranges::share},
                  field{"beta2", &lion::beta2, ranges::share},
                  field{"weight_decay", &lion::weight_decay, ranges::not_negative}};
  }

  using rule = chain<scale_by_lion, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_lion{beta1, beta2}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// QHM (Ma & Yarats, ICLR 2019, section 3), a mean of plain SGD and momentum: b <- beta b + (1 - beta) g',
/// w <- w - lr ((1 - nu) g' + nu b), g' = g + weight_decay w. 1 pass, 20 bytes.
struct qhm {
  schedule lr = 1e-3f;
  float nu = 0.7f;      ///< share of the momentum, rather than of this gradient, in the step
  float beta = 0.999f;  ///< share of the momentum that a step keeps
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"qhm", field{"lr", &qhm::lr}, field{"nu", &qhm::nu, ranges::unit},
                  field{"beta", &qhm::beta, ranges::share},
                  field{"weight_decay", &qhm::weight_decay, ranges::not_negative}};
  }

  using rule = chain<add_decayed_weights, scale_by_qhm, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_qhm{nu, beta}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
