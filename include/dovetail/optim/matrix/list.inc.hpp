// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The rules of optim/matrix.hpp, one line a rule: DOVETAIL_RULE(family, name). Whoever needs them all, a registry, a
// test, the pages, defines DOVETAIL_RULE and includes this file, which undefines it. To be compiled, headers of the
// rules come first.
DOVETAIL_RULE(matrix, kfac)
DOVETAIL_RULE(matrix, ekfac)
DOVETAIL_RULE(matrix, muon)
DOVETAIL_RULE(matrix, shampoo)
DOVETAIL_RULE(matrix, soap)
#undef DOVETAIL_RULE
