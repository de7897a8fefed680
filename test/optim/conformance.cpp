// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The rules that need no library, in the conformance suite, and what policies around a rule must not change.
#include "conformance.hpp"

using namespace conformance;

TEST_CASE("limiting cases: a policy around a rule that does nothing leaves the rule's bits, or nearly so") {
  auto const after = [](auto rule) {
    training t(rule);
    t.run(1, 8);
    return std::vector<float>(t.a.weights().begin(), t.a.weights().end());
  };
  auto const near = [](std::vector<float> const& a, std::vector<float> const& b) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, static_cast<double>(std::abs(a[i] - b[i])));
    return worst < 1e-6;
  };
  optim::adamw const w{.weight_decay = 0};
  auto const plain = after(w);
  CHECK(after(optim::adam{}) == plain);  // AdamW without decay is Adam
  CHECK(after(optim::chain{w, optim::ema_weights{}}) == plain);
  CHECK(after(optim::chain{w, optim::swa_weights{}}) == plain);
  CHECK(near(after(optim::chain{w, optim::lookahead{.steps = 1, .alpha = 1}}), plain));
  CHECK(!near(after(optim::chain{w, optim::lookahead{.steps = 1, .alpha = 0.5f}}), plain));
  CHECK(near(after(optim::qhadam{.nu1 = 1, .nu2 = 1, .beta1 = 0.9f}), plain));
  CHECK(near(after(optim::ademamix{.alpha = 0}), plain));
  auto const sgd = after(optim::sgd{.lr = 0.01f});
  CHECK(near(after(optim::qhm{.lr = 0.01f, .nu = 0}), sgd));
  CHECK(after(optim::momentum{.lr = 0.01f, .momentum = 0}) == sgd);
  CHECK(after(optim::signum{.momentum = 0}) == after(optim::sign_sgd{}));
  CHECK(near(after(optim::lion{.lr = 1e-3f, .beta1 = 0, .beta2 = 0}), after(optim::sign_sgd{})));
  CHECK(near(after(optim::rmsprop_momentum{.momentum = 0}), after(optim::rmsprop{})));
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

CONFORMANCE(sgd, 0.1f)
CONFORMANCE(momentum, 0.02f)
CONFORMANCE(nesterov, 0.02f)
CONFORMANCE(adam, 0.05f)
CONFORMANCE(adamw, 0.05f)
CONFORMANCE(lars, 20.0f)
CONFORMANCE(lamb, 0.05f)
CONFORMANCE(sign_sgd, 0.02f)
CONFORMANCE(signum, 0.02f)
CONFORMANCE(lion, 0.02f)
CONFORMANCE(qhm, 0.1f)
CONFORMANCE(adagrad, 0.5f)
CONFORMANCE(adadelta, 30.0f)
CONFORMANCE(rmsprop, 0.02f)
CONFORMANCE(rmsprop_momentum, 0.01f)
CONFORMANCE(rmsprop_centered, 0.02f)
CONFORMANCE(rprop, 1.0f)
CONFORMANCE(adamax, 0.05f)
CONFORMANCE(nadam, 0.05f)
CONFORMANCE(amsgrad, 0.05f)
CONFORMANCE(radam, 0.05f)
CONFORMANCE(adabound, 0.01f)
CONFORMANCE(adabelief, 0.05f)
CONFORMANCE(yogi, 0.05f)
CONFORMANCE(qhadam, 0.05f)
CONFORMANCE(ademamix, 0.02f)
CONFORMANCE(adopt, 0.05f)
CONFORMANCE(adan, 0.05f)
CONFORMANCE(schedule_free_sgd, 0.1f)
CONFORMANCE(schedule_free_adamw, 0.05f)
CONFORMANCE(novograd, 0.05f)
CONFORMANCE(lans, 0.05f)
CONFORMANCE(prodigy, 1.0f)
CONFORMANCE(adafactor, 0.05f)
CONFORMANCE(sm3, 0.2f)
CONFORMANCE(row_wise_adagrad, 0.5f)
