// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
namespace dovetail::optim {

/// What a rule's steps need besides gradients: an optimizer says it once, `static constexpr rule_needs needs{…}`.
struct rule_needs {
  bool layers = false;        ///< observations of kfac_statistics: layers' inputs and output gradients, in backward
  bool loss = false;          ///< step_context::loss
  bool curvature = false;     ///< observations of hessian_diagonal, every few steps
  bool whole_tensors = true;  ///< ranks can divide what it has to work out by tensor only, not by element
  friend constexpr bool operator==(rule_needs const&, rule_needs const&) = default;
  /// What both need together.
  friend constexpr rule_needs operator|(rule_needs const& a, rule_needs const& b) {
    return {a.layers || b.layers, a.loss || b.loss, a.curvature || b.curvature, a.whole_tensors || b.whole_tensors};
  }
};

}  // namespace dovetail::optim
