// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "levels.hpp"

#include <dovetail/optim.hpp>

#ifndef LEVEL_STEPS
#define LEVEL_STEPS 10
#endif

namespace levels {
namespace {
using namespace dovetail;

template <class Rule>
Rule decayed(Rule rule) {
  if constexpr (requires { rule.weight_decay; }) rule.weight_decay = 0.02f;
  return rule;
}
}  // namespace

__attribute__((visibility("default"))) ways LEVEL() {
  ways all;
#define DOVETAIL_RULE(family, name) all.emplace_back(#name, after(decayed(optim::name{}), LEVEL_STEPS));
#include <dovetail/optim/rules/list.inc.hpp>
  return all;
}
}  // namespace levels
