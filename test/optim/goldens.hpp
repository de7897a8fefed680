// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <dovetail/optim/stages.hpp>

#include <doctest/doctest.h>

#include "rules/known.hpp"

// Rules against the trajectories of a file that goldens/make.py wrote: same weights, same gradients, same
// hyperparameters.
namespace golden {

using namespace dovetail;
using known_rules = std::vector<std::unique_ptr<known::rule const>>;

constexpr int steps = 40;
constexpr float decay = 0.03f;

/// What make.py calls draw(step).
inline void draw(std::span<float> x, std::uint64_t step) {
  for (std::uint64_t i = 0; i < x.size(); ++i) {
    std::uint64_t h = (i * 7919 + step * 1000003 + 12345) * 2654435761u % (std::uint64_t{1} << 32);
    h = (h ^ (h >> 15)) * 2246822519u % (std::uint64_t{1} << 32);
    x[i] = static_cast<float>(static_cast<double>(h >> 8) * 0x1p-23 - 1.0);
  }
}

/// What make.py calls loss(step).
inline double loss(std::uint64_t step) {
  std::uint64_t h = (step * 7368787 + 4093) * 2654435761u % (std::uint64_t{1} << 32);
  h = (h ^ (h >> 15)) * 2246822519u % (std::uint64_t{1} << 32);
  return 1.0 + static_cast<double>(h >> 16) * 0x1p-15;
}

/// Weights after each of the steps asked for.
using trajectory = std::map<int, std::vector<double>>;
/// A rule's way on tensors of the file's shapes.
using run = std::function<trajectory(std::vector<arena::tensor> const&)>;

/// What look(parameters, state) says behind each step.
template <class Optimizer, class Look>
run follow(Optimizer opt, Look look) {
  return [opt, look](std::vector<arena::tensor> const& tensors) {
    arena a(tensors);
    draw(a.weights(), 0);
    auto& p = a.parameters();
    auto state = opt.init(p);
    trajectory seen;
    for (int t = 1; t <= steps; ++t) {
      draw(a.gradients(), static_cast<std::uint64_t>(t));
      opt.step(p, state, {.loss = loss(static_cast<std::uint64_t>(t))});
      auto const x = look(p, state);
      seen[t].assign(x.begin(), x.end());
    }
    return seen;
  };
}
template <class Optimizer>
run with(Optimizer opt) {
  return follow(opt, [](parameter_list const& p, auto const&) { return p.flat_weights(); });
}
/// What the rule's average of the weights is behind each step.
template <class Optimizer>
run average_of(Optimizer opt) {
  return follow(opt, [opt](parameter_list const& p, auto const& state) {
    std::vector<float> average(p.flat_size());
    optim::averaged_weights(opt, p, state, average);
    return average;
  });
}

/// What a case's line says behind its source: a rule with its hyperparameters, or "average of" one.
inline run by_name(std::string text, known_rules const& all, std::set<std::string>& seen) {
  std::string const of = "average of ";
  bool const average = text.starts_with(of);
  if (average) text = text.substr(of.size());
  auto const name = text.substr(0, text.find(' '));
  auto const found = std::find_if(all.begin(), all.end(), [&](auto const& r) { return r->name == name; });
  REQUIRE_MESSAGE(found != all.end(), name, " is in the file, but no rule");
  seen.insert(name);
  auto const& r = **found;
  known::recipe const recipe{known::settings_of(text.substr(name.size()))};
  if (!average) return with(r.any(recipe));
  return follow(r.any(recipe), [&r, recipe](parameter_list const& p, auto const& state) {
    std::vector<float> out(p.flat_size());
    r.averaged_weights(recipe, p, state, out);
    return out;
  });
}

/// A case of the file is one of `all` rules by name, or known here; every one here must be in the file. The rules that
/// the file has.
inline std::set<std::string> compare(char const* path, std::vector<arena::tensor> const& tensors,
                                     std::map<std::string, run> const& rules, double tolerance,
                                     known_rules const& all = {}) {
  std::ifstream file(path);
  REQUIRE(file.is_open());
  std::map<std::string, int> rows;
  std::set<std::string> seen;
  std::string name, source;
  trajectory ours;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    if (line.starts_with("#") || line.starts_with("schedule ")) continue;
    if (line.starts_with("case ")) {
      std::string rule;
      words.ignore(5) >> name >> source >> std::ws;
      std::getline(words, rule);
      REQUIRE_MESSAGE(rules.contains(name) == rule.empty(), name, " is in the file, but not here");
      rows[name] = 0;
      ours = (rule.empty() ? rules.at(name) : by_name(rule, all, seen))(tensors);
      continue;
    }
    CAPTURE(name);
    CAPTURE(source);
    int step = 0;
    words >> step;
    CAPTURE(step);
    std::size_t i = 0;
    double worst = 0;
    for (double expected; words >> expected; ++i) worst = std::max(worst, std::abs(ours.at(step)[i] - expected));
    REQUIRE(i == ours.at(step).size());
    CHECK(worst <= tolerance);
    ++rows[name];
  }
  for (auto const& [rule, way] : rules) rows.try_emplace(rule, 0);
  for (auto const& [rule, found] : rows) CHECK_MESSAGE(found == 5, rule, " is here, but not in the file");
  return seen;
}

}  // namespace golden
