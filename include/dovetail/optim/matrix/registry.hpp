// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <dovetail/optim/matrix.hpp>
#include <dovetail/optim/rules/registry.hpp>

namespace dovetail::optim {

/// All rules of optim/matrix.hpp, by name: `registry{rules()}.add(matrix_rules())` has all that there are. To call it
/// compiles all of them, in this source file.
template <class Later = void>
DOVETAIL_COLD registry const& matrix_rules() {
  static registry const all = [] {
    registry r;
#define DOVETAIL_RULE(family, name) r.add<detail::later<Later, optim::name>>();
#include <dovetail/optim/matrix/list.inc.hpp>
    return r;
  }();
  return all;
}

}  // namespace dovetail::optim
