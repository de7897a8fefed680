# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Plain programs, for machines with a GPU and little else.
if(DOVETAIL_HAS_CUDA)
  dovetail_program(bench_cuda_optim cuda_optim.cu LIBS dovetail::cuda)
  if(TARGET dovetail::cuda_matrix)
    dovetail_program(bench_cuda_matrix cuda_matrix.cu LIBS dovetail::cuda_matrix)
  endif()
endif()
