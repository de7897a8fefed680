// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What one would write by hand for one flat tensor, for the compiler to vectorize with -O3 -march=native
// -fno-math-errno: the peer of the library's engine. PyTorch's formulas, constants out of the loop.
#include <cmath>
#include <stdexcept>

#include <dovetail/core/buffer.hpp>

#include "optim_step.hpp"

namespace bench {
namespace {
void momentum(float* __restrict__ w, float const* __restrict__ g, float* __restrict__ b, std::size_t n, float lr,
              float mu, float decay) {
  for (std::size_t i = 0; i < n; ++i) {
    b[i] = mu * b[i] + (g[i] + decay * w[i]);
    w[i] -= lr * b[i];
  }
}
void adamw(float* __restrict__ w, float const* __restrict__ g, float* __restrict__ m, float* __restrict__ v,
           std::size_t n, float lr, float b1, float b2, float eps, float decay, float c1, float c2) {
  float const r1 = 1 - b1, r2 = 1 - b2, keep = 1 - lr * decay, rate = lr * c1;
  for (std::size_t i = 0; i < n; ++i) {
    m[i] = b1 * m[i] + r1 * g[i];
    v[i] = b2 * v[i] + r2 * g[i] * g[i];
    w[i] = keep * w[i] - rate * m[i] / (std::sqrt(v[i]) * c2 + eps);
  }
}
struct by_hand final : stepper {
  by_hand(rule r, dovetail::parameter_list const& p)
      : which(r), w(p.flat_weights()), g(p.flat_gradients()), m(w.size()), v(r == rule::adamw ? w.size() : 0) {}
  void step() override {
    ++t;
    if (which == rule::momentum) return momentum(w.data(), g.data(), m.data(), w.size(), 1e-3f, 0.9f, 0);
    auto const c1 = static_cast<float>(1 / (1 - std::pow(0.9, t))),
               c2 = static_cast<float>(1 / std::sqrt(1 - std::pow(0.999, t)));
    adamw(w.data(), g.data(), m.data(), v.data(), w.size(), 1e-3f, 0.9f, 0.999f, 1e-8f, 0.01f, c1, c2);
  }
  rule which;
  std::span<float> w, g;
  dovetail::buffer<float> m, v;
  int t = 0;
};
}  // namespace

__attribute__((visibility("default"))) std::unique_ptr<stepper> make_by_hand(rule r,
                                                                             dovetail::parameter_list const& p) {
  if (r != rule::momentum && r != rule::adamw) throw std::logic_error("not written by hand");
  return std::make_unique<by_hand>(r, p);
}
}  // namespace bench
