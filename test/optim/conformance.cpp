// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// All rules that need no library in the conformance suite, and what policies around a rule must not change.
#include "conformance.hpp"

#include <map>

#include <dovetail/optim/rules/adam.hpp>
#include <dovetail/optim/rules/sgd.hpp>
#include <dovetail/optim/stages.hpp>

#include "limits.hpp"

using namespace conformance;

namespace {

/// The rates at which rules go down the bowl. Of a rule that is not listed, one of a coarse grid must do.
std::map<std::string, float> const bowl_rates{
    {"sgd", 0.1f},
    {"momentum", 0.02f},
    {"nesterov", 0.02f},
    {"adam", 0.05f},
    {"adamw", 0.05f},
    {"lars", 20.0f},
    {"lamb", 0.05f},
    {"sign_sgd", 0.02f},
    {"signum", 0.02f},
    {"lion", 0.02f},
    {"qhm", 0.1f},
    {"adagrad", 0.5f},
    {"adadelta", 30.0f},
    {"rmsprop", 0.02f},
    {"rmsprop_momentum", 0.01f},
    {"rmsprop_centered", 0.02f},
    {"rprop", 1.0f},
    {"adamax", 0.05f},
    {"nadam", 0.05f},
    {"amsgrad", 0.05f},
    {"radam", 0.05f},
    {"adabound", 0.01f},
    {"adabelief", 0.05f},
    {"yogi", 0.05f},
    {"qhadam", 0.05f},
    {"ademamix", 0.02f},
    {"adopt", 0.05f},
    {"adan", 0.05f},
    {"schedule_free_sgd", 0.1f},
    {"schedule_free_adamw", 0.05f},
    {"novograd", 0.05f},
    {"lans", 0.05f},
    {"prodigy", 1.0f},
    {"adafactor", 0.05f},
    {"sm3", 0.2f},
    {"row_wise_adagrad", 0.5f},
    {"padam", 0.05f},
    {"amsbound", 0.01f},
    {"nadamax", 0.05f},
    {"simplified_ademamix", 0.002f},
    {"acprop", 0.05f},
    {"optimistic_adam", 0.05f},
    {"ftml", 0.05f},
    {"swats", 0.01f},
    {"optimistic_sgd", 0.05f},
    {"demon", 0.02f},
    {"entropy_sgd", 0.02f},
    {"ftrl", 1.0f},
    {"wngrad", 10.0f},
    {"adagrad_norm", 1.0f},
    {"dog", 1.0f},
    {"dowg", 1.0f},
    {"dadapt_adamw", 1.0f},
    {"cocob", 0.0f},
    {"smorms3", 0.02f},
    {"fromage", 0.02f},
    {"percent_delta", 0.02f},
    {"polyak_sgd", 1.0f},
    {"momo", 1.0f},
    {"momo_adam", 0.1f},
    {"eve", 0.05f},
    {"adahessian", 0.05f},
    {"sophia", 0.02f},
};
std::vector<float> rates_of(std::string const& rule) {
  auto const found = bowl_rates.find(rule);
  return found == bowl_rates.end() ? std::vector<float>{0.01f, 0.1f, 1.0f} : std::vector<float>{found->second};
}

}  // namespace

TEST_CASE("limiting cases: a policy around a rule that does nothing leaves the rule's bits, or nearly so") {
  auto const near = [](std::vector<float> const& a, std::vector<float> const& b) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, static_cast<double>(std::abs(a[i] - b[i])));
    return worst < 1e-6;
  };
  optim::adamw const w{.weight_decay = 0};
  auto const plain = after(w);
  CHECK(after("adam") == plain);  // AdamW without decay is Adam
  CHECK(after(optim::chain{w, optim::ema_weights{}}) == plain);
  CHECK(after(optim::chain{w, optim::swa_weights{}}) == plain);
  CHECK(near(after(optim::chain{w, optim::lookahead{.steps = 1, .alpha = 1}}), plain));
  CHECK(!near(after(optim::chain{w, optim::lookahead{.steps = 1, .alpha = 0.5f}}), plain));
  CHECK(near(after("qhadam nu1=1 nu2=1 beta1=0.9"), plain));
  CHECK(near(after("ademamix alpha=0"), plain));
  auto const sgd = after("sgd lr=0.01");
  CHECK(near(after("qhm lr=0.01 nu=0"), sgd));
  CHECK(after("momentum lr=0.01 momentum=0") == sgd);
  CHECK(after("signum momentum=0") == after("sign_sgd"));
  CHECK(near(after("lion lr=1e-3 beta1=0 beta2=0"), after("sign_sgd")));
  CHECK(near(after("rmsprop_momentum momentum=0"), after("rmsprop")));
}

TEST_CASE("averages are asked for by their rule, and only when there are any") {
  training t(optim::chain{optim::sgd{.lr = 0.1f}, optim::ema_weights{.decay = 0.5f}});
  std::vector<float> out(t.a.parameters().flat_size());
  CHECK_THROWS_WITH_AS(optim::averaged_weights(t.rule, t.a.parameters(), t.state, out),
                       doctest::Contains("before the first step"), argument_error);
  t.run(1, 1);
  optim::averaged_weights(t.rule, t.a.parameters(), t.state, out);
  CHECK(same_bits(out, t.a.weights()));  // the average begins with the weights of the first step
  CHECK_THROWS_WITH_AS(optim::averaged_weights(t.rule, t.a.parameters(), t.state, std::span(out).first(3)),
                       doctest::Contains("room for 3 weights"), argument_error);
}

#define DOVETAIL_RULE(family, name) CONFORMANCE(name, known::find(#name), rates_of(#name))
#include <dovetail/optim/rules/list.inc.hpp>
