// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A codec whose payloads cannot be added is refused where a sum is demanded.
// first error gcc: is not summable: use sync::exchange::all_gather.*compress::top_k
// first error clang: compress::top_k.*is not summable: use sync::exchange::all_gather
#include <dovetail/compress.hpp>
#include <dovetail/sync.hpp>

using namespace dovetail;
#ifdef FAIL
using wanted = sync::exchange::all_reduce;
#else
using wanted = sync::exchange::all_gather;
#endif

comm::traffic cost_of_a_step(parameter_list const& parameters) {
  return sync::all_reduce{compress::without_feedback{compress::top_k{.ratio = 0.1f}}, wanted{}}.predict(parameters, 4, 0);
}
