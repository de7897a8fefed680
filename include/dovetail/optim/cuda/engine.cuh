// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/cuda.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/cuda/algebra.cuh>
#include <dovetail/optim/cuda/kernels.cuh>
#include <dovetail/optim/cuda/state.cuh>

// Optimizers on a device: the same rules and the same plan as on the host, one launch per pass over all tensors;
// tensorwise stages, stage by stage and tensor by tensor, on the same stream (those with products and roots:
// cuda/matrix.cuh). For nvcc, with --expt-relaxed-constexpr.
//
//     optim::adamw opt{.lr = 1e-3f};
//     auto state = optim::cuda::init(opt, parameters, {.index = 0, .stream = stream});   // views of device memory
//     optim::cuda::step(opt, parameters, state);                                         // queued; does not wait

namespace dovetail::optim::cuda {

namespace detail {

template <class Optimizer>
auto as_chain(Optimizer const& o) {
  if constexpr (requires { o.stages(); })
    return o.stages();
  else
    return o;
}
template <class Optimizer>
using chain_of = decltype(as_chain(std::declval<Optimizer const&>()));
template <class Optimizer>
using flow_of = typename optim::detail::stage_list<
    std::remove_cvref_t<decltype(std::declval<chain_of<Optimizer> const&>().parts())>>::flow;

/// False if the learning rate is one number.
template <class Chain>
bool rate_varies(Chain const& c) {
  bool varies = false;
  auto const look = [&](auto const& stage) {
    if constexpr (requires { stage.lr.varies(); })
      varies = varies || stage.lr.varies();
    else if constexpr (requires { stage.learning_rate(std::int64_t{1}); })
      varies = true;
  };
  std::apply([&](auto const&... stage) { (look(stage), ...); }, c.parts());
  return varies;
}

template <class Flow, class... Parts>
void queue_prepare(state& s, std::tuple<Parts...> const& stages) {
  dovetail::cuda::launch("an optimizer's constants", s.device(), 1, 1, prepare<Flow, Parts...>, stages, s.rates_data(),
                         s.record_data(), s.scalars(), reinterpret_cast<typename Flow::kernels*>(s.kernels_data()));
}

template <class Flow, std::size_t P>
void queue_pass(state& s) {
  using dovetail::cuda::launch;
  constexpr plan all = Flow::make();
  auto const a = s.arrays();
  auto const* const kernels = reinterpret_cast<typename Flow::kernels const*>(s.kernels_data());
  slot_arrays<Flow::slots> slots{};
  for (std::size_t i = 0; i < Flow::slots; ++i) slots.data[i] = s.slot_data(i);

  // Runs over several tensors would mix their sums, or their factors.
  constexpr bool by_tensor = [] {
    bool b = Flow::make().pass[P].reduces;
    for (std::size_t p = 0; p < P; ++p) b = b || Flow::make().pass[p].per_tensor;
    return b;
  }();
  auto const& pieces = by_tensor ? a.tensors : a.runs;
  if (!pieces.empty()) {
    launch("a pass of an optimizer", s.device(), grid(pieces.size()), threads, run_pass<Flow, P>, kernels, a.factors,
           s.record_data(), pieces.data(), pieces.size(), slots, s.update_data(), a.partials);
  }
  if constexpr (all.pass[P].reduces) {
    if (a.tensor_count) {
      launch("an optimizer's sums", s.device(), grid(a.tensor_count), threads, add_pieces<Flow>, s.record_data(),
             a.first, a.tensor_count, all.pass[P].sums(), a.partials, a.sums);
    }
    launch("an optimizer's norms", s.device(), 1, threads, decide<Flow, P>, kernels, a.tensor_count, a.sums, a.totals,
           s.scalars(), a.factors, s.record_data());
  }
}

// ---- tensorwise stages

template <class Stage>
consteval bool has_arrays() {
  return requires(Stage const& s) { s.arrays(shape{}); };
}
/// True of every stage but tensorwise ones that are written for the host's memory only.
template <class Stage>
consteval bool runs_here() {
  if constexpr (tensorwise_stage<Stage>)
    return optim::detail::written_for<Stage, basic_tensor_update<algebra>>;
  else
    return true;
}
template <class Flow, std::size_t... S>
consteval bool all_run_here(std::index_sequence<S...>) {
  return (runs_here<typename Flow::template stage<S>>() && ...);
}
template <class Flow>
consteval bool can_skip() {
  constexpr plan all = Flow::make();
  bool can = false;
  for (std::size_t p = 0; p < all.passes; ++p) can = can || all.pass[p].can_skip;
  return can;
}

/// Tensor i, as tensorwise stage `stage` sees it in step `t`.
inline basic_tensor_update<algebra> view(state& s, std::size_t stage, std::size_t i, step_number t) {
  auto const& all = s.parameters();
  basic_tensor_update<algebra> u{.name = all[i].name,
                                 .shape = all[i].shape,
                                 .step = t,
                                 .weight = algebra::const_span(all[i].weight.data(), all[i].size()),
                                 .update = algebra::span(s.update(i)),
                                 .arrays = s.stage_arrays(stage, i),
                                 .algebra = s.algebra()};
  if (i + 1 < all.size()) {
    u.next_name = &all[i + 1].name;
    u.next_update = algebra::span(s.update(i + 1));
  }
  return u;
}

/// Queues pass P, and the tensorwise stages that it stores the update for. False if the host knows that the step was
/// skipped: where it must know, because no kernel of a stage asks for itself, it waits.
template <class Flow, std::size_t P, class Stages>
bool queue_stages(Stages const& stages, state& s, step_number& t) {
  constexpr plan all = Flow::make();
  queue_pass<Flow, P>(s);
  if constexpr (all.tensorwise > 0 && all.pass[P].can_skip) {
    require(!t.captured,
            "optim::cuda: a rule with tensorwise stages that can skip a step cannot be captured in a graph: whether "
            "it does is decided on the host");
    step_record const r = s.record();
    if (r.skipped) return false;
    t.step = r.steps;
  }
  if constexpr (all.pass[P].stores) [&]<std::size_t... S>(std::index_sequence<S...>) {
      (optim::detail::map_tensors(std::get<all.pass[P].end + S>(stages), s.parameters(),
                                  [&](std::size_t i) { return view(s, all.pass[P].end + S, i, t); }),
       ...);
    }
  (std::make_index_sequence<all.pass[P].tensorwise_end - all.pass[P].end>{});
  return true;
}

}  // namespace detail

/// Gives the device the learning rates of the steps to come. Needed before a graph's replay when the rate has changed,
/// and once per 1024 replays when it follows a schedule; `step` does it by itself. Waits for the device.
template <class Optimizer>
void refresh(Optimizer const& optimizer, state& s) {
  auto const chain = detail::as_chain(optimizer);
  require(!s.device().capturing(), "optim::cuda::refresh: rates cannot be sent while a graph is captured");
  s.send_rates(detail::rate_varies(chain), [&](std::int64_t t) { return chain.learning_rate(t); });
}

/// State on a device for parameters in its memory. Throws cuda::device_error, among others when memory runs out.
template <class Optimizer>
state init(Optimizer const& optimizer, parameter_list const& parameters, dovetail::cuda::device d = {}) {
  using chain = detail::chain_of<Optimizer>;
  using flow = detail::flow_of<Optimizer>;
  static_assert(detail::all_run_here<flow>(std::make_index_sequence<flow::stages>{}),
                "optim::cuda: this rule has a tensorwise stage that is written for the host's memory: make its "
                "functions templates of basic_tensor_update<Algebra> (optim/algebra.hpp)");
  state s(parameters, chain::plan, sizeof(typename flow::kernels), d);
  auto const c = detail::as_chain(optimizer);
  std::size_t slot = 0, scalar = 0;
  auto const fill = [&](auto const& stage) {
    using stage_type = std::remove_cvref_t<decltype(stage)>;
    for (std::size_t i = 0; i < slot_count<stage_type>; ++i, ++slot)
      if constexpr (requires { stage.initial_value(i); })
        if (s.slot_size()) {
          dovetail::cuda::launch("a slot's first value", d, 1024, detail::threads, detail::fill<float>,
                                 s.slot_data(slot), s.slot_size(), static_cast<float>(stage.initial_value(i)));
        }
    for (std::size_t i = 0; i < scalar_count<stage_type>; ++i, ++scalar)
      if constexpr (requires { stage.initial_scalar(i); }) s.set_scalar(scalar, stage.initial_scalar(i));
  };
  std::apply([&](auto const&... stage) { (fill(stage), ...); }, c.parts());
  if constexpr (chain::plan.tensorwise > 0) {
    auto names = s.empty_names();
    std::size_t index = 0;
    auto const make = [&](auto const& stage) {
      if constexpr (detail::has_arrays<std::remove_cvref_t<decltype(stage)>>())
        for (std::size_t i = 0; i < parameters.size(); ++i)
          s.set_arrays(names, index, i, stage.arrays(parameters[i].shape));
      ++index;
    };
    std::apply([&](auto const&... stage) { (make(stage), ...); }, c.parts());
  }
  refresh(optimizer, s);
  return s;
}

/// Queues one step on the state's stream and returns: weights and state change on the device, unless a gradient is not
/// finite and the chain can see it in time. `result` says what happened. May be captured in a graph, unless a
/// tensorwise stage decides something on the host: that is refused.
template <class Optimizer>
void step(Optimizer const& optimizer, parameter_list const& parameters, state& s) {
  using chain = detail::chain_of<Optimizer>;
  using flow = detail::flow_of<Optimizer>;
  s.check(parameters, chain::plan, sizeof(typename flow::kernels));
  s.device().use();
  bool const capturing = s.device().capturing();
  require(!flow::observes || s.observed,
          "optim::cuda: this rule learns from what layers show in backward, and none was observed: call "
          "optim::cuda::observe for each layer before the step");
  auto const c = detail::as_chain(optimizer);
  bool const varies = detail::rate_varies(c);
  if (!s.has_rates(varies, [&](std::int64_t t) { return c.learning_rate(t); })) {
    require(!capturing,
            "optim::cuda::step: the learning rate has changed: call optim::cuda::refresh before the graph is captured");
    refresh(optimizer, s);
  }
  auto const stages =
      std::apply([](auto const&... stage) { return std::tuple(detail::for_device(stage)...); }, c.parts());
  detail::queue_prepare<flow>(s, stages);
  step_number t{s.calls() + 1, capturing};
  [&]<std::size_t... P>(std::index_sequence<P...>) {
    static_cast<void>((detail::queue_stages<flow, P>(c.parts(), s, t) && ...));
  }
  (std::make_index_sequence<flow::make().passes>{});
  if (!capturing) s.count_call();  // a replay is not seen here
}

/// Takes in what backward saw of one layer, for a rule that learns from layers: all of `f` is in device memory, and is
/// read on the state's stream. Throws argument_error if it does not belong to the parameters.
template <class Optimizer>
void observe(Optimizer const& optimizer, state& s, layer_factors const& f) {
  using flow = detail::flow_of<Optimizer>;
  static_assert(flow::observes, "optim::cuda: this rule learns nothing from layers");
  auto const& all = s.parameters();
  std::size_t i = 0;
  while (i < all.size() && (all.offset(i) != f.first || !all[i].size())) ++i;
  require(i < all.size() && all[i].size() == static_cast<std::size_t>(f.in * f.out), "optim::cuda: a layer of ", f.in,
          " inputs and ", f.out, " outputs was observed at flat index ", f.first,
          ", where no such tensor begins: observe the model whose parameters init() was given");
  s.device().use();
  step_number const t{s.calls() + 1, s.device().capturing()};
  std::size_t index = 0;
  auto const visit = [&](auto const& stage) {
    if constexpr (optim::detail::collects<std::remove_cvref_t<decltype(stage)>>)
      stage.collect(detail::view(s, index, i, t), f);
    ++index;
  };
  std::apply([&](auto const&... stage) { (visit(stage), ...); }, detail::as_chain(optimizer).parts());
  s.observed = true;
}

/// What the last step did. Waits for it. Throws argument_error if replays of a graph ran out of learning rates.
inline step_result result(state const& s) {
  step_record const r = s.record();
  require(!r.outrun, "optim::cuda: a step beyond ", rate_table::room,
          " replays of a graph used an old learning rate: call optim::cuda::refresh more often");
  return {r.skipped != 0, r.steps, r.lr, r.gradient_norm};
}

}  // namespace dovetail::optim::cuda
