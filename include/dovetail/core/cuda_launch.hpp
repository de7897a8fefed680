// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <type_traits>

#include <cuda_runtime.h>

#include <dovetail/core/cuda.hpp>

namespace dovetail::cuda {

/// Queues a kernel on the device's stream. Throws device_error, with `what`, if it cannot be launched. Through the
/// runtime's function instead of <<< >>>: a launch is C++ that any compiler reads.
template <class... Parameters>
void launch(char const* what, device const& d, dim3 blocks, dim3 threads, void (*kernel)(Parameters...),
            std::type_identity_t<Parameters> const&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.stream = d.stream;
  auto const here = d.use();  // a launch on another device's stream is refused
  check(cudaLaunchKernelEx(&config, kernel, arguments...), what);
}

}  // namespace dovetail::cuda
