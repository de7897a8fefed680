// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/tensor_layout.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/engine/engine_of.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/param_groups.hpp>
#include <dovetail/optim/rule_needs.hpp>
#include <dovetail/optim/sharding.hpp>
#include <dovetail/optim/step.hpp>

namespace dovetail::optim {

/// Leaves parameters as they are: for groups of optim::partition that are not trained.
struct frozen {
  struct state_type {
    std::int64_t steps = 0;
    std::vector<named_tensor> tensors(std::string const& prefix) { return {make_named_count(prefix + "step", steps)}; }
    std::vector<divisible_array> divisible_arrays() { return {equal_everywhere(steps)}; }
    friend bool operator==(state_type const&, state_type const&) = default;
  };
  static constexpr int passes = 0;
  static constexpr std::size_t bytes_per_parameter = 0;
  static constexpr rule_needs needs{.whole_tensors = false};

  template <class T>
  state_type init(basic_parameter_list<T> const&) const {
    return {};
  }
  template <class T>
  static void check_state(basic_parameter_list<T> const&, state_type const& s) {
    check_count(s.steps, "optim::frozen: its steps");
  }
  template <class T>
  static void check_next_step(basic_parameter_list<T> const&, state_type const& s, step_context const&) {
    check_count(s.steps + 1, "optim::frozen: the number of this step");
  }
  template <class T>
  step_result step(basic_parameter_list<T> const& p, state_type& s, step_context const& context = {}) const {
    check_state(p, s);
    check_next_step(p, s, context);
    return {.step = ++s.steps};
  }
  template <class T, detail::source_argument Source>
  step_result step(basic_parameter_list<T> const& p, state_type& s, Source const&,
                   step_context const& context = {}) const {
    static_assert(detail::must_be_a_source<Source>::holds);
    return step(p, s, context);
  }
};

namespace detail {
/// Adds a rule's result to that of the rules before it: skipped if one was, and the norm of all their gradients, if
/// each knows its own.
template <bool First>
void join_results(step_result& all, step_result const& r) {
  bool const known = r.gradient_norm != -1 && (First || all.gradient_norm != -1);
  double const norm = known ? First ? r.gradient_norm : std::hypot(all.gradient_norm, r.gradient_norm) : -1;
  bool const skipped = r.skipped || (!First && all.skipped);
  if constexpr (First) all = r;
  all.gradient_norm = norm;
  all.skipped = skipped;
}

/// The gradients of some tensors of a list.
template <class Source, class List>
struct subset_source {
  Source const* all;
  List const* list;
  std::size_t const* index;

  double bytes() const { return all->bytes(); }
  template <class Some>
  static void check(Some const&) {}  // the whole list was checked
  template <class Some>
  auto at(Some const&, std::size_t i) const {
    return all->at(*list, index[i]);
  }
};
}  // namespace detail

/// Several rules, each for its own parameters: the first group whose predicate holds, `rest` if there is none; decided
/// once, by init. Norms that
/// rules clip to and skipped steps are each rule's own. Muon for matrices, AdamW for the rest, and a part that
/// is not trained:
///
///     optim::partition{optim::adamw{}, optim::group{optim::name_matches{"encoder.*"}, optim::frozen{}},
///                  optim::group{[](auto, shape const& s) { return s.rank == 2; }, optim::muon{}}}
template <class Rest, class... Groups>
class partition {
  template <class Predicate, class Rule>
  static constexpr bool has_predicate(group<Predicate, Rule> const*) {
    detail::check_predicate<Predicate>();
    return detail::must_take_gradients<Rule>::holds;
  }
  static_assert(detail::must_take_gradients<Rest>::holds);
  static_assert((has_predicate(static_cast<Groups const*>(nullptr)) && ...));

  template <class T, class Rule>
  struct part {
    std::vector<std::size_t> index;  ///< of its parameters in the whole list
    basic_parameter_list<T> list;    ///< those, as they were last seen; no part of the value
    decltype(std::declval<Rule const&>().init(std::declval<basic_parameter_list<T> const&>())) state;
    static constexpr bool divisible = divisible_state<decltype(state)>;
    friend bool operator==(part const& a, part const& b) { return a.index == b.index && a.state == b.state; }
  };
  template <class T>
  static constexpr bool all_divisible = (part<T, Rest>::divisible && ... && part<T, decltype(Groups::rule)>::divisible);

 public:
  template <class T>
  struct basic_state {
    std::tuple<part<T, Rest>, part<T, decltype(Groups::rule)>...> parts;
    tensor_layout tensors_of;  ///< the whole list that it was made for

    /// Each rule's state by parameter, in groups from 1 on below "<prefix>group<i>.".
    std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> all;
      std::size_t i = 0;
      std::apply(
          [&](auto&... p) {
            ((void)([&] {
               for (auto& t : p.state.tensors(i ? message(prefix, "group", i, '.') : prefix))
                 all.push_back(std::move(t));
               ++i;
             }()),
             ...);
          },
          parts);
      return all;
    }
    /// Each rule's, for tensors of the whole list.
    std::vector<divisible_array> divisible_arrays() requires(all_divisible<T>) {
      std::vector<divisible_array> all;
      std::apply(
          [&](auto&... p) {
            ((void)([&] {
               for (auto a : p.state.divisible_arrays()) all.push_back(in_whole_list(a, p.index));
             }()),
             ...);
          },
          parts);
      return all;
    }
    friend bool operator==(basic_state const&, basic_state const&) = default;
  };
  using state_type = basic_state<float>;

  partition(Rest rest, Groups... groups) : rules_(std::move(rest), std::move(groups)...) {}

  template <class T>
  basic_state<T> init(basic_parameter_list<T> const& parameters) const {
    basic_state<T> s;
    s.tensors_of = tensor_layout(parameters);
    auto const group_of = groups_of(parameters);
    each([&]<std::size_t G>() {
      auto& mine = std::get<G>(s.parts);
      for (std::size_t i = 0; i < parameters.size(); ++i)
        if (group_of[i] == G) mine.index.push_back(i);
      mine.list = sublist(parameters, mine.index);
      mine.state = rule<G>().init(mine.list);
    });
    check_names(s);
    return s;
  }

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
    source.check(parameters);
    check_state(parameters, s);
    check_next_step(parameters, s, context);
    if constexpr (std::is_same_v<Source, gradient::scaled>)  // which rules multiply with the context's
      detail::check_factor("optim::partition", context.gradient_factor * source.factor);
    step_result all;
    each([&]<std::size_t G>() {
      auto& mine = std::get<G>(s.parts);
      if (moved(parameters, mine.list, mine.index)) mine.list = sublist(parameters, mine.index);
      step_result r;
      if constexpr (std::is_same_v<Source, gradient::dense> || std::is_same_v<Source, gradient::scaled>)
        r = step_optimizer(rule<G>(), mine.list, mine.state, source, context);  // its list has the parameters' own
      else
        r = step_optimizer(rule<G>(), mine.list, mine.state,
                           detail::subset_source<Source, parameter_list>{&source, &parameters, mine.index.data()},
                           context);
      detail::join_results<G == 0>(all, r);
    });
    return all;
  }

  /// Throws argument_error unless each rule's state fits it and the parameters that it was made for.
  template <class T>
  void check_state(basic_parameter_list<T> const& parameters, basic_state<T> const& s) const {
    s.tensors_of.check(parameters, "optim::partition: the state");
    each_part(parameters, s, [](auto const& rule, auto const& list, auto const& own) {
      detail::check_rule(rule);
      if constexpr (requires { rule.check_state(list, own); }) rule.check_state(list, own);
    });
  }
  /// Throws argument_error if one of the rules would refuse its next step.
  template <class T>
  void check_next_step(basic_parameter_list<T> const& parameters, basic_state<T> const& s,
                       step_context const& context) const {
    if constexpr (needs.loss)
      if (needs_of(*this).loss) detail::check_loss(context);
    detail::check_factor("optim::partition", context.gradient_factor);
    each_part(parameters, s, [&](auto const& rule, auto const& list, auto const& own) {
      detail::check_next_step(rule, list, own, context);
    });
  }

  /// What rules keep of weights (optim/sharding.hpp).
  template <class Exchange>
  void share(parameter_list const& parameters, state_type& s, Exchange const& exchange) const {
    each([&]<std::size_t G>() {
      auto& mine = std::get<G>(s.parts);
      auto const own = [&](std::vector<divisible_array> arrays) {
        for (auto& a : arrays) a = in_whole_list(a, mine.index);
        exchange(std::move(arrays));
      };
      if constexpr (requires { rule<G>().share(parameters, mine.state, own); })
        rule<G>().share(sublist(parameters, mine.index), mine.state, own);
    });
  }

  /// What one of its rules needs; each is divided by itself, which needs whole tensors.
  static constexpr rule_needs needs =
      (optimizer_traits<Rest>::needs | ... | optimizer_traits<decltype(Groups::rule)>::needs) |
      rule_needs{.whole_tensors = true};
  /// What its rules do need, also those that are chosen when the program runs (optim::any_optimizer).
  rule_needs chosen_needs() const requires(optimizer_traits<Rest>::chosen_when_run || ... ||
                                           optimizer_traits<decltype(Groups::rule)>::chosen_when_run) {
    return chosen_or_static();
  }
  /// Each rule that needs one takes in its own parameters' part.
  template <class T>
  bool observe(basic_parameter_list<T> const& parameters, basic_state<T>& s, basic_hessian_diagonal<T> const& d) const {
    check_state(parameters, s);
    DOVETAIL_REQUIRE(needs.curvature, "none of its rules wants the Hessian's diagonal", partition);
    require(d.estimate.size() == parameters.flat_size(), "optimizer: an estimate of the Hessian's diagonal has ",
            d.estimate.size(), " elements, there are ", parameters.flat_size(), " parameters");
    require(chosen_or_static().curvature, "optim::partition: none of its rules divides by the Hessian's diagonal");
    if (!all_finite(d.estimate)) return false;
    each([&]<std::size_t G>() {
      using traits = optimizer_traits<std::remove_cvref_t<decltype(rule<G>())>>;
      if constexpr (traits::needs.curvature)
        if (needs_of(rule<G>()).curvature) {
          auto& mine = std::get<G>(s.parts);
          std::vector<T> own;
          for (auto const i : mine.index) {
            auto const here = d.estimate.subspan(parameters.offset(i), parameters[i].size());
            own.insert(own.end(), here.begin(), here.end());
          }
          rule<G>().observe(mine.list, mine.state, basic_hessian_diagonal<T>{own});
        }
    });
    return true;
  }
  template <class T>
  void observe(basic_parameter_list<T> const& parameters, basic_state<T>& s, basic_kfac_statistics<T> f) const {
    s.tensors_of.check(parameters, "optim::partition: the state");
    std::size_t const first = f.first;
    each([&]<std::size_t G>() {
      auto& mine = std::get<G>(s.parts);
      if constexpr (optimizer_traits<std::remove_cvref_t<decltype(rule<G>())>>::needs.layers)
        for (std::size_t k = 0; k < mine.index.size(); ++k)
          if (parameters.offset(mine.index[k]) == first && mine.list[k].size()) {
            f.first = mine.list.offset(k);
            rule<G>().observe(mine.list, mine.state, f);
          }
    });
  }
  template <class T>
  std::vector<std::span<T>> unreduced_statistics(basic_parameter_list<T> const&, basic_state<T>& s) const {
    std::vector<std::span<T>> all;
    each([&]<std::size_t G>() {
      if constexpr (optimizer_traits<std::remove_cvref_t<decltype(rule<G>())>>::needs.layers)
        for (auto const p : rule<G>().unreduced_statistics(std::get<G>(s.parts).list, std::get<G>(s.parts).state))
          all.push_back(p);
    });
    return all;
  }
  DOVETAIL_OTHER_MEMORY

  /// 0 for the rest, i for the i-th group (from 1).
  std::size_t group_index(std::string_view name, shape const& s) const {
    std::size_t found = 0;
    each([&]<std::size_t G>() {
      if constexpr (G > 0)
        if (!found && std::get<G>(rules_).predicate(name, s)) found = G;
    });
    return found;
  }

  /// group_index of every parameter.
  template <class T, class Space>
  std::vector<std::size_t> groups_of(basic_parameter_list<T, Space> const& parameters) const {
    std::vector<std::size_t> all;
    for (auto const& p : parameters) all.push_back(group_index(p.name, p.logical_whole()));
    return all;
  }

  // ---- for engines
  static constexpr std::size_t count = 1 + sizeof...(Groups);
  template <class F>
  static void each(F const& f) {
    [&]<std::size_t... G>(std::index_sequence<G...>) { (f.template operator()<G>(), ...); }
    (std::make_index_sequence<count>{});
  }
  template <std::size_t G>
  auto const& rule() const {
    if constexpr (G == 0)
      return std::get<0>(rules_);
    else
      return std::get<G>(rules_).rule;
  }
  template <class T, class Space>
  static basic_parameter_list<T, Space> sublist(basic_parameter_list<T, Space> const& all,
                                                std::vector<std::size_t> const& index) {
    basic_parameter_list<T, Space> list(all.where());
    for (auto const i : index) list.add_part(all[i], {0, all[i].size()});
    return list;
  }
  /// False if the list still is what the caller passes: a step then allocates nothing.
  template <class List>
  static bool moved(List const& all, List const& list, std::vector<std::size_t> const& index) {
    for (std::size_t k = 0; k < index.size(); ++k) {
      auto const &now = all[index[k]], &was = list[k];
      if (now.weight.data() != was.weight.data() || now.gradient.data() != was.gradient.data() ||
          now.weight.size() != was.weight.size())
        return true;
    }
    return false;
  }
  /// Throws argument_error for states that could not be saved: a parameter of the rest that is called as one of a group
  /// is saved, "group1.w" beside "w" of the first group.
  template <class T>
  static void check_names(basic_state<T>& s) {
    std::set<std::string> names;
    for (auto& t : s.tensors("")) {
      auto const [place, is_new] = names.insert(std::move(t.name));
      require(
          is_new, "optim::partition: what two parameters' rules keep would be saved as '", *place,
          "': no parameter of the rest can have the name of one of group i behind 'group<i>.': give it another name, "
          "or let one group have both");
    }
  }

 private:
  /// f(rule, its parameters, its state) for each of the rules. The state has to be made for these parameters.
  template <class T, class F>
  void each_part(basic_parameter_list<T> const& parameters, basic_state<T> const& s, F const& f) const {
    each([&]<std::size_t G>() {
      auto const& mine = std::get<G>(s.parts);
      if (moved(parameters, mine.list, mine.index))
        f(rule<G>(), sublist(parameters, mine.index), mine.state);
      else
        f(rule<G>(), mine.list, mine.state);
    });
  }
  rule_needs chosen_or_static() const {
    rule_needs all{.whole_tensors = true};
    each([&]<std::size_t G>() { all = all | needs_of(rule<G>()); });
    return all;
  }
  static divisible_array in_whole_list(divisible_array a, std::vector<std::size_t> const& index) {
    if (a.tensor != everywhere) a.tensor = index[a.tensor];
    return a;
  }
  std::tuple<Rest, Groups...> rules_;
};

}  // namespace dovetail::optim
