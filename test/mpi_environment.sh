# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Sourced: what Open MPI has to be told where ranks are started by root in a container, and are more than the cores.
# OMPI_ is what version 4 reads, and the library of 5; PRTE_ what mpirun of 5 reads.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none
# More ranks than cores must yield instead of spin, and containers may forbid ranks to read each other's memory. Not for
# benchmarks: both make Open MPI slower, and a peer is measured at its best.
be_modest() {
  export OMPI_MCA_mpi_yield_when_idle=1
  export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_smsc=^cma
}
# Otherwise mpirun ends the others of a rank that dies before they can speak.
keep_the_others() {
  export OMPI_MCA_orte_enable_recovery=1 OMPI_MCA_orte_abort_on_non_zero_status=0
  export PRTE_MCA_prte_enable_recovery=1 PRTE_MCA_prte_abort_on_non_zero_status=0
}
