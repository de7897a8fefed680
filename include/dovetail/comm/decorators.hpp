// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What stands around a communicator and changes one thing of it: `comm::decorate(comm, comm::throttled{…})`.

#include <dovetail/comm/decorators/decorate.hpp>
#include <dovetail/comm/decorators/decorated_world.hpp>
#include <dovetail/comm/decorators/faulty.hpp>
#include <dovetail/comm/decorators/forwarding.hpp>
#include <dovetail/comm/decorators/recording.hpp>
#include <dovetail/comm/decorators/throttled.hpp>
#include <dovetail/comm/decorators/timing.hpp>
#include <dovetail/comm/decorators/with_topology.hpp>
