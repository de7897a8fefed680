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
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/cuda.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/cuda/executor.cuh>
#include <dovetail/optim/cuda/kernels.cuh>
#include <dovetail/optim/cuda/state.cuh>
#include <dovetail/optim/engine/driver.hpp>
#include <dovetail/optim/engine/engine_of.hpp>
#include <dovetail/optim/engine/tensorwise_calls.hpp>

// Optimizers on a device: the same rules and the same plan as on the host, one launch per pass over all tensors;
// tensorwise stages, stage by stage and tensor by tensor, on the same stream (those with products and roots:
// cuda/matrix.cuh). For nvcc, with --expt-relaxed-constexpr.
//
//     optim::adamw opt{.lr = 1e-3f};
//     cuda::parameter_list parameters{cuda_memory{{.index = 0, .stream = stream}}};   // views of device memory
//     auto state = opt.init(parameters);
//     opt.step(parameters, state);                                                     // queued; does not wait

namespace dovetail::optim::cuda {

/// Gives the device the learning rates of the steps to come. Needed before a graph's replay when the rate has changed,
/// and once per 1024 replays when it follows a schedule; `step` does it by itself. Waits for the device.
template <class Optimizer>
void refresh(Optimizer const& optimizer, state& s) {
  auto const chains = detail::chains_of(optimizer);
  require(!s.device().capturing(), "optim::cuda::refresh: rates cannot be sent while a graph is captured");
  std::int64_t const next = s.count_again() + 1;
  detail::each_rate(
      chains, [&](std::size_t table, bool varies, auto const& rate) { s.rates().note(table, varies, next, rate); });
  s.rates().send(s.device());
}

namespace detail {

/// f(stage, i, arrays) for all that tensorwise stages keep: of tensor i, what the stage of its own group says.
template <class Chains, class F>
void each_arrays(Chains const& chains, state const& s, F const& f) {
  [&]<std::size_t... S>(std::index_sequence<S...>) {
    auto const of_stage = [&](auto index) {
      for (std::size_t i = 0; i < s.parameters().size(); ++i) {
        auto const& stage = std::get<index>(chains[s.layout().group_of[i]].parts());
        if constexpr (has_arrays<std::remove_cvref_t<decltype(stage)>>())
          f(std::size_t{index}, i, stage.arrays(s.parameters()[i].shape));
      }
    };
    (of_stage(std::integral_constant<std::size_t, S>{}), ...);
  }
  (std::make_index_sequence<std::tuple_size_v<std::remove_cvref_t<decltype(chains[0].parts())>>>{});
}

/// A state; slots are kept in blocks of `block` elements by somebody else, unless that is 0, `packed` or in fp32.
/// `first(slot, value)` is told of slots that do not begin with zeros.
template <class Optimizer, class Source, class First>
state make_state(Optimizer const& optimizer, parameter_list const& parameters, Source const& source, std::size_t block,
                 bool packed, First const& first) {
  using chain = chain_of<Optimizer>;
  using flow = flow_of<Optimizer>;
  static_assert(all_run_here<flow>(std::make_index_sequence<flow::stages>{}),
                "optim::cuda: this rule has a tensorwise stage that is written for the host's memory: make its "
                "functions templates of basic_tensor_update<Algebra> (optim/linalg/algebra.hpp)");
  static_assert(!flow::needs.loss,
                "optim::cuda: this rule's steps depend on the loss, which a step on a device is not told: step it on "
                "the host");
  auto const chains = chains_of(optimizer);
  for (auto const& c : chains) c.check();
  state s(parameters, chain::plan,
          {sizeof(typename flow::kernels), chains.size(), groups_of(optimizer, parameters), block, packed}, source);
  std::size_t slot = 0, scalar = 0;
  auto const fill = [&](auto const& stage) {
    using stage_type = std::remove_cvref_t<decltype(stage)>;
    for (std::size_t i = 0; i < stage_traits<stage_type>::slots; ++i, ++slot)
      if constexpr (requires { stage.initial_value(i); }) first(s, slot, static_cast<float>(stage.initial_value(i)));
    for (std::size_t i = 0; i < stage_traits<stage_type>::scalars; ++i, ++scalar)
      if constexpr (requires { stage.initial_scalar(i); }) s.set_scalar(scalar, stage.initial_scalar(i));
  };
  std::apply([&](auto const&... stage) { (fill(stage), ...); }, chains[0].parts());
  if constexpr (chain::plan.tensorwise > 0) {
    for (auto const& p : parameters)
      require(!p.transposed, "optim::cuda: parameter '", p.name,
              "' is column-major, which rules that see rows or matrices take on the host only");
    auto names = s.empty_names();
    each_arrays(chains, s, [&](std::size_t stage, std::size_t i, std::vector<named_shape> const& wanted) {
      s.set_arrays(names, stage, i, wanted);
    });
  }
  refresh(optimizer, s);
  return s;
}

/// Throws argument_error, before anything is queued, for all that a step refuses.
template <class Optimizer, class Source>
void check_step(Optimizer const& optimizer, parameter_list const& parameters, state const& s, Source const& source,
                step_context const& context) {
  optim::detail::check_factor("optim::cuda", context.gradient_factor);
  require(!context.all_reduce_sums && context.preconditioning.ranks <= 1,
          "optim::cuda: a step on a device neither adds up sums over ranks nor divides its work: it has to have all of "
          "the parameters");
  using flow = flow_of<Optimizer>;
  auto const chains = chains_of(optimizer);
  for (auto const& c : chains) c.check();
  s.check(parameters, source, chain_of<Optimizer>::plan, sizeof(typename flow::kernels), chains.size());
  if constexpr (chain_of<Optimizer>::plan.tensorwise > 0)
    each_arrays(chains, s, [&](std::size_t stage, std::size_t i, std::vector<named_shape> const& wanted) {
      s.check_arrays(stage, i, wanted);
    });
  require(!flow::needs.layers || s.observed,
          "optim::cuda: this rule learns from what layers show in backward, and none was observed: call "
          "optimizer.observe(parameters, state, layer) for each layer before the step");
  check_count(s.calls() + 1, "optim::cuda: the number of this step");
  for (auto const& c : chains) optim::detail::check_rate(c.learning_rate(s.calls() + 1), s.calls() + 1);
}

/// Queues one step; `store` queues the passes.
template <class Optimizer, class Source, class Store>
void queue_step(Optimizer const& optimizer, parameter_list const& parameters, state& s, Source const& source,
                step_context const& context, Store const& store) {
  using flow = flow_of<Optimizer>;
  auto const chains = chains_of(optimizer);
  check_step(optimizer, parameters, s, source, context);
  auto const here = s.device().use();
  bool const capturing = s.device().capturing();
  if (!has_rates(chains, s)) {
    require(!capturing,
            "optim::cuda::step: the learning rate has changed: call optim::cuda::refresh before the graph is captured");
    refresh(optimizer, s);
  }
  for (std::size_t g = chains.size(); g-- > 0;)
    queue_prepare<flow>(
        s, g, std::apply([](auto const&... stage) { return std::tuple(for_device(stage)...); }, chains[g].parts()));
  step_number const t{s.calls() + 1, capturing};
  auto const read = reader_of(source, parameters, context.gradient_factor);
  executor<flow, decltype(chains), decltype(read), Store> queue(chains, s, t, read, store);
  static_cast<void>(optim::detail::run_passes<flow>(queue));
  if (!capturing) s.count_call();  // a replay is not seen here
}

/// f(stage, its first slot, i) for each stage that divides by the Hessian's diagonal, and each tensor.
template <class Flow, class Chains, class F>
void each_observing(Chains const& chains, state const& s, F const& f) {
  [&]<std::size_t... S>(std::index_sequence<S...>) {
    auto const of_stage = [&](auto index) {
      if constexpr (stage_traits<typename Flow::template stage<index>>::observes_curvature)
        for (std::size_t i = 0; i < s.parameters().size(); ++i)
          f(std::get<index>(chains[s.layout().group_of[i]].parts()), Flow::first_slot[index], i);
    };
    (of_stage(std::integral_constant<std::size_t, S>{}), ...);
  }
  (std::make_index_sequence<Flow::stages>{});
}
/// Throws argument_error, before anything is queued, for all that an observation of curvature refuses.
template <class Optimizer>
void check_observation(Optimizer const& optimizer, state const& s) {
  using flow = flow_of<Optimizer>;
  static_assert(flow::needs.curvature, "optim::cuda: this rule does not divide by the Hessian's diagonal");
  auto const chains = chains_of(optimizer);
  for (auto const& c : chains) c.check();
  require(s.slots() == flow::slots && s.layout().groups == chains.size() &&
              s.layout().kernel_bytes == sizeof(typename flow::kernels),
          "optim::cuda: this state was made for another rule: make it with this optimizer's init()");
  each_observing<flow>(chains, s, [&](auto const& stage, std::size_t, std::size_t i) {
    optim::detail::averaged_over(stage, s.parameters()[i]);
  });
}
/// Queues an observation of n numbers, those of tensor i from estimate + offset(i) on.
template <class Optimizer, class Offset>
void queue_observation(Optimizer const& optimizer, state& s, std::span<float const> estimate, Offset const& offset) {
  auto const here = s.device().use();
  dovetail::cuda::launch("a look at an estimate", s.device(), 1, threads, find_non_finite<float>, estimate.data(),
                         estimate.size(), s.flag());
  each_observing<flow_of<Optimizer>>(
      chains_of(optimizer), s, [&]<class Stage>(Stage const& stage, std::size_t first_slot, std::size_t i) {
        auto const& p = s.parameters()[i];
        std::size_t const block = optim::detail::averaged_over(stage, p), blocks = p.size() / block;
        if (blocks)
          dovetail::cuda::launch("an estimate of curvature", s.device(), grid(blocks), threads, take_in_estimate<Stage>,
                                 stage, s.flag(), estimate.data() + offset(i),
                                 s.slot_data(first_slot + Stage::curvature_slot) + s.begin()[i], blocks, block,
                                 p.transposed);
      });
}

}  // namespace detail

namespace detail {
/// How the state of an optimizer is made. Optimizers that are made of others have their own (partition.cuh,
/// low_precision_state.cuh).
template <class Optimizer>
struct initial {
  template <class Source>
  static state make(Optimizer const& optimizer, parameter_list const& parameters, Source const& source) {
    require(!parameters.has_opaque(),
            "optim::cuda: weights of this parameter list are elsewhere: step it with optim::low_precision_state, which "
            "is told where");
    return make_state(optimizer, parameters, source, 0, false, [](state& s, std::size_t slot, float value) {
      if (s.slot_size())
        dovetail::cuda::launch("a slot's first value", s.device(), 1024, threads, fill<float>, s.slot_data(slot),
                               s.slot_size(), value);
    });
  }
};
}  // namespace detail

/// State on a device for parameters in its memory; `source` says where gradients are, if not in the list. Throws
/// cuda::device_error, among others when memory runs out.
template <class Optimizer, gradient_source Source = gradient::dense>
auto init(Optimizer const& optimizer, parameter_list const& parameters, Source const& source = {}) {
  return detail::initial<Optimizer>::make(optimizer, parameters, source);
}

/// The same tensors at other addresses. Waits for the device.
template <class Optimizer, gradient_source Source = gradient::dense>
void rebind(Optimizer const&, parameter_list const& parameters, state& s, Source const& source = {}) {
  s.bind(parameters, source);
}

/// Queues one step on the state's stream and returns: weights and state change on the device, unless a gradient is not
/// finite and the chain can see it in time. `result` says what happened. May be captured in a graph, unless a
/// tensorwise stage decides something on the host: that is refused. Factors of gradients
/// are frozen in the graph.
template <class Optimizer, gradient_source Source = gradient::dense>
void step(Optimizer const& optimizer, parameter_list const& parameters, state& s, Source const& source,
          step_context const& context = {}) {
  detail::queue_step(optimizer, parameters, s, source, context, detail::plain_store{});
}
template <class Optimizer>
void step(Optimizer const& optimizer, parameter_list const& parameters, state& s, step_context const& context = {}) {
  step(optimizer, parameters, s, gradient::dense{}, context);
}

/// Takes in what backward saw of one layer, for a rule that learns from layers: all of `f` is in device memory, and is
/// read on the state's stream. Throws argument_error if it does not belong to the parameters.
template <class Optimizer>
void observe(Optimizer const& optimizer, state& s, kfac_statistics const& f) {
  using flow = detail::flow_of<Optimizer>;
  static_assert(flow::needs.layers, "optim::cuda: this rule learns nothing from layers");
  auto const& all = s.parameters();
  std::size_t i = 0;
  while (i < all.size() && (all.offset(i) != f.first || !all[i].size())) ++i;
  optim::detail::check_layer(f, i < all.size() ? &all[i].shape : nullptr, "optim::cuda");
  auto const here = s.device().use();
  step_number const t{s.calls() + 1, s.device().capturing()};
  std::size_t index = 0;
  auto const visit = [&](auto const& stage) {
    if constexpr (optim::stage_traits<std::remove_cvref_t<decltype(stage)>>::collects)
      stage.collect(detail::view(s, index, i, t), f);
    ++index;
  };
  auto const chains = detail::chains_of(optimizer);
  std::apply([&](auto const&... stage) { (visit(stage), ...); }, chains[s.layout().group_of[i]].parts());
  s.observed = true;
}

/// Takes in an estimate of the Hessian's diagonal in device memory, which is read on the state's stream: queued, it
/// does not wait. One that is not finite changes nothing. Throws argument_error when sizes do not fit.
template <class Optimizer>
void observe(Optimizer const& optimizer, state& s, hessian_diagonal const& d) {
  detail::check_observation(optimizer, s);
  require(d.estimate.size() == s.parameters().flat_size(), "optim::cuda: an estimate of the Hessian's diagonal has ",
          d.estimate.size(), " elements, there are ", s.parameters().flat_size(), " parameters");
  detail::queue_observation(optimizer, s, d.estimate, [&](std::size_t i) { return s.parameters().offset(i); });
}

/// What the last step did. Waits for it. Throws argument_error if replays of a graph ran out of learning rates.
inline step_result result(state& s) {
  step_record const r = s.checked_record();
  return {r.skipped != 0, r.steps, r.lr, r.gradient_norm};
}

/// A step that was queued, the last one of its state. What it did is known when the device is through with it: who asks
/// waits. To be asked before the next step, as long as the state stays where it is; later, ask `result`.
template <class State>
class queued_step {
 public:
  explicit queued_step(State& s) : state_(&s) {}
  step_result wait() && { return result(*state_); }
  operator step_result() && { return result(*state_); }

 private:
  State* state_;
};

namespace detail {
// Overloads for other optimizers than rules are found by their states.
template <class Optimizer, class State, class... Rest>
void step_here(Optimizer const& optimizer, parameter_list const& parameters, State& s, Rest const&... rest) {
  step(optimizer, parameters, s, rest...);
}
template <class Optimizer, class State, class Observation>
void observe_here(Optimizer const& optimizer, State& s, Observation const& seen) {
  observe(optimizer, s, seen);
}
}  // namespace detail

}  // namespace dovetail::optim::cuda

namespace dovetail::optim {
/// optimizer.init(parameters), .step(parameters, state) and .observe(…) of lists in a device's memory.
template <>
struct engine_of<cuda_memory> {
  template <class Optimizer, class T, class... Source>
  static auto init(Optimizer const& optimizer, basic_parameter_list<T, cuda_memory> const& parameters,
                   Source const&... source) {
    DOVETAIL_REQUIRE((std::is_same_v<T, float>), "kernels step floats: doubles are stepped in the host's memory", T);
    return cuda::init(optimizer, parameters, source...);
  }
  template <class Optimizer, class State, class... Rest>
  static auto step(Optimizer const& optimizer, cuda::parameter_list const& parameters, State& state,
                   Rest const&... rest) {
    cuda::detail::step_here(optimizer, parameters, state, rest...);
    return cuda::queued_step<State>(state);
  }
  template <class Optimizer, class State, class Observation>
  static void observe(Optimizer const& optimizer, cuda::parameter_list const&, State& state, Observation const& seen) {
    cuda::detail::observe_here(optimizer, state, seen);
  }
};
}  // namespace dovetail::optim
