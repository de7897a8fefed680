// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Optimizers that precondition matrices. They need BLAS and LAPACK: CMake's dovetail::lapack.
#include <dovetail/optim/matrix/kfac.hpp>
#include <dovetail/optim/matrix/muon.hpp>
#include <dovetail/optim/matrix/shampoo.hpp>
#include <dovetail/optim/matrix/soap.hpp>
