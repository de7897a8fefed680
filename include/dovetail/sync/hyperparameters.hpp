// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include <dovetail/concepts.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/sync/agreement.hpp>

namespace dovetail::sync {

/// A number that a policy works with, and where it stands: "scale_by_adam.beta2".
struct hyperparameter {
  std::string name;
  double value = 0;
};

namespace detail {

DOVETAIL_COLD inline void add_hyperparameter(std::vector<hyperparameter>& to, char const* policy, char const* field,
                                             double value) {
  to.push_back({message(policy, '.', field), value});
}

template <class T>
void add_hyperparameters(std::vector<hyperparameter>& to, T const& x) {
  if constexpr (dovetail::detail::described<T>) {
    auto const& described = dovetail::detail::policy_of<T>;
    for (auto const& f : described)
      if (f.has_range()) add_hyperparameter(to, described.name, f.name(), f.value(x));
  }
  if constexpr (requires { x.stages(); }) {  // a rule with a name
    add_hyperparameters(to, x.stages());
  } else if constexpr (requires { std::tuple_size<std::remove_cvref_t<decltype(x.parts())>>::value; }) {  // a chain
    std::apply([&](auto const&... part) { (add_hyperparameters(to, part), ...); }, x.parts());
  } else if constexpr (requires { x.learning_rate(std::int64_t{1}); }) {
    // A schedule is a function: what it gives at some steps stands for it.
    for (std::int64_t const step : {1, 2, 3, 10, 100, 1'000, 10'000, 100'000, 1'000'000})
      add_hyperparameter(to, "learning rate", message("in step ", step).c_str(),
                         static_cast<double>(x.learning_rate(step)));
  }
  if constexpr (requires { x.chains(); })  // of groups
    for (auto const& c : x.chains()) add_hyperparameters(to, c);
  if constexpr (requires { x.rule(); }) add_hyperparameters(to, x.rule());  // of a form in which state is stored
  if constexpr (requires { x.codec; }) add_hyperparameters(to, x.codec);    // of a codec around another
}

}  // namespace detail

/// What optimizers, stages and codecs say of themselves (core/ranges.hpp), and rates of schedules at some steps. A
/// policy that describes nothing adds nothing.
template <class... Policies>
std::vector<hyperparameter> hyperparameters_of(Policies const&... policies) {
  std::vector<hyperparameter> all;
  (detail::add_hyperparameters(all, policies), ...);
  return all;
}

/// Collective. Throws argument_error on every rank, with the name, two ranks and both values, unless all ranks have the
/// same hyperparameters.
template <communicator C>
DOVETAIL_COLD void require_equal_hyperparameters(std::vector<hyperparameter> const& mine, C& comm,
                                                 char const* who = "sync") {
  if (comm.size() == 1) return;
  std::vector<std::uint64_t> words;
  for (auto const& h : mine) words.push_back(std::bit_cast<std::uint64_t>(h.value));
  auto const of_rank = detail::gather_words(words, comm);
  for (auto const& w : of_rank)
    require(w.size() == of_rank.front().size(), who, ": the ranks have optimizers or codecs of different types");
  for (std::size_t i = 0; i < mine.size(); ++i) {
    std::vector<std::uint64_t> values;
    for (auto const& w : of_rank) values.push_back(w[i]);
    auto const [usual, odd] = detail::find_unlike(values);
    if (odd == values.size()) continue;
    throw argument_error(message(who, ": the ranks have different hyperparameters: ", mine[i].name, " is ",
                                 std::bit_cast<double>(values[usual]), " on rank ", usual, " and ",
                                 std::bit_cast<double>(values[odd]), " on rank ", odd, ": give all ranks the same"));
  }
}

}  // namespace dovetail::sync
