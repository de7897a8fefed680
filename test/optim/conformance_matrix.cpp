// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// All rules that need LAPACK in the conformance suite.
#include "conformance.hpp"

#include <map>

using namespace conformance;

namespace {

std::map<std::string, float> const bowl_rates{
    {"kfac", 0.02f}, {"ekfac", 0.02f}, {"muon", 0.02f}, {"shampoo", 0.05f}, {"soap", 0.05f}};
std::vector<float> rates_of(std::string const& rule) {
  auto const found = bowl_rates.find(rule);
  return found == bowl_rates.end() ? std::vector<float>{0.01f, 0.1f, 1.0f} : std::vector<float>{found->second};
}
known::rule const& find(std::string const& name) {
  for (auto const& r : known::matrix())
    if (r->name == name) return *r;
  throw argument_error("there is no rule " + name);
}

}  // namespace

#define DOVETAIL_RULE(family, name) CONFORMANCE(name, find(#name), rates_of(#name))
#include <dovetail/optim/matrix/list.inc.hpp>
