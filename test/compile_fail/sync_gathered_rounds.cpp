// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rounds add up what ranks send; gathered payloads are not added up before the last one.
// first error gcc: has several rounds, which add up payloads: use sync::exchange::all_reduce.*compress::powersgd
// first error clang: compress::powersgd.*has several rounds, which add up payloads: use sync::exchange::all_reduce
#include <dovetail/compress.hpp>
#include <dovetail/sync.hpp>

using namespace dovetail;
#ifdef FAIL
using wanted = sync::exchange::all_gather;
#else
using wanted = sync::exchange::all_reduce;
#endif

comm::traffic cost_of_a_step(parameter_list const& parameters) {
  return sync::all_reduce{compress::powersgd{}, wanted{}}.predict(parameters, 4, 0);
}
