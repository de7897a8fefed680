// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "runtime.hpp"

#include "block.hpp"
#include "memory.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

struct CUgraph_st {
  emulated::owned owned{"graph"};
  int device = 0;
  std::vector<emulated::work> work;
};
struct CUgraphExec_st {
  emulated::owned owned{"executable graph"};
  int device = 0;
  std::vector<emulated::work> work;
};
struct CUevent_st {
  emulated::owned owned{"event"};
  struct state {
    std::uint64_t recorded = 0, done = 0;
  };
  int device = 0;
  std::shared_ptr<state> state = std::make_shared<struct state>();  ///< which what is queued shares
};
struct CUstream_st {
  emulated::owned owned{"stream"};
  int device = 0;
  bool blocking = true;
  bool broken = false;  ///< the capture
  cudaGraph_t recording = nullptr;
};

namespace emulated {
namespace {

thread_local cudaError_t last = cudaSuccess;
thread_local cudaStream_t capturing = nullptr;  // by this thread
thread_local int current = 0;
thread_local bool device_broken = false;

cudaError_t note(cudaError_t e) {
  if (e != cudaSuccess) last = e;
  return e;
}

/// A stream; the default one is another one on every device.
using line = std::pair<cudaStream_t, int>;
line line_of(cudaStream_t s) { return {s, s ? 0 : current}; }
constexpr int no_memory = -2;
struct task {
  line in;
  int device;  ///< whose memory it uses
  attempt run;
};
std::recursive_mutex queued;
std::vector<task> pending;  // of all streams, in order
bool running = false;
std::set<cudaStream_t> streams;
std::atomic<std::size_t> copied = 0, stalled = 0;

std::map<std::string, int>& left() {
  static auto& counts = *new std::map<std::string, int>;  // outlives whatever is destroyed at the end
  return counts;
}
void report_left() {
  progress();
  auto text = live_allocations() ? std::to_string(live_allocations()) + " allocations" : std::string();
  for (auto const& [what, n] : left())
    if (n) text += (text.empty() ? "" : ", ") + std::to_string(n) + ' ' + what + (n > 1 ? "s" : "");
  if (!text.empty()) fail("left at the end of the program: %s", text.c_str());
}

cudaError_t break_capture(cudaStream_t s, cudaError_t e) {
  s->broken = true;
  return note(e);
}

/// False, unless the bytes are device memory, or host memory, as the direction of a copy says.
bool is(bool on_device, void const* p, std::size_t bytes) { return on_device ? holds(p, bytes) : !in_arena(p, bytes); }

cudaError_t push(int device, cudaStream_t s, attempt a) {
  std::lock_guard const lock(queued);
  pending.push_back({line_of(s), device, std::move(a)});
  return cudaSuccess;
}
cudaError_t queue_on(int device, cudaStream_t s, work w) {
  if (!s && capturing && capturing->blocking) return break_capture(capturing, cudaErrorStreamCaptureImplicit);
  if (s && s->recording) {
    if (s->broken) return note(cudaErrorStreamCaptureInvalidated);
    s->recording->work.push_back(std::move(w));
    return cudaSuccess;
  }
  return push(device, s, [w = std::move(w)] {
    w();
    return true;
  });
}

/// Until `done`: tries what is queued, and lets other threads queue more in between.
template <class F>
void wait_until(F const& done) {
  for (;;) {
    progress();
    {
      std::lock_guard const lock(queued);
      if (done()) return;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

cudaError_t copy(void* to, std::size_t to_pitch, void const* from, std::size_t from_pitch, std::size_t width,
                 std::size_t height, cudaMemcpyKind kind, cudaStream_t s) {
  if (width == 0 || height == 0) return cudaSuccess;
  if (width > to_pitch || width > from_pitch) return note(cudaErrorInvalidPitchValue);
  if (kind < cudaMemcpyHostToDevice || kind > cudaMemcpyDeviceToDevice) return note(cudaErrorInvalidMemcpyDirection);
  if (!is(kind != cudaMemcpyDeviceToHost, to, (height - 1) * to_pitch + width) ||
      !is(kind != cudaMemcpyHostToDevice, from, (height - 1) * from_pitch + width))
    return note(cudaErrorInvalidValue);
  device_of_stream(s);
  ++copied;
  int const device = kind == cudaMemcpyHostToDevice                                       ? device_of(to)
                     : kind == cudaMemcpyDeviceToHost || device_of(to) == device_of(from) ? device_of(from)
                                                                                          : all_devices;
  auto const e = queue_on(device, s, [=] {
    for (std::size_t i = 0; i < height; ++i)
      std::memcpy(static_cast<std::byte*>(to) + i * to_pitch, static_cast<std::byte const*>(from) + i * from_pitch,
                  width);
  });
  // CUDA, too, is through with pageable memory when it returns.
  if (kind != cudaMemcpyDeviceToDevice) finish(s);
  return e;
}
cudaError_t set(void* p, int value, std::size_t bytes, cudaStream_t s) {
  if (bytes == 0) return cudaSuccess;
  if (!holds(p, bytes)) return note(cudaErrorInvalidValue);
  if (device_of_stream(s) != current) return note(cudaErrorInvalidResourceHandle);
  return queue(s, [=] { set_bytes(p, value, bytes); });
}

}  // namespace

owned::owned(char const* what) : what_(what) {
  std::lock_guard const lock(queued);
  ++left()[what];
}
owned::~owned() {
  std::lock_guard const lock(queued);
  --left()[what_];
}

cudaError_t refuse_in_capture() {
  ++stalled;
  return capturing ? break_capture(capturing, cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

cudaError_t queue(cudaStream_t s, work w) { return queue_on(device_of_stream(s), s, std::move(w)); }

cudaError_t queue_attempt(cudaStream_t s, attempt a) {
  if ((s && s->recording) || (!s && capturing)) fail("what waits for other ranks is queued while a stream captures");
  device_of_stream(s);
  return push(no_memory, s, std::move(a));
}
void break_device(bool broken) { device_broken = broken; }
std::unique_lock<std::recursive_mutex> lock() { return std::unique_lock(queued); }

void progress() {
  std::lock_guard const lock(queued);
  if (running) return;
  running = true;
  for (bool again = true; again && !pending.empty();) {
    again = false;
    auto all = std::exchange(pending, {});
    std::vector<task> rest;
    std::set<line> held;
    for (auto t = all.begin(); t != all.end();) {
      int const device = t->device;
      std::optional<open_memory> access;
      if (device != no_memory) access.emplace(device);
      for (; t != all.end() && t->device == device; ++t) {
        if (held.count(t->in) == 0 && t->run()) {
          again = true;
        } else {
          held.insert(t->in);
          rest.push_back(std::move(*t));
        }
      }
    }
    rest.insert(rest.end(), pending.begin(), pending.end());
    pending = std::move(rest);
  }
  running = false;
}
void finish() {
  wait_until([] { return pending.empty(); });
}
void finish(cudaStream_t s) {
  auto const mine = line_of(s);
  wait_until([&] {
    for (auto const& t : pending)
      if (t.in == mine) return false;
    return true;
  });
}

int current_device() { return current; }
void require_current(char const* what, int device) {
  if (device != current) fail("%s of device %d is used while device %d is the current one", what, device, current);
}
int device_of_stream(cudaStream_t s) {
  if (!s) return current;
  std::lock_guard const lock(queued);
  if (!streams.count(s)) fail("a stream that was destroyed is used");
  return s->device;
}
std::size_t copies() { return copied; }
std::size_t stalls() { return stalled; }

cudaError_t launch(cudaLaunchConfig_t const& c, work thread) {
  dim3 const b = c.blockDim, g = c.gridDim;
  bool const none = b.x == 0 || b.y == 0 || b.z == 0 || g.x == 0 || g.y == 0 || g.z == 0;
  if (none || b.x > 1024 || b.y > 1024 || b.z > 64 || std::uint64_t{b.x} * b.y * b.z > 1024 || g.x > 0x7FFFFFFFu ||
      g.y > 65535 || g.z > 65535)
    return note(cudaErrorInvalidConfiguration);
  if (c.dynamicSmemBytes || c.numAttrs) return note(cudaErrorNotSupported);
  if (device_of_stream(c.stream) != current) return note(cudaErrorInvalidResourceHandle);
  return queue(c.stream, [=] { run_grid(g, b, thread); });
}

void check_alignment(void const* p, std::size_t to) {
  if (reinterpret_cast<std::uintptr_t>(p) % to) fail("an access of %zu bytes at %p, which is not aligned", to, p);
}

}  // namespace emulated

using namespace emulated;

// ---- errors, the device

char const* cudaGetErrorName(cudaError_t e) {
  switch (e) {
#define EMULATED_NAME(name) \
  case name:                \
    return #name;
    EMULATED_NAME(cudaSuccess)
    EMULATED_NAME(cudaErrorInvalidValue)
    EMULATED_NAME(cudaErrorMemoryAllocation)
    EMULATED_NAME(cudaErrorInvalidConfiguration)
    EMULATED_NAME(cudaErrorInvalidPitchValue)
    EMULATED_NAME(cudaErrorInvalidMemcpyDirection)
    EMULATED_NAME(cudaErrorInvalidDevice)
    EMULATED_NAME(cudaErrorInvalidResourceHandle)
    EMULATED_NAME(cudaErrorIllegalState)
    EMULATED_NAME(cudaErrorNotReady)
    EMULATED_NAME(cudaErrorIllegalAddress)
    EMULATED_NAME(cudaErrorNotSupported)
    EMULATED_NAME(cudaErrorStreamCaptureUnsupported)
    EMULATED_NAME(cudaErrorStreamCaptureInvalidated)
    EMULATED_NAME(cudaErrorStreamCaptureImplicit)
#undef EMULATED_NAME
  }
  return "unrecognized error code";
}
char const* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess ? "no error" : "refused by the emulated device";
}
cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }
cudaError_t cudaGetDeviceCount(int* count) {
  static bool const said = [] {
    std::puts("emulated device: kernels run on the CPU, nothing here says anything about speed");
    return std::atexit(report_left) == 0;
  }();
  *count = said ? devices : 0;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= devices) return note(cudaErrorInvalidDevice);
  current = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  if (auto const e = refuse_in_capture(); e != cudaSuccess) return e;
  finish();
  return cudaSuccess;
}

// ---- memory

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  if (auto const e = refuse_in_capture(); e != cudaSuccess) return e;
  *p = bytes ? allocate(bytes, current) : nullptr;
  return *p || !bytes ? cudaSuccess : note(cudaErrorMemoryAllocation);
}
cudaError_t cudaMallocAsync(void** p, std::size_t bytes, cudaStream_t s) {
  int const device = device_of_stream(s);
  // CUDA makes a node of it, which takes the memory at every launch.
  if (s && s->recording) fail("memory is allocated on a stream that captures");
  if (bytes == 0) return note(cudaErrorInvalidValue);
  *p = allocate(bytes, device);
  return *p ? cudaSuccess : note(cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t s) {
  device_of_stream(s);
  if (s && s->recording) fail("memory is freed on a stream that captures");
  if (!is_allocation(p)) return note(cudaErrorInvalidValue);
  return queue_on(device_of(p), s, [p] { release(p); });
}
cudaError_t cudaFree(void* p) {
  if (auto const e = refuse_in_capture(); e != cudaSuccess) return e;
  finish();
  return !p || release(p) ? cudaSuccess : note(cudaErrorInvalidValue);
}
cudaError_t cudaMemset(void* p, int value, std::size_t bytes) {
  if (auto const e = refuse_in_capture(); e != cudaSuccess) return e;
  return set(p, value, bytes, nullptr);
}
cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t s) { return set(p, value, bytes, s); }
cudaError_t cudaMemcpy(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (auto const e = refuse_in_capture(); e != cudaSuccess) return e;
  return copy(to, bytes, from, bytes, bytes, 1, kind, nullptr);
}
cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t s) {
  return copy(to, bytes, from, bytes, bytes, 1, kind, s);
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, void const* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t s) {
  return copy(to, to_pitch, from, from_pitch, width, height, kind, s);
}

// ---- streams and graphs

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) {
  if (flags > cudaStreamNonBlocking) return note(cudaErrorInvalidValue);
  *s = new CUstream_st;
  (*s)->device = current;
  (*s)->blocking = flags == cudaStreamDefault;
  std::lock_guard const lock(queued);
  streams.insert(*s);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  if (!s) return note(cudaErrorInvalidResourceHandle);
  device_of_stream(s);
  progress();  // CUDA does not wait either: what is left goes on
  std::lock_guard const lock(queued);
  streams.erase(s);
  if (s == capturing) capturing = nullptr;
  delete s->recording;
  delete s;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  device_of_stream(s);
  if (s && s->recording) return break_capture(s, cudaErrorStreamCaptureUnsupported);
  finish(s);
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned flags) {
  if (flags != cudaEventDefault && flags != cudaEventDisableTiming) return note(cudaErrorInvalidValue);
  *e = new CUevent_st;
  (*e)->device = current;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  if (!e) return note(cudaErrorInvalidResourceHandle);
  delete e;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  if (!e) return note(cudaErrorInvalidResourceHandle);
  if (s && s->recording) return break_capture(s, cudaErrorStreamCaptureUnsupported);  // not emulated
  if (device_of_stream(s) != e->device) return note(cudaErrorInvalidResourceHandle);
  std::lock_guard const lock(queued);
  auto const number = ++e->state->recorded;
  return queue_attempt(s, [of = e->state, number] {
    of->done = number;
    return true;
  });
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  if (!e) return note(cudaErrorInvalidResourceHandle);
  if (device_broken) return note(cudaErrorIllegalAddress);
  progress();
  std::lock_guard const lock(queued);
  return e->state->done == e->state->recorded ? cudaSuccess : note(cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  if (!e) return note(cudaErrorInvalidResourceHandle);
  wait_until([&] { return e->state->done == e->state->recorded; });
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  if (!e) return note(cudaErrorInvalidResourceHandle);
  if (s && s->recording) return break_capture(s, cudaErrorStreamCaptureUnsupported);  // not emulated
  std::lock_guard const lock(queued);
  return queue_attempt(s, [of = e->state, number = e->state->recorded] { return of->done >= number; });
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  if (!s) return note(cudaErrorStreamCaptureUnsupported);  // the default stream
  if (capturing || s->recording) return note(cudaErrorIllegalState);
  capturing = s;
  s->broken = false;
  s->recording = new CUgraph_st;
  s->recording->device = device_of_stream(s);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* graph) {
  if (!s || s != capturing) return note(cudaErrorIllegalState);
  capturing = nullptr;
  *graph = std::exchange(s->recording, nullptr);
  if (!s->broken) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return note(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
  device_of_stream(s);
  *status = !s || !s->recording ? cudaStreamCaptureStatusNone
            : s->broken         ? cudaStreamCaptureStatusInvalidated
                                : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  if (!graph) return note(cudaErrorInvalidValue);
  *executable = new CUgraphExec_st;
  (*executable)->device = graph->device;
  (*executable)->work = graph->work;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t s) {
  if (!executable) return note(cudaErrorInvalidValue);
  device_of_stream(s);
  return queue_on(executable->device, s, [all = executable->work] {
    for (auto const& one : all) one();
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  if (!executable) return note(cudaErrorInvalidValue);
  delete executable;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  if (!graph) return note(cudaErrorInvalidValue);
  delete graph;
  return cudaSuccess;
}
