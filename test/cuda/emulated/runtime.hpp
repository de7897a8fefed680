// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <functional>
#include <mutex>

#include <cuda_runtime_api.h>

// Streams of the emulated device: work waits until a host thread waits for something, or asks whether it is done, and
// then runs in the order in which it was queued, of whatever stream, on that thread; or it is recorded while its stream
// captures a graph. Work that waits for another rank holds up its own stream, and no other.

namespace emulated {

using work = std::function<void()>;

cudaError_t queue(cudaStream_t, work);
/// Work that may have to wait: it is tried again until it returns true. It opens the memory that it uses by itself.
using attempt = std::function<bool()>;
cudaError_t queue_attempt(cudaStream_t, attempt);
/// Does what can be done of all that was queued.
void progress();
/// Does all that was queued; waits for what waits.
void finish();
/// The same of one stream.
void finish(cudaStream_t);
/// From now on this thread's questions for events are answered as behind a kernel that wrote out of bounds, or not.
void break_device(bool broken);
/// One lock for all that the emulation keeps.
std::unique_lock<std::recursive_mutex> lock();
/// This thread's current device.
int current_device();
/// Ends the program unless that is the current device: `what` belongs to `device`.
void require_current(char const* what, int device);
/// The device of a stream; that of the default one is the current one. Ends the program if the stream was destroyed.
int device_of_stream(cudaStream_t);
/// Copies that were queued since the program began.
std::size_t copies();
/// Calls that CUDA does not let pass without a wait for all streams, and refuses while one captures: cudaMalloc and the
/// like.
std::size_t stalls();
/// Checks the configuration as CUDA does and queues the kernel.
cudaError_t launch(cudaLaunchConfig_t const&, work thread);
/// What may not be called while this thread captures: invalidates the capture and returns CUDA's error.
cudaError_t refuse_in_capture();
void check_alignment(void const* p, std::size_t to);

/// Counts what a program makes and must destroy: at the end of the program none may be left.
class owned {
 public:
  explicit owned(char const* what);
  owned(owned const&) = delete;
  ~owned();

 private:
  char const* what_;
};

}  // namespace emulated
