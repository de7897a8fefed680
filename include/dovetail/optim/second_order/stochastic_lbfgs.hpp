// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/tensor_layout.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/schedules/schedules.hpp>
#include <dovetail/optim/second_order/curvature_pairs.hpp>
#include <dovetail/optim/sharding.hpp>
#include <dovetail/optim/step.hpp>

namespace dovetail::optim {

/// Stochastic L-BFGS: w <- w - lr H g, with one gradient per step. H is the inverse BFGS matrix of the last `history`
/// pairs, begun at 1/gamma. A pair comes every `interval` steps: the differences of the weights' and of the gradients'
/// means over these steps and over the `interval` steps before, as the mean of gradients of a quadratic is the gradient
/// at the mean weights, with less noise (averages: Byrd et al., SIAM J. Optim. 2016, algorithm 1). Pairs are damped so
/// that H stays positive definite whatever the noise (Wang, Ma, Goldfarb & Liu, SdLBFGS, SIAM J. Optim. 2017,
/// equations 3.9 to 3.11): gamma = max(y·y / s·y, smallest_curvature), y <- theta y + (1 - theta) gamma s with
/// theta = 0.75 gamma s·s / (gamma s·s - s·y) where s·y < 0.25 gamma s·s, otherwise 1. A pair whose y is not longer
/// than `signal` times its standard error, which the spread of the gradients within both intervals tells, is left out:
/// where noise hides the curvature, this is SGD.
///
/// g includes weight_decay w. Until there is a pair the step is along g / first_curvature; where H g is longer than
/// max_growth |g| / first_curvature, it is shortened to that. A loss multiplied by c takes both curvatures times c. A
/// step whose gradient is not finite is skipped. An `optimizer`, also for sync::shard (sums over parts go through
/// step_context::all_reduce_sums) and on any gradient source. The same bits on any number of threads. State: 2 history
/// + 4 floats per parameter, and 2 more of room; no step allocates, on one thread.
struct stochastic_lbfgs {
  schedule lr = 0.3f;
  std::size_t history = 10;
  std::int64_t interval = 20;
  float smallest_curvature = 0.1f;  ///< in the units of the Hessian
  float first_curvature = 1;        ///< H is its inverse until there is a pair
  float signal = 1.5f;              ///< norm of a difference of gradients over its standard error, at least
  float max_growth = 10;            ///< of |H g| / |g|, times first_curvature
  float weight_decay = 0;
  static constexpr auto describe() {
    return policy{"stochastic_lbfgs",
                  field{"lr", &stochastic_lbfgs::lr},
                  field{"history", &stochastic_lbfgs::history, ranges::count},
                  field{"interval", &stochastic_lbfgs::interval, ranges::count},
                  field{"smallest_curvature", &stochastic_lbfgs::smallest_curvature, ranges::positive},
                  field{"first_curvature", &stochastic_lbfgs::first_curvature, ranges::positive},
                  field{"signal", &stochastic_lbfgs::signal, ranges::not_negative},
                  field{"max_growth", &stochastic_lbfgs::max_growth, ranges::positive},
                  field{"weight_decay", &stochastic_lbfgs::weight_decay, ranges::not_negative}};
  }

  /// Elementwise but for sums: ranks may divide tensors.
  static constexpr rule_needs needs{.whole_tensors = false};

  /// Pairs, the means of the interval before and the sums of this one. Copyable, comparable, saved by name.
  template <class T>
  class basic_state {
   public:
    basic_state() = default;
    basic_state(basic_parameter_list<T> const& parameters, std::size_t history)
        : layout_(parameters),
          pairs_(parameters.flat_size(), history),
          weight_sum_(parameters.flat_size()),
          gradient_sum_(parameters.flat_size()),
          weight_mean_(parameters.flat_size()),
          gradient_mean_(parameters.flat_size()),
          gradient_(parameters.flat_size()),
          room_(parameters.flat_size()) {}
    std::int64_t steps() const { return step_; }
    void set_steps(std::int64_t n) {
      check_count(n, "stochastic_lbfgs: the number of steps");
      step_ = n;
    }
    /// Pairs that H is made of.
    std::size_t pairs() const { return pairs_.size(); }

    /// "<prefix><parameter>.s0", … with the parameter's shape; "<prefix>step", "<prefix>pairs", and the products.
    std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> list{
          make_named_count(prefix + "step", step_),          make_named_count(prefix + "pairs", pairs_.pushed()),
          make_named_tensor(prefix + "gamma", gamma_),       make_named_tensor(prefix + "squares", squares_),
          make_named_tensor(prefix + "variance", variance_), make_named_tensor(prefix + "products", pairs_.gram())};
      std::size_t at = 0;
      for (auto const& [name, shape] : layout_) {
        auto const n = static_cast<std::size_t>(shape.size());
        auto const add = [&](std::string const& what, std::span<T> all) {
          list.push_back(make_named_tensor(message(prefix, name, '.', what), all.subspan(at, n), shape));
        };
        add("weight_sum", weight_sum_.span());
        add("gradient_sum", gradient_sum_.span());
        add("weight_mean", weight_mean_.span());
        add("gradient_mean", gradient_mean_.span());
        for (std::size_t k = 0; k < pairs_.capacity(); ++k) {
          add(message('s', k), pairs_.s(k));
          add(message('y', k), pairs_.y(k));
        }
        at += n;
      }
      return list;
    }
    /// All of the value (optim/sharding.hpp). Products are sums over all ranks.
    std::vector<divisible_array> divisible_arrays() {
      std::vector<divisible_array> all{equal_everywhere(step_),     equal_everywhere(pairs_.pushed()),
                                       equal_everywhere(gamma_),    equal_everywhere(squares_),
                                       equal_everywhere(variance_), equal_everywhere(pairs_.gram())};
      std::size_t at = 0;
      for (std::size_t i = 0; i < layout_.size(); ++i) {
        auto const n = static_cast<std::size_t>(layout_[i].shape.size());
        auto const add = [&](std::span<T> values) { all.push_back(divided(i, values.subspan(at, n))); };
        for (auto* means : {&weight_sum_, &gradient_sum_, &weight_mean_, &gradient_mean_}) add(means->span());
        for (std::size_t k = 0; k < pairs_.capacity(); ++k) add(pairs_.s(k)), add(pairs_.y(k));
        at += n;
      }
      return all;
    }
    friend bool operator==(basic_state const& a, basic_state const& b) {
      return a.step_ == b.step_ && a.gamma_ == b.gamma_ && a.squares_ == b.squares_ && a.variance_ == b.variance_ &&
             a.layout_ == b.layout_ && a.pairs_ == b.pairs_ && a.weight_sum_ == b.weight_sum_ &&
             a.gradient_sum_ == b.gradient_sum_ && a.weight_mean_ == b.weight_mean_ &&
             a.gradient_mean_ == b.gradient_mean_;
    }

   private:
    friend stochastic_lbfgs;
    void check(basic_parameter_list<T> const& p, std::size_t wanted) const {
      require(pairs_.capacity() == wanted, "stochastic_lbfgs: the state was made for a history of ", pairs_.capacity(),
              " pairs, this rule has one of ", wanted, ": call init() again");
      layout_.check(p, "stochastic_lbfgs: the state");
      check_count(step_, "stochastic_lbfgs: the number of steps");
      check_count(pairs_.pushed(), "stochastic_lbfgs: the number of pairs");
    }

    tensor_layout layout_;
    std::int64_t step_ = 0;
    double gamma_ = 1;
    double squares_ = 0;   // sum of |g|^2 in this interval
    double variance_ = 0;  // of the mean gradient of the interval before
    detail::curvature_pairs<T> pairs_;
    buffer<T> weight_sum_, gradient_sum_, weight_mean_, gradient_mean_;
    buffer<T> gradient_, room_;  // of a step; no part of the value
  };
  using state_type = basic_state<float>;

  template <class T>
  basic_state<T> init(basic_parameter_list<T> const& parameters) const {
    detail::check_hyperparameters(*this);
    return {parameters, history};
  }

  /// Throws argument_error unless the state was made for these parameters and this history.
  template <class T>
  void check_state(basic_parameter_list<T> const& parameters, basic_state<T> const& s) const {
    detail::check_hyperparameters(*this);
    s.check(parameters, history);
  }
  /// Throws argument_error for what the next step would refuse beside a state that does not fit.
  template <class T>
  void check_next_step(basic_parameter_list<T> const& parameters, basic_state<T> const& s,
                       step_context const& context) const {
    detail::check_factor("stochastic_lbfgs", context.gradient_factor);
    require(!parameters.has_opaque(),
            "stochastic_lbfgs: weights of this parameter list are elsewhere, and it keeps means of them: give it a "
            "list with their memory");
    std::int64_t const t = s.step_ + 1;
    check_count(t, "stochastic_lbfgs: the number of this step");
    detail::check_rate(learning_rate(t), t);
  }
  /// The rate of step t (from 1).
  float learning_rate(std::int64_t t) const { return lr(t - 1); }

  template <class T>
  step_result step(basic_parameter_list<T> const& parameters, basic_state<T>& s,
                   step_context const& context = {}) const {
    return step(parameters, s, gradient::dense{}, context);
  }
  template <class T, detail::source_argument Source>
  step_result step(basic_parameter_list<T> const& parameters, basic_state<T>& s, Source const& source,
                   step_context const& context = {}) const {
    static_assert(detail::must_be_a_source<Source>::holds);
    static_assert(detail::gives<T, Source>());
    check_state(parameters, s);
    source.check(parameters);
    check_next_step(parameters, s, context);
    step_result r{.step = s.step_, .lr = lr(s.step_)};
    auto const g = s.gradient_.span();
    read(parameters, source, context.gradient_factor, g);
    double const norm = detail::norm_of(std::span<T const>(g), context);
    if (!is_finite(norm)) {
      r.skipped = true;
      return r;
    }
    r.gradient_norm = norm;
    s.squares_ = (s.step_ % interval == 0 ? 0 : s.squares_) + norm * norm;
    observe(parameters, s, context);
    move(parameters, s, r, context);
    r.step = ++s.step_;
    return r;
  }

 private:
  /// The gradient of the regularized loss, as a vector.
  template <class T, gradient_source Source>
  void read(basic_parameter_list<T> const& parameters, Source const& source, float factor, std::span<T> g) const {
    constexpr std::size_t lanes = simd::pack_of<T>::lanes;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      auto const cursor = source.at(parameters, i);
      auto const w = parameters[i].weight;
      T* const to = g.data() + parameters.offset(i);
      std::size_t const n = w.size(), whole = n - n % lanes;
      for (std::size_t k = 0; k < whole; k += lanes) (factor * cursor.load(k)).store(to + k);
      if (whole < n) {
        alignas(64) std::byte room[64];
        T last[lanes];
        (factor * cursor.advanced(whole).padded(n - whole, room).load(0)).store(last);
        std::copy_n(last, n - whole, to + whole);
      }
      if (weight_decay != 0)
        detail::map(
            std::span<T>(to, n), [d = weight_decay](auto x, auto v) { return x + d * v; }, std::span<T const>(to, n),
            std::span<T const>(w));
    }
  }

  /// Adds weights and gradient to the means; at the end of an interval makes a pair.
  template <class T>
  void observe(basic_parameter_list<T> const& parameters, basic_state<T>& s, step_context const& context) const {
    bool const begins = s.step_ % interval == 0;
    T const keep = begins ? T{0} : T{1}, share = T{1} / static_cast<T>(interval);
    auto const add = [keep, share](auto sum, auto x) { return keep * sum + share * x; };
    auto const weights = s.weight_sum_.span(), gradients = s.gradient_sum_.span();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      auto const part = weights.subspan(parameters.offset(i), parameters[i].size());
      detail::map_vectors(context, part, add, part, parameters[i].weight);
    }
    detail::map_vectors(context, gradients, add, gradients, s.gradient_.span());
    if ((s.step_ + 1) % interval != 0) return;
    auto const minus = [](auto a, auto b) { return a - b; };
    bool const first = s.step_ + 1 == interval;
    // How far the mean gradient is from what it would be on all data: from the spread of those that it is made of.
    double const n = static_cast<double>(interval), mean = detail::inner_product(gradients, gradients, context);
    double const variance = interval > 1 ? std::max(0.0, s.squares_ / n - mean) / (n - 1) : 0;
    auto const ds = s.weight_mean_.span(), dy = s.gradient_mean_.span();  // the means of before become the differences
    detail::map_vectors(context, ds, minus, weights, ds);
    detail::map_vectors(context, dy, minus, gradients, dy);
    if (!first) learn(s, ds, dy, variance + s.variance_, context);
    s.variance_ = variance;
    std::copy(weights.begin(), weights.end(), ds.begin());
    std::copy(gradients.begin(), gradients.end(), dy.begin());
  }

  /// Damps a pair and remembers it, unless the weights did not move.
  template <class T>
  void learn(basic_state<T>& s, std::type_identity_t<std::span<T const>> ds, std::span<T> dy, double variance,
             step_context const& context) const {
    detail::basic_vector_pair<T> const wanted[]{{ds.data(), dy.data()}, {ds.data(), ds.data()}, {dy.data(), dy.data()}};
    double sums[3];
    detail::inner_products(ds.size(), wanted, sums, context);
    auto const [sy, ss, yy] = sums;
    if (yy < static_cast<double>(signal) * static_cast<double>(signal) * variance) return;
    double const smallest = static_cast<double>(smallest_curvature);
    double const gamma = std::clamp(sy > 0 ? yy / sy : smallest, smallest,
                                    std::max(smallest, 1e12 * static_cast<double>(first_curvature)));
    // Beyond these, the list's numbers would no longer hold what the damped difference is made of.
    constexpr bool floats = std::is_same_v<T, float>;
    constexpr double least_square = floats ? 1e-60 : 1e-290, most = floats ? 1e37 : 1e145;
    if (!(ss > least_square && gamma * std::sqrt(ss) < most && yy < most * most)) return;
    if (double const least = 0.25 * gamma * ss; sy < least) {
      double const theta = 0.75 * gamma * ss / (gamma * ss - sy);
      auto const a = static_cast<T>(theta), b = static_cast<T>((1 - theta) * gamma);
      detail::map_vectors(
          context, dy, [a, b](auto y, auto x) { return a * y + b * x; }, dy, ds);
    }
    s.gamma_ = gamma;
    s.pairs_.push(ds, dy, context);
  }

  template <class T>
  void move(basic_parameter_list<T> const& parameters, basic_state<T>& s, step_result const& r,
            step_context const& context) const {
    auto const g = s.gradient_.span(), d = s.room_.span();
    double const plain = 1 / static_cast<double>(first_curvature);
    double length = 1;  // of d, as a share of what is wanted
    if (s.pairs_.size() > 0) {
      s.pairs_.apply(g, 1 / s.gamma_, 1, d, context);
      double const grown = detail::norm_of(std::span<T const>(d), context);
      double const limit = plain * static_cast<double>(max_growth) * r.gradient_norm;
      if (!is_finite(grown))
        std::copy(g.begin(), g.end(), d.begin()), length = plain;
      else if (grown > limit)
        length = limit / grown;
    } else {
      std::copy(g.begin(), g.end(), d.begin());
      length = plain;
    }
    auto const rate = static_cast<T>(static_cast<double>(r.lr) * length);
    for (std::size_t i = 0; i < parameters.size(); ++i)
      detail::map_vectors(
          context, parameters[i].weight, [rate](auto w, auto x) { return w - rate * x; }, parameters[i].weight,
          d.subspan(parameters.offset(i), parameters[i].size()));
  }
};

}  // namespace dovetail::optim
