// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A tree of ranks merges entries, which signs are not.
// first error gcc: has no entries that can be merged.*use sync::exchange::all_gather.*compress::sign
// first error clang: compress::sign.*has no entries that can be merged
#include <dovetail/compress.hpp>
#include <dovetail/sync.hpp>

using namespace dovetail;
#ifdef FAIL
using codec_type = compress::sign;
#else
using codec_type = compress::top_k;
#endif

comm::traffic cost_of_a_step(parameter_list const& parameters) {
  return sync::all_reduce{compress::error_feedback{codec_type{}}, sync::exchange::merge_tree{}}.predict(parameters, 4,
                                                                                                        0);
}
