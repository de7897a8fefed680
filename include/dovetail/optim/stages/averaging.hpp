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
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stage.hpp>
#include <dovetail/optim/state.hpp>

// Averages of the weights, in the same pass as the step. These stages come behind scale_by_learning_rate, where u is
// the change that the weights are about to take: chain{adamw{}, ema_weights{}}.

namespace dovetail::optim {

namespace detail {
/// An average that moves by a small share of the way: e <- e + share (x - e) in two floats, e the rounded sum and `low`
/// what rounding took from it. In one float the average stops where share |x - e| is less than half of e's last digit,
/// with a share of 1e-4 at 6e-4 of e; -Ofast brings that back, since it takes this for e + 0.
struct slow_average {
  float share = 0;
  template <class T>
  DOVETAIL_INLINE constexpr void advance(T w, T u, T& e, T& low) const {
    T const change = low + share * ((w + u - e) - low), sum = e + change;
    low = change - (sum - e);
    e = sum;
  }
  template <class T>
  DOVETAIL_INLINE constexpr T emit(T, T u, T, T) const {
    return u;
  }
};
}  // namespace detail

/// e <- decay e + (1 - decay)(w + u), from w + u of the first step on: the exponential moving average of the weights
/// (Polyak & Juditsky, 1992; Tarvainen & Valpola, Mean teachers, NeurIPS 2017). u stays.
struct ema_weights {
  using kind = elementwise;
  float decay = 0.999f;  ///< share of the average that a step keeps
  static constexpr auto describe() { return policy{"ema_weights", field{"decay", &ema_weights::decay, ranges::share}}; }
  static constexpr std::array slots{"average", "average_low"};
  static constexpr bool slots_hold_weights = true;
  static constexpr bool after_learning_rate = true;

  using kernel = detail::slow_average;
  constexpr kernel prepare(std::int64_t t) const {
    return {t == 1 ? 1.0f : static_cast<float>(1 - static_cast<double>(decay))};
  }
  template <class T>
  static constexpr T average(T, T e) {
    return e;
  }
};

/// e <- e + (w + u - e) / n in step `begin` and every `every` steps from then on, n counting these steps: the mean of
/// the weights along the way (Izmailov et al., Averaging Weights Leads to Wider Optima, UAI 2018, algorithm 1). Before,
/// e is w + u. u stays.
struct swa_weights {
  using kind = elementwise;
  std::int64_t begin = 1;  ///< the first step that counts, from 1
  std::int64_t every = 1;  ///< steps from one that counts to the next
  static constexpr auto describe() {
    return policy{"swa_weights", field{"begin", &swa_weights::begin, ranges::count},
                  field{"every", &swa_weights::every, ranges::count}};
  }
  static constexpr std::array slots{"mean", "mean_low"};
  static constexpr bool slots_hold_weights = true;
  static constexpr bool after_learning_rate = true;

  using kernel = detail::slow_average;
  constexpr kernel prepare(std::int64_t t) const {
    if (t < begin) return {1.0f};
    bool const counts = (t - begin) % every == 0;
    return {counts ? static_cast<float>(1.0 / static_cast<double>((t - begin) / every + 1)) : 0.0f};
  }
  template <class T>
  static constexpr T average(T, T e) {
    return e;
  }
};

/// Lookahead (Zhang et al., NeurIPS 2019, algorithm 1): every `steps` steps the slow weights s <- s + alpha (w + u - s)
/// follow, and the fast ones go back to them, u <- s - w; s begins as the first weights.
struct lookahead {
  using kind = elementwise;
  std::int64_t steps = 5;  ///< of the fast weights for each of the slow ones
  float alpha = 0.5f;      ///< how much of the way the slow weights follow
  static constexpr auto describe() {
    return policy{"lookahead", field{"steps", &lookahead::steps, ranges::count},
                  field{"alpha", &lookahead::alpha, ranges::positive_unit}};
  }
  static constexpr std::array slots{"slow"};
  static constexpr bool slots_hold_weights = true;
  static constexpr bool after_learning_rate = true;

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
  template <class T>
  static constexpr T average(T, T s) {
    return s;
  }
};

/// Ends a chain without a schedule (Defazio et al., The Road Less Scheduled, NeurIPS 2024, equations 6 to 8). The
/// weights are the paper's y, at which gradients are taken; z <- z - lr u, x <- (1 - c) x + c z, y <- (1 - beta) z +
/// beta x, of which only y and d = x - z are kept: d' = (1 - c)(d + lr u), u <- beta (d' - d) - lr u; so x = y +
/// (1 - beta) d is known as well as y is, whatever beta. c = r_t^2 / (r_1^2 + … + r_t^2), r_t the rate, which rises to
/// lr over `warmup` steps. x is what a model should be judged and used with: averaged_weights.
struct schedule_free {
  using kind = elementwise;
  float lr = 1;             ///< learning rate
  float beta = 0.9f;        ///< where gradients are taken: 0 at z, 1 at x
  std::int64_t warmup = 0;  ///< steps over which the rate rises to lr
  static constexpr auto describe() {
    return policy{"schedule_free", field{"lr", &schedule_free::lr, ranges::not_negative},
                  field{"beta", &schedule_free::beta, ranges::unit},
                  field{"warmup", &schedule_free::warmup, ranges::not_negative}};
  }
  static constexpr std::array slots{"average_minus_z"};
  static constexpr bool slots_hold_weights = true;
  static constexpr bool ends_chain = true;

  struct kernel {
    float rate = 0, rest = 0, beta = 0;  ///< rest: 1 - c
    template <class T>
    DOVETAIL_INLINE constexpr T step(T, T u, T& d) const {
      T const before = d, down = rate * u;
      d = rest * (d + down);
      return beta * (d - before) - down;
    }
  };
  constexpr kernel prepare(std::int64_t t, float rate) const {
    double const n = static_cast<double>(t), w = static_cast<double>(warmup);
    // The sum of squares of 1/w, 2/w, … 1, 1, … up to step t.
    double const share = t <= warmup ? 6 * n / ((n + 1) * (2 * n + 1))
                                     : 1 / ((warmup > 0 ? (w + 1) * (2 * w + 1) / (6 * w) : 0) + n - w);
    return {rate, static_cast<float>(1 - share), beta};
  }
  constexpr float learning_rate(std::int64_t t) const {
    return t >= warmup
               ? lr
               : static_cast<float>(static_cast<double>(lr) * static_cast<double>(t) / static_cast<double>(warmup));
  }
  /// x of y = (1 - beta) z + beta x and d = x - z.
  template <class T>
  constexpr T average(T y, T d) const {
    return y + (1 - beta) * d;
  }
};

namespace detail {
template <class S>
inline constexpr bool averages = requires(S const s) {
  s.average(1.0f, 1.0f);  // of the weight and the stage's first slot
};
}  // namespace detail

/// Writes the average that `rule` keeps of the weights into `out`, in the flat index space of the parameters: what to
/// evaluate or ship instead of the weights themselves. Throws argument_error when out has another size, or before the
/// first step.
template <class Rule, class T>
void averaged_weights(Rule const& rule, basic_parameter_list<T> const& parameters, basic_state<T> const& s,
                      std::type_identity_t<std::span<T>> out) {
  auto const stages = detail::stages_of(rule);
  constexpr std::size_t count = std::apply(
      [](auto const&... stage) {
        return (std::size_t{0} + ... + (detail::averages<std::remove_cvref_t<decltype(stage)>> ? 1u : 0u));
      },
      decltype(stages){});
  DOVETAIL_REQUIRE(count == 1,
                   "averaged_weights: the chain must have exactly one stage that averages weights: "
                   "ema_weights, swa_weights, lookahead, schedule_free or entropy_sgd_step",
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
        using result = decltype(stage.average(w[0], own[0]));
        DOVETAIL_REQUIRE((!std::is_same_v<T, double> || std::is_same_v<result, double>),
                         "its `average` gives floats, and the parameters are doubles: make it a template, T average(T "
                         "weight, T slot) const",
                         S);
        for (std::size_t k = 0; k < w.size(); ++k) out[at + k] = static_cast<T>(stage.average(w[k], own[at + k]));
      }
    }
    slot += stage_traits<S>::slots;
  };
  std::apply([&](auto const&... stage) { (write(stage), ...); }, stages);
}

}  // namespace dovetail::optim
