// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/engine/engine.hpp>
#include <dovetail/optim/engine/engine_of.hpp>
#include <dovetail/optim/engine/plan.hpp>
#include <dovetail/optim/engine/stage_calls.hpp>
#include <dovetail/optim/engine/stage_check.hpp>
#include <dovetail/optim/engine/stage_traits.hpp>
#include <dovetail/optim/engine/tensorwise_calls.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/rule_needs.hpp>
#include <dovetail/optim/schedules/schedule.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/optim/tensorwise.hpp>

namespace dovetail::optim {

namespace detail {

template <class Before, class S>
struct must_be_in_order {
  static constexpr bool late = stage_traits<Before>::ends_chain && !stage_traits<S>::after_learning_rate,
                        early = stage_traits<Before>::after_learning_rate && !stage_traits<S>::after_learning_rate;
  DOVETAIL_REQUIRE(!late, "nothing can come after the stage that ends a chain: move this stage before it", S, Before);
  DOVETAIL_REQUIRE(late || !early,
                   "the stage before this one works on the change of the weights: move it behind the stage that ends "
                   "the chain",
                   S, Before);
  static constexpr bool holds = !late && !early;
};
template <class Before, class S>
struct must_precede_state {
  DOVETAIL_REQUIRE(!(stage_traits<S>::precedes_state && stage_traits<Before>::has_slots),
                   "this stage can skip a step only before stages that keep state: move it to the front", S, Before);
  static constexpr bool holds = !(stage_traits<S>::precedes_state && stage_traits<Before>::has_slots);
};

template <class Before, class S>
struct must_not_repeat {
  DOVETAIL_REQUIRE(!(stage_traits<S>::is_reducing && stage_traits<Before>::evaluated_once),
                   "the stage before this one replaces what its update is made of, so it cannot be evaluated again "
                   "behind a reduction: move the reduction before it",
                   S, Before);
  static constexpr bool holds = !(stage_traits<S>::is_reducing && stage_traits<Before>::evaluated_once);
};

template <class... Stages>
consteval bool all_stages() {
  return (must_be_a_stage<Stages>::holds && ...);
}
template <class... Stages, std::size_t... I>
consteval bool in_order(std::index_sequence<I...>) {
  using list = std::tuple<Stages...>;
  constexpr std::size_t n = sizeof...(Stages);
  // I counts pairs (before, after), all of them: before = I / n, after = I % n.
  return ((I / n >= I % n ||
           (must_be_in_order<std::conditional_t<(I / n < I % n), std::tuple_element_t<I / n, list>, void>,
                             std::tuple_element_t<I % n, list>>::holds &&
            must_precede_state<std::conditional_t<(I / n < I % n), std::tuple_element_t<I / n, list>, void>,
                               std::tuple_element_t<I % n, list>>::holds &&
            must_not_repeat<std::conditional_t<(I / n < I % n), std::tuple_element_t<I / n, list>, void>,
                            std::tuple_element_t<I % n, list>>::holds)) &&
          ...);
}
template <class... Stages>
consteval bool legal() {
  if constexpr (all_stages<Stages...>())
    return in_order<Stages...>(std::make_index_sequence<sizeof...(Stages) * sizeof...(Stages)>{});
  else
    return false;
}

/// A chain in a chain stands for its stages, a named optimizer for its chain.
template <class S>
constexpr auto stages_of(S const& s) {
  if constexpr (requires { s.stages().parts(); })
    return s.stages().parts();
  else if constexpr (requires { s.parts(); })
    return s.parts();
  else
    return std::tuple<S>(s);
}

/// A rule as a chain: what a named optimizer stands for, or the chain itself.
template <class Rule>
constexpr auto as_chain(Rule const& r) {
  if constexpr (requires { r.stages(); })
    return r.stages();
  else
    return r;
}

/// The stages that the parts of a chain stand for.
template <class... Parts>
using flattened = decltype(std::tuple_cat(stages_of(std::declval<Parts const&>())...));

/// Refuses a tensorwise stage that is written for floats only where parameters are doubles.
template <class T, class Stage>
consteval bool check_written_for() {
  if constexpr (stage_traits<Stage>::is_tensorwise)
    DOVETAIL_REQUIRE((written_for<Stage, basic_tensor_update<basic_host_algebra<T>>>),
                     "this tensorwise stage is written for floats, and the parameters are doubles: make its functions "
                     "templates of basic_tensor_update<Algebra> (optim/tensorwise.hpp)",
                     Stage);
  return true;
}
template <class T, class Flow, std::size_t... S>
consteval bool all_written_for(std::index_sequence<S...>) {
  return (check_written_for<T, typename Flow::template stage<S>>() && ...);
}

template <class Tuple>
struct stage_list;
template <class... Stages>
struct stage_list<std::tuple<Stages...>> {
  // What is no stage is refused before anything is made of it, so that this is the first error.
  using flow = std::conditional_t<all_stages<Stages...>(), detail::flow<Stages...>, detail::flow<>>;
  static constexpr bool ends = (stage_traits<Stages>::ends_chain || ...);
  static constexpr plan make() {
    if constexpr (legal<Stages...>())
      return flow::make();
    else
      return {};  // refused already: no second error
  }
};

}  // namespace detail

/// Stages one after the other, fused into the fewest passes over memory, as an optimizer:
///
///     optim::chain{optim::clip_by_global_norm{1.f}, optim::adamw{.lr = 1e-3f}}
///
/// Each stage gets the update of the one before it, the first one the gradient; what the last one emits is added to
/// the weights, so a chain ends with scale_by_learning_rate, which turns the sign. An illegal order does not compile.
template <class... Parts>
class chain {
  using stages = detail::stage_list<detail::flattened<Parts...>>;
  using flow = typename stages::flow;

 public:
  using state_type = state;
  static constexpr optim::plan plan = stages::make();
  static constexpr int passes = static_cast<int>(plan.passes);
  /// Bytes that a step moves per parameter, with dense gradients.
  static constexpr std::size_t bytes_per_parameter = static_cast<std::size_t>(plan.bytes());
  /// The same with another source of gradients.
  template <class Source>
  static constexpr double bytes_per_parameter_with(Source const& source = {}) {
    return plan.bytes(source.bytes());
  }

  constexpr chain(Parts const&... parts) : stages_(std::tuple_cat(detail::stages_of(parts)...)) {}

  /// The stages.
  constexpr detail::flattened<Parts...> const& parts() const { return stages_; }

  /// Throws argument_error for hyperparameters that a stage cannot work with. Called by init, and by every step.
  void check() const {
    std::apply([](auto const&... stage) { (detail::check_hyperparameters(stage), ...); }, stages_);
  }
  template <class T>
  basic_state<T> init(basic_parameter_list<T> const& parameters) const {
    return init(parameters, std::vector<std::uint32_t>(parameters.size()));
  }
  template <class T>
  basic_state<T> init(basic_parameter_list<T> const& parameters, std::vector<std::uint32_t> group_of) const {
    return init_groups<1>({*this}, parameters, std::move(group_of));
  }
  /// State for several values of hyperparameters: what a tensor's state is, its own group says.
  template <std::size_t Groups, class T>
  DOVETAIL_COLD static basic_state<T> init_groups(std::array<chain, Groups> const& groups,
                                                  basic_parameter_list<T> const& parameters,
                                                  std::vector<std::uint32_t> group_of) {
    [[maybe_unused]] constexpr bool fits = detail::all_written_for<T, flow>(std::make_index_sequence<flow::stages>{});
    static_assert(stages::ends, "an optimizer's chain ends with scale_by_learning_rate: without it a step would climb");
    for (auto const& g : groups) g.check();
    basic_state<T> s(parameters, plan, std::move(group_of));
    for (std::size_t i = 0; i < parameters.size(); ++i)
      require(s.group(i) < Groups, "optimizer: parameter '", parameters[i].name, "' belongs to group ", s.group(i),
              ", there are ", Groups);
    [&]<std::size_t... S>(std::index_sequence<S...>) { (set_initial_state<S>(groups, parameters, s), ...); }
    (std::make_index_sequence<flow::stages>{});
    return s;
  }

  /// Throws argument_error unless `s` was made for these parameters, this rule and hyperparameters that need the same
  /// state.
  template <class T>
  void check_state(basic_parameter_list<T> const& parameters, basic_state<T> const& s) const {
    check_state<1>({*this}, parameters, s);
  }
  template <std::size_t Groups, class T>
  static void check_state(std::array<chain, Groups> const& groups, basic_parameter_list<T> const& parameters,
                          basic_state<T> const& s, bool slots_here = true) {
    for (auto const& g : groups) g.check();  // first: what a stage cannot work with, it cannot lay out either
    s.check(parameters, plan, Groups, slots_here);
    [&]<std::size_t... S>(std::index_sequence<S...>) {
      for (std::size_t i = 0; i < parameters.size(); ++i) (check_arrays<S>(groups[s.group(i)], parameters, s, i), ...);
    }
    (std::make_index_sequence<flow::stages>{});
  }

  /// Throws argument_error for what the next step would refuse beside a state that does not fit.
  template <class T>
  void check_next_step(basic_parameter_list<T> const& parameters, basic_state<T> const& s,
                       step_context const& context) const {
    check_next_step<1>({*this}, parameters, s, context);
  }
  template <std::size_t Groups, class T>
  static void check_next_step(std::array<chain, Groups> const& groups, basic_parameter_list<T> const& parameters,
                              basic_state<T> const& s, step_context const& context, bool weights_here = true) {
    detail::check_factor("optimizer", context.gradient_factor);
    require(std::is_same_v<T, float> || context.preconditioning.ranks <= 1,
            "optimizer: ranks divide the work on parameters of floats, and these are doubles");
    if constexpr (needs.layers) detail::check_observed(s.observed());
    if constexpr (needs.loss) detail::check_loss(context);
    std::int64_t const t = s.steps() + 1;
    check_count(t, "optimizer: the number of this step");
    for (auto const& g : groups) detail::check_rate(g.learning_rate(t), t);
    require(!weights_here || !parameters.has_opaque(),
            "optimizer: weights of this parameter list are elsewhere: step it with optim::low_precision_state, which "
            "is told where");
  }

  /// One step: weights and state change, unless a gradient is not finite and the chain can see it in time.
  template <class T>
  step_result step(basic_parameter_list<T> const& parameters, basic_state<T>& s,
                   step_context const& context = {}) const {
    return step(parameters, s, gradient::dense{}, context);
  }
  template <class T, detail::source_argument Source>
  step_result step(basic_parameter_list<T> const& parameters, basic_state<T>& s, Source const& source,
                   step_context const& context = {}) const {
    static_assert(detail::must_be_a_source<Source>::holds);
    return step_groups<1>({*this}, parameters, s, source, context);
  }

  /// One step with several values of hyperparameters; state knows which tensor belongs to which.
  template <std::size_t Groups, class T, gradient_source Source, class Store = detail::plain_store>
  static step_result step_groups(std::array<chain, Groups> const& groups, basic_parameter_list<T> const& parameters,
                                 basic_state<T>& s, Source const& source, step_context const& context,
                                 Store const& store = {}) {
    static_assert(detail::gives<T, Source>());
    source.check(parameters);
    if constexpr (std::is_same_v<Source, gradient::scaled>) {
      step_context scaled = context;
      scaled.gradient_factor *= source.factor;
      return run_step(groups, parameters, s, gradient::dense{}, scaled, store);  // the same loops
    } else {
      return run_step(groups, parameters, s, source, context, store);
    }
  }

 private:
  template <std::size_t Groups, class T, class Source, class Store>
  static step_result run_step(std::array<chain, Groups> const& groups, basic_parameter_list<T> const& parameters,
                              basic_state<T>& s, Source const& source, step_context const& context,
                              Store const& store) {
    check_state(groups, parameters, s, Store::plain);
    check_next_step(groups, parameters, s, context, Store::plain);
    std::int64_t const t = s.steps() + 1;
    std::array<typename flow::kernels, Groups> kernels;
    for (std::size_t g = 0; g < Groups; ++g) {
      kernels[g] = groups[g].prepare(t);
      begin(kernels[g], s, std::make_index_sequence<flow::stages>{});
    }
    if constexpr (needs.loss) {
      if (!is_finite(*context.loss))
        return {.skipped = true, .step = s.steps(), .lr = groups[0].learning_rate(t), .gradient_norm = -1};
      for (auto& k : kernels) tell(k, *context.loss);
    }
    detail::engine<T, flow, Groups, Source, Store> engine(kernels, parameters, s, source, context, store);
    step_result r;
    r.lr = groups[0].learning_rate(t);
    r.skipped = !engine.run();
    if (!r.skipped) s.set_steps(t);
    r.step = s.steps();
    r.gradient_norm = engine.gradient_norm();
    return r;
  }

 public:
  DOVETAIL_OTHER_MEMORY

  /// What its stages need of a step and between steps.
  static constexpr rule_needs needs = flow::needs;

  /// Takes in what backward saw of one layer. Throws argument_error if it does not belong to the parameters.
  template <class T>
  void observe(basic_parameter_list<T> const& parameters, basic_state<T>& s, basic_kfac_statistics<T> const& f) const {
    std::size_t i = 0;
    while (i < parameters.size() && (parameters.offset(i) != f.first || !parameters[i].size())) ++i;
    auto const weight = i < parameters.size() ? parameters[i].logical_shape() : shape{};
    detail::check_layer(f, i < parameters.size() ? &weight : nullptr, "optimizer");
    s.scratch().observed = true;
    each_collecting(parameters, s, i, [&](auto const& stage, auto const& t) { stage.collect(t, f); });
  }
  /// Takes in an estimate of the Hessian's diagonal. One that is not finite changes nothing, and the return value is
  /// false. Throws argument_error when sizes do not fit.
  template <class T>
  bool observe(basic_parameter_list<T> const& parameters, basic_state<T>& s, basic_hessian_diagonal<T> const& d) const {
    return observe_groups<1>({*this}, parameters, s, d);
  }
  template <std::size_t Groups, class T, class Store = detail::plain_store>
  static bool observe_groups(std::array<chain, Groups> const& groups, basic_parameter_list<T> const& parameters,
                             basic_state<T>& s, basic_hessian_diagonal<T> const& d, Store const& store = {}) {
    DOVETAIL_REQUIRE(needs.curvature,
                     "no stage of this chain wants the Hessian's diagonal, as scale_by_adahessian and scale_by_sophia "
                     "do",
                     chain);
    check_state(groups, parameters, s, Store::plain);
    require(d.estimate.size() == parameters.flat_size(), "optimizer: an estimate of the Hessian's diagonal has ",
            d.estimate.size(), " elements, there are ", parameters.flat_size(), " parameters");
    [&]<std::size_t... S>(std::index_sequence<S...>) { (check_averages<S>(groups, parameters, s), ...); }
    (std::make_index_sequence<flow::stages>{});
    if (!all_finite(d.estimate)) return false;
    [&]<std::size_t... S>(std::index_sequence<S...>) { (observe_stage<S>(groups, parameters, s, d, store), ...); }
    (std::make_index_sequence<flow::stages>{});
    return true;
  }
  /// What `observe` has gathered of layers since the last step: sums that ranks add before it. Empty spans are left
  /// out.
  template <class T>
  std::vector<std::span<T>> unreduced_statistics(basic_parameter_list<T> const& parameters, basic_state<T>& s) const {
    std::vector<std::span<T>> all;
    if constexpr (!needs.layers) return all;
    for (std::size_t i = 0; i < parameters.size(); ++i)
      each_collecting(parameters, s, i, [&](auto const& stage, auto const& t) {
        if (auto const p = stage.unreduced_statistics(t); !p.empty()) all.push_back(p);
      });
    return all;
  }
  /// The learning rate of step t (from 1); 1 without such a stage.
  float learning_rate(std::int64_t t) const {
    float lr = 1;
    auto const look = [&](auto const& stage) {
      if constexpr (requires { stage.learning_rate(t); }) lr = stage.learning_rate(t);
    };
    std::apply([&](auto const&... stage) { (look(stage), ...); }, stages_);
    return lr;
  }

 private:
  template <std::size_t S, class Groups, class T>
  static void check_averages(Groups const& groups, basic_parameter_list<T> const& parameters, basic_state<T> const& s) {
    if constexpr (stage_traits<typename flow::template stage<S>>::observes_curvature)
      for (std::size_t i = 0; i < parameters.size(); ++i)
        detail::averaged_over(std::get<S>(groups[s.group(i)].stages_), parameters[i]);
  }
  template <std::size_t S, class Groups, class T, class Store>
  static void observe_stage(Groups const& groups, basic_parameter_list<T> const& parameters, basic_state<T>& s,
                            basic_hessian_diagonal<T> const& d, Store const& store) {
    using stage_type = typename flow::template stage<S>;
    if constexpr (stage_traits<stage_type>::observes_curvature)
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        stage_type const& stage = std::get<S>(groups[s.group(i)].stages_);
        auto const estimate = detail::averaged_estimate(stage, parameters[i], s.scratch().work,
                                                        d.estimate.subspan(parameters.offset(i), parameters[i].size()));
        store.each_of_slot(s, flow::first_slot[S] + stage_type::curvature_slot, parameters, i,
                           [&](std::size_t at, T& h) {
                             using result = decltype(stage.observed(h, estimate[at]));
                             DOVETAIL_REQUIRE((!std::is_same_v<T, double> || std::is_same_v<result, double>),
                                              "its `observed` gives floats, and the parameters are doubles: make it a "
                                              "template, T observed(T slot, T estimate) const",
                                              stage_type);
                             h = static_cast<T>(stage.observed(h, estimate[at]));
                           });
      }
  }
  typename flow::kernels prepare(std::int64_t t) const {
    return std::apply([&](auto const&... stage) { return typename flow::kernels(detail::prepare(stage, t)...); },
                      stages_);
  }
  /// Tells kernels what their stages remember of all tensors together.
  template <class T, std::size_t... S>
  static void begin(typename flow::kernels& k, basic_state<T> const& s, std::index_sequence<S...>) {
    (detail::begin_stage<typename flow::template stage<S>>(
         std::get<S>(k), [&](std::size_t c) { return s.scalar(flow::first_scalar[S] + c)[0]; }),
     ...);
  }
  static void tell(typename flow::kernels& k, double loss) {
    auto const one = [loss](auto& kernel) {
      if constexpr (detail::told_of_losses<std::remove_cvref_t<decltype(kernel)>>) kernel.evaluated(loss);
    };
    std::apply([&](auto&... kernel) { (one(kernel), ...); }, k);
  }
  template <class T, class F>
  void each_collecting(basic_parameter_list<T> const& parameters, basic_state<T>& s, std::size_t i, F const& f) const {
    s.check_tensor(parameters, plan, i);
    std::size_t index = 0;
    auto const visit = [&](auto const& stage) {
      if constexpr (stage_traits<std::remove_cvref_t<decltype(stage)>>::collects) {
        auto const& p = parameters[i];
        if constexpr (requires { stage.arrays(shape{}); }) s.check_arrays(index, i, stage.arrays(p.logical_shape()));
        basic_tensor_update<basic_host_algebra<T>> t{p.name, p.logical_shape(),  s.steps() + 1,        1, p.weight,
                                                     {},     s.arrays(index, i), {s.scratch().work, 1}};
        if (i + 1 < parameters.size()) {
          t.next_name = &parameters[i + 1].name;
          t.next_update = parameters[i + 1].gradient;
        }
        f(stage, t);
      }
      ++index;
    };
    std::apply([&](auto const&... stage) { (visit(stage), ...); }, stages_);
  }
  template <std::size_t S, class T>
  static void set_initial_state(auto const& groups, basic_parameter_list<T> const& parameters, basic_state<T>& s) {
    using stage_type = typename flow::template stage<S>;
    auto const of = [&](std::size_t i) -> auto const& { return std::get<S>(groups[s.group(i)].stages_); };
    for (std::size_t k = 0; k < stage_traits<stage_type>::slots; ++k)
      if constexpr (requires { of(0).initial_value(k); })
        for (std::size_t i = 0; i < parameters.size(); ++i)
          for (T& x : s.slot(flow::first_slot[S] + k).subspan(parameters.offset(i), parameters[i].size()))
            x = of(i).initial_value(k);
    for (std::size_t k = 0; k < stage_traits<stage_type>::scalars; ++k)
      if constexpr (requires { of(0).initial_scalar(k); }) {
        auto const all = s.scalar(flow::first_scalar[S] + k);
        if (plan.scalar_per_tensor[flow::first_scalar[S] + k])
          for (std::size_t i = 0; i < all.size(); ++i) all[i] = of(i).initial_scalar(k);
        else
          all[0] = std::get<S>(groups[0].stages_).initial_scalar(k);
      }
    if constexpr (requires { of(0).arrays(shape{}); })
      for (std::size_t i = 0; i < parameters.size(); ++i)
        s.set_arrays(S, i, of(i).arrays(parameters[i].logical_shape()));
  }
  /// Stage S of the group that tensor i belongs to finds the arrays that it needs.
  template <std::size_t S, class T>
  static void check_arrays(chain const& of, basic_parameter_list<T> const& parameters, basic_state<T> const& s,
                           std::size_t i) {
    auto const& stage = std::get<S>(of.stages_);
    if constexpr (requires { stage.arrays(shape{}); })
      s.check_arrays(S, i, stage.arrays(parameters[i].logical_shape()));
    else if constexpr (stage_traits<typename flow::template stage<S>>::is_tensorwise)
      s.check_arrays(S, i, {});
  }
  detail::flattened<Parts...> stages_;
};

}  // namespace dovetail::optim
