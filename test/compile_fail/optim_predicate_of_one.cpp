// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A predicate that does not take the shape.
// first error gcc: the predicate of a group is called as bool.*by_name
// first error clang: by_name.*the predicate of a group is called as bool
#include <string_view>

#include <dovetail/optim/param_groups.hpp>
#include <dovetail/optim/rules/adam.hpp>

using namespace dovetail;
struct by_name {
#ifdef FAIL
  bool operator()(std::string_view name) const { return name == "bias"; }
#else
  bool operator()(std::string_view name, shape const&) const { return name == "bias"; }
#endif
};
inline optim::param_groups rule{optim::adamw{}, optim::group{by_name{}, optim::adamw{.weight_decay = 0}}};
