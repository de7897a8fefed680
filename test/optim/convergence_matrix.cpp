// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules that precondition matrices reach known minima in a bounded number of steps.
#include "convergence.hpp"

namespace optim_convergence_matrix {

using namespace convergence;

TEST_CASE("every matrix rule has lines in the table, or gets there without") {
  check_complete(lines_of(DOVETAIL_CONVERGENCE_MATRIX), known::matrix(), {"muon", "shampoo", "soap"});
}
TEST_CASE("to the optimum of logistic regression") {
  check(lines_of(DOVETAIL_CONVERGENCE_MATRIX), known::matrix(), logistic_regression);
}
TEST_CASE("a network learns a spiral") { check(lines_of(DOVETAIL_CONVERGENCE_MATRIX), known::matrix(), network); }

}  // namespace optim_convergence_matrix
