// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstdint>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <dovetail/optim.hpp>

#include <doctest/doctest.h>

// Rules against the trajectories of a file that goldens/make.py wrote: same weights, same gradients, same
// hyperparameters.
namespace golden {

using namespace dovetail;

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

/// Every case of the file must be known here and every rule here must be in the file.
inline void compare(char const* path, std::vector<arena::tensor> const& tensors,
                    std::map<std::string, run> const& rules, double tolerance) {
  std::ifstream file(path);
  REQUIRE(file.is_open());
  std::map<std::string, int> rows;
  std::string name, source;
  trajectory ours;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    if (line.starts_with("#") || line.starts_with("schedule ")) continue;
    if (line.starts_with("case ")) {
      words.ignore(5) >> name >> source;
      REQUIRE_MESSAGE(rules.contains(name), name, " is in the file, but not here");
      ours = rules.at(name)(tensors);
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
  for (auto const& [rule, way] : rules) CHECK_MESSAGE(rows[rule] == 5, rule, " is here, but not in the file");
}

}  // namespace golden
