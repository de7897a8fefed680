// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The rules against trajectories that PyTorch, optax and transcriptions of the papers made in double precision
// (goldens/make.py).
#include "goldens.hpp"

#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include <dovetail/optim/schedules/plateau.hpp>

using namespace golden;

namespace {

optim::momentum const inner{.lr = 0.05f, .momentum = 0.8f, .weight_decay = decay};
optim::schedule_free_sgd const free_sgd{.lr = 0.1f, .beta = 0.8f, .warmup = 6, .weight_decay = decay};
optim::schedule_free_adamw const free_adamw{
    .lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .warmup = 6, .weight_decay = decay};

// PyTorch's ASGD: what it averages begins two steps behind its t0.
optim::chain const asgd{
    optim::add_decayed_weights{decay},
    optim::scale_by_learning_rate{optim::inverse_time{.initial = 0.1f, .decay = decay * 0.1f, .power = 0.75f}},
    optim::swa_weights{.begin = 5 + 2}};
optim::entropy_sgd const entropy{.lr = 0.05f,
                                 .outer_lr = 0.8f,
                                 .steps = 6,
                                 .scope = 0.5f,
                                 .scope_growth = 0.25f,
                                 .alpha = 0.6f,
                                 .weight_decay = decay};

std::map<std::string, run> const rules{
    {"ema_weights", average_of(optim::chain{inner, optim::ema_weights{.decay = 0.9f}})},
    {"swa_weights", average_of(optim::chain{inner, optim::swa_weights{.begin = 2, .every = 3}})},
    {"lookahead", with(optim::chain{inner, optim::lookahead{.steps = 4, .alpha = 0.6f}})},
    {"schedule_free_sgd", with(free_sgd)},
    {"schedule_free_sgd_x", average_of(free_sgd)},
    {"schedule_free_adamw", with(free_adamw)},
    {"schedule_free_adamw_x", average_of(free_adamw)},
    {"schedule_free_adamw_default", with(optim::schedule_free_adamw{})},
    {"schedule_free_adamw_default_x", average_of(optim::schedule_free_adamw{})},
    {"sgd", with(optim::sgd{.lr = 0.05f, .weight_decay = decay})},
    {"momentum", with(optim::momentum{.lr = 0.05f, .momentum = 0.8f, .dampening = 0.25f, .weight_decay = decay})},
    {"nesterov", with(optim::nesterov{.lr = 0.05f, .momentum = 0.8f, .weight_decay = decay})},
    {"adam", with(optim::adam{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-4f, .weight_decay = decay})},
    {"adam_default", with(optim::adam{})},
    {"adamw", with(optim::adamw{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-4f, .weight_decay = decay})},
    {"adamw_default", with(optim::adamw{})},
    {"adagrad",
     with(optim::adagrad{.lr = 0.05f, .initial_accumulator = 0.1f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"adagrad_default", with(optim::adagrad{})},
    {"adadelta", with(optim::adadelta{.lr = 0.7f, .rho = 0.85f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"adadelta_default", with(optim::adadelta{})},
    {"rmsprop", with(optim::rmsprop{.lr = 0.02f, .alpha = 0.9f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"rmsprop_default", with(optim::rmsprop{})},
    {"rmsprop_momentum", with(optim::rmsprop_momentum{
                             .lr = 0.01f, .alpha = 0.9f, .momentum = 0.7f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"rmsprop_centered", with(optim::rmsprop_centered{
                             .lr = 0.01f, .alpha = 0.9f, .momentum = 0.7f, .epsilon = 1e-2f, .weight_decay = decay})},
    {"rprop", with(optim::rprop{
                  .initial_step = 0.03f, .shrink = 0.4f, .grow = 1.3f, .smallest_step = 1e-3f, .largest_step = 0.1f})},
    {"rprop_default", with(optim::rprop{})},
    {"adamax",
     with(optim::adamax{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"adamax_default", with(optim::adamax{})},
    {"nadam", with(optim::nadam{.lr = 0.02f,
                                .beta1 = 0.8f,
                                .beta2 = 0.95f,
                                .epsilon = 1e-3f,
                                .momentum_decay = 0.05f,
                                .weight_decay = decay})},
    {"nadam_default", with(optim::nadam{})},
    {"amsgrad",
     with(optim::amsgrad{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.9f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"radam", with(optim::radam{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"radam_default", with(optim::radam{})},
    {"sign_sgd", with(optim::sign_sgd{.lr = 0.02f, .weight_decay = decay})},
    {"signum", with(optim::signum{.lr = 0.02f, .momentum = 0.8f, .weight_decay = decay})},
    {"lion", with(optim::lion{.lr = 0.02f, .beta1 = 0.85f, .beta2 = 0.97f, .weight_decay = decay})},
    {"lion_default", with(optim::lion{})},
    {"yogi",
     with(optim::yogi{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .initial_accumulator = 0, .weight_decay = decay})},
    {"adabelief",
     with(optim::adabelief{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"adabelief_default", with(optim::adabelief{})},
    {"adan",
     with(
         optim::adan{
             .lr = 0.02f, .beta1 = 0.9f, .beta2 = 0.8f, .beta3 = 0.95f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"ademamix", with(optim::ademamix{.lr = 0.02f,
                                      .beta1 = 0.8f,
                                      .beta2 = 0.95f,
                                      .beta3 = 0.99f,
                                      .alpha = 3,
                                      .epsilon = 1e-3f,
                                      .weight_decay = decay})},
    {"ademamix_warm_up", with(optim::ademamix{.lr = 0.02f,
                                              .beta1 = 0.8f,
                                              .beta2 = 0.95f,
                                              .beta3 = 0.99f,
                                              .alpha = 3,
                                              .warmup = 25,
                                              .epsilon = 1e-3f,
                                              .weight_decay = decay})},
    {"lamb", with(optim::lamb{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"qhm", with(optim::qhm{.lr = 0.02f, .nu = 0.6f, .beta = 0.9f, .weight_decay = decay})},
    {"qhadam", with(optim::qhadam{.lr = 0.02f,
                                  .nu1 = 0.6f,
                                  .nu2 = 0.8f,
                                  .beta1 = 0.9f,
                                  .beta2 = 0.95f,
                                  .epsilon = 1e-3f,
                                  .weight_decay = decay})},
    {"adabound", with(optim::adabound{.lr = 0.02f,
                                      .final_ratio = 2,
                                      .gamma = 0.1f,
                                      .beta1 = 0.8f,
                                      .beta2 = 0.95f,
                                      .epsilon = 1e-3f,
                                      .weight_decay = decay})},
    {"adopt", with(optim::adopt{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"adafactor", with(optim::adafactor{
                      .lr = 0.02f, .decay = -0.7f, .smallest_rms = 0.01f, .clipping = 1.25f, .weight_decay = decay})},
    {"adafactor_relative_step", with(optim::adafactor{.lr = optim::relative_step{0.3f}})},
    {"adafactor_default", with(optim::adafactor{})},
    {"novograd",
     with(optim::novograd{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.7f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"novograd_default", with(optim::novograd{})},
    {"prodigy",
     with(optim::prodigy{.lr = 0.9f,
                         .beta1 = 0.8f,
                         .beta2 = 0.95f,
                         .epsilon = 1e-3f,
                         .weight_decay = decay,
                         .initial_d = 0.01f,
                         .coefficient = 1.5f})},
    {"prodigy_corrected", with(optim::prodigy{.lr = 0.9f,
                                              .beta1 = 0.8f,
                                              .beta2 = 0.95f,
                                              .epsilon = 1e-3f,
                                              .weight_decay = decay,
                                              .initial_d = 0.01f,
                                              .coefficient = 1.5f,
                                              .bias_correction = true})},
    {"sm3", with(optim::sm3{.lr = 0.05f, .momentum = 0.8f, .epsilon = 1e-4f, .weight_decay = decay})},
    {"sm3_default", with(optim::sm3{})},
    {"centralize", with(optim::chain{optim::centralize{}, optim::sgd{.lr = 0.05f}})},
    {"larc", with(optim::larc{.lr = 0.05f, .momentum = 0.8f, .weight_decay = decay, .trust_coefficient = 0.05f})},
    {"lans", with(optim::lans{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"row_wise_adagrad", with(optim::row_wise_adagrad{.lr = 0.02f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"clip_adaptively", with(optim::chain{optim::clip_adaptively{.clipping = 0.5f}, optim::sgd{.lr = 0.02f}})},
    {"lars", with(optim::lars{.lr = 0.5f, .momentum = 0.8f, .weight_decay = decay, .trust_coefficient = 0.02f})},
    {"nadam_decoupled",
     with(optim::chain{optim::scale_by_nadam{.beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .momentum_decay = 0.05f},
                       optim::add_decayed_weights{decay}, optim::scale_by_learning_rate{0.02f}})},
    {"adamaxw", with(optim::chain{optim::scale_by_adamax{.beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f},
                                  optim::add_decayed_weights{decay}, optim::scale_by_learning_rate{0.02f}})},
    {"asgd", with(asgd)},
    {"asgd_ax", average_of(asgd)},
    {"padam", with(optim::padam{
                  .lr = 0.02f, .power = 0.2f, .beta1 = 0.8f, .beta2 = 0.9f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"padam_default", with(optim::padam{})},
    {"amsbound", with(optim::amsbound{.lr = 0.02f,
                                      .final_ratio = 2,
                                      .gamma = 0.1f,
                                      .beta1 = 0.8f,
                                      .beta2 = 0.9f,
                                      .epsilon = 1e-3f,
                                      .weight_decay = decay})},
    {"amsbound_default", with(optim::amsbound{})},
    {"nadamax", with(optim::nadamax{.lr = 0.02f,
                                    .beta1 = 0.8f,
                                    .beta2 = 0.95f,
                                    .epsilon = 1e-3f,
                                    .momentum_decay = 0.05f,
                                    .weight_decay = decay})},
    {"nadamax_default", with(optim::nadamax{})},
    {"simplified_ademamix",
     with(optim::simplified_ademamix{
         .lr = 5e-3f, .beta1 = 0.9f, .beta2 = 0.8f, .alpha = 1.5f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"simplified_ademamix_default", with(optim::simplified_ademamix{})},
    {"acprop",
     with(optim::acprop{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"acprop_default", with(optim::acprop{})},
    {"optimistic_adam",
     with(optim::optimistic_adam{
         .lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .optimism = 0.6f, .weight_decay = decay})},
    {"optimistic_adam_default", with(optim::optimistic_adam{})},
    {"ftml", with(optim::ftml{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"ftml_default", with(optim::ftml{})},
    {"swats",
     with(optim::swats{
         .lr = 0.02f, .beta1 = 0.7f, .beta2 = 0.8f, .epsilon = 1e-3f, .tolerance = 7e-4f, .weight_decay = decay})},
    {"swats_default", with(optim::swats{})},
    {"optimistic_sgd", with(optim::optimistic_sgd{.lr = 0.05f, .alpha = 0.7f, .beta = 1.4f, .weight_decay = decay})},
    {"optimistic_sgd_default", with(optim::optimistic_sgd{})},
    {"demon", with(optim::demon{.lr = 0.02f, .momentum = 0.8f, .steps = 30, .weight_decay = decay})},
    {"demon_default", with(optim::demon{})},
    {"entropy_sgd", with(entropy)},
    {"entropy_sgd_x", average_of(entropy)},
    {"entropy_sgd_default", with(optim::entropy_sgd{})},
    {"ftrl", with(optim::ftrl{.lr = 0.3f, .beta = 0.5f, .l1 = 0.4f, .l2 = 0.2f})},
    {"ftrl_default", with(optim::ftrl{})},
    {"wngrad", with(optim::wngrad{.lr = 0.7f, .initial = 2.5f, .weight_decay = decay})},
    {"wngrad_default", with(optim::wngrad{})},
    {"adagrad_norm", with(optim::adagrad_norm{.lr = 0.7f, .initial = 2.5f, .weight_decay = decay})},
    {"adagrad_norm_default", with(optim::adagrad_norm{})},
    {"dadapt_adamw", with(optim::dadapt_adamw{
                         .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = decay, .initial_d = 0.01f})},
    {"dadapt_adamw_default", with(optim::dadapt_adamw{})},
    {"dog", with(optim::dog{.lr = 0.7f, .reach = 0.03f, .epsilon = 0.5f, .weight_decay = decay})},
    {"dog_default", with(optim::dog{})},
    {"dowg", with(optim::dowg{.lr = 0.7f, .initial_square = 0.05f, .epsilon = 0.1f, .weight_decay = decay})},
    {"dowg_default", with(optim::dowg{})},
    {"cocob", with(optim::cocob{.alpha = 7, .epsilon = 0.2f, .weight_decay = decay})},
    {"cocob_default", with(optim::cocob{})},
    {"smorms3", with(optim::smorms3{.lr = 0.05f, .epsilon = 1e-3f, .weight_decay = decay})},
    {"smorms3_default", with(optim::smorms3{})},
    {"fromage", with(optim::fromage{.lr = 0.1f})},
    {"fromage_default", with(optim::fromage{})},
    {"percent_delta",
     with(optim::percent_delta{.lr = 0.02f, .momentum = 0.8f, .epsilon = 0.1f, .weight_decay = decay})},
    {"percent_delta_default", with(optim::percent_delta{})},
    {"polyak_sgd",
     with(optim::polyak_sgd{.lr = 0.5f, .lower_bound = 0.5f, .largest = 0.2f, .epsilon = 0.3f, .weight_decay = decay})},
    {"polyak_sgd_default", with(optim::polyak_sgd{})},
    {"momo", with(optim::momo{.lr = 0.3f, .beta = 0.8f, .lower_bound = 1.5f})},
    {"momo_decay", with(optim::momo{.lr = 0.3f, .beta = 0.8f, .lower_bound = 1.5f, .weight_decay = 0.3f})},
    {"momo_default", with(optim::momo{})},
    {"momo_adam",
     with(optim::momo_adam{.lr = 0.1f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .lower_bound = 1.5f})},
    {"momo_adam_decay",
     with(optim::momo_adam{
         .lr = 0.1f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .lower_bound = 1.5f, .weight_decay = 0.3f})},
    {"momo_adam_default", with(optim::momo_adam{})},
    {"eve", with(optim::eve{.lr = 0.02f,
                            .beta1 = 0.8f,
                            .beta2 = 0.95f,
                            .beta3 = 0.7f,
                            .epsilon = 1e-3f,
                            .clipping = 2,
                            .lower_bound = 0.5f,
                            .weight_decay = decay})},
    {"eve_default", with(optim::eve{})},
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
  compare(DOVETAIL_GOLDENS, {{"a", {3, 5}}, {"b", {7}}, {"c", {1}}}, rules, 3e-6);
}
