// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The rules against trajectories that PyTorch, optax and transcriptions of the papers made in double precision
// (goldens/make.py).
#include "goldens.hpp"

#include <cstdint>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include <dovetail/optim/rules/adamax.hpp>
#include <dovetail/optim/rules/nadam.hpp>
#include <dovetail/optim/rules/sgd.hpp>
#include <dovetail/optim/schedules.hpp>

namespace optim_goldens {

using namespace golden;

namespace {

optim::momentum const inner{.lr = 0.05f, .momentum = 0.8f, .weight_decay = decay};
// PyTorch's ASGD: what it averages begins two steps behind its t0.
optim::chain const asgd{
    optim::add_decayed_weights{decay},
    optim::scale_by_learning_rate{optim::inverse_time{.initial = 0.1f, .decay = decay * 0.1f, .power = 0.75f}},
    optim::swa_weights{.begin = 5 + 2}};
// Chains; rules by themselves are named in the file.
std::map<std::string, run> const rules{
    {"ema_weights", average_of(optim::chain{inner, optim::ema_weights{.decay = 0.9f}})},
    {"swa_weights", average_of(optim::chain{inner, optim::swa_weights{.begin = 2, .every = 3}})},
    {"lookahead", with(optim::chain{inner, optim::lookahead{.steps = 4, .alpha = 0.6f}})},
    {"centralize", with(optim::chain{optim::centralize{}, optim::sgd{.lr = 0.05f}})},
    {"clip_adaptively", with(optim::chain{optim::clip_adaptively{.clipping = 0.5f}, optim::sgd{.lr = 0.02f}})},
    {"nadam_decoupled",
     with(optim::chain{optim::scale_by_nadam{.beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .momentum_decay = 0.05f},
                       optim::add_decayed_weights{decay}, optim::scale_by_learning_rate{0.02f}})},
    {"adamaxw", with(optim::chain{optim::scale_by_adamax{.beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f},
                                  optim::add_decayed_weights{decay}, optim::scale_by_learning_rate{0.02f}})},
    {"asgd", with(asgd)},
    {"asgd_ax", average_of(asgd)},
};

std::map<std::string, optim::schedule> const schedules{
    {"step_decay", optim::step_decay{.initial = 0.1f, .factor = 0.5f, .every = 7}},
    {"piecewise", optim::piecewise{{0, 0.1f}, {5, 0.01f}, {20, 0.001f}}},
    {"exponential", optim::exponential{.initial = 0.1f, .factor = 0.9f}},
    {"polynomial", optim::polynomial{.from = 0.1f, .to = 0, .steps = 30, .power = 2.5f}},
    {"linear", optim::linear{.from = 0.1f, .to = 0.025f, .steps = 30}},
    {"cosine", optim::cosine{.initial = 0.1f, .steps = 39, .final = 0.01f}},
    {"warm_restarts", optim::warm_restarts{.initial = 0.1f, .steps = 5, .growth = 2, .final = 0.01f}},
    {"cyclical", optim::cyclical{.low = 0.01f, .high = 0.1f, .up = 6}},
    {"cyclical_halved", optim::cyclical{.low = 0.01f, .high = 0.1f, .up = 6, .shrink = 0.5f}},
    {"one_cycle",
     optim::one_cycle{.peak = 0.1f, .steps = steps + 1, .rise = 0.25f, .start_divisor = 10, .final_divisor = 100}},
    {"plateau",
     [](std::int64_t step) {  // make.py's measurements before it
       optim::reduce_on_plateau const rate{
           {.initial = 0.1f, .factor = 0.5f, .patience = 2, .threshold = 0.01f, .cooldown = 3, .smallest = 0.004f}};
       for (std::int64_t t = 0; t < step; ++t)
         rate.observe(t < 8 ? 1 / (1 + static_cast<double>(t)) : 0.125 + 0.01 * static_cast<double>(t * 7 % 5));
       return rate(step);
     }},
    {"inverse_time", optim::inverse_time{.initial = 0.1f, .decay = 0.2f}},
    {"inverse_power", optim::inverse_time{.initial = 0.1f, .decay = 0.2f, .power = 0.75f}},
    {"inverse_sqrt", optim::inverse_sqrt{.peak = 0.1f, .steps = 10}},
};

}  // namespace

TEST_CASE("every schedule gives PyTorch's rates") {
  std::ifstream file(DOVETAIL_GOLDENS);
  REQUIRE(file.is_open());
  std::size_t found = 0;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("schedule ")) continue;
    std::istringstream words(line);
    std::string name, source;
    words.ignore(9) >> name >> source;
    REQUIRE_MESSAGE(schedules.contains(name), name, " is in the file, but not here");
    CAPTURE(name);
    std::int64_t step = 0;
    for (double expected; words >> expected; ++step) {
      CAPTURE(step);
      CHECK(schedules.at(name)(step) == doctest::Approx(expected).epsilon(1e-6));
    }
    CHECK(step == steps);
    ++found;
  }
  CHECK(found == schedules.size());
}

TEST_CASE("every rule goes the way of PyTorch, optax or the paper in double precision") {
  // Weights are below 2: a rounding or so a step.
  auto const seen = compare(DOVETAIL_GOLDENS, {{"a", {3, 5}}, {"b", {7}}, {"c", {1}}}, rules, 3e-6, known::all());
  for (auto const& r : known::all())
    if (!r->needs.curvature)  // curvature.cpp
      CHECK_MESSAGE(seen.contains(r->name), r->name, " has no case in the file: add one to goldens/make.py");
}

TEST_CASE("every rule's defaults are in a case of the file, or said in defaults.cpp") {
  std::set<std::string> const said{"sgd",
                                   "momentum",
                                   "nesterov",
                                   "lars",
                                   "lamb",
                                   "amsgrad",
                                   "adabound",
                                   "yogi",
                                   "qhadam",
                                   "ademamix",
                                   "adopt",
                                   "adan",
                                   "rmsprop_momentum",
                                   "rmsprop_centered",
                                   "row_wise_adagrad",
                                   "larc",
                                   "lans",
                                   "prodigy",
                                   "schedule_free_sgd",
                                   "sign_sgd",
                                   "signum",
                                   "qhm"};
  std::ifstream file(DOVETAIL_GOLDENS);
  std::set<std::string> defaults;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string kind, name, source, rule, more;
    if (words >> kind >> name >> source >> rule && kind == "case" && !(words >> more)) defaults.insert(rule);
  }
  for (auto const& r : known::all())
    if (!r->needs.curvature)  // curvature.cpp
      CHECK_MESSAGE(defaults.contains(r->name) != said.contains(r->name), r->name,
                    " has no case with its defaults: add one to goldens/make.py");
}

}  // namespace optim_goldens
