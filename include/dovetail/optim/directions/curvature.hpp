// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/core/simd_power.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/directions/corrections.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/state.hpp>

// Directions that divide by the diagonal of the Hessian. The slot `hessian_diagonal` is fed outside of the step, every
// few steps, by observe_curvature: a step stays one pass over memory. u is the update that arrives, t the step from 1;
// all operations are elementwise.

namespace dovetail::optim {

/// What an estimate of a diagonal is averaged over: nothing; the inner extents of a tensor of rank 3 or more (the
/// kernel of a convolution); all extents but the first (a row: what belongs to one output).
enum class spatial : std::uint8_t { none, kernel, row };

/// AdaHessian's direction (Yao et al., AAAI 2021, algorithm 1 and equation 10): m <- b1 m + (1 - b1) u; v <- b2 v +
/// (1 - b2) D^2, D the last diagonal that was observed, averaged over blocks; u <- m^ / (sqrt(v^)^power + epsilon), m^
/// and v^ being m / (1 - b1^t) and v / (1 - b2^t). Until something is observed, D is 1.
struct scale_by_adahessian {
  float beta1 = 0.9f, beta2 = 0.999f;
  float epsilon = 1e-4f;
  spatial average = spatial::kernel;
  float power = 1;
  static constexpr auto describe() {
    return policy{"scale_by_adahessian",
                  field{"beta1", &scale_by_adahessian::beta1, ranges::share},
                  field{"beta2", &scale_by_adahessian::beta2, ranges::share},
                  field{"epsilon", &scale_by_adahessian::epsilon, ranges::not_negative},
                  field{"average", &scale_by_adahessian::average},
                  field{"power", &scale_by_adahessian::power, ranges::positive}};
  }
  static constexpr std::array slots{"exp_avg", "exp_hessian_sq", "hessian_diagonal"};
  static constexpr float initial_value(std::size_t slot) { return slot == 2 ? 1.0f : 0.0f; }

  struct kernel {
    float beta1 = 0, rest1 = 0, beta2 = 0, rest2 = 0, epsilon = 0, correct1 = 0, correct2 = 0, power = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T& v, T& d) const {
      m = beta1 * m + rest1 * u;
      v = beta2 * v + rest2 * d * d;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T v, T) const {
      T const root = correct2 * simd::sqrt(v);
      return correct1 * m / ((power == 1 ? root : simd::pow(root, power)) + epsilon);
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t t) const {
    return {beta1,
            detail::complement(beta1),
            beta2,
            detail::complement(beta2),
            detail::root_epsilon(epsilon),
            static_cast<float>(detail::correction(beta1, t)),
            detail::root_correction(beta2, t),
            power};
  }
  /// The slot behind an observation.
  static constexpr std::size_t curvature_slot = 2;
  static float observed(float, float estimate) {
    return std::clamp(estimate, -1e18f, 1e18f);
  }  // whose square is finite
};

/// Sophia's direction (Liu et al., ICLR 2024, algorithm 3): m <- b1 m + (1 - b1) u; u <- m / max(gamma h, epsilon),
/// clipped to [-clipping, clipping]. An observation of the diagonal makes h <- b2 h + (1 - b2) of it; before the first
/// one, and where the curvature is not positive, the step is clipped: the sign of the momentum.
struct scale_by_sophia {
  float beta1 = 0.96f, beta2 = 0.99f;
  float gamma = 0.01f;
  float epsilon = 1e-12f;
  float clipping = 1;
  static constexpr auto describe() {
    return policy{"scale_by_sophia",
                  field{"beta1", &scale_by_sophia::beta1, ranges::share},
                  field{"beta2", &scale_by_sophia::beta2, ranges::share},
                  field{"gamma", &scale_by_sophia::gamma, ranges::not_negative},
                  field{"epsilon", &scale_by_sophia::epsilon, ranges::not_negative},
                  field{"clipping", &scale_by_sophia::clipping, ranges::positive}};
  }
  static constexpr std::array slots{"exp_avg", "hessian_diagonal"};

  struct kernel {
    float beta1 = 0, rest1 = 0, gamma = 0, epsilon = 0, clipping = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T u, T& m, T&) const {
      m = beta1 * m + rest1 * u;
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T, T m, T h) const {
      return simd::max(simd::min(m / simd::max(gamma * h, T(epsilon)), T(clipping)), T(-clipping));
    }
  };
  DOVETAIL_HD kernel prepare(std::int64_t) const {
    return {beta1, detail::complement(beta1), gamma, detail::least_epsilon(epsilon), clipping};
  }
  static constexpr std::size_t curvature_slot = 1;
  float observed(float h, float estimate) const { return beta2 * h + detail::complement(beta2) * estimate; }
};

namespace detail {
template <class S>
inline constexpr bool observes_curvature = requires(S const s) {
  S::curvature_slot;
  s.observed(1.0f, 1.0f);
};

/// Replaces each block of the estimate by its mean.
inline void average_blocks(std::span<float> values, std::size_t block) {
  for (std::size_t i = 0; block > 1 && i + block <= values.size(); i += block) {
    auto const part = values.subspan(i, block);
    double sum = 0;
    for (float const x : part) sum += static_cast<double>(x);
    std::fill(part.begin(), part.end(), static_cast<float>(sum / static_cast<double>(block)));
  }
}
/// Elements of one block of a tensor.
inline std::size_t block_of(spatial average, shape const& s) {
  int const first = average == spatial::kernel ? 2 : 1;
  if (average == spatial::none || s.rank <= first) return 1;
  std::size_t n = 1;
  for (int d = first; d < s.rank; ++d) n *= static_cast<std::size_t>(s[d]);
  return n;
}
}  // namespace detail

/// Gives an estimate of the Hessian's diagonal, in the flat index space of the parameters (hutchinson_diagonal,
/// bartlett_diagonal), to the stage of the rule that wants one: every few steps, between steps, the same on all ranks.
/// An estimate that is not finite changes nothing, and the return value is false. The estimate may be overwritten by
/// its averages. Throws argument_error when sizes do not fit.
template <class Rule>
bool observe_curvature(Rule const& rule, parameter_list const& parameters, state& s, std::span<float> estimate) {
  auto const stages = detail::stages_of(rule);
  using list = std::remove_cvref_t<decltype(stages)>;
  constexpr std::size_t count = []<std::size_t... I>(std::index_sequence<I...>) {
    return (std::size_t{0} + ... + (detail::observes_curvature<std::tuple_element_t<I, list>> ? 1u : 0u));
  }
  (std::make_index_sequence<std::tuple_size_v<list>>{});
  DOVETAIL_REQUIRE(count == 1,
                   "observe_curvature: the chain must have exactly one stage that wants the Hessian's diagonal: "
                   "scale_by_adahessian or scale_by_sophia",
                   Rule);
  require(estimate.size() == parameters.flat_size(), "observe_curvature: an estimate of ", estimate.size(),
          " elements, there are ", parameters.flat_size(), " parameters");
  if (!all_finite(estimate)) return false;
  std::size_t first = 0;
  auto const write = [&](auto const& stage) {
    using S = std::remove_cvref_t<decltype(stage)>;
    if constexpr (detail::observes_curvature<S>) {
      require(first + S::curvature_slot < s.slots() && s.slot(first).size() == estimate.size(),
              "observe_curvature: the state was made by another rule or for other parameters: make it with this one's "
              "init()");
      if constexpr (requires { stage.average; })
        for (std::size_t i = 0; i < parameters.size(); ++i)
          detail::average_blocks(estimate.subspan(parameters.offset(i), parameters[i].size()),
                                 detail::block_of(stage.average, parameters[i].shape));
      auto const h = s.slot(first + S::curvature_slot);
      for (std::size_t i = 0; i < h.size(); ++i) h[i] = stage.observed(h[i], estimate[i]);
    }
    first += slot_count<S>;
  };
  std::apply([&](auto const&... stage) { (write(stage), ...); }, stages);
  return true;
}

}  // namespace dovetail::optim
