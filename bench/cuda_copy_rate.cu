// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What AdamW's pass could reach on this device: its bytes and arithmetic, moved in other ways, beside the driver's own
// copy. Which accesses and which pieces the engine should take is read from here, and every rate is compared with it.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "cuda_program.hpp"

using bench::median;
namespace gpu = dovetail::cuda;

namespace {

constexpr int repetitions = 10, warm_ups = 3;
constexpr int threads = 256;

// ---- how four numbers are read and written

struct cached {  // what the engine does
  static constexpr char const* name = "cached";
  __device__ static float4 load(float4 const* p) { return __ldca(p); }
  __device__ static void store(float4* p, float4 x) { __stwb(p, x); }
};
struct plain {
  static constexpr char const* name = "plain";
  __device__ static float4 load(float4 const* p) { return *p; }
  __device__ static void store(float4* p, float4 x) { *p = x; }
};
struct global_only {  // past the first-level cache
  static constexpr char const* name = "global";
  __device__ static float4 load(float4 const* p) { return __ldcg(p); }
  __device__ static void store(float4* p, float4 x) { __stcg(p, x); }
};
struct streaming {  // first to leave the caches
  static constexpr char const* name = "streaming";
  __device__ static float4 load(float4 const* p) { return __ldcs(p); }
  __device__ static void store(float4* p, float4 x) { __stcs(p, x); }
};

// ---- kernels

/// Read and written once each.
template <class Mode>
__global__ __launch_bounds__(threads) void copy(float4* to, float4 const* from, std::size_t fours) {
  std::size_t const stride = std::size_t{gridDim.x} * threads;
  for (std::size_t i = std::size_t{blockIdx.x} * threads + threadIdx.x; i < fours; i += stride)
    Mode::store(to + i, Mode::load(from + i));
}

__device__ __forceinline__ void adamw(float& w, float g, float& m, float& v) {
  m = 0.9f * m + 0.1f * g;
  v = 0.999f * v + 0.001f * (g * g);
  w -= 1e-3f * (1.1f * m / (1.01f * sqrtf(v) + 1e-8f) + 0.01f * w);
}
/// A block takes `piece` fours; each thread loads Groups of them from every array before it uses the first.
template <class Mode, int Groups>
__global__ __launch_bounds__(threads) void pass(float4* w, float4 const* g, float4* m, float4* v, std::size_t fours,
                                                std::size_t piece) {
  std::size_t const begin = blockIdx.x * piece, end = begin + piece < fours ? begin + piece : fours;
  for (std::size_t i = begin + threadIdx.x; i < end; i += Groups * threads) {
    float4 own[4][Groups];
#pragma unroll
    for (int k = 0; k < Groups; ++k)
      if (std::size_t const at = i + static_cast<std::size_t>(k) * threads; at < end) {
        own[0][k] = Mode::load(w + at);
        own[1][k] = Mode::load(g + at);
        own[2][k] = Mode::load(m + at);
        own[3][k] = Mode::load(v + at);
      }
#pragma unroll
    for (int k = 0; k < Groups; ++k)
      if (std::size_t const at = i + static_cast<std::size_t>(k) * threads; at < end) {
        adamw(own[0][k].x, own[1][k].x, own[2][k].x, own[3][k].x);
        adamw(own[0][k].y, own[1][k].y, own[2][k].y, own[3][k].y);
        adamw(own[0][k].z, own[1][k].z, own[2][k].z, own[3][k].z);
        adamw(own[0][k].w, own[1][k].w, own[2][k].w, own[3][k].w);
        Mode::store(w + at, own[0][k]);
        Mode::store(m + at, own[2][k]);
        Mode::store(v + at, own[3][k]);
      }
  }
}
/// Small numbers, not all the same.
__global__ void fill(float4* p, std::size_t fours) {
  std::size_t const stride = std::size_t{gridDim.x} * threads;
  for (std::size_t i = std::size_t{blockIdx.x} * threads + threadIdx.x; i < fours; i += stride) {
    float const x = static_cast<float>(static_cast<std::uint32_t>(i) * 2654435761u >> 8) * 0x1p-30f;
    p[i] = {x, 2 * x, 3 * x, 4 * x};
  }
}

// ---- measuring

struct arrays {
  gpu::device_buffer<float4> w, g, m, v;
  explicit arrays(std::size_t fours, gpu::device const& d) : w(fours), g(fours), m(fours), v(fours) {
    for (auto* a : {&w, &g, &m, &v}) fill<<<4096, threads, 0, d.stream>>>(a->data(), fours);
    gpu::check(cudaGetLastError(), "a kernel");
    d.wait();
  }
};

class table {
 public:
  table(std::string const& path, gpu::device const& d)
      : file_(path, path.empty() ? "" : bench::context_of(d, repetitions)), device_(d) {}

  /// `bytes`: of one element.
  template <class Work>
  void row(std::string const& name, std::size_t elements, int bytes, Work const& work) {
    // What takes microseconds is done several times: the gap between launches is not the kernel's time.
    int const times = elements < (std::size_t{1} << 24) ? 20 : 2;
    std::vector<double> seconds;
    for (int r = -warm_ups; r < repetitions; ++r) {
      double const s = watch_.seconds(device_.stream, [&] {
        for (int k = 0; k < times; ++k) work();
      });
      if (r >= 0) seconds.push_back(s / times);
    }
    gpu::check(cudaGetLastError(), "a kernel");
    std::sort(seconds.begin(), seconds.end());
    double const all = double(bytes) * double(elements);
    std::printf("%-38s %11zu %10.1f us %8.1f GB/s  (%.1f to %.1f us)\n", name.c_str(), elements, 1e6 * median(seconds),
                1e-9 * all / median(seconds), 1e6 * seconds.front(), 1e6 * seconds.back());
    std::fflush(stdout);
    file_.add(
        "{\"name\": \"%s\", \"elements\": %zu, \"bytes\": %.0f, \"seconds\": %.9g, \"min\": %.9g, \"max\": %.9g, "
        "\"GBps\": %.1f}",
        name.c_str(), elements, all, median(seconds), seconds.front(), seconds.back(), 1e-9 * all / median(seconds));
  }

 private:
  bench::figures_file file_;
  gpu::device device_;
  bench::stopwatch watch_;
};

template <class Mode>
void copies(table& t, arrays& a, std::size_t n, gpu::device const& d) {
  t.row(std::string("copy, ") + Mode::name, n, 8,
        [&] { copy<Mode><<<2112, threads, 0, d.stream>>>(a.w.data(), a.g.data(), n / 4); });
}
template <class Mode, int Groups>
void passes(table& t, arrays& a, std::size_t n, gpu::device const& d) {
  for (std::size_t const piece : {2048u, 16384u})
    t.row("adamw, " + std::string(Mode::name) + ", " + std::to_string(Groups) + " x 4, pieces of " +
              std::to_string(piece),
          n, 28, [&] {
            pass<Mode, Groups><<<static_cast<unsigned>((n + piece - 1) / piece), threads, 0, d.stream>>>(
                a.w.data(), a.g.data(), a.m.data(), a.v.data(), n / 4, piece / 4);
          });
}

int run(std::string const& path) {
  bench::stream const own;
  gpu::device const d{.index = 0, .stream = own.get()};
  table t(path, d);
  for (int const power : {20, 24, 28}) {
    std::size_t const n = std::size_t{1} << power;
    arrays a(n / 4, d);
    t.row("copy, the driver's", n, 8, [&] {
      gpu::check(cudaMemcpyAsync(a.w.data(), a.g.data(), 4 * n, cudaMemcpyDeviceToDevice, d.stream), "a copy");
    });
    copies<cached>(t, a, n, d);
    copies<plain>(t, a, n, d);
    copies<global_only>(t, a, n, d);
    copies<streaming>(t, a, n, d);
    passes<cached, 1>(t, a, n, d);
    passes<cached, 2>(t, a, n, d);
    passes<plain, 1>(t, a, n, d);
    passes<plain, 2>(t, a, n, d);
    passes<global_only, 1>(t, a, n, d);
    passes<streaming, 1>(t, a, n, d);
    passes<streaming, 2>(t, a, n, d);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return bench::main_of("bench_cuda_copy_rate", argc, argv, run); }
