// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>

// What policies say of themselves (core/ranges.hpp), as lists: of names, and of numbers with names.

namespace dovetail {

/// A number that a policy works with, and where it stands: "scale_by_adam.beta2". True is 1; one of several choices is
/// its place among them.
struct hyperparameter {
  std::string name;
  double value = 0;
  std::string word = {};  ///< of a choice: its name
  friend bool operator==(hyperparameter const&, hyperparameter const&) = default;
};

namespace detail {

/// Word number `index` of words with a space between two; empty behind the last one.
DOVETAIL_COLD inline std::string_view word_of(std::string_view words, long index) {
  for (; index > 0 && !words.empty(); --index) words.remove_prefix(std::min(words.find(' '), words.size() - 1) + 1);
  return words.substr(0, words.find(' '));
}

/// The shortest text that reads as x, in single precision if x is such a number: "0.9".
DOVETAIL_COLD inline std::string number_text(double const& x) {
  char digits[32];
  bool const single =
      is_finite(x) && x <= 0x1.fffffep127 && x >= -0x1.fffffep127 && static_cast<double>(static_cast<float>(x)) == x;
  auto const end = single ? std::to_chars(digits, digits + sizeof digits, static_cast<float>(x)).ptr
                          : std::to_chars(digits, digits + sizeof digits, x).ptr;
  return {digits, end};
}

DOVETAIL_COLD inline void add_hyperparameter(std::vector<hyperparameter>& to, char const* policy, char const* field,
                                             double value, std::string_view word = {}) {
  to.push_back({message(policy, '.', field), value, std::string(word)});
}

/// True if a field is known only to a description that is made when the program runs.
template <class T>
consteval bool has_choices() {
  for (auto const& f : policy_of<T>)
    if (f.has_choices()) return true;
  return false;
}

template <class T>
DOVETAIL_COLD void add_hyperparameters(std::vector<hyperparameter>& to, T const& x) {
  if constexpr (described<T>) {
    auto const add = [&](auto const& description) {
      for (auto const& f : description)
        if (f.has_range() || f.is_flag())
          add_hyperparameter(to, description.name, f.name(), f.value(x));
        else if (auto const c = f.chosen(x); f.choices() && c >= 0)
          add_hyperparameter(to, description.name, f.name(), static_cast<double>(c), word_of(f.choices(), c));
    };
    if constexpr (has_choices<T>())
      add(T::describe());
    else
      add(policy_of<T>);
  }
  if constexpr (requires { x.hyperparameters(); }) {  // an optimizer that was chosen when the program runs
    for (auto& h : x.hyperparameters()) to.push_back(std::move(h));
  } else if constexpr (requires { x.stages(); }) {  // a rule with a name
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

/// The name of a type without its namespaces and template arguments.
template <class T>
DOVETAIL_COLD std::string type_name() {
  std::string_view all = __PRETTY_FUNCTION__;
  auto const begin = all.find("T = ") + 4;
  all = all.substr(begin, all.find_first_of("<;]", begin) - begin);
  return std::string(all.substr(all.rfind(':') == all.npos ? 0 : all.rfind(':') + 1));
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

/// What a policy is called: what it calls itself; a chain by its stages; otherwise the name of its type.
template <class T>
DOVETAIL_COLD std::string policy_name(T const& x) {
  if constexpr (requires { std::string(x.name()); }) {
    return std::string(x.name());
  } else if constexpr (detail::described<T>) {
    return detail::policy_of<T>.name;
  } else if constexpr (requires { std::tuple_size<std::remove_cvref_t<decltype(x.parts())>>::value; }) {
    std::string all;
    std::apply([&](auto const&... part) { ((all += message(all.empty() ? "" : ", ", policy_name(part))), ...); },
               x.parts());
    return message("chain of ", all);
  } else {
    return detail::type_name<T>();
  }
}

}  // namespace dovetail
