// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/core/philox.hpp>

#include "tools.hpp"

// What gradients can be like, and what they should not be like.
namespace test {

struct input_kind {
  std::string name;
  std::vector<float> (*make)(std::size_t n, std::uint64_t seed);
};

inline std::array<input_kind, 6> const input_kinds{{
    {"gaussian", &normal},
    {"1% sparse",
     [](std::size_t n, std::uint64_t seed) {
       auto x = normal(n, seed);
       for (std::size_t i = 0; i < n; ++i)
         if (i % 100 != seed % 100 % n) x[i] = 0;
       return x;
     }},
    {"student-t2",
     [](std::size_t n, std::uint64_t seed) {
       random_stream const random{seed, 1};
       std::vector<float> x(n);
       for (std::size_t i = 0; i < n; ++i) {
         float const u = (random.uniform(i) + 0x1p-25f) * (1 - 0x1p-20f);  // neither 0 nor 1
         x[i] = (2 * u - 1) / std::sqrt(2 * u * (1 - u));
       }
       return x;
     }},
    {"all equal", [](std::size_t n, std::uint64_t) { return std::vector<float>(n, 0.37f); }},
    {"alternating",
     [](std::size_t n, std::uint64_t) {
       std::vector<float> x(n, 0.37f);
       for (std::size_t i = 1; i < n; i += 2) x[i] = -0.37f;
       return x;
     }},
    {"all negative",  // whoever takes a signed maximum for a magnitude selects everything, or nothing
     [](std::size_t n, std::uint64_t seed) {
       auto x = normal(n, seed);
       for (float& v : x) v = -std::fabs(v) - 0.01f;
       return x;
     }},
}};

/// Finite, and at the ends of what floats are: whole buckets of one value, of two, and of everything.
inline std::vector<std::pair<std::string, std::vector<float>>> extremes(std::size_t n) {
  float const tiny = std::numeric_limits<float>::denorm_min(), huge = std::numeric_limits<float>::max();
  auto const mixed = [n](auto const& values) {
    std::vector<float> x(n);
    for (std::size_t i = 0; i < n; ++i) x[i] = values[i % std::size(values)];
    return x;
  };
  return {{"0", mixed(std::array{0.0f})},
          {"-0", mixed(std::array{-0.0f})},
          {"least denormal", mixed(std::array{tiny})},
          {"-least denormal", mixed(std::array{-tiny})},
          {"largest denormal", mixed(std::array{0x0.fffffep-126f, -0x0.fffffep-126f})},
          {"FLT_MAX", mixed(std::array{huge})},
          {"-FLT_MAX", mixed(std::array{-huge})},
          {"one denormal", mixed(std::array{tiny, 0.0f, -0.0f})},
          {"ends", mixed(std::array{huge, -huge, tiny, -tiny, 0.0f, 1.0f})}};
}

/// A bucket of n elements: a matrix, and behind it a vector.
class sample {
 public:
  explicit sample(std::vector<float> x) : values(std::move(x)) {
    std::size_t const n = values.size(), rows = n * 3 / 4 / 7;
    if (n >= 24) tensors_.push_back({0, {static_cast<std::int64_t>(rows), 7}});
    std::size_t const begin = n >= 24 ? 7 * rows : 0;
    if (n > begin) tensors_.push_back({begin, {static_cast<std::int64_t>(n - begin)}});
  }
  compress::bucket bucket() const { return {values, tensors_}; }

  std::vector<float> values;

 private:
  std::vector<compress::bucket_tensor> tensors_;
};

}  // namespace test
