// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

namespace detail {

struct pooling_size {
  std::size_t batch, height, width, channels, out_height, out_width, window, stride;

  /// First element of the window's pixel (i, j) for output pixel (y, x) of image b.
  std::size_t at(std::size_t b, std::size_t y, std::size_t x, std::size_t i, std::size_t j) const {
    return ((b * height + y * stride + i) * width + x * stride + j) * channels;
  }
  std::size_t out_at(std::size_t b, std::size_t y, std::size_t x) const {
    return ((b * out_height + y) * out_width + x) * channels;
  }
  /// Every pixel belongs to exactly one window.
  bool tiles() const { return stride == window && out_height * stride == height && out_width * stride == width; }
};

/// f(read, write, j) for each vector of [0, n); the last, partial one reads zeros beyond n and does not write there.
template <class F>
DOVETAIL_HOST_INLINE void each_vector(std::size_t n, F f) {
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes)
    f([](float const* p) { return load(p); }, [](float* p, f32s v) { store(p, v); }, j);
  if (std::size_t const rest = n - j)
    f([rest](float const* p) { return load_part(p, rest); }, [rest](float* p, f32s v) { store_part(p, rest, v); }, j);
}

/// The largest of each window, channel by channel. A NaN wins: it must be seen, not pooled away.
DOVETAIL_NOINLINE inline void max_pool_image(pooling_size const& s, std::size_t b, float const* in, float* out) {
  for (std::size_t y = 0; y < s.out_height; ++y)
    for (std::size_t x = 0; x < s.out_width; ++x)
      each_vector(s.channels, [&](auto read, auto write, std::size_t c) {
        f32s best = read(in + s.at(b, y, x, 0, 0) + c);
        for (std::size_t i = 0; i < s.window; ++i)
          for (std::size_t j = 0; j < s.window; ++j) {
            f32s const v = read(in + s.at(b, y, x, i, j) + c);
            best = for_nan(best, best, select((v > best) | is_nan(v), v, best));
          }
        write(out + s.out_at(b, y, x) + c, best);
      });
}

/// Each output's gradient goes to the first input that equals it. That is found again rather than remembered: an index
/// would cost as much memory as the output. Windows that tile the image are written without being cleared first.
template <bool Tiles>
DOVETAIL_NOINLINE void max_pool_image_backward(pooling_size const& s, std::size_t b, float const* in, float const* out,
                                               float const* dout, float* din) {
  auto const image = s.height * s.width * s.channels;
  if constexpr (!Tiles) std::memset(din + b * image, 0, image * sizeof(float));
  for (std::size_t y = 0; y < s.out_height; ++y)
    for (std::size_t x = 0; x < s.out_width; ++x)
      each_vector(s.channels, [&](auto read, auto write, std::size_t c) {
        f32s const best = read(out + s.out_at(b, y, x) + c);
        f32s d = read(dout + s.out_at(b, y, x) + c);
        for (std::size_t i = 0; i < s.window; ++i)
          for (std::size_t j = 0; j < s.window; ++j) {
            auto const at = s.at(b, y, x, i, j) + c;
            f32s const v = read(in + at);
            i32s const here = (v == best) | (is_nan(v) & is_nan(best));
            f32s const share = select(here, d, f32s{});
            write(din + at, Tiles ? share : read(din + at) + share);
            d = select(here, f32s{}, d);
          }
      });
}

}  // namespace detail

/// The largest value of each Window × Window pixels: {C, H, W} -> {C, (H - Window) / Stride + 1, …}. No tensors.
template <int Window, int Stride = Window>
struct max_pool {
  template <class At>
  static constexpr void check() {
    DOVETAIL_REQUIRE(Window > 0 && Stride > 0, "max_pool<Window, Stride> needs positive numbers", max_pool, At);
    DOVETAIL_REQUIRE(At::input.rank == 3, "max_pool reads an image {channels, height, width}", max_pool, At);
    if constexpr (At::input.rank == 3)
      DOVETAIL_REQUIRE(At::input[1] >= Window && At::input[2] >= Window, "max_pool's window is larger than its image",
                       max_pool, At);
  }
  static constexpr shape output(shape const& in) {
    if (in.rank != 3 || Stride < 1) return in;  // refused by check
    return {in[0], (in[1] - Window) / Stride + 1, (in[2] - Window) / Stride + 1};
  }
  static constexpr std::int64_t flops(shape const& in) { return output(in).size() * Window * Window; }

  template <class Backend>
  static void forward(layer_call<Backend> const& c) {
    auto const s = size(c.in, c.out, c.batch);
    c.backend.parallel(s.batch, s.out_at(1, 0, 0) * Window * Window, [&](std::size_t begin, std::size_t end) {
      for (auto b = begin; b < end; ++b) detail::max_pool_image(s, b, c.x, c.y);
    });
  }
  template <class Backend>
  static void backward(layer_call<Backend> const& c) {
    if (!c.dx) return;
    auto const s = size(c.in, c.out, c.batch);
    c.backend.parallel(s.batch, s.out_at(1, 0, 0) * Window * Window, [&](std::size_t begin, std::size_t end) {
      auto const one = s.tiles() ? detail::max_pool_image_backward<true> : detail::max_pool_image_backward<false>;
      for (auto b = begin; b < end; ++b) one(s, b, c.x, c.y, c.dy, c.dx);
    });
  }

 private:
  static detail::pooling_size size(shape const& in, shape const& out, std::int64_t batch) {
    auto const n = [](std::int64_t i) { return static_cast<std::size_t>(i); };
    return {n(batch), n(in[1]), n(in[2]), n(in[0]), n(out[1]), n(out[2]), Window, Stride};
  }
};

}  // namespace dovetail::nn
