// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The same for rules that need LAPACK, and rules by name in a training whose layers and losses they learn from.
#include <string>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/plain.hpp>
#include <dovetail/nn/softmax_cross_entropy.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/any_optimizer.hpp>
#include <dovetail/optim/matrix/registry.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/sync/shard.hpp>
#include <dovetail/train.hpp>

#include "any_optimizer.hpp"

extern template dovetail::optim::registry const& dovetail::optim::matrix_rules<void>();  // rules/matrix.cpp

namespace optim_any_optimizer_matrix {

using namespace dovetail;

namespace {

using network = nn::basic_network<nn::plain, nn::shape{6}, nn::dense<5>, nn::tanh, nn::dense<3>>;

data::in_memory points() {
  std::vector<float> values(60 * 6);
  std::vector<std::int32_t> targets;
  conformance::fill(values, 9);
  for (std::int32_t i = 0; i < 60; ++i) targets.push_back(i % 3);
  return {std::move(values), std::move(targets), 6};
}

template <class Rule>
std::vector<float> trained(Rule const& rule, int ranks) {
  network net;
  net.initialize(3);
  train::trainer t{net, nn::softmax_cross_entropy{}, rule, sync::all_reduce{}, comm::threads{ranks}};
  t.fit(points(), {.batch = 5, .steps = 12, .seed = 4});
  auto const w = t.model().parameters().flat_weights();
  return {w.begin(), w.end()};
}

}  // namespace

TEST_CASE("a rule for matrices by name takes the steps of the rule by type, saved and loaded") {
  CHECK(optim::matrix_rules().names().size() == known::matrix().size());
  for (auto const& r : known::matrix()) by_name::check_steps(optim::matrix_rules(), *r);
}
TEST_CASE("every hyperparameter of a rule for matrices can be set by name") {
  for (auto const& r : known::matrix()) by_name::check_fields(optim::matrix_rules(), *r);
  CHECK(optim::matrix_rules().list().find('?') == std::string::npos);
  CHECK(optim::matrix_rules().list().find("grafting=adagrad") != std::string::npos);
  CHECK_THROWS_WITH_AS(optim::matrix_rules().make("kfac", {{"interval", 2.5}}),
                       doctest::Contains("interval cannot be set to 2.5: it is a whole number"), argument_error);
}
TEST_CASE("a trainer gives the same bits with a rule by name, also where it learns from layers or from losses") {
  for (int const ranks : {1, 3}) {
    CAPTURE(ranks);
    auto const same = [&](auto const& rule) {
      CHECK(conformance::same_bits(trained(rule, ranks), trained(optim::any_optimizer(rule), ranks)));
    };
    same(optim::adamw{});
    same(optim::kfac{.lr = 0.02f, .damping = 0.1f, .interval = 3});
    same(optim::shampoo{.lr = 0.01f});
    same(optim::polyak_sgd{.lr = 0.2f, .largest = 10});
  }
}
TEST_CASE("what learns from layers is not divided among ranks") {
  comm::threads(2).run([](auto& c) {
    CHECK_THROWS_WITH_AS(sync::shard(optim::matrix_rules().make("kfac"), c),
                         doctest::Contains("kfac learns from layers"), argument_error);
  });
}

}  // namespace optim_any_optimizer_matrix
