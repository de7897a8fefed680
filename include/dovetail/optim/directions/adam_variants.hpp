// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <dovetail/core/config.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/core/simd_power.hpp>
#include <dovetail/optim/directions/adam_family.hpp>
#include <dovetail/optim/directions/corrections.hpp>
#include <dovetail/optim/stage.hpp>

// More of Adam's relatives: another power, another norm, another bound, another moment for the denominator.
// u is the update that arrives, w the weight, t the step from 1; m^ and v^ are averages whose beginning at 0 is undone.

namespace dovetail::optim {

/// Adam's moments; x <- max(x, v); u <- c m / (sqrt(x) + epsilon)^(2 power), c = sqrt(1 - b2^t) / (1 - b1^t) (Chen et
/// al., Closing the Generalization Gap of Adaptive Gradient Methods in Training Deep Neural Networks, IJCAI 2020,
/// algorithm 1, with the corrections of the authors' program).
struct scale_by_padam {
  float power = 0.125f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{
        "scale_by_padam", field{"power", &scale_by_padam::power, bounds{.low = 0, .high = 0.5, .above = true}},
        field{"beta1", &scale_by_padam::beta1, ranges::share}, field{"beta2", &scale_by_padam::beta2, ranges::share},
        field{"epsilon", &scale_by_padam::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};

  struct kernel : detail::largest_moments {
    float correct = 0, twice_power = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T, T x) const {
      return correct * m / simd::pow(simd::sqrt(x) + epsilon, twice_power);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {{detail::moments_of(beta1, beta2)},
            static_cast<float>(detail::correction(beta1, t) / std::sqrt(detail::correction(beta2, t))),
            2 * power,
            detail::root_epsilon(epsilon)};
  }
};

/// AdaBound's bounds about AMSGrad: Adam's moments; x <- max(x, v); u <- m min(max(c / (sqrt(x) + epsilon), l), h), c =
/// sqrt(1 - b2^t) / (1 - b1^t), l = final_ratio (1 - 1 / (gamma t + 1)), h = final_ratio (1 + 1 / (gamma t)) (Luo et
/// al., Adaptive Gradient Methods with Dynamic Bound of Learning Rate, ICLR 2019).
struct scale_by_amsbound {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float final_ratio = 100;
  float gamma = 1e-3f;
  static constexpr auto describe() {
    return policy{"scale_by_amsbound",
                  field{"beta1", &scale_by_amsbound::beta1, ranges::share},
                  field{"beta2", &scale_by_amsbound::beta2, ranges::share},
                  field{"epsilon", &scale_by_amsbound::epsilon, ranges::not_negative},
                  field{"final_ratio", &scale_by_amsbound::final_ratio, ranges::positive},
                  field{"gamma", &scale_by_amsbound::gamma, ranges::positive}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};

  struct kernel : scale_by_adabound::kernel {
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v, T& x) const {
      detail::moments::advance(u, m, v);
      x = simd::max(x, v);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T m, T, T x) const {
      return scale_by_adabound::kernel::emit(w, u, m, x);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {scale_by_adabound{beta1, beta2, epsilon, final_ratio, gamma}.prepare(t)};
  }
};

/// Nadam's momentum over AdaMax's norm: m <- b1 m + (1 - b1) u; n <- max(b2 n, |u|); u <- (c0 u + c1 m) / (n +
/// epsilon), c0 and c1 as in scale_by_nadam (Dozat, Incorporating Nesterov Momentum into Adam, 2016; m keeps b1 as in
/// PyTorch's NAdam, where the paper has the step's momentum).
struct scale_by_nadamax {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  float momentum_decay = 4e-3f;
  static constexpr auto describe() {
    return policy{"scale_by_nadamax", field{"beta1", &scale_by_nadamax::beta1, ranges::share},
                  field{"beta2", &scale_by_nadamax::beta2, ranges::share},
                  field{"epsilon", &scale_by_nadamax::epsilon, ranges::not_negative},
                  field{"momentum_decay", &scale_by_nadamax::momentum_decay, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_inf"};

  struct kernel {
    float beta1 = 0, rest1 = 0, beta2 = 0, fresh = 0, averaged = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& n) const {
      m = beta1 * m + rest1 * u;
      n = simd::max(beta2 * n, simd::abs(u));
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T m, T n) const {
      return (fresh * u + averaged * m) / (n + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    auto const shares = detail::nesterov_shares(beta1, momentum_decay, t);
    return {beta1, detail::complement(beta1), beta2, shares.fresh, shares.averaged, detail::least_epsilon(epsilon)};
  }
};

/// m <- b1 m + u; v <- b2 v + (1 - b2) u^2; u <- (m + alpha u) / (sqrt(v^) + epsilon) (Morwani et al., Connections
/// between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants, 2025).
struct scale_by_simplified_ademamix {
  float beta1 = 0.99f, beta2 = 0.95f;
  float alpha = 0;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_simplified_ademamix", field{"beta1", &scale_by_simplified_ademamix::beta1, ranges::share},
                  field{"beta2", &scale_by_simplified_ademamix::beta2, ranges::share},
                  field{"alpha", &scale_by_simplified_ademamix::alpha, ranges::not_negative},
                  field{"epsilon", &scale_by_simplified_ademamix::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};

  struct kernel {
    float beta1 = 0, beta2 = 0, rest2 = 0, alpha = 0, correct2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      m = beta1 * m + u;
      v = beta2 * v + rest2 * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T m, T v) const {
      return (m + alpha * u) / (correct2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            beta2,
            detail::complement(beta2),
            alpha,
            detail::root_correction(beta2, t),
            detail::root_epsilon(epsilon)};
  }
};

/// u <- u / (sqrt(s^) + epsilon) with the s of before, in the first step u / (1 + epsilon); m <- b1 m + (1 - b1) u;
/// s <- b2 s + (1 - b2)(u - m)^2 + epsilon (Zhuang et al., Momentum Centering and Asynchronous Update for Adaptive
/// Gradient Methods, NeurIPS 2021).
struct scale_by_acprop {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-16f;
  static constexpr auto describe() {
    return policy{"scale_by_acprop", field{"beta1", &scale_by_acprop::beta1, ranges::share},
                  field{"beta2", &scale_by_acprop::beta2, ranges::share},
                  field{"epsilon", &scale_by_acprop::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg", "exp_avg_var"};

  struct kernel {
    float beta1 = 0, rest1 = 0, beta2 = 0, rest2 = 0, epsilon = 0, correct2 = 0, first = 0, least = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T& m, T& s) const {
      T const scaled = u / (first + correct2 * simd::sqrt(s) + least);
      m = beta1 * m + rest1 * u;
      T const surprise = u - m;
      s = beta2 * s + rest2 * surprise * surprise + epsilon;
      return scaled;
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            beta2,
            detail::complement(beta2),
            epsilon,
            t == 1 ? 0.0f : detail::root_correction(beta2, t - 1),
            t == 1 ? 1.0f : 0.0f,
            detail::root_epsilon(epsilon)};
  }
};

/// v <- b2 v + (1 - b2) u^2; u <- (1 - b1) / (1 - b1^t) u / (sqrt(v^) + epsilon) (Zheng & Kwok, Follow the Moving
/// Leader in Deep Learning, ICML 2017). The paper's leader, w = -z / d with z <- b1 z + (1 - b1) u - (d - b1 d') w and
/// d = (1 - b1^t) / lr (sqrt(v^) + epsilon), d' the d of before, is this step as long as nothing bounds the weights: b1
/// d' w cancels, and neither z nor d need be kept.
struct scale_by_ftml {
  float beta1 = 0.6f, beta2 = 0.999f;
  float epsilon = 1e-8f;
  static constexpr auto describe() {
    return policy{"scale_by_ftml", field{"beta1", &scale_by_ftml::beta1, ranges::share},
                  field{"beta2", &scale_by_ftml::beta2, ranges::share},
                  field{"epsilon", &scale_by_ftml::epsilon, ranges::not_negative}};
  }
  static constexpr std::array slots{"exp_avg_sq"};

  struct kernel {
    float beta2 = 0, rest2 = 0, gain = 0, correct2 = 0, epsilon = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& v) const {
      v = beta2 * v + rest2 * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T v) const {
      return gain * u / (correct2 * simd::sqrt(v) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta2, detail::complement(beta2),
            static_cast<float>((1 - static_cast<double>(beta1)) * detail::correction(beta1, t)),
            detail::root_correction(beta2, t), detail::root_epsilon(epsilon)};
  }
};

/// Ends a chain with Adam's step p = -lr k m / (sqrt(v) + epsilon), k = sqrt(1 - b2^t) / (1 - b1^t), until SGD's rate
/// is known, and with SGD's from then on: with c = <p, p> / -<p, u> over all tensors, lambda <- b2 lambda + (1 - b2) c,
/// unless <p, u> = 0; once L = lambda / (1 - b2^t) is positive, |L - c| < tolerance and t > 1, from the next step on m
/// <- b1 m + u (from 0), u <- -(1 - b1) L m (Keskar & Socher, Improving Generalization Performance by Switching from
/// Adam to SGD, 2017, algorithm 1).
struct switch_adam_to_sgd {
  float lr = 1e-3f;  ///< of Adam's steps; a number, no schedule: SGD's rate is measured with it
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-9f;
  float tolerance = 1e-9f;  ///< how near the estimate of SGD's rate must come to its average
  static constexpr auto describe() {
    return policy{"switch_adam_to_sgd",
                  field{"lr", &switch_adam_to_sgd::lr, ranges::not_negative},
                  field{"beta1", &switch_adam_to_sgd::beta1, ranges::share},
                  field{"beta2", &switch_adam_to_sgd::beta2, ranges::share},
                  field{"epsilon", &switch_adam_to_sgd::epsilon, ranges::not_negative},
                  field{"tolerance", &switch_adam_to_sgd::tolerance, ranges::positive}};
  }
  static constexpr reduction needs{};
  static constexpr std::array slots{"exp_avg", "exp_avg_sq"};
  static constexpr std::array scalars{"rate_average", "sgd_rate", "switched"};
  static constexpr bool ends_chain = true;

  struct kernel : detail::moments {
    float adam_rate = 0, epsilon = 0, tolerance = 0;
    double correct_rate = 0, now = 0;
    float sgd = 0, keep = 1, gain = 0;  ///< 1 behind the switch; what is kept of m, and what of u enters it
    DOVETAIL_HD constexpr void begin(double, double rate, double switched) {
      bool const after = rate > 0;
      sgd = after ? 1.0f : 0.0f;
      keep = after && now == switched + 1 ? 0.0f : beta1;
      gain = after ? 1.0f : rest1;
    }
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v) const {
      m = keep * m + gain * u;
      v = beta2 * v + rest2 * u * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T adam(T m, T v) const {
      return adam_rate * m / (simd::sqrt(v) + epsilon);
    }
    /// |p|^2 and -<p, u>.
    template <class T>
    DOVETAIL_INLINE constexpr std::array<product<T>, 2> measure(T, T u, T m, T v) const {
      T const p = adam(m, v);
      return {square(p), product<T>{p, u}};
    }
    DOVETAIL_HD std::array<float, 2> factor(std::array<double, 2> const& sums, double& average, double& rate,
                                            double& switched) const {
      if (rate > 0) return {0.0f, adam_rate > 0 ? static_cast<float>(static_cast<double>(rest1) * rate) : 0.0f};
      if (sums[1] != 0) {
        double const c = sums[0] / sums[1];
        average = static_cast<double>(beta2) * average + static_cast<double>(rest2) * c;
        double const estimate = average * correct_rate;
        if (now > 1 && estimate > 0 && std::abs(estimate - c) < static_cast<double>(tolerance)) {
          rate = estimate;
          switched = now;
        }
      }
      return {1.0f, 0.0f};
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v, T by_adam, T by_sgd) const {
      return -(by_adam * adam(m, v) + by_sgd * m);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    kernel k{detail::moments_of(beta1, beta2)};
    k.adam_rate = static_cast<float>(static_cast<double>(lr) * detail::correction(beta1, t) /
                                     std::sqrt(detail::correction(beta2, t)));
    k.epsilon = detail::root_epsilon(epsilon);
    k.tolerance = tolerance;
    k.correct_rate = detail::correction(beta2, t);
    k.now = static_cast<double>(t);
    return k;
  }
  constexpr float learning_rate(std::int64_t) const { return lr; }
};

}  // namespace dovetail::optim
