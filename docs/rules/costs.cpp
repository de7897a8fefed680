// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What rules and stages cost, printed for make.py, which writes headers.inc and list.inc: RULE(name), ATTRIBUTE(rule,
// name, initializer) and ATTRIBUTES(rule, count) as it has read them in the headers, and STAGE(name).
#include <concepts>
#include <cstddef>
#include <iostream>
#include <type_traits>
#include <utility>

#include "headers.inc"

using namespace dovetail;
using namespace dovetail::optim;

namespace {

bool agrees = true;

template <class Rule>
void print_state(Rule const& rule, shape const& s) {
  arena a({{"w", s}});
  auto state = rule.init(a.parameters());
  for (auto const& t : state.tensors(""))
    std::cout << "state " << s << ' ' << t.name << ' ' << t.bytes.size() << ' ' << size_of(t.type) << '\n';
}

/// Passes, bytes, plan; then the sizes of state for matrices from which make.py finds the formula, and for vectors.
template <class Rule>
void print_cost(char const* kind, char const* name, Rule const& rule) {
  std::cout << kind << ' ' << name << ' ' << int{rule.passes} << ' ' << std::size_t{rule.bytes_per_parameter} << '\n';
  std::cout << rule.plan << "end\n";
  for (auto const& [n, m] : {std::pair{2, 3}, {3, 2}, {5, 7}, {7, 4}, {4, 9}, {8, 5}, {6, 11}, {9, 10}})
    print_state(rule, {n, m});
  for (int const n : {3, 5, 8}) print_state(rule, shape{n});
}

template <class Stage>
void print_stage(char const* name) {
  if constexpr (stage_traits<Stage>::ends_chain)
    print_cost("stage", name, chain{Stage{}});
  else if constexpr (stage_traits<Stage>::after_learning_rate)
    print_cost("stage", name, chain{sgd{}, Stage{}});
  else
    print_cost("stage", name, chain{Stage{}, sgd{}});
}

/// Compares a default, as the header's text has it, with what the compiler makes of it.
template <class T>
void check_default(char const* what, T const& is, T const& read) {
  bool equal = true;
  if constexpr (std::is_same_v<T, schedule>)
    equal = is.varies() == read.varies() && is(0) == read(0) && is(7777) == read(7777);
  else if constexpr (std::equality_comparable<T>)
    equal = is == read;
  if (!equal) std::cerr << "costs.cpp: the default of " << what << " was misread\n";
  agrees = agrees && equal;
}

struct anything {
  template <class T>
  operator T() const;
};
template <class Rule, std::size_t... I>
consteval bool has_as_many(std::index_sequence<I...>) {
  return requires { Rule{(static_cast<void>(I), anything{})...}; };
}
template <class Rule, std::size_t N>
void check_count(char const* name) {
  if (has_as_many<Rule>(std::make_index_sequence<N>{}) && !has_as_many<Rule>(std::make_index_sequence<N + 1>{})) return;
  std::cerr << "costs.cpp: not all attributes of " << name << " were read\n";
  agrees = false;
}

}  // namespace

#define RULE(name) print_cost("rule", #name, name{});
#define ATTRIBUTE(rule, name, ...)                      \
  {                                                     \
    decltype(rule{}.name) read __VA_ARGS__;             \
    check_default(#rule "::" #name, rule{}.name, read); \
  }
#define ATTRIBUTES(rule, count) check_count<decltype(rule{}), count>(#rule);
#define STAGE(name) print_stage<decltype(name{})>(#name);

int main() {
#include "list.inc"
  return agrees ? 0 : 1;
}
