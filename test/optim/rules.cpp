// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "reference.hpp"

#include <dovetail/concepts.hpp>
#include <dovetail/optim.hpp>

#include <doctest/doctest.h>

namespace optim_rules {

using namespace dovetail;

static_assert(optim::sgd::passes == 1 && optim::sgd::bytes_per_parameter == 12);
static_assert(optim::momentum::passes == 1 && optim::momentum::bytes_per_parameter == 20);
static_assert(optim::nesterov::passes == 1 && optim::nesterov::bytes_per_parameter == 20);
static_assert(optim::adam::passes == 1 && optim::adam::bytes_per_parameter == 28);
static_assert(optim::adamw::passes == 1 && optim::adamw::bytes_per_parameter == 28);
static_assert(optim::lars::passes == 2 && optim::lars::bytes_per_parameter == 28);
static_assert(optim::lamb::passes == 2 && optim::lamb::bytes_per_parameter == 40);
// What their comments say of the others; what pages say is written by docs/rules/make.py.
template <class... Rules>
constexpr bool cost(std::size_t bytes) {
  return ((Rules::passes == 1 && Rules::bytes_per_parameter == bytes) && ...);
}
static_assert(cost<optim::sign_sgd>(12));
static_assert(
    cost<optim::signum, optim::lion, optim::qhm, optim::adagrad, optim::rmsprop, optim::schedule_free_sgd>(20));
static_assert(
    cost<optim::adadelta, optim::rmsprop_momentum, optim::rprop, optim::adamax, optim::nadam, optim::radam,
         optim::adabound, optim::adabelief, optim::yogi, optim::qhadam, optim::adopt, optim::schedule_free_adamw>(28));
static_assert(cost<optim::rmsprop_centered, optim::amsgrad, optim::ademamix>(36));
static_assert(cost<optim::adan>(44));
static_assert(cost<optim::optimistic_sgd, optim::demon, optim::ftml>(20));
static_assert(cost<optim::nadamax, optim::simplified_ademamix, optim::acprop, optim::ftrl, optim::entropy_sgd>(28));
static_assert(cost<optim::padam, optim::amsbound, optim::optimistic_adam, optim::smorms3>(36));
static_assert(cost<optim::cocob>(52));
template <class... Rules>
constexpr bool two_passes(std::size_t bytes) {
  return ((Rules::passes == 2 && Rules::bytes_per_parameter == bytes) && ...);
}
static_assert(two_passes<optim::wngrad, optim::adagrad_norm, optim::fromage, optim::polyak_sgd>(20));
static_assert(two_passes<optim::dog, optim::dowg, optim::percent_delta, optim::momo>(28));
static_assert(two_passes<optim::dadapt_adamw>(48));
static_assert(two_passes<optim::swats, optim::eve, optim::momo_adam>(40));
static_assert(optim::rule_needs(optim::momo::needs).loss && !optim::rule_needs(optim::adam::needs).loss);
static_assert(optim::optimizer_traits<decltype(optim::partition{
                  optim::adamw{}, optim::group{optim::rank_below{2}, optim::momo{}}})>::needs.loss);
static_assert(optim::novograd::passes == 2 && optim::novograd::bytes_per_parameter == 24);
static_assert(optim::larc::passes == 2 && optim::larc::bytes_per_parameter == 28);
static_assert(optim::lans::passes == 3 && optim::lans::bytes_per_parameter == 48);
static_assert(optim::prodigy::passes == 2 && optim::prodigy::bytes_per_parameter == 56);
static_assert(optim::adafactor::passes == 2 && optim::adafactor::bytes_per_parameter == 20);
static_assert(optim::row_wise_adagrad::passes == 2 && optim::row_wise_adagrad::bytes_per_parameter == 24);
using clipped_adamw = decltype(optim::chain{optim::clip_by_global_norm{}, optim::adamw{}});
static_assert(clipped_adamw::passes == 2 && clipped_adamw::bytes_per_parameter == 32);
static_assert(optim::adamw::bytes_per_parameter_with<optim::gradient::half<bf16>>() == 26);
static_assert(optimizer<optim::sgd> && optimizer<optim::momentum> && optimizer<optim::nesterov> &&
              optimizer<optim::adam> && optimizer<optim::adamw> && optimizer<optim::lars> && optimizer<optim::lamb> &&
              optimizer<clipped_adamw>);

// Weights are below 2 or so, steps about 60: an fp32 trajectory stays this near to the fp64 one.
constexpr double near = 2e-5;

TEST_CASE("rules with a number per row and column remember a thousandth of what Adam does") {
  arena a({{"w", {1000, 1000}}, {"b", {1000}}});
  auto const bytes = [&](auto const& rule) { return rule.init(a.parameters()).bytes(); };
  std::size_t const floats = 4, weights = 1'001'000;
  CHECK(bytes(optim::adamw{}) == 2 * floats * weights);
  CHECK(bytes(optim::adafactor{}) == floats * (1000 + 1000 + 1000));  // rows, columns, the vector
  CHECK(bytes(optim::sm3{}) == floats * (weights + 3000));            // with momentum
  CHECK(bytes(optim::row_wise_adagrad{}) == floats * (1000 + 1));
  CHECK(bytes(optim::novograd{}) == floats * weights + 2 * sizeof(double));
  // What is stored between two passes is room for the largest tensor, not for all.
  auto state = optim::adafactor{}.init(a.parameters());
  CHECK(state.scratch().update.size() == 1'000'000);
}

TEST_CASE(
    "sgd, momentum and nesterov equal their formulas in double precision, each hyperparameter alone and together") {
  CHECK(test::largest_difference(optim::sgd{.lr = 0.05f}, test::sgd(0.05f, 0)) < near);
  CHECK(test::largest_difference(optim::sgd{.lr = 0.05f, .weight_decay = 0.3f}, test::sgd(0.05f, 0.3f)) < near);
  CHECK(test::largest_difference(optim::momentum{.lr = 0.02f}, test::momentum(0.02f, 0.9f, 0, 0, false)) < near);
  CHECK(test::largest_difference(optim::momentum{.lr = 0.02f, .momentum = 0.5f},
                                 test::momentum(0.02f, 0.5, 0, 0, false)) < near);
  CHECK(test::largest_difference(optim::momentum{.lr = 0.02f, .dampening = 0.4f},
                                 test::momentum(0.02f, 0.9f, 0.4f, 0, false)) < near);
  CHECK(test::largest_difference(optim::momentum{.lr = 0.02f, .weight_decay = 0.1f},
                                 test::momentum(0.02f, 0.9f, 0, 0.1f, false)) < near);
  CHECK(
      test::largest_difference(optim::momentum{.lr = 0.03f, .momentum = 0.7f, .dampening = 0.2f, .weight_decay = 0.1f},
                               test::momentum(0.03f, 0.7f, 0.2f, 0.1f, false)) < near);
  CHECK(test::largest_difference(optim::nesterov{.lr = 0.02f}, test::momentum(0.02f, 0.9f, 0, 0, true)) < near);
  CHECK(test::largest_difference(optim::nesterov{.lr = 0.02f, .momentum = 0.6f, .weight_decay = 0.2f},
                                 test::momentum(0.02f, 0.6f, 0, 0.2f, true)) < near);
}

TEST_CASE("adam and adamw equal their formulas in double precision, each hyperparameter alone and together") {
  CHECK(test::largest_difference(optim::adam{}, test::adam(1e-3f, 0.9f, 0.999f, 1e-8f, 0, 0)) < near);
  CHECK(test::largest_difference(optim::adam{.lr = 0.02f}, test::adam(0.02f, 0.9f, 0.999f, 1e-8f, 0, 0)) < near);
  CHECK(test::largest_difference(optim::adam{.beta1 = 0.5f}, test::adam(1e-3f, 0.5f, 0.999f, 1e-8f, 0, 0)) < near);
  CHECK(test::largest_difference(optim::adam{.beta2 = 0.9f}, test::adam(1e-3f, 0.9f, 0.9f, 1e-8f, 0, 0)) < near);
  CHECK(test::largest_difference(optim::adam{.lr = 0.1f, .epsilon = 0.5f}, test::adam(0.1f, 0.9f, 0.999f, 0.5f, 0, 0)) <
        near);
  CHECK(test::largest_difference(optim::adam{.lr = 0.02f, .weight_decay = 0.3f},
                                 test::adam(0.02f, 0.9f, 0.999f, 1e-8f, 0.3f, 0)) < near);
  CHECK(test::largest_difference(optim::adamw{}, test::adam(1e-3f, 0.9f, 0.999f, 1e-8f, 0, 0.01f)) < near);
  CHECK(test::largest_difference(optim::adamw{.lr = 0.02f, .weight_decay = 0.7f},
                                 test::adam(0.02f, 0.9f, 0.999f, 1e-8f, 0, 0.7f)) < near);
  CHECK(test::largest_difference(
            optim::adamw{.lr = 0.03f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.2f},
            test::adam(0.03f, 0.8f, 0.95f, 1e-3f, 0, 0.2f)) < near);
}

TEST_CASE("lars and lamb equal their papers' algorithms in double precision") {
  CHECK(test::largest_difference(optim::lars{}, test::lars(0.1f, 0.9f, 5e-4f, 1e-3f)) < near);
  CHECK(
      test::largest_difference(optim::lars{.lr = 2, .momentum = 0.5f, .weight_decay = 0.3f, .trust_coefficient = 0.01f},
                               test::lars(2, 0.5f, 0.3f, 0.01f)) < near);
  CHECK(test::largest_difference(optim::lamb{}, test::lamb(1e-3f, 0.9f, 0.999f, 1e-6f, 0.01f)) < near);
  CHECK(test::largest_difference(
            optim::lamb{.lr = 0.02f, .beta1 = 0.8f, .beta2 = 0.95f, .epsilon = 1e-3f, .weight_decay = 0.3f},
            test::lamb(0.02f, 0.8f, 0.95f, 1e-3f, 0.3f)) < near);
  CHECK(test::largest_difference(optim::lamb{.lr = 0.02f, .min_norm = 3, .max_norm = 7},
                                 test::lamb(0.02f, 0.9f, 0.999f, 1e-6f, 0.01f, 3, 7)) < near);
  // Without an epsilon the padding behind a tensor's last element is 0/0, which must not reach the norm.
  CHECK(test::largest_difference(optim::lamb{.lr = 0.02f, .epsilon = 0}, test::lamb(0.02f, 0.9f, 0.999f, 0, 0.01f)) <
        near);
}

TEST_CASE("clipping by the global norm is taken over all tensors, before the rule") {
  CHECK(test::largest_difference(optim::chain{optim::clip_by_global_norm{2}, optim::sgd{.lr = 0.05f}},
                                 test::sgd(0.05f, 0), 60, 1, [](auto& g) { test::clip(g, 2); }) < near);
  CHECK(test::largest_difference(
            optim::chain{optim::clip_by_global_norm{2}, optim::adamw{.lr = 0.01f, .epsilon = 1e-2f}},
            test::adam(0.01f, 0.9f, 0.999f, 1e-2f, 0, 0.01f), 60, 1, [](auto& g) { test::clip(g, 2); }) < near);
  CHECK(test::largest_difference(optim::chain{optim::clip_by_global_norm{1e9f}, optim::sgd{.lr = 0.05f}},
                                 test::sgd(0.05f, 0)) < near);
  // Three passes: the trust ratio is of the clipped update.
  CHECK(test::largest_difference(
            optim::chain{optim::clip_by_global_norm{2}, optim::lamb{.lr = 0.02f, .epsilon = 1e-2f}},
            test::lamb(0.02f, 0.9f, 0.999f, 1e-2f, 0.01f), 60, 1, [](auto& g) { test::clip(g, 2); }) < near);
}

TEST_CASE("a stage means what its position says: clip by value and decay before or behind the direction") {
  auto const clamp = [](auto& all) {
    for (auto& g : all)
      for (double& x : g) x = std::clamp(x, -0.25, 0.25);
  };
  CHECK(test::largest_difference(optim::chain{optim::clip_by_value{0.25f}, optim::sgd{.lr = 0.05f}},
                                 test::sgd(0.05f, 0), 60, 1, clamp) < near);
  CHECK(test::largest_difference(optim::chain{optim::add_decayed_weights{0.3f}, optim::scale_by_adam{},
                                              optim::add_decayed_weights{0.2f}, optim::scale_by_learning_rate{0.01f}},
                                 test::adam(0.01f, 0.9f, 0.999f, 1e-8f, 0.3f, 0.2f)) < near);
  CHECK(test::largest_difference(optim::chain{optim::scale{3}, optim::sgd{.lr = 0.05f}}, test::sgd(0.05f, 0), 60, 1,
                                 [](auto& all) {
                                   for (auto& g : all)
                                     for (double& x : g) x *= 3;
                                 }) < near);
}

TEST_CASE("tiny and huge gradients neither vanish nor overflow in a norm") {
  for (float scale : {1e-25f, 1e-38f, 1e25f}) {
    arena a({{"w", {100}}});
    for (float& x : a.gradients()) x = scale;
    auto& p = a.parameters();
    optim::chain const opt{optim::clip_by_global_norm{1e30f}, optim::sgd{.lr = 0}};
    auto s = opt.init(p);
    auto const r = opt.step(p, s);
    CHECK_FALSE(r.skipped);
    CHECK(r.gradient_norm == doctest::Approx(10 * static_cast<double>(scale)).epsilon(1e-12));
  }
}

TEST_CASE("a zero norm of weights or gradient gives the ratio 1 and never a NaN") {
  auto const one = [](auto const& opt, float w, float g) {
    arena a({{"x", {5}}, {"empty", {0}}});
    for (float& x : a.weights()) x = w;
    for (float& x : a.gradients()) x = g;
    auto s = opt.init(a.parameters());
    opt.step(a.parameters(), s);
    return a.weights()[4];
  };
  CHECK(one(optim::lars{.lr = 0.5f}, 0, 2) == -1.0f);
  CHECK(one(optim::lars{.lr = 0.5f, .weight_decay = 0.5f}, 2, 0) == 1.5f);
  CHECK(one(optim::lars{.lr = 0.5f}, 0, 0) == 0);
  CHECK(one(optim::lamb{.lr = 0.5f, .weight_decay = 0}, 0, 2) == doctest::Approx(-0.5));
  CHECK(one(optim::lamb{.lr = 0.5f, .weight_decay = 0}, 2, 0) == 2);
  CHECK(one(optim::lamb{.lr = 0.5f}, 0, 0) == 0);
  CHECK(one(optim::chain{optim::clip_by_global_norm{1e-30f}, optim::sgd{.lr = 1}}, 3, 0) == 3);
}

}  // namespace optim_rules
