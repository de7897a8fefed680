// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The rules of optim/matrix.hpp, compiled for all tests.
#include <dovetail/optim/matrix/registry.hpp>

#include "rule_of.hpp"

template dovetail::optim::registry const& dovetail::optim::matrix_rules<void>();

namespace known {
std::vector<std::unique_ptr<rule const>> const& matrix() {
  static auto const list = [] {
    std::vector<std::unique_ptr<rule const>> rules;
#define DOVETAIL_RULE(family, name) rules.push_back(std::make_unique<rule_of<optim::name>>(#family));
#include <dovetail/optim/matrix/list.inc.hpp>
    return rules;
  }();
  return list;
}
}  // namespace known
