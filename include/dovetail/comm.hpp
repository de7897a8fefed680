// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Communicators that need no dependency. Included by who wants them: comm/mpi.hpp, which needs MPI; comm/algorithms.hpp
// and comm/decorators.hpp, which a program that names none would compile for nothing.

#include <dovetail/comm/arguments.hpp>
#include <dovetail/comm/async.hpp>
#include <dovetail/comm/away.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/communicator_traits.hpp>
#include <dovetail/comm/endpoint.hpp>
#include <dovetail/comm/mpi/options.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/reduce.hpp>
#include <dovetail/comm/self.hpp>
#include <dovetail/comm/threads.hpp>
#include <dovetail/comm/topology.hpp>
