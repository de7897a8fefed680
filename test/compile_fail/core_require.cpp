// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The first line of a refusal names the reason and the policy.
// first error gcc: refused<.*does not fold: use a hinge.*paper_joint
// first error clang: paper_joint.*does not fold: use a hinge
#include <dovetail/core/refuse.hpp>

struct paper_joint {
  static constexpr bool folds = true;
};
#ifdef FAIL
struct steel_joint_made_of_paper_joint : paper_joint {
  static constexpr bool folds = false;
};
#else
using steel_joint_made_of_paper_joint = paper_joint;
#endif

template <class Joint>
constexpr int join() {
  DOVETAIL_REQUIRE(Joint::folds, "does not fold: use a hinge", Joint);
  return 0;
}
static_assert(join<steel_joint_made_of_paper_joint>() == 0);
