# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
if(TARGET dovetail::onednn)
  dovetail_bench(nn_char_lstm nn_char_lstm.cpp LIBS dovetail::onednn)
  dovetail_bench(nn_lenet nn_lenet.cpp LIBS dovetail::onednn)
endif()
