// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// How collectives are made of messages, as policies: `comm::with_algorithm(comm, comm::algorithm::ring{})`.

#include <dovetail/comm/algorithms/automatic.hpp>
#include <dovetail/comm/algorithms/binomial_tree.hpp>
#include <dovetail/comm/algorithms/bruck.hpp>
#include <dovetail/comm/algorithms/direct.hpp>
#include <dovetail/comm/algorithms/double_binary_tree.hpp>
#include <dovetail/comm/algorithms/execution.hpp>
#include <dovetail/comm/algorithms/halving_doubling.hpp>
#include <dovetail/comm/algorithms/hierarchical.hpp>
#include <dovetail/comm/algorithms/recursive_doubling.hpp>
#include <dovetail/comm/algorithms/ring.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>
#include <dovetail/comm/algorithms/torus_2d.hpp>
#include <dovetail/comm/algorithms/with_algorithm.hpp>
