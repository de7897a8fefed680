#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# comm_hosts.sh MPIRUN RATE RANKS_A RANKS_B PROGRAM ARGS...: runs it on two hosts (test/two_hosts.sh) whose link has that
# rate. Prints "no two hosts: why" where there cannot be any.
set -eu
# shellcheck source=test/mpi_environment.sh
. "$(dirname "$0")/../test/mpi_environment.sh"
# shellcheck source=test/two_hosts.sh
. "$(dirname "$0")/../test/two_hosts.sh"
MPIRUN=$1
two_hosts "$2" || exit 0
shift 2
on_two_hosts "$@"
