// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "../../../bench/figures_file.hpp"
#include "../report.hpp"
#include "sanitizers.hpp"

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <cuda_runtime.h>
#include <cub/block/block_reduce.cuh>

#include <dovetail/core/cuda.hpp>
#include <dovetail/core/cuda_launch.hpp>

// What the emulated device must find, each in a process of its own, which has to end with the message; and the
// functions of a warp. Exit code 1 if a case fails.

namespace gpu = dovetail::cuda;
using test::report;

namespace {

__global__ void store(float* p, std::size_t i) { p[i] = 1; }
[[maybe_unused]] __global__ void add(float* p, std::size_t i) { p[0] += p[i]; }
__global__ void store_long(float* p, int n) {
  for (int i = 0; i < n; ++i) p[i] = 1;
}
__global__ void half_a_block_waits() {
  if (threadIdx.x < 32) __syncthreads();
}
__global__ void threads_wait_apart() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void a_lane_is_missing() {
  if (threadIdx.x != 5) __syncwarp();
}
__global__ void a_lane_asks_outside(int* to) {
  if (threadIdx.x < 16) *to = __shfl_sync(0xFFFFu, 1, 20);
}
__global__ void load_unaligned(float* p) { __stwb(reinterpret_cast<float4*>(p + 1), float4{}); }
__global__ void sum_of_another_block(double* to) {
  __shared__ cub::BlockReduce<double, 128>::TempStorage room;
  *to = cub::BlockReduce<double, 128>(room).Sum(1.0);
}

gpu::device const device{};
void run(void (*kernel)(), dim3 threads) {
  gpu::launch("a test", device, 1, threads, kernel);
  device.wait();
}

/// True if `f` ends its process, and says `text`.
void finds(char const* name, char const* text, std::function<void()> const& f) {
  int ends[2];
  if (pipe(ends)) return report(false, name, "no pipe");
  pid_t const child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    try {
      f();
    } catch (std::exception const& e) {
      static_cast<void>(!write(STDERR_FILENO, e.what(), std::strlen(e.what())));
    }
    std::exit(0);  // what is left over is reported there
  }
  close(ends[1]);
  std::string said;
  char some[512];
  for (ssize_t n = 0; (n = read(ends[0], some, sizeof some)) > 0;) said.append(some, static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  report(status != 0 && said.find(text) != said.npos, std::string("found: ") + name,
         said.find(text) == said.npos ? said : "");
}

// The address sanitizer is the first to see an access around an allocation, reads included.
#if EMULATED_ASAN
constexpr char const *behind = "use-after-poison", *before = behind, *far_behind = behind;
#else
constexpr char const *behind = "written outside of an allocation of 32 bytes, at offset 32", *before = "at offset -4",
                     *far_behind = "not allocated";
#endif

void find_all() {
  finds("host code that reads device memory", "host code touched device memory", [] {
    gpu::device_buffer<float> b(8);
    float const volatile* const p = b.data();
    static_cast<void>(*p);
  });
  finds("a kernel that writes behind its memory", behind, [] {
    gpu::device_buffer<float> b(8);
    gpu::launch("a test", device, 1, 1, store, b.data(), std::size_t{8});
  });
#if EMULATED_ASAN
  finds("a kernel that reads behind its memory", behind, [] {
    gpu::device_buffer<float> b(8);
    gpu::launch("a test", device, 1, 1, add, b.data(), std::size_t{8});
  });
#endif
  finds("a kernel that writes before its memory", before, [] {
    gpu::device_buffer<float> b(8);
    gpu::launch("a test", device, 1, 1, store, b.data() - 1, std::size_t{0});
  });
  finds("a kernel that writes far behind its memory", far_behind, [] {
    gpu::device_buffer<float> b(8);
    gpu::launch("a test", device, 1, 1, store_long, b.data(), 5000);
  });
  finds("a kernel that uses freed memory", "not allocated", [] {
    gpu::device_buffer<float> b(8);
    float* const gone = b.data();
    b = {};
    gpu::launch("a test", device, 1, 1, store, gone, std::size_t{0});
    device.wait();
  });
  finds("a kernel that uses another device's memory", "another device's memory", [] {
    gpu::device_buffer<float> b(8);
    gpu::device const second{1, nullptr};
    gpu::launch("a test", second, 1, 1, store, b.data(), std::size_t{0});
    device.wait();
  });
  finds("a stream that is used when it is destroyed", "a stream that was destroyed", [] {
    cudaStream_t s{};
    gpu::check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    gpu::device_buffer<float> outlives(8, gpu::device{0, s});
    gpu::check(cudaStreamDestroy(s), "cudaStreamDestroy");
  });
  finds("memory that is freed while a kernel of later is to use it", "not allocated", [] {
    cudaStream_t s{};
    gpu::check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    gpu::device const d{0, s};
    gpu::device_buffer<float> b(8, d);
    float* const gone = b.data();
    b = {};
    gpu::launch("a test", d, 1, 1, store, gone, std::size_t{0});
    d.wait();
  });
  finds("memory that is never freed", "left at the end of the program: 1 allocation", [] {
    void* p = nullptr;
    gpu::check(cudaMalloc(&p, 8), "cudaMalloc");
  });
  finds("__syncthreads that half a block does not reach", "has ended", [] { run(half_a_block_waits, 64); });
  finds("__syncthreads at two places", "wait for each other in vain", [] { run(threads_wait_apart, 64); });
  finds("__syncwarp that a lane does not reach", "has ended", [] { run(a_lane_is_missing, 32); });
  finds("a lane that asks one that is not in the mask", "not in the mask", [] {
    gpu::device_buffer<int> b(1);
    gpu::launch("a test", device, 1, 32, a_lane_asks_outside, b.data());
  });
  finds("16 bytes at an address that is not aligned", "not aligned", [] {
    gpu::device_buffer<float> b(8);
    gpu::launch("a test", device, 1, 1, load_unaligned, b.data());
  });
  finds("a reduction in a block of another size", "a reduction of 128 threads", [] {
    gpu::device_buffer<double> b(1);
    gpu::launch("a test", device, 1, 256, sum_of_another_block, b.data());
  });
}

/// Two devices: a stream belongs to one, and what is current stays so.
void check_devices() {
  auto const current = [] {
    int i = -1;
    gpu::check(cudaGetDevice(&i), "cudaGetDevice");
    return i;
  };
  gpu::device second{1, nullptr};
  {
    auto const here = second.use();
    report(current() == 1, "a device that is used is the current one");
    gpu::check(cudaStreamCreateWithFlags(&second.stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  report(current() == 0, "and no longer");
  cudaLaunchConfig_t c{};
  c.gridDim = 1, c.blockDim = 32, c.stream = second.stream;
  report(cudaLaunchKernelEx(&c, half_a_block_waits) == cudaErrorInvalidResourceHandle,
         "a launch on another device's stream is refused");
  {
    gpu::device_buffer<float> a(std::vector<float>(8, 2.0f), second);
    auto const b = a;
    gpu::launch("a test", second, 1, 1, store, a.data(), std::size_t{3});
    auto const here = gpu::device{0, nullptr}.use();
    auto moved = std::move(a);
    auto const x = moved.to_host(second), y = b.to_host(second);
    report(x[3] == 1 && y == std::vector<float>(8, 2.0f) && current() == 0,
           "a buffer, and its copy, stay on their device");
    auto const before = emulated::stalls();
    {
      gpu::device_buffer<float> made(8, second);
      auto const copied = made;
      made = gpu::device_buffer<float>(16, second);
    }
    report(emulated::stalls() == before, "a stream's buffers stall no other stream");
    gpu::device_buffer<float> of_no_stream(4);
    auto const copied = of_no_stream;
    report(emulated::device_of(copied.data()) == 0 && emulated::device_of(b.data()) == 1,
           "a buffer of no stream is on the current one");
    gpu::device_buffer<float> on_second;
    {
      auto const there = second.use();
      on_second = gpu::device_buffer<float>(4);
    }
    auto const other = on_second;
    report(emulated::device_of(other.data()) == 1 && current() == 0, "and so is its copy, whatever is current then");
  }
  bool refused = false;
  try {
    static_cast<void>(gpu::device{2, nullptr}.use());
  } catch (gpu::device_error const&) {
    refused = true;
  }
  report(refused && current() == 0, "a device that is not there is refused");

  // Memory on a stream that captures would be the graph's.
  cudaGraph_t graph{};
  auto const here = second.use();
  gpu::check(cudaStreamBeginCapture(second.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  refused = false;
  try {
    gpu::device_buffer<float> const no(4, second);
  } catch (dovetail::argument_error const&) {
    refused = true;
  }
  report(refused, "a buffer on a stream that captures is refused");
  gpu::check(cudaStreamEndCapture(second.stream, &graph), "cudaStreamEndCapture");
  gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  gpu::check(cudaStreamDestroy(second.stream), "cudaStreamDestroy");
}

void check_captures() {
  cudaStream_t s{};
  gpu::check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  auto const breaks = [&](std::function<cudaError_t()> const& call) {
    cudaGraph_t graph{};
    gpu::check(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    bool const refused = call() == cudaErrorStreamCaptureUnsupported;
    return refused && cudaStreamEndCapture(s, &graph) == cudaErrorStreamCaptureInvalidated && !graph;
  };
  void* p = nullptr;
  float x = 0;
  gpu::device_buffer<float> b(1);
  report(breaks([&] { return cudaMalloc(&p, 8); }), "cudaMalloc breaks a capture");
  report(breaks([&] { return cudaFree(b.data()); }), "cudaFree breaks a capture");
  report(breaks([&] { return cudaStreamSynchronize(s); }), "waiting breaks a capture");
  report(breaks([&] { return cudaMemcpy(&x, b.data(), 4, cudaMemcpyDeviceToHost); }), "cudaMemcpy breaks a capture");
  gpu::check(cudaStreamDestroy(s), "cudaStreamDestroy");
  report(cudaMemcpy(b.data(), &x, 8, cudaMemcpyHostToDevice) == cudaErrorInvalidValue, "a copy that is too long");
  report(cudaMemcpy(&x, &x, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue, "a copy from host memory as device's");
  cudaLaunchConfig_t c{};
  c.gridDim = 1, c.blockDim = 1025;
  report(cudaLaunchKernelEx(&c, half_a_block_waits) == cudaErrorInvalidConfiguration, "a block of 1025 threads");
  c.gridDim = 0, c.blockDim = 32;
  report(cudaLaunchKernelEx(&c, half_a_block_waits) == cudaErrorInvalidConfiguration, "no blocks");
}

/// What a benchmark leaves is whole after each figure.
void check_figures() {
  char name[] = "/tmp/dovetail_figures_XXXXXX";
  int const made = mkstemp(name);
  if (made < 0) return report(false, "a file of figures", "no temporary file");
  close(made);
  auto const text = [&] {
    std::string s;
    std::FILE* const in = std::fopen(name, "r");
    for (int c; in && (c = std::fgetc(in)) != EOF;) s += static_cast<char>(c);
    if (in) std::fclose(in);
    return s;
  };
  {
    bench::figures_file file(name, "{\"device\": \"none\"}");
    report(text() == "{\"context\": {\"device\": \"none\"},\n \"benchmarks\": [\n]}\n",
           "a file of no figures is whole");
    file.add("{\"seconds\": %.3g}", 0.5);
    report(text().ends_with("[\n  {\"seconds\": 0.5}\n]}\n"), "of one");
    file.add("{\"seconds\": %.3g}", 0.25);
    report(text().ends_with("[\n  {\"seconds\": 0.5},\n  {\"seconds\": 0.25}\n]}\n"), "of two");
  }
  std::remove(name);
  bench::figures_file("", "").add("%d", 1);
}

__global__ void use_warps(int* to) {
  int const i = static_cast<int>(threadIdx.x);
  int sum = i;
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  double down = i;
  for (unsigned step = 4; step; step /= 2) down += __shfl_down_sync(~0u, down, step, 8);
  float const first = __shfl_sync(~0u, static_cast<float>(i), 0);
  unsigned const odd = __ballot_sync(~0u, i % 2);
  int const last = __any_sync(~0u, i == 63);
  bool const good = sum == (i < 32 ? 496 : 1520) && (i % 8 || down == 8 * i + 28) && first == (i < 32 ? 0.f : 32.f) &&
                    odd == 0xAAAAAAAAu && last == (i >= 32);
  to[i] = good;
}
void check_warps() {
  gpu::device_buffer<int> b(64);
  gpu::launch("a test", device, 1, 64, use_warps, b.data());
  report(b.to_host(device) == std::vector<int>(64, 1), "shuffles and votes of a warp");
}

}  // namespace

int main() {
  gpu::device_count();
  std::fflush(stdout);
  find_all();
  check_devices();
  check_captures();
  check_warps();
  check_figures();
  std::printf("%d failed\n", test::failures);
  return test::failures ? 1 : 0;
}
