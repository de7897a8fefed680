# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Plain programs, for machines with a GPU and little else.
if(DOVETAIL_HAS_CUDA)
  dovetail_program(bench_cuda_copy_rate cuda_copy_rate.cu LIBS dovetail::cuda)
  dovetail_program(bench_cuda_optim cuda_optim.cu LIBS dovetail::cuda)
  target_compile_definitions(bench_cuda_optim PRIVATE DOVETAIL_BENCH_SOURCE="${CMAKE_CURRENT_SOURCE_DIR}")
  dovetail_program(bench_cuda_codecs cuda_codecs.cu LIBS dovetail::cuda)
  if(TARGET dovetail::cuda_matrix)
    dovetail_program(bench_cuda_matrix cuda_matrix.cu LIBS dovetail::cuda_matrix)
  endif()
  if(TARGET dovetail::nccl)
    dovetail_program(bench_cuda_nccl cuda_nccl.cu LIBS dovetail::nccl)
  endif()
endif()
