// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules that precondition matrices reach known minima in a bounded number of steps.
#include "convergence.hpp"

using namespace convergence;

TEST_CASE("every matrix rule has lines in the table, or gets there without") {
  check_complete(lines_of(DOVETAIL_CONVERGENCE), known::matrix(), {"muon", "shampoo", "soap"});
}
TEST_CASE("to the optimum of logistic regression") {
  check(lines_of(DOVETAIL_CONVERGENCE), known::matrix(), logistic_regression);
}
TEST_CASE("a network learns a spiral") { check(lines_of(DOVETAIL_CONVERGENCE), known::matrix(), network); }
