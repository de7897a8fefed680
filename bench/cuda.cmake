# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Plain programs, for machines with a GPU and little else; test/cuda/CMakeLists.txt explains the flags.
if(DOVETAIL_HAS_CUDA)
  dovetail_program(bench_cuda_optim cuda_optim.cu LIBS dovetail::cuda)
  set(flags --expt-relaxed-constexpr --diag-suppress=186 --Werror=all-warnings -Xcompiler=-Wall,-Wextra)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    list(APPEND flags -std=c++20)
  endif()
  target_compile_options(bench_cuda_optim PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${flags}>")
endif()
