// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// All of the library that needs no dependency but, for networks, oneDNN where it is installed. Headers with a
// dependency of their own are included by name: comm/mpi.hpp (MPI), io/checkpoint.hpp (nlohmann-json); so is
// io.hpp, files and logs.
#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/data.hpp>
#include <dovetail/nn.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train.hpp>
