// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdio>
#include <exception>
#include <new>

#include <dovetail/core/cuda.hpp>

namespace test {
/// A stream of a device, that does not wait for the default one.
class stream {
 public:
  explicit stream(int device) : device_(device) {
    dovetail::cuda::current_device const here(device);
    dovetail::cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  stream(stream const&) = delete;
  ~stream() {
    dovetail::cuda::current_device const here(device_, std::nothrow);
    static_cast<void>(cudaStreamDestroy(stream_));
  }
  cudaStream_t get() const { return stream_; }

 private:
  int device_;
  cudaStream_t stream_{};
};
}  // namespace test

namespace dovetail {

/// What a program for a GPU returns: run()'s result, 77 without a device, 1 with the message of what was thrown.
template <class F>
int on_device(F const& run) {
  cudaError_t code = cudaSuccess;
  if (cuda::device_count(&code) == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(code));
    return 77;
  }
  try {
    return run();
  } catch (std::exception const& e) {
    std::printf("FAILED  %s\n", e.what());
    return 1;
  }
}

}  // namespace dovetail
