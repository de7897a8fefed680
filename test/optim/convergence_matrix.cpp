// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules that precondition matrices reach known minima in a bounded number of steps.
#include "convergence.hpp"

#include <dovetail/optim/matrix.hpp>

using namespace convergence;

namespace {

// clang-format off
std::vector<line> const table{
    CONVERGES(logistic_regression, 1e-4, 270, muon, .lr = fading(0.05f, 0.99f)),
    CONVERGES(network, 0.1, 95, muon, .lr = 0.1f),

    CONVERGES(logistic_regression, 1e-4, 190, shampoo, .lr = 0.01f),
    CONVERGES(network, 0.1, 40, shampoo, .lr = 0.1f),

    CONVERGES(logistic_regression, 1e-4, 200, soap, .lr = fading(0.05f, 0.99f), .weight_decay = 0),
    CONVERGES(network, 0.1, 75, soap, .lr = 0.1f, .weight_decay = 0),
};
// clang-format on

}  // namespace

TEST_CASE("every matrix rule has lines in the table") {
  check_complete(table, DOVETAIL_CONFORMANCE, {"muon", "shampoo", "soap"});
}

TEST_CASE("to the optimum of logistic regression") { check(table, logistic_regression); }
TEST_CASE("a network learns a spiral") { check(table, network); }
