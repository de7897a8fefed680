// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules that precondition matrices: against transcriptions of their papers (goldens/make.py), and where the answer is
// known.
#include "goldens.hpp"

#include <map>
#include <string>

#include <dovetail/optim/matrix.hpp>

using namespace golden;

namespace {

/// Leaves vectors alone, as the golden of optax does.
template <class Rule>
auto matrices_only(Rule rule) {
  return optim::mixed{optim::frozen{}, optim::group{[](auto, shape const& s) { return s.rank == 2; }, rule}};
}

std::map<std::string, run> const rules{
    {"muon_without_nesterov",
     with(matrices_only(optim::muon{.lr = 0.02f, .momentum = 0.8f, .nesterov = false, .weight_decay = decay}))},
    {"muon", with(optim::muon{.lr = 0.02f, .momentum = 0.9f, .weight_decay = decay})},
    {"muon_3", with(optim::muon{.lr = 0.02f, .momentum = 0.9f, .iterations = 3, .weight_decay = decay})},
    {"shampoo", with(optim::shampoo{.lr = 0.02f, .epsilon = 1e-3f, .interval = 4, .weight_decay = decay})},
    {"shampoo_blocks", with(optim::shampoo{.lr = 0.02f,
                                           .momentum = 0.5f,
                                           .beta2 = 0.95f,
                                           .epsilon = 1e-3f,
                                           .interval = 3,
                                           .block = 3,
                                           .grafting = optim::graft::rmsprop,
                                           .weight_decay = decay})},
    {"shampoo_sgd", with(optim::shampoo{.lr = 0.02f,
                                        .momentum = 0.5f,
                                        .beta2 = 0.95f,
                                        .epsilon = 1e-3f,
                                        .interval = 1,
                                        .block = 4,
                                        .grafting = optim::graft::sgd,
                                        .weight_decay = decay})},
    {"shampoo_plain", with(optim::shampoo{.lr = 0.02f,
                                          .momentum = 0,
                                          .epsilon = 1e-3f,
                                          .interval = 1,
                                          .grafting = optim::graft::none,
                                          .weight_decay = decay})},
    {"soap", with(optim::soap{.lr = 0.02f,
                              .beta1 = 0.9f,
                              .beta2 = 0.95f,
                              .epsilon = 1e-3f,
                              .interval = 5,
                              .largest = 5,
                              .weight_decay = decay})},
    {"soap_every_step", with(optim::chain{optim::scale_by_soap{.beta1 = 0,
                                                               .beta2 = 0.9f,
                                                               .shampoo_beta = 0.8f,
                                                               .epsilon = 1e-3f,
                                                               .interval = 1,
                                                               .largest = 5},
                                          optim::add_decayed_weights{decay}, optim::scale_by_learning_rate{0.02f}})},
    {"soap_one_side", with(optim::chain{optim::scale_by_soap{.beta1 = 0.9f,
                                                             .beta2 = 0.95f,
                                                             .epsilon = 1e-3f,
                                                             .interval = 5,
                                                             .largest = 3},
                                        optim::add_decayed_weights{decay}, optim::scale_by_learning_rate{0.02f}})},
};

}  // namespace

TEST_CASE("every matrix rule goes the way of its paper in double precision") {
  compare(DOVETAIL_GOLDENS, {{"a", {4, 4}}, {"b", {6, 3}}, {"c", {7}}}, rules, 1e-5);
}
