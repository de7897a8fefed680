# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
dovetail_bench(compress_codecs compress_codecs.cpp)
