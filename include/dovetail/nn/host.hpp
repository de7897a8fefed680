// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Which library does a network's dense arithmetic on this machine's CPU. The choice is part of the network's type, so
// two translation units that see different machines have different types, not different meanings of one.
#if __has_include(<dnnl.h>) && __has_include(<dnnl_version.h>)
#include <dnnl_version.h>
#if DNNL_VERSION_MAJOR == 2 || DNNL_VERSION_MAJOR == 3
#define DOVETAIL_NN_HAS_ONEDNN 1
#endif
#endif

#if defined(DOVETAIL_NN_HAS_ONEDNN)
#undef DOVETAIL_NN_HAS_ONEDNN
#include <dovetail/nn/onednn/host.hpp>

namespace dovetail::nn {
using host = onednn::host;
}
#else
namespace dovetail::nn {
/// oneDNN 2 or 3 was not found when this was compiled. A network of it is refused: nothing is silently slow.
struct no_host {
  using missing = void;
};
using host = no_host;
}  // namespace dovetail::nn
#endif
