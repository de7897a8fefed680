// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Where two optimizers go, to be compared: a rule by its name and settings, "qhm lr=0.01 nu=0", or an optimizer.
#include <concepts>
#include <string>
#include <vector>

#include "rules/known.hpp"
#include "training.hpp"

namespace conformance {

template <class Rule>
requires(!std::convertible_to<Rule const&, char const*>) std::vector<float> after(Rule const& rule) {
  training t(rule);
  t.run(1, 8);
  return {t.a.weights().begin(), t.a.weights().end()};
}
inline std::vector<float> after(char const* text) {
  std::string const all = text, name = all.substr(0, all.find(' '));
  return after(known::find(name).any({known::settings_of(all.substr(name.size()))}));
}

}  // namespace conformance
