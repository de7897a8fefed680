// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <ostream>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/directions.hpp>
#include <dovetail/optim/reducing_stages.hpp>
#include <dovetail/optim/schedule.hpp>
#include <dovetail/optim/stages.hpp>

// The optimizers with names. Each is an aggregate of hyperparameters, with PyTorch's or the paper's defaults, that
// stands for a chain. No base class: it would make designated initialisers warn.

namespace dovetail::optim::detail {
// The constants of a named optimizer. Their values are those of its chain, which a program works out only for the
// optimizers that it uses: there are too many of them to trace each in every translation unit.
template <class Rule>
struct passes_of {
  constexpr operator int() const { return Rule::passes; }
};
template <class Rule>
struct bytes_of {
  constexpr operator std::size_t() const { return Rule::bytes_per_parameter; }
};
template <class Rule>
struct plan_of {
  constexpr operator optim::plan const&() const { return Rule::plan; }
  constexpr optim::plan const* operator->() const { return &Rule::plan; }
  friend std::ostream& operator<<(std::ostream& out, plan_of const&) { return out << Rule::plan; }
};
}  // namespace dovetail::optim::detail

/// Makes an optimizer of an aggregate that has a type `rule` (a chain) and `rule stages() const`. All members are
/// templates, so that a program compiles the rules that it uses.
#define DOVETAIL_OPTIMIZER                                                                                       \
  using state_type = ::dovetail::optim::state;                                                                   \
  static constexpr ::dovetail::optim::detail::plan_of<rule> plan{};                                              \
  static constexpr ::dovetail::optim::detail::passes_of<rule> passes{};                                          \
  static constexpr ::dovetail::optim::detail::bytes_of<rule> bytes_per_parameter{};                              \
  template <class Source>                                                                                        \
  static constexpr double bytes_per_parameter_with(Source const& source = {}) {                                  \
    return rule::bytes_per_parameter_with(source);                                                               \
  }                                                                                                              \
  template <std::derived_from<::dovetail::parameter_list> List>                                                  \
  state_type init(List const& parameters) const {                                                                \
    return stages().init(parameters);                                                                            \
  }                                                                                                              \
  template <std::same_as<::dovetail::optim::step_options> Options = ::dovetail::optim::step_options>             \
  ::dovetail::optim::step_result step(::dovetail::parameter_list const& parameters, state_type& state,           \
                                      Options const& options = {}) const {                                       \
    return stages().step(parameters, state, options);                                                            \
  }                                                                                                              \
  template <::dovetail::optim::gradient_source Source>                                                           \
  ::dovetail::optim::step_result step(::dovetail::parameter_list const& parameters, state_type& state,           \
                                      Source const& source, ::dovetail::optim::step_options const& options = {}) \
      const {                                                                                                    \
    return stages().step(parameters, state, source, options);                                                    \
  }

namespace dovetail::optim {

/// w <- w - lr (g + weight_decay w). 1 pass, 12 bytes.
struct sgd {
  schedule lr = 1e-3f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const { return {add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}}; }
  DOVETAIL_OPTIMIZER
};

/// SGD with heavy-ball momentum: b <- momentum b + (1 - dampening)(g + weight_decay w), w <- w - lr b. 1 pass, 20
/// bytes.
struct momentum {
  schedule lr = 1e-3f;
  float momentum = 0.9f;
  float dampening = 0;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, accumulate_momentum{momentum, dampening}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// SGD with Nesterov's momentum: b <- momentum b + g', w <- w - lr (g' + momentum b), g' = g + weight_decay w.
struct nesterov {
  schedule lr = 1e-3f;
  float momentum = 0.9f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, accumulate_nesterov_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, accumulate_nesterov_momentum{momentum}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Adam (Kingma & Ba, ICLR 2015), weight decay coupled as L2 regularisation. 1 pass, 28 bytes.
struct adam {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_adam, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adam{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdamW (Loshchilov & Hutter, ICLR 2019): Adam with decoupled weight decay, scaled by lr as in PyTorch. 1 pass, 28
/// bytes.
struct adamw {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0.01f;

  using rule = chain<scale_by_adam, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adam{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// LARS (You et al., 2017): r = trust_coefficient |w| / (|g| + weight_decay |w|) per tensor,
/// b <- momentum b + r (g + weight_decay w), w <- w - lr b. The rate multiplies behind the momentum, as in PyTorch's
/// SGD: the paper's update when the rate is constant. 2 passes, 28 bytes.
struct lars {
  schedule lr = 0.1f;
  float momentum = 0.9f;
  float weight_decay = 5e-4f;
  float trust_coefficient = 1e-3f;
  float epsilon = 0;

  using rule = chain<scale_by_lars_trust_ratio, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_lars_trust_ratio{trust_coefficient, weight_decay, epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// LAMB (You et al., ICLR 2020): AdamW's update, scaled per tensor to phi(|w|). 2 passes, 40 bytes.
struct lamb {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-6f;
  float weight_decay = 0.01f;
  float min_norm = 0, max_norm = std::numeric_limits<float>::infinity();  ///< bounds of phi

  using rule = chain<scale_by_adam, add_decayed_weights, scale_by_trust_ratio, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adam{beta1, beta2, epsilon}, add_decayed_weights{weight_decay},
            scale_by_trust_ratio{min_norm, max_norm}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// signSGD (Bernstein et al., ICML 2018): w <- w - lr (sign(g) + weight_decay w). 1 pass, 12 bytes.
struct sign_sgd {
  schedule lr = 1e-3f;
  float weight_decay = 0;

  using rule = chain<scale_by_sign, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_sign{}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Signum (Bernstein et al., ICML 2018, algorithm 2): m <- momentum m + (1 - momentum) g,
/// w <- w - lr (sign(m) + weight_decay w). 1 pass, 20 bytes.
struct signum {
  schedule lr = 1e-3f;
  float momentum = 0.9f;
  float weight_decay = 0;

  using rule = chain<accumulate_average, scale_by_sign, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {accumulate_average{momentum}, scale_by_sign{}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Lion (Chen et al., NeurIPS 2023): w <- w - lr (sign(b1 m + (1 - b1) g) + weight_decay w), m <- b2 m + (1 - b2) g.
/// 1 pass, 20 bytes.
struct lion {
  schedule lr = 1e-4f;
  float beta1 = 0.9f, beta2 = 0.99f;
  float weight_decay = 0;

  using rule = chain<scale_by_lion, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_lion{beta1, beta2}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// QHM (Ma & Yarats, ICLR 2019, section 3): b <- beta b + (1 - beta) g', w <- w - lr ((1 - nu) g' + nu b),
/// g' = g + weight_decay w. 1 pass, 20 bytes.
struct qhm {
  schedule lr = 1e-3f;
  float nu = 0.7f, beta = 0.999f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_qhm, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_qhm{nu, beta}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdaGrad (Duchi et al., JMLR 2011): s <- s + g'^2, w <- w - lr g' / (sqrt(s) + epsilon), g' = g + weight_decay w.
/// PyTorch's lr_decay is the schedule inverse_time. 1 pass, 20 bytes.
struct adagrad {
  schedule lr = 1e-2f;
  float initial_accumulator = 0;
  float epsilon = 1e-10f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_adagrad, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adagrad{initial_accumulator, epsilon},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdaDelta (Zeiler, 2012): steps in the units of the weights. 1 pass, 28 bytes.
struct adadelta {
  schedule lr = 1;
  float rho = 0.9f;
  float epsilon = 1e-6f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_adadelta, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adadelta{rho, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// RMSprop (Tieleman & Hinton, Coursera lecture 6.5, 2012): v <- alpha v + (1 - alpha) g'^2,
/// w <- w - lr g' / (sqrt(v) + epsilon), g' = g + weight_decay w. 1 pass, 20 bytes.
struct rmsprop {
  schedule lr = 1e-2f;
  float alpha = 0.99f;
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_rms, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_rms{alpha, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// RMSprop with momentum: b <- momentum b + g' / (sqrt(v) + epsilon), w <- w - lr b. 1 pass, 28 bytes.
struct rmsprop_momentum {
  schedule lr = 1e-2f;
  float alpha = 0.99f;
  float momentum = 0.9f;
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_rms, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_rms{alpha, epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Centred RMSprop (Graves, 2013, equations 38 to 45): divides by the square root of v - a^2, a the running mean of
/// gradients, with momentum behind it. 1 pass, 36 bytes.
struct rmsprop_centred {
  schedule lr = 1e-2f;
  float alpha = 0.99f;
  float momentum = 0;
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_centred_rms, accumulate_momentum, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_centred_rms{alpha, epsilon}, accumulate_momentum{momentum},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Rprop (Riedmiller & Braun, 1993; the variant that forgets a gradient whose sign has turned, as in PyTorch): each
/// weight has a step of its own, which grows while the gradient keeps its sign. For full batches. `lr` scales all
/// steps. 1 pass, 28 bytes.
struct rprop {
  float initial_step = 1e-2f;
  float shrink = 0.5f, grow = 1.2f;
  float smallest_step = 1e-6f, largest_step = 50;
  schedule lr = 1;

  using rule = chain<scale_by_rprop, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_rprop{initial_step, shrink, grow, smallest_step, largest_step}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdaMax (Kingma & Ba, ICLR 2015, algorithm 2): Adam with the infinity norm. 1 pass, 28 bytes.
struct adamax {
  schedule lr = 2e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_adamax, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adamax{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// NAdam (Dozat, ICLR workshop 2016): Adam with Nesterov's momentum, whose strength grows with the steps. 1 pass, 28
/// bytes.
struct nadam {
  schedule lr = 2e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float momentum_decay = 4e-3f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_nadam, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_nadam{beta1, beta2, epsilon, momentum_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AMSGrad (Reddi et al., ICLR 2018): Adam with the largest second moment so far. 1 pass, 36 bytes.
struct amsgrad {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_amsgrad, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_amsgrad{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// RAdam (Liu et al., ICLR 2020): Adam that waits until its second moment can be trusted. 1 pass, 28 bytes.
struct radam {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_radam, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_radam{beta1, beta2, epsilon}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdaBound (Luo et al., ICLR 2019): Adam whose rates per weight are held between bounds that close around
/// final_rate, so that it ends as SGD. 1 pass, 28 bytes.
struct adabound {
  schedule lr = 1e-3f;
  float final_ratio = 100;  ///< the SGD rate at the end, as a multiple of lr
  float gamma = 1e-3f;      ///< how fast the bounds close
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<add_decayed_weights, scale_by_adabound, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {add_decayed_weights{weight_decay}, scale_by_adabound{beta1, beta2, epsilon, final_ratio, gamma},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdaBelief (Zhuang et al., NeurIPS 2020): Adam with the variance of gradients about their mean. Weight decay is
/// decoupled. 1 pass, 28 bytes.
struct adabelief {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-16f;
  float weight_decay = 0;

  using rule = chain<scale_by_adabelief, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adabelief{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Yogi (Zaheer et al., NeurIPS 2018): Adam whose second moment moves by at most (1 - beta2) g^2 a step. Weight decay
/// is decoupled. 1 pass, 28 bytes.
struct yogi {
  schedule lr = 1e-2f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-3f;
  float initial_accumulator = 1e-6f;
  float weight_decay = 0;

  using rule = chain<scale_by_yogi, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_yogi{beta1, beta2, epsilon, initial_accumulator}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// QHAdam (Ma & Yarats, ICLR 2019, section 4): Adam with quasi-hyperbolic averages of both moments. Weight decay is
/// decoupled. 1 pass, 28 bytes.
struct qhadam {
  schedule lr = 1e-3f;
  float nu1 = 0.7f, nu2 = 1;
  float beta1 = 0.995f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<scale_by_qhadam, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_qhadam{nu1, nu2, beta1, beta2, epsilon}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// AdEMAMix (Pagliardini et al., ICLR 2025): AdamW with a second, slow average of gradients. 1 pass, 36 bytes.
struct ademamix {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f, beta3 = 0.9999f;
  float alpha = 5;           ///< weight of the slow average
  std::int64_t warm_up = 0;  ///< steps over which alpha and beta3 reach their values; 0: at once
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<scale_by_ademamix, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_ademamix{beta1, beta2, beta3, alpha, warm_up, epsilon}, add_decayed_weights{weight_decay},
            scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// ADOPT (Taniguchi et al., NeurIPS 2024, algorithm 2, with clipping): Adam that divides by the second moment before
/// this gradient enters it, and so converges with any beta2. The first step only measures. Weight decay is decoupled.
/// 1 pass, 28 bytes.
struct adopt {
  schedule lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.9999f;
  float epsilon = 1e-6f;
  float weight_decay = 0;

  using rule = chain<scale_by_adopt, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adopt{beta1, beta2, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

/// Adan (Xie et al., TPAMI 2024, algorithm 1): moments of the gradient and of its change. The betas are what is kept,
/// as in the authors' program. Weight decay is decoupled. 1 pass, 44 bytes.
struct adan {
  schedule lr = 1e-3f;
  float beta1 = 0.98f, beta2 = 0.92f, beta3 = 0.99f;
  float epsilon = 1e-8f;
  float weight_decay = 0;

  using rule = chain<scale_by_adan, add_decayed_weights, scale_by_learning_rate>;
  constexpr rule stages() const {
    return {scale_by_adan{beta1, beta2, beta3, epsilon}, add_decayed_weights{weight_decay}, scale_by_learning_rate{lr}};
  }
  DOVETAIL_OPTIMIZER
};

}  // namespace dovetail::optim
