// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Convolutions of many sizes by oneDNN against the plain loops, in memory that ends where a write is seen: that of the
// caller, and, without a sanitizer that brings its own allocator, what oneDNN asks for its own use.
#include <dovetail/nn/onednn/host.hpp>
#include <dovetail/nn/plain.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include <doctest/doctest.h>

#include "nn/fence.hpp"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)
// oneDNN takes its memory from posix_memalign and gives it back to free.
extern "C" {
void __libc_free(void*);
int posix_memalign(void** out, std::size_t alignment, std::size_t size) noexcept {
  *out = fence::all.take(alignment, size);
  return *out ? 0 : ENOMEM;
}
void free(void* p) noexcept {
  if (p && !fence::all.give_back(p)) __libc_free(p);
}
}
constexpr bool fences_onednn = true;
#else
constexpr bool fences_onednn = false;
#endif

using namespace dovetail;

namespace {

/// Values of a few bits, so that sums of products are exact in any order and every difference is an error.
void fill(fence::floats const& to, std::uint32_t seed) {
  for (auto& v : to) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<float>(static_cast<int>(seed >> 29) - 4) / 4;
  }
}
bool equal(fence::floats const& a, fence::floats const& b) { return std::equal(a.begin(), a.end(), b.begin()); }

/// All three passes; false when one differs from the plain loops.
bool agrees(nn::convolution_size const& s, int cores = 1) {
  nn::onednn::host host;
  auto const threads = host.use(cores);
  auto const n = [](std::int64_t k) { return static_cast<std::size_t>(k); };
  auto const pixels = n(s.batch * s.height * s.width * s.channels);
  auto const results = n(s.batch * s.out_height() * s.out_width() * s.filters);
  auto const weights = n(s.weight_count()), filters = n(s.filters);
  fence::floats x(pixels), w(weights), bias(filters), dy(results);
  fill(x, 1), fill(w, 2), fill(bias, 3), fill(dy, 4);
  fence::floats y(results), y2(results), dx(pixels), dx2(pixels), dw(weights), dw2(weights), db(filters), db2(filters);
  nn::plain plain;
  auto const all = [&](auto& backend, float* out, float* to_x, float* to_w, float* to_bias) {
    backend.conv_forward(s, x.data(), w.data(), bias.data(), out);
    backend.conv_backward_data(s, w.data(), dy.data(), to_x);
    backend.conv_backward_weights(s, x.data(), dy.data(), to_w, to_bias, false);
    backend.conv_backward_weights(s, x.data(), dy.data(), to_w, to_bias, true);
  };
  all(host, y.data(), dx.data(), dw.data(), db.data());
  all(plain, y2.data(), dx2.data(), dw2.data(), db2.data());
  return equal(y, y2) && equal(dx, dx2) && equal(dw, dw2) && equal(db, db2);
}

}  // namespace

TEST_CASE("convolutions of every kernel, stride, padding and number of channels are those of the plain loops") {
  CHECK(dnnl_set_primitive_cache_capacity(0) == dnnl_success);  // its memory is to be freed, and looked at
  std::int64_t checked = 0;
  for (std::int64_t kernel = 1; kernel <= 5; ++kernel)
    for (std::int64_t stride = 1; stride <= 7; ++stride)
      for (std::int64_t padding = 0; padding <= 1; ++padding) {
        for (std::int64_t channels = 1; channels <= 33; ++channels, ++checked) {
          INFO(channels, " channels, kernel ", kernel, ", stride ", stride, ", padding ", padding);
          CHECK(agrees({2, channels, 9, 8, 8, kernel, stride, padding}));
          // Where pixels are skipped oneDNN has kernels of its own for extents that the stride divides, and an image
          // must be large: what is written behind it may end in memory that rounding left.
          auto const extent = 64 / stride * stride;
          if (kernel == 1 && stride > 1) {
            nn::convolution_size const large{2, channels, extent, extent, 16, kernel, stride, padding};
            CHECK(agrees(large));
            if (stride == 2 && padding == 0) CHECK(agrees(large, 2));
          }
        }
      }
  CHECK(checked == 2310);
  CHECK((fence::all.made > 0) == fences_onednn);
  CHECK(fence::all.spoiled == 0);
}
