// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/cuda.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/cuda/algebra.cuh>
#include <dovetail/optim/cuda/kernels.cuh>
#include <dovetail/optim/cuda/state.cuh>
#include <dovetail/optim/engine/driver.hpp>
#include <dovetail/optim/engine/engine_of.hpp>
#include <dovetail/optim/engine/tensorwise_calls.hpp>

// What a step asks of a device: one launch per pass over all tensors, small kernels behind a pass with sums, tensorwise
// stages on the same stream. The order is that of optim/engine/driver.hpp.

namespace dovetail::optim::cuda {

namespace detail {

/// The chains of an optimizer: one for each of its groups of hyperparameters.
template <class Optimizer>
auto chains_of(Optimizer const& o) {
  if constexpr (requires { o.chains(); })
    return o.chains();
  else
    return std::array{optim::detail::as_chain(o)};
}
template <class Optimizer>
using chain_of = typename decltype(chains_of(std::declval<Optimizer const&>()))::value_type;
template <class Optimizer>
using flow_of = typename optim::detail::stage_list<
    std::remove_cvref_t<decltype(std::declval<chain_of<Optimizer> const&>().parts())>>::flow;
template <class Optimizer>
std::vector<std::uint32_t> groups_of(Optimizer const& o, parameter_list const& parameters) {
  if constexpr (requires { o.groups_of(parameters); })
    return o.groups_of(parameters);
  else
    return std::vector<std::uint32_t>(parameters.size());
}

/// f(table, varies, rate) for every stage with a learning rate, of every group; `rate(t)` is the stage's in step t, one
/// number unless it `varies`.
template <class Chains, class F>
void each_rate(Chains const& chains, F const& f) {
  std::size_t table = 0;
  auto const look = [&](auto const& stage) {
    using traits = stage_traits<std::remove_cvref_t<decltype(stage)>>;
    if constexpr (traits::has_rate) {
      bool varies = true;
      if constexpr (requires { stage.lr.varies(); }) varies = stage.lr.varies();
      f(table++, varies, [&](std::int64_t t) { return stage.learning_rate(t); });
    }
  };
  for (auto const& c : chains) std::apply([&](auto const&... stage) { (look(stage), ...); }, c.parts());
}

/// True if the device has the learning rates of the coming step.
template <class Chains>
bool has_rates(Chains const& chains, state& s) {
  bool all = true;
  each_rate(chains, [&](std::size_t table, bool varies, auto const& rate) {
    all = all && s.rates().has(table, varies, s.calls() + 1, rate);
  });
  return all;
}

template <class Flow>
typename Flow::kernels* kernels_of(state& s) {
  return reinterpret_cast<typename Flow::kernels*>(s.kernels_data());
}
template <class Flow, class... Parts>
void queue_prepare(state& s, std::size_t group, std::tuple<Parts...> const& stages) {
  dovetail::cuda::launch("an optimizer's constants", s.device(), 1, 1, prepare<Flow, Parts...>, stages,
                         s.rates().data() + group * Flow::rates, s.record_data(), s.scalars(),
                         kernels_of<Flow>(s) + group, group == 0);
}

/// Queues pass P as a kernel that reads and writes fp32.
struct plain_store {
  template <class Flow, std::size_t P, class Gradient>
  static void queue(state& s, piece const* pieces, std::size_t count, Gradient const& read) {
    slot_arrays<Flow::slots> slots{};
    for (std::size_t i = 0; i < Flow::slots; ++i) slots.data[i] = s.slot_data(i);
    dovetail::cuda::launch("a pass of an optimizer", s.device(), grid(count), threads, run_pass<Flow, P, Gradient>,
                           kernels_of<Flow>(s), s.arrays().factors, s.record_data(), pieces, count, read, slots,
                           s.update_data(), s.arrays().partials);
  }
};

// ---- tensorwise stages

template <class Stage>
consteval bool has_arrays() {
  return requires(Stage const& s) { s.arrays(shape{}); };
}
/// True of every stage but tensorwise ones that are written for the host's memory only.
template <class Stage>
consteval bool runs_here() {
  if constexpr (stage_traits<Stage>::is_tensorwise)
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

/// Queues what the driver of passes asks for (optim/engine/driver.hpp).
template <class Flow, class Chains, class Gradient, class Store>
class executor {
  static constexpr plan all = Flow::make();
  Chains const& chains_;
  state& s_;
  step_number t_;
  Gradient const& read_;
  Store const& store_;

 public:
  static constexpr bool by_tensor = false;

  executor(Chains const& chains, state& s, step_number t, Gradient const& read, Store const& store)
      : chains_(chains), s_(s), t_(t), read_(read), store_(store) {}

  template <std::size_t P>
  void launch() {
    auto const a = s_.arrays();
    // Runs over several tensors would mix their sums, or their factors.
    constexpr bool apart = [] {
      bool b = Flow::make().pass[P].reduces;
      for (std::size_t p = 0; p < P; ++p) b = b || Flow::make().pass[p].per_tensor;
      return b;
    }();
    auto const& pieces = apart || s_.layout().block ? a.tensors : a.runs;
    if (!pieces.empty()) store_.template queue<Flow, P>(s_, pieces.data(), pieces.size(), read_);
  }
  /// False if the host knows that the step was skipped: where it must know, because no kernel of a stage asks for
  /// itself, it waits.
  template <std::size_t P>
  bool fold() {
    using dovetail::cuda::launch;
    auto const a = s_.arrays();
    if (a.tensor_count)
      launch("an optimizer's sums", s_.device(), grid(a.tensor_count), threads, add_pieces<Flow>, s_.record_data(),
             a.first, a.tensor_count, all.pass[P].sums(), a.partials, a.sums);
    launch("an optimizer's norms", s_.device(), 1, threads, decide<Flow, P>, kernels_of<Flow>(s_), a.group_of,
           a.tensor_count, a.sums, a.totals, s_.scalars(), a.factors, s_.record_data());
    if constexpr (all.tensorwise > 0 && all.pass[P].can_skip) {
      require(!t_.captured,
              "optim::cuda: a rule with tensorwise stages that can skip a step cannot be captured in a graph: whether "
              "it does is decided on the host");
      step_record const r = s_.record();
      if (r.skipped) return false;
      t_.step = r.steps;
    }
    return true;
  }
  template <std::size_t P>
  void map() {
    optim::detail::each_tensorwise<Flow, P>([&](auto index) {
      auto const stage = [&](std::size_t i) -> auto const& {
        return std::get<index>(chains_[s_.layout().group_of[i]].parts());
      };
      auto const tensor = [&](std::size_t i) { return view(s_, index, i, t_); };
      optim::detail::map_tensors(stage, s_.parameters(), tensor,
                                 [&](auto const& of) { optim::detail::solve_all(of, s_.parameters(), tensor, t_); });
    });
  }
};

}  // namespace detail

}  // namespace dovetail::optim::cuda
