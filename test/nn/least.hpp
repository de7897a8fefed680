// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstdint>

#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/loss.hpp>

namespace test {

namespace nn = dovetail::nn;

/// y = 2 x. Says nothing but what is needed, and can be called as nn/layer.hpp says only.
struct least_layer {
  static constexpr nn::shape output(nn::shape const& in) { return in; }
  template <class Backend>
  static void forward(nn::layer_call<Backend> const& c) {
    for (std::int64_t i = 0; i < c.out_size(); ++i) c.y[i] = 2 * c.x[i];
  }
  template <class Backend>
  static void forward(nn::layer_call<Backend>&) = delete;
  template <class Backend>
  static void backward(nn::layer_call<Backend> const& c) {
    for (std::int64_t i = 0; c.dx && i < c.out_size(); ++i) c.dx[i] = 2 * c.dy[i];
  }
  template <class Backend>
  static void backward(nn::layer_call<Backend>&) = delete;
};

/// Half the squared distance from one.
struct least_loss {
  template <std::same_as<nn::predictions> P, std::same_as<float> Scale>
  dovetail::loss_sums operator()(P const& p, Scale scale) const {
    dovetail::loss_sums sums;
    for (std::int64_t i = 0; i < p.rows() * p.classes; ++i) {
      float const error = p.logits[i] - 1;
      sums.loss += 0.5 * static_cast<double>(error) * static_cast<double>(error);
      if (p.gradients) p.gradients[i] = scale * error;
    }
    sums.count = p.rows();
    return sums;
  }
};

}  // namespace test
