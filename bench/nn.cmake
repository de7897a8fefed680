# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
if(TARGET dovetail::onednn)
  dovetail_bench(nn_char_lstm nn_char_lstm.cpp LIBS dovetail::onednn)
  if(TARGET bench_nn_char_lstm)
    target_compile_definitions(bench_nn_char_lstm PRIVATE DOVETAIL_BENCH_SOURCE="${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  dovetail_bench(nn_lenet nn_lenet.cpp LIBS dovetail::onednn)
endif()
