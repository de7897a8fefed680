// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A part of the rules of optim/rules.hpp, PART of optim::rule_parts: every one of them compiled, for all tests.
#include <dovetail/optim/rules/registry.hpp>

#include "parts.hpp"
#include "rule_of.hpp"

template void dovetail::optim::add_rules<PART>(dovetail::optim::registry&);

namespace known {
namespace {
template <int Part>
void add(parts& to) {
#define DOVETAIL_RULE(family, name)                                                             \
  if constexpr (static_cast<int>(optim::detail::listed_rule::name) % optim::rule_parts == Part) \
    to.emplace(                                                                                 \
        static_cast<int>(optim::detail::listed_rule::name),                                     \
        std::make_unique<rule_of<optim::detail::later<std::integral_constant<int, Part>, optim::name>>>(#family));
#include <dovetail/optim/rules/list.inc.hpp>
}
}  // namespace

template <>
void add_part<PART>(parts& to) {
  add<PART>(to);
}
}  // namespace known
