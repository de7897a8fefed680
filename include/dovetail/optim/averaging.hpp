// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <tuple>
#include <type_traits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/state.hpp>

// Averages of the weights, in the same pass as the step. These stages come behind scale_by_learning_rate, where u is
// the change that the weights are about to take: chain{adamw{}, average_weights{}}.

namespace dovetail::optim {

/// e <- decay e + (1 - decay)(w + u), from w + u of the first step on: the exponential moving average of the weights
/// (Polyak & Juditsky, 1992; Tarvainen & Valpola, Mean teachers, NeurIPS 2017). u stays.
struct average_weights {
  float decay = 0.999f;  ///< share of the average that a step keeps
  static constexpr std::array slots{"average"};
  static constexpr bool keeps_weights = true;
  static constexpr bool behind_rate = true;

  struct kernel {
    float decay = 0, rest = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T w, T u, T& e) const {
      e = decay * e + rest * (w + u);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T) const {
      return u;
    }
  };
  constexpr kernel prepare(std::int64_t t) const { return {t == 1 ? 0.0f : decay, t == 1 ? 1.0f : 1.0f - decay}; }
  static constexpr float average(float, float e) { return e; }
};

/// e <- e + (w + u - e) / n in step `begin` and every `every` steps from then on, n counting these steps: the mean of
/// the weights along the way (Izmailov et al., Averaging Weights Leads to Wider Optima, UAI 2018, algorithm 1). Before,
/// e is w + u. u stays.
struct mean_weights {
  std::int64_t begin = 1;  ///< the first step that counts, from 1
  std::int64_t every = 1;  ///< steps from one that counts to the next
  static constexpr std::array slots{"mean"};
  static constexpr bool keeps_weights = true;
  static constexpr bool behind_rate = true;

  struct kernel {
    float share = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T w, T u, T& e) const {
      e = e + share * (w + u - e);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T, T u, T) const {
      return u;
    }
  };
  constexpr kernel prepare(std::int64_t t) const {
    if (t < begin) return {1.0f};
    bool const counts = (t - begin) % every == 0;
    return {counts ? static_cast<float>(1.0 / static_cast<double>((t - begin) / every + 1)) : 0.0f};
  }
  static constexpr float average(float, float e) { return e; }
  void check() const { require(every > 0, "mean_weights: every is ", every, ": it is a number of steps, at least 1"); }
};

/// Lookahead (Zhang et al., NeurIPS 2019, algorithm 1): every `steps` steps the slow weights s <- s + alpha (w + u - s)
/// follow, and the fast ones go back to them, u <- s - w; s begins as the first weights.
struct look_ahead {
  std::int64_t steps = 5;  ///< of the fast weights for each of the slow ones
  float alpha = 0.5f;      ///< how much of the way the slow weights follow
  static constexpr std::array slots{"slow"};
  static constexpr bool keeps_weights = true;
  static constexpr bool behind_rate = true;

  struct kernel {
    float first = 0, follows = 0, alpha = 0;
    template <class T>
    DOVETAIL_INLINE constexpr void advance(T w, T u, T& s) const {
      s = simd::select(T(first) > 0.0f, w, s);
      s = s + alpha * (w + u - s);
    }
    template <class T>
    DOVETAIL_INLINE constexpr T emit(T w, T u, T s) const {
      return simd::select(T(follows) > 0.0f, s - w, u);
    }
  };
  constexpr kernel prepare(std::int64_t t) const {
    bool const now = t % steps == 0;
    return {t == 1 ? 1.0f : 0.0f, now ? 1.0f : 0.0f, now ? alpha : 0.0f};
  }
  static constexpr float average(float, float s) { return s; }
  void check() const { require(steps > 0, "look_ahead: steps is ", steps, ": it is a number of steps, at least 1"); }
};

/// Ends a chain without a schedule (Defazio et al., The Road Less Scheduled, NeurIPS 2024, equations 6 to 8). The
/// weights are the paper's y, at which gradients are taken; z <- z - lr u, x <- (1 - c) x + c z, y <- (1 - beta) z +
/// beta x, of which only y and z are kept: u <- c (z - w) + lr (beta (1 - c) - 1) u with the z of before. c = r_t^2 /
/// (r_1^2 + … + r_t^2), r_t the rate, which rises to lr over `warm_up` steps. x is what a model should be judged and
/// used with: averaged_weights.
struct schedule_free {
  float lr = 1;              ///< learning rate
  float beta = 0.9f;         ///< where gradients are taken: 0 at z, 1 at x
  std::int64_t warm_up = 0;  ///< steps over which the rate rises to lr
  static constexpr std::array slots{"z"};
  static constexpr bool keeps_weights = true;
  static constexpr bool ends_chain = true;

  struct kernel {
    float first = 0, rate = 0, share = 0, gain = 0;
    template <class T>
    DOVETAIL_INLINE constexpr T step(T w, T u, T& z) const {
      z = simd::select(T(first) > 0.0f, w, z);
      T const change = share * (z - w) + gain * u;
      z = z - rate * u;
      return change;
    }
  };
  constexpr kernel prepare(std::int64_t t) const {
    double const n = static_cast<double>(t), w = static_cast<double>(warm_up),
                 r = static_cast<double>(learning_rate(t));
    // The sum of squares of 1/w, 2/w, … 1, 1, … up to step t.
    double const share = t <= warm_up ? 6 * n / ((n + 1) * (2 * n + 1))
                                      : 1 / ((warm_up > 0 ? (w + 1) * (2 * w + 1) / (6 * w) : 0) + n - w);
    return {t == 1 ? 1.0f : 0.0f, static_cast<float>(r), static_cast<float>(share),
            static_cast<float>(r * (static_cast<double>(beta) * (1 - share) - 1))};
  }
  constexpr float learning_rate(std::int64_t t) const {
    return t >= warm_up
               ? lr
               : static_cast<float>(static_cast<double>(lr) * static_cast<double>(t) / static_cast<double>(warm_up));
  }
  /// x of y = (1 - beta) z + beta x.
  constexpr float average(float y, float z) const { return z + (y - z) / beta; }
};

namespace detail {
template <class S>
inline constexpr bool averages = requires(S const s) {
  s.average(1.0f, 1.0f);
};
}  // namespace detail

/// Writes the average that `rule` keeps of the weights into `out`, in the flat index space of the parameters: what to
/// evaluate or ship instead of the weights themselves. Throws argument_error when out has another size, or before the
/// first step.
template <class Rule>
void averaged_weights(Rule const& rule, parameter_list const& parameters, state const& s, std::span<float> out) {
  auto const stages = detail::stages_of(rule);
  constexpr std::size_t count = std::apply(
      [](auto const&... stage) {
        return (std::size_t{0} + ... + (detail::averages<std::remove_cvref_t<decltype(stage)>> ? 1u : 0u));
      },
      decltype(stages){});
  DOVETAIL_REQUIRE(count == 1,
                   "averaged_weights: the chain must have exactly one stage that averages weights: "
                   "average_weights, mean_weights, look_ahead, schedule_free or ascend_local_entropy",
                   Rule);
  s.check(parameters, static_cast<optim::plan const&>(Rule::plan), std::numeric_limits<std::uint32_t>::max());
  require(out.size() == parameters.flat_size(), "averaged_weights: room for ", out.size(), " weights, there are ",
          parameters.flat_size());
  require(s.steps() > 0, "averaged_weights before the first step: there is nothing to average yet");
  std::size_t slot = 0;
  auto const write = [&](auto const& stage) {
    using S = std::remove_cvref_t<decltype(stage)>;
    if constexpr (detail::averages<S>) {
      auto const own = s.slot(slot);
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        auto const& w = parameters[i].weight;
        std::size_t const at = parameters.offset(i);
        for (std::size_t k = 0; k < w.size(); ++k) out[at + k] = stage.average(w[k], own[at + k]);
      }
    }
    slot += slot_count<S>;
  };
  std::apply([&](auto const&... stage) { (write(stage), ...); }, stages);
}

}  // namespace dovetail::optim
