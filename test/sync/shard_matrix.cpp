// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules for matrices beside others, divided among ranks.
#include "shard.hpp"

#include <dovetail/optim/matrix.hpp>

namespace sync_shard_matrix {

using namespace divided;

TEST_CASE("AdamW, Muon for matrices, and a part that is not trained") {
  auto const rule = [](auto matrices) {
    return optim::partition{optim::adamw{.lr = 0.01f}, optim::group{optim::name_matches{"c.*"}, optim::frozen{}},
                            optim::group{[](auto, shape const& s) { return s.rank == 2; }, matrices}};
  };
  check(rule(optim::muon{.lr = 0.02f}));
  check(rule(optim::soap{.lr = 0.01f}));
  check(rule(optim::shampoo{.lr = 0.01f}));
  check(rule(optim::low_precision_state{optim::muon{.lr = 0.02f}, optim::bf16_slots{}}));
}

}  // namespace sync_shard_matrix
