// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// optim::rules(), whose parts are compiled in part.cpp.
#include <dovetail/optim/rules/registry.hpp>

namespace dovetail::optim {
static_assert(rule_parts == 4);
extern template void add_rules<0>(registry&);
extern template void add_rules<1>(registry&);
extern template void add_rules<2>(registry&);
extern template void add_rules<3>(registry&);
}  // namespace dovetail::optim
