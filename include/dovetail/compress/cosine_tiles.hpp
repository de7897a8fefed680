// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/demo_kernels.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>

// A bucket as tiles of at most 64 x 64 elements, and the cosine transform of a tile.
namespace dovetail::compress {

/// A tensor cut into tiles: of its first dimension against the others, or of a line. Tiles of a dimension are equally
/// long, as few as there can be, and the last ones are padded with zeros: a prime dimension has none that divides it.
struct tiled_tensor {
  static constexpr std::size_t most = 64;

  std::size_t begin, rows, columns;
  std::size_t height, width;  ///< of a tile
  std::size_t down, across;   ///< tiles

  constexpr tiled_tensor(std::size_t at, std::size_t m, std::size_t n)
      : begin(at),
        rows(m),
        columns(n),
        height(edge(m)),
        width(edge(n)),
        down(pieces(m, height)),
        across(pieces(n, width)) {}

  constexpr std::size_t tiles() const { return down * across; }
  constexpr std::size_t area() const { return height * width; }
  /// Bits that say which coefficient of a tile: 12 of 64 x 64, 6 of 64.
  constexpr int index_bits() const { return std::max(1, static_cast<int>(std::bit_width(area() - 1))); }
  constexpr std::size_t coefficients(std::size_t most_of_tile) const { return std::min(most_of_tile, area()); }

 private:
  static constexpr std::size_t pieces(std::size_t n, std::size_t length) { return (n + length - 1) / length; }
  static constexpr std::size_t edge(std::size_t n) { return pieces(n, pieces(n, most)); }
};

/// f(tiled_tensor) for all of a bucket, in order: tensors, and what lies between them as lines.
template <class F>
constexpr void for_tiled_tensors(bucket const& b, F const& f) {
  std::size_t end = 0;
  for (auto const& t : b.tensors) {
    auto const size = static_cast<std::size_t>(t.shape.size());
    if (size == 0) continue;
    if (t.begin > end) f(tiled_tensor(end, 1, t.begin - end));
    auto const m = t.shape.rank < 2 ? 1 : static_cast<std::size_t>(t.shape[0]);
    f(tiled_tensor(t.begin, m, size / m));
    end = t.begin + size;
  }
  if (b.size() > end) f(tiled_tensor(end, 1, b.size() - end));
}

/// The orthonormal DCT-II of tiles, and its inverse. A tile is a matrix with rows of 64 floats, zero behind its width
/// and below its height; so is what it becomes.
class cosine_transform {
 public:
  static constexpr std::size_t stride = tiled_tensor::most;
  using tile = std::array<float, stride * stride>;

  /// For tiles of an edge of n elements.
  DOVETAIL_COLD void prepare(std::size_t n) {
    if (!bases_[n].empty()) return;
    bases_[n] = buffer<float>(2 * stride * stride);
    double const length = static_cast<double>(n);
    for (std::size_t k = 0; k < n; ++k)
      for (std::size_t i = 0; i < n; ++i) {
        // The angle as a fraction of a full turn first: it is exact.
        double const turn = static_cast<double>((2 * i + 1) * k % (4 * n)) / (4 * length);
        double const value = std::sqrt((k == 0 ? 1 : 2) / length) * std::cos(2 * 3.14159265358979323846 * turn);
        bases_[n][k * stride + i] = static_cast<float>(value);
        bases_[n][stride * stride + i * stride + k] = static_cast<float>(value);
      }
  }
  /// x becomes its transform.
  void forward(tile& x, tiled_tensor const& t, demo_kernels::kernel_set const& kernel) {
    transform(x, t, basis(t.height), transposed(t.width), kernel);
  }
  void inverse(tile& x, tiled_tensor const& t, demo_kernels::kernel_set const& kernel) {
    transform(x, t, transposed(t.height), basis(t.width), kernel);
  }

 private:
  float const* basis(std::size_t n) const { return bases_[n].data(); }
  float const* transposed(std::size_t n) const { return bases_[n].data() + stride * stride; }
  void transform(tile& x, tiled_tensor const& t, float const* left, float const* right,
                 demo_kernels::kernel_set const& kernel) {
    std::size_t const rows = (t.height + 3) / 4 * 4;
    kernel.multiply(x.data(), right, rows, t.width, between_.data());
    kernel.multiply(left, between_.data(), rows, t.height, x.data());
  }
  std::array<buffer<float>, stride + 1> bases_{};
  tile between_{};
};

}  // namespace dovetail::compress
