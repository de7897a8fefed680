// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A codec whose payloads cannot be added is refused where a sum is demanded.
// first error gcc: is not summable: use sync::exchange::gather.*compress::top_k
// first error clang: compress::top_k.*is not summable: use sync::exchange::gather
#include <dovetail/compress.hpp>
#include <dovetail/sync/exchange.hpp>

using namespace dovetail;
#ifdef FAIL
using plan = sync::exchange::sum;
#else
using plan = sync::exchange::gather;
#endif
template void sync::exchange::check_legal<plan, compress::top_k>();
