// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/optim/cuda/engine.cuh>
#include <dovetail/optim/cuda/low_precision_state.cuh>
#include <dovetail/optim/partition.hpp>

// optim::partition on a device: several rules, each for its own tensors, one after the other on the same stream.
//
//     optim::partition opt{optim::adamw{.lr = 1e-3f}, optim::group{matrices, optim::muon{.lr = 0.02f}}};
//     auto state = opt.init(parameters);   // muon: with matrix.cuh

namespace dovetail::optim::cuda {

/// A rule that leaves its tensors as they are needs nothing on the device. It counts steps that are queued: not a
/// graph's replays, which the host does not see.
class frozen_state {
 public:
  frozen::state_type to_host() const { return {steps}; }
  frozen::state_type named_host() const { return {}; }
  void from_host(frozen::state_type const& h) { steps = h.steps; }
  std::int64_t steps = 0;
  dovetail::cuda::device device;
};
namespace detail {
template <>
struct initial<frozen> {
  template <class Source>
  static frozen_state make(frozen const&, parameter_list const& parameters, Source const&) {
    frozen_state s;
    s.device = parameters.where().device;
    return s;
  }
};
}  // namespace detail
template <gradient_source Source>
void step(frozen const&, parameter_list const&, frozen_state& s, Source const&, step_context const& = {}) {
  s.steps += !s.device.capturing();
}
inline void step(frozen const&, parameter_list const&, frozen_state& s, step_context const& = {}) {
  s.steps += !s.device.capturing();
}
template <gradient_source Source = gradient::dense>
void rebind(frozen const&, parameter_list const&, frozen_state&, Source const& = {}) {}
inline void refresh(frozen const&, frozen_state&) {}
inline step_result result(frozen_state const& s) { return {.step = s.steps}; }
namespace detail {
template <class Source>
void check_step(frozen const&, parameter_list const&, frozen_state const& s, Source const&, step_context const&) {
  check_count(s.steps + 1, "optim::cuda: the number of this step");
}
}  // namespace detail

/// optim::partition's state on a device. Copies own copies.
template <class Mixed>
class partition_state {
  template <std::size_t G>
  using rule = std::remove_cvref_t<decltype(std::declval<Mixed const&>().template rule<G>())>;
  template <class Rule>
  struct part {
    std::vector<std::size_t> index;   ///< of its parameters in the whole list
    std::vector<std::size_t> offset;  ///< of each of them in the whole flat index space
    parameter_list list;
    decltype(init(std::declval<Rule const&>(), std::declval<parameter_list const&>())) state;
  };
  template <std::size_t... G>
  static std::tuple<part<rule<G>>...> parts_of(std::index_sequence<G...>);

 public:
  /// The same state as the host's engine would have it. Waits.
  typename Mixed::state_type to_host() const {
    typename Mixed::state_type h;
    h.tensors_of = tensors_of;
    Mixed::each([&]<std::size_t G>() {
      auto const& own = std::get<G>(parts);
      auto& there = std::get<G>(h.parts);
      there.index = own.index;
      for (auto const& p : own.list) there.list.add_opaque(p);  // a step takes the caller's
      there.state = own.state.to_host();
    });
    return h;
  }
  /// Takes over a state of the host's engine for the same rules and parameters. Waits.
  void from_host(typename Mixed::state_type h) {
    Mixed::each([&]<std::size_t G>() {
      require(std::get<G>(parts).index == std::get<G>(h.parts).index,
              "optim::cuda: the host's state has other tensors in group ", G, ": make it with the same optimizer");
    });
    Mixed::each([&]<std::size_t G>() { std::get<G>(parts).state.from_host(std::move(std::get<G>(h.parts).state)); });
  }

  decltype(parts_of(std::make_index_sequence<Mixed::count>{})) parts;  ///< for the engine
  tensor_layout tensors_of;                                            ///< the whole list that it was made for
};

namespace detail {
/// f(rule, part) for each rule of a partition.
template <class Mixed, class State, class F>
void each_rule(Mixed const& optimizer, State& s, F const& f) {
  Mixed::each([&]<std::size_t G>() { f(optimizer.template rule<G>(), std::get<G>(s.parts)); });
}
template <class Source>
auto subset(Source const& source, parameter_list const& parameters, std::vector<std::size_t> const& index) {
  return optim::detail::subset_source<Source, parameter_list>{&source, &parameters, index.data()};
}
template <class Rule>
inline constexpr bool is_partition = false;
template <class Rest, class... Groups>
inline constexpr bool is_partition<optim::partition<Rest, Groups...>> = true;
}  // namespace detail

namespace detail {
template <class Rest, class... Groups>
struct initial<optim::partition<Rest, Groups...>> {
  using partition = optim::partition<Rest, Groups...>;
  static_assert(!(is_partition<Rest> || ... || is_partition<decltype(Groups::rule)>),
                "optim::cuda: a partition in a partition is for the host only: list all groups in one");

  template <class Source>
  static partition_state<partition> make(partition const& optimizer, parameter_list const& parameters,
                                         Source const& source) {
    source.check(parameters);
    partition_state<partition> s;
    s.tensors_of = tensor_layout(parameters);
    auto const group_of = optimizer.groups_of(parameters);
    partition::each([&]<std::size_t G>() {
      auto& own = std::get<G>(s.parts);
      for (std::size_t i = 0; i < parameters.size(); ++i)
        if (group_of[i] == G) {
          own.index.push_back(i);
          own.offset.push_back(parameters.offset(i));
        }
      own.list = partition::sublist(parameters, own.index);
      own.state = init(optimizer.template rule<G>(), own.list, subset(source, parameters, own.index));
    });
    typename partition::state_type names;
    partition::each([&]<std::size_t G>() { std::get<G>(names.parts).state = std::get<G>(s.parts).state.named_host(); });
    partition::check_names(names);
    return s;
  }
};
}  // namespace detail

template <class Rest, class... Groups, gradient_source Source = gradient::dense>
void rebind(optim::partition<Rest, Groups...> const& optimizer, parameter_list const& parameters,
            partition_state<optim::partition<Rest, Groups...>>& s, Source const& source = {}) {
  source.check(parameters);
  s.tensors_of.check(parameters, "optim::cuda: the state");
  detail::each_rule(optimizer, s, [&](auto const& rule, auto& own) {
    own.list = optim::partition<Rest, Groups...>::sublist(parameters, own.index);
    rebind(rule, own.list, own.state, detail::subset(source, parameters, own.index));
  });
}

/// Queues each rule's step, or none of them: what one refuses is refused before.
template <class Rest, class... Groups, gradient_source Source>
void step(optim::partition<Rest, Groups...> const& optimizer, parameter_list const& parameters,
          partition_state<optim::partition<Rest, Groups...>>& s, Source const& source,
          step_context const& context = {}) {
  source.check(parameters);
  s.tensors_of.check(parameters, "optim::cuda: the state");
  detail::each_rule(optimizer, s, [&](auto const& rule, auto& own) {
    require(!optim::partition<Rest, Groups...>::moved(parameters, own.list, own.index),
            "optim::cuda: tensors have moved since the state was made: call optim::cuda::rebind(optimizer, "
            "parameters, state), with the gradients' source if they have one");
    detail::check_step(rule, own.list, own.state, detail::subset(source, parameters, own.index), context);
  });
  detail::each_rule(optimizer, s, [&](auto const& rule, auto& own) {
    step(rule, own.list, own.state, detail::subset(source, parameters, own.index), context);
  });
}
template <class Rest, class... Groups>
void step(optim::partition<Rest, Groups...> const& optimizer, parameter_list const& parameters,
          partition_state<optim::partition<Rest, Groups...>>& s, step_context const& context = {}) {
  step(optimizer, parameters, s, gradient::dense{}, context);
}

template <class Rest, class... Groups>
void refresh(optim::partition<Rest, Groups...> const& optimizer,
             partition_state<optim::partition<Rest, Groups...>>& s) {
  detail::each_rule(optimizer, s, [](auto const& rule, auto& own) { refresh(rule, own.state); });
}

/// What the last step did: rate and step of the rest's rule; skipped if one of the rules skipped.
template <class Mixed>
step_result result(partition_state<Mixed>& s) {
  step_result all;
  Mixed::each([&]<std::size_t G>() {
    step_result const r = result(std::get<G>(s.parts).state);
    optim::detail::join_results<G == 0>(all, r);
  });
  return all;
}

/// Each rule that divides by the Hessian's diagonal takes in its own parameters' part.
template <class Rest, class... Groups>
void observe(optim::partition<Rest, Groups...> const& optimizer, partition_state<optim::partition<Rest, Groups...>>& s,
             hessian_diagonal const& d) {
  static_assert(optim::partition<Rest, Groups...>::needs.curvature,
                "optim::cuda: none of these rules divides by the Hessian's diagonal");
  std::size_t n = 0;
  for (std::size_t i = 0; i < s.tensors_of.size(); ++i) n += static_cast<std::size_t>(s.tensors_of[i].shape.size());
  require(d.estimate.size() == n, "optim::cuda: an estimate of the Hessian's diagonal has ", d.estimate.size(),
          " elements, there are ", n, " parameters");
  detail::each_rule(optimizer, s, [&](auto const& rule, auto& own) {
    if constexpr (optimizer_traits<std::remove_cvref_t<decltype(rule)>>::needs.curvature)
      detail::check_observation(rule, own.state);
  });
  detail::each_rule(optimizer, s, [&](auto const& rule, auto& own) {
    if constexpr (optimizer_traits<std::remove_cvref_t<decltype(rule)>>::needs.curvature)
      detail::queue_observation(rule, own.state, d.estimate, [&](std::size_t i) { return own.offset[i]; });
  });
}

template <class Rest, class... Groups>
void observe(optim::partition<Rest, Groups...> const& optimizer, partition_state<optim::partition<Rest, Groups...>>& s,
             kfac_statistics f) {
  std::size_t const first = f.first;
  detail::each_rule(optimizer, s, [&](auto const& rule, auto& own) {
    if constexpr (optim::optimizer_traits<std::remove_cvref_t<decltype(rule)>>::needs.layers)
      for (std::size_t k = 0; k < own.index.size(); ++k)
        if (own.offset[k] == first && own.list[k].size()) {
          f.first = own.list.offset(k);
          observe(rule, own.state, f);
        }
  });
}

}  // namespace dovetail::optim::cuda
