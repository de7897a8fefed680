// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <limits>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include <dovetail/core/error.hpp>
#include <dovetail/core/memory.hpp>

namespace dovetail::cuda {

/// A call of the CUDA runtime failed. Most such errors stay with the process: a kernel that wrote out of bounds makes
/// every later call fail too.
struct device_error : error {
  device_error(char const* what, cudaError_t c)
      : error(message("CUDA: ", what, " failed: ", cudaGetErrorString(c), " (", cudaGetErrorName(c), ')')), code(c) {}
  cudaError_t code;
};

/// Throws device_error unless the call succeeded.
inline void check(cudaError_t code, char const* what) {
  if (code != cudaSuccess) [[unlikely]] {
    static_cast<void>(cudaGetLastError());  // a launch's error is reported once
    throw device_error(what, code);
  }
}

/// Devices that this process can use; 0, and the reason in `code`, where there is no driver.
inline int device_count(cudaError_t* code = nullptr) {
  int n = 0;
  cudaError_t const r = cudaGetDeviceCount(&n);
  if (r != cudaSuccess) static_cast<void>(cudaGetLastError());
  if (code) *code = r;
  return r == cudaSuccess ? n : 0;
}

/// Makes a device the thread's current one, until its end: then it is again the one that was. Code of several devices
/// shares threads, and nobody else's allocations and launches may go where this library's went.
class current_device {
 public:
  explicit current_device(int index) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (index == before_) return;
    check(cudaSetDevice(index), "cudaSetDevice");
    changed_ = true;
  }
  /// For destructors: where it fails, an earlier error is in the way, which is reported elsewhere.
  current_device(int index, std::nothrow_t) noexcept {
    changed_ = cudaGetDevice(&before_) == cudaSuccess && index != before_ && cudaSetDevice(index) == cudaSuccess;
  }
  current_device(current_device const&) = delete;
  ~current_device() {
    if (changed_) static_cast<void>(cudaSetDevice(before_));
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

/// Where device work runs: a device and a stream of the caller's, made on that device. Everything is queued on that
/// stream, in order. The stream lives longer than what was made on it.
struct device {
  int index = 0;
  cudaStream_t stream = nullptr;

  /// This thread's current device and its default stream.
  static device current() {
    device d;
    check(cudaGetDevice(&d.index), "cudaGetDevice");
    return d;
  }
  /// Makes the device this thread's current one while the result lives.
  [[nodiscard]] current_device use() const { return current_device(index); }
  /// Waits for all that was queued on the stream.
  void wait() const {
    auto const here = use();
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }
  /// True while the stream records a graph instead of running.
  bool capturing() const {
    auto const here = use();
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
    return status != cudaStreamCaptureStatusNone;
  }
};

}  // namespace dovetail::cuda

namespace dovetail {
/// A CUDA device's memory, and the stream on which steps of what is there are queued:
/// cuda::parameter_list parameters{cuda_memory{device}} (optim/cuda/engine.cuh).
struct cuda_memory {
  cuda::device device;
};
}  // namespace dovetail

namespace dovetail::cuda {

/// A value that owns `size` trivially copyable elements of device memory, zero at first and 256-byte aligned. Copies
/// own copies, on the same device. Whatever device is the thread's current one stays it.
///
/// Made for a `device`, it belongs to that stream: the stream's own work takes, clears, copies and gives back its
/// memory, so that nothing waits, no other stream stalls, and no other stream's capture is broken. Another stream may
/// use it behind an event or a wait, as any result of the first one's. Made without one, it belongs to no stream: on
/// the thread's current device; making, copying and destroying it wait for that device, and then every stream may use
/// it.
template <class T>
class device_buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  device_buffer() = default;
  explicit device_buffer(std::size_t n) : device_buffer(n, device::current(), false) {}
  device_buffer(std::size_t n, device const& d) : device_buffer(n, d, true) {}
  explicit device_buffer(std::vector<T> const& values) : device_buffer(values, device::current(), false) {}
  device_buffer(std::vector<T> const& values, device const& d) : device_buffer(values, d, true) {}
  device_buffer(device_buffer const& other) : device_(other.device_), ordered_(other.ordered_) {
    if (!other.size_) return;
    auto const here = device_.use();
    settle("an earlier kernel");  // whatever still writes to `other`
    allocate(other.size_);
    finish(cudaMemcpyAsync(data_, other.data_, size_ * sizeof(T), cudaMemcpyDeviceToDevice, device_.stream), "a copy");
  }
  device_buffer(device_buffer&& other) noexcept
      : device_(other.device_),
        ordered_(other.ordered_),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  device_buffer& operator=(device_buffer other) noexcept {
    std::swap(device_, other.device_);
    std::swap(ordered_, other.ordered_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~device_buffer() { release(); }

  T* data() { return data_; }
  T const* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  /// Addresses of device memory, as a parameter_list wants them.
  std::span<T> span() { return {data_, size_}; }

  /// Copies to and from host memory, in the order of the device's stream; both wait.
  void upload(device const& d, std::span<T const> from, std::size_t at = 0) {
    queue_upload(d, from, at);
    if (!from.empty()) d.wait();
  }
  void download(device const& d, std::span<T> to, std::size_t at = 0) const {
    queue_download(d, to, at);
    if (!to.empty()) d.wait();
  }
  /// The same, without the wait: the host's memory is not to be touched before d.wait().
  void queue_upload(device const& d, std::span<T const> from, std::size_t at = 0) {
    require(at <= size_ && from.size() <= size_ - at, "cuda::device_buffer of ", size_, ": ", from.size(),
            " elements do not fit at ", at);
    if (from.empty()) return;
    auto const here = d.use();
    check(cudaMemcpyAsync(data_ + at, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, d.stream), "an upload");
  }
  void queue_download(device const& d, std::span<T> to, std::size_t at = 0) const {
    require(at <= size_ && to.size() <= size_ - at, "cuda::device_buffer of ", size_, ": ", to.size(),
            " elements cannot be read at ", at);
    if (to.empty()) return;
    auto const here = d.use();
    check(cudaMemcpyAsync(to.data(), data_ + at, to.size_bytes(), cudaMemcpyDeviceToHost, d.stream), "a download");
  }
  std::vector<T> to_host(device const& d) const {
    std::vector<T> values(size_);
    download(d, values);
    return values;
  }

 private:
  device_buffer(std::size_t n, device const& d, bool ordered) : device_(d), ordered_(ordered) {
    if (!n) return;
    auto const here = device_.use();
    allocate(n);
    finish(cudaMemsetAsync(data_, 0, n * sizeof(T), device_.stream), "cudaMemset");
  }
  device_buffer(std::vector<T> const& values, device const& d, bool ordered) : device_(d), ordered_(ordered) {
    if (values.empty()) return;
    auto const here = device_.use();
    allocate(values.size());
    // CUDA is through with pageable memory when this returns.
    finish(cudaMemcpyAsync(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice, device_.stream), "a copy");
  }
  void allocate(std::size_t n) {
    require(n <= std::numeric_limits<std::size_t>::max() / sizeof(T), "cuda::device_buffer: ", n, " elements of ",
            sizeof(T), " bytes are more than there are addresses");
    void* p = nullptr;
    require(!ordered_ || !device_.capturing(),
            "cuda::device_buffer: memory cannot be taken on a stream that is captured: a graph would take it at every "
            "launch. Make what the steps need before");
    if (ordered_)
      check(cudaMallocAsync(&p, n * sizeof(T), device_.stream), "cudaMallocAsync");
    else
      check(cudaMalloc(&p, n * sizeof(T)), "cudaMalloc");
    data_ = static_cast<T*>(p);
    size_ = n;
  }
  void settle(char const* what) const {
    if (!ordered_) check(cudaDeviceSynchronize(), what);
  }
  /// In a constructor, whose destructor will not run if this throws.
  void finish(cudaError_t code, char const* what) {
    // Of no stream: another one may not wait for the default one.
    if (code == cudaSuccess && !ordered_) code = cudaDeviceSynchronize();
    if (code != cudaSuccess) release();
    check(code, what);
  }
  void release() noexcept {
    if (!data_) return;
    current_device const here(device_.index, std::nothrow);
    // On a stream that is captured, the graph would do it, at every launch: cudaFree breaks the capture instead, which
    // its end reports. Other errors are an earlier kernel's, reported elsewhere.
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    bool const later = ordered_ && cudaStreamIsCapturing(device_.stream, &status) == cudaSuccess &&
                       status == cudaStreamCaptureStatusNone;
    static_cast<void>(later ? cudaFreeAsync(data_, device_.stream) : cudaFree(data_));
    data_ = nullptr;
  }

  device device_;
  bool ordered_ = false;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace dovetail::cuda
