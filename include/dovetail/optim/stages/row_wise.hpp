// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <string_view>

#include <dovetail/core/config.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/tensorwise.hpp>

// Stages that work row by row. A row is what belongs to one output: of a dense weight {out, in} its row, of a
// convolution {out, in, height, width} its filter, of an embedding the vector of a word; a vector (a bias) is one row.
// u is the update that arrives, w the weight; |x| is the L2 norm.

namespace dovetail::optim {

/// Adaptive gradient clipping (Brock et al., High-Performance Large-Scale Image Recognition Without Normalization, ICML
/// 2021, equation 3): a row with |u| > clipping max(|w|, epsilon) is scaled down to that norm.
struct clip_adaptively {
  using kind = tensorwise;
  float clipping = 0.01f;  ///< the largest norm of a row's update, as a share of its weights' norm
  float epsilon = 1e-3f;   ///< the least norm that weights are taken to have
  static constexpr auto describe() {
    return policy{"clip_adaptively", field{"clipping", &clip_adaptively::clipping, ranges::positive},
                  field{"epsilon", &clip_adaptively::epsilon, ranges::not_negative}};
  }

  template <class Algebra>
  void apply(basic_tensor_update<Algebra> const& t) const {
    t.algebra.each_row(t.rows(), t.columns(),
                       clip<Algebra>{t.update, t.weight, static_cast<double>(clipping), static_cast<double>(epsilon)});
  }

  // ---- for the algebra; public, because a device's kernels take nothing else
  template <class Algebra>
  struct clip {
    typename Algebra::span update;
    typename Algebra::const_span weight;
    double clipping, epsilon;

    DOVETAIL_ROW_FUNCTION
    template <class Row>
    DOVETAIL_HD void operator()(Row const& row) const {
      double const u = std::sqrt(row.sum_of_squares(row.of(update)));
      double const w = std::sqrt(row.sum_of_squares(row.of(weight)));
      double const limit = clipping * std::max<double>(w, epsilon);
      if (u > limit) row.scale(row.of(update), limit / u);
    }
  };
};

/// Gradient centralization (Yong et al., ECCV 2020, equation 1): u <- u - mean(u) in each row; vectors stay.
struct centralize {
  using kind = tensorwise;
  static constexpr auto describe() { return policy<centralize>{"centralize"}; }

  template <class Algebra>
  void apply(basic_tensor_update<Algebra> const& t) const {
    if (t.shape.rank >= 2) t.algebra.each_row(t.rows(), t.columns(), center<Algebra>{t.update});
  }

  // ---- for the algebra; public, because a device's kernels take nothing else
  template <class Real>
  struct subtract {
    Real mean;
    template <class T>
    DOVETAIL_INLINE T operator()(T u) const {
      return u - mean;
    }
  };
  template <class Algebra>
  struct center {
    typename Algebra::span update;

    DOVETAIL_ROW_FUNCTION
    template <class Row>
    DOVETAIL_HD void operator()(Row const& row) const {
      auto const u = row.of(update);
      using real = typename Algebra::real;
      row.map(u, subtract<real>{static_cast<real>(row.sum(u) / static_cast<double>(row.columns))}, u);
    }
  };
};

/// Gaussian noise of variance eta / (1 + t)^gamma on every element, t the step from 0 (Neelakantan et al., Adding
/// Gradient Noise Improves Learning for Very Deep Networks, 2015, equation 1). The same numbers on every rank and
/// thread count.
struct add_noise {
  using kind = tensorwise;
  float eta = 0.01f;       ///< variance in the first step
  float gamma = 0.55f;     ///< how fast it falls
  std::uint64_t seed = 0;  ///< of the numbers, which also depend on the tensor's name and the step
  static constexpr auto describe() {
    return policy{"add_noise", field{"eta", &add_noise::eta, ranges::not_negative},
                  field{"gamma", &add_noise::gamma, ranges::not_negative}, field{"seed", &add_noise::seed}};
  }

  template <class Algebra>
  void apply(basic_tensor_update<Algebra> const& t) const {
    std::int64_t const step = t.step;
    double const n = static_cast<double>(step);  // 1 + t
    auto const deviation =
        static_cast<float>(std::sqrt(static_cast<double>(eta) * std::pow(n, -static_cast<double>(gamma))));
    t.algebra.each_four(t.update, draw{{seed, hash(t.name), static_cast<std::uint64_t>(step)}, deviation});
  }

  // ---- for the algebra; public, because a device's kernels take nothing else
  /// Two pairs of Box and Muller.
  struct draw {
    random_stream stream;
    float deviation;

    template <class T>
    DOVETAIL_HD void operator()(std::uint32_t block, T* x, std::size_t n) const {
      auto const words = stream.words(block);
      for (std::size_t k = 0; k < n; ++k) {
        float const radius = std::sqrt(-2 * std::log(1 - random_stream::to_uniform(words[k & 2])));
        float const angle = 2 * std::numbers::pi_v<float> * random_stream::to_uniform(words[(k & 2) + 1]);
        x[k] += deviation * radius * (k & 1 ? std::sin(angle) : std::cos(angle));
      }
    }
  };

 private:
  /// FNV-1a: a tensor's noise depends on its name, not on its place in a list.
  static std::uint32_t hash(std::string_view name) {
    std::uint32_t h = 2166136261u;
    for (char const c : name) h = (h ^ static_cast<unsigned char>(c)) * 16777619u;
    return h;
  }
};

}  // namespace dovetail::optim
