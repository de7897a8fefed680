// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include <dovetail/core/error.hpp>

namespace dovetail::cuda {

/// A call of the CUDA runtime failed. Most such errors stay with the process: a kernel that wrote out of bounds makes
/// every later call fail too.
struct device_error : error {
  device_error(char const* what, cudaError_t code)
      : error(message("CUDA: ", what, " failed: ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ')')),
        code(code) {}
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

/// Where device work runs: a device and a stream of the caller's. Everything is queued on that stream, in order.
struct device {
  int index = 0;
  cudaStream_t stream = nullptr;

  /// Makes the device this thread's current one.
  void use() const { check(cudaSetDevice(index), "cudaSetDevice"); }
  /// Waits for all that was queued on the stream.
  void wait() const {
    use();
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }
  /// True while the stream records a graph instead of running.
  bool capturing() const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
    return status != cudaStreamCaptureStatusNone;
  }
};

/// A value that owns `size` trivially copyable elements of device memory, zero at first and 256-byte aligned, on the
/// device that is this thread's current one when it is made. Copies own copies; making, copying and destroying one
/// waits for the device.
template <class T>
class device_buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  device_buffer() = default;
  explicit device_buffer(std::size_t n) : data_(allocate(n)), size_(n) {
    if (!n) return;
    cudaError_t code = cudaMemset(data_, 0, n * sizeof(T));
    if (code == cudaSuccess) code = cudaDeviceSynchronize();  // the caller's stream may not wait for the default one
    finish(code, "cudaMemset");
  }
  explicit device_buffer(std::vector<T> const& values) : data_(allocate(values.size())), size_(values.size()) {
    if (!size_) return;
    cudaError_t code = cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice);
    if (code == cudaSuccess) code = cudaDeviceSynchronize();  // the last bytes may be under way when cudaMemcpy returns
    finish(code, "cudaMemcpy");
  }
  device_buffer(device_buffer const& other) : data_(allocate(other.size_)), size_(other.size_) {
    if (!size_) return;
    cudaError_t code = cudaDeviceSynchronize();  // whatever still writes to `other`
    if (code == cudaSuccess) code = cudaMemcpy(data_, other.data_, size_ * sizeof(T), cudaMemcpyDeviceToDevice);
    if (code == cudaSuccess) code = cudaDeviceSynchronize();
    finish(code, "cudaMemcpy");
  }
  device_buffer(device_buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  device_buffer& operator=(device_buffer other) noexcept {
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
    require(at <= size_ && from.size() <= size_ - at, "cuda::device_buffer of ", size_, ": ", from.size(),
            " elements do not fit at ", at);
    if (from.empty()) return;
    d.use();
    check(cudaMemcpyAsync(data_ + at, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, d.stream), "an upload");
    d.wait();
  }
  void download(device const& d, std::span<T> to, std::size_t at = 0) const {
    require(at <= size_ && to.size() <= size_ - at, "cuda::device_buffer of ", size_, ": ", to.size(),
            " elements cannot be read at ", at);
    if (to.empty()) return;
    d.use();
    check(cudaMemcpyAsync(to.data(), data_ + at, to.size_bytes(), cudaMemcpyDeviceToHost, d.stream), "a download");
    d.wait();
  }
  std::vector<T> to_host(device const& d) const {
    std::vector<T> values(size_);
    download(d, values);
    return values;
  }

 private:
  static T* allocate(std::size_t n) {
    void* p = nullptr;
    if (n) check(cudaMalloc(&p, n * sizeof(T)), "cudaMalloc");
    return static_cast<T*>(p);
  }
  void release() noexcept {
    if (data_) static_cast<void>(cudaFree(data_));  // an error here is an earlier kernel's, reported elsewhere
    data_ = nullptr;
  }
  void finish(cudaError_t code, char const* what) {
    if (code != cudaSuccess) release();  // in a constructor: the destructor will not run
    check(code, what);
  }
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace dovetail::cuda
