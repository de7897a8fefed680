// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Communicators that need no dependency. comm/mpi.hpp needs MPI and is included by who wants it.

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
