// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

#include <dovetail/nn.hpp>

// Networks once more, sample by sample in double precision and in PyTorch's layouts, as the textbook writes them. It
// shares nothing with the library but the names of the layers.
namespace reference {

using dovetail::shape;
using values = std::vector<double>;
namespace nn = dovetail::nn;

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// Each layer: activations of one sample in, activations out; `w` points at the layer's weights and moves behind them.
template <int N>
values apply(nn::dense<N>, shape const& in, values const& x, double const*& w) {
  std::int64_t const f = in[in.rank - 1], rows = in.size() / f;
  double const* const bias = w + N * f;
  values y;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t o = 0; o < N; ++o) {
      double s = bias[o];
      for (std::int64_t i = 0; i < f; ++i) s += w[o * f + i] * x[at(r * f + i)];
      y.push_back(s);
    }
  w = bias + N;
  return y;
}

template <int F, int K, int S, int P>
values apply(nn::conv<F, K, S, P>, shape const& in, values const& x, double const*& w) {
  std::int64_t const c = in[0], h = in[1], wd = in[2], oh = (h + 2 * P - K) / S + 1, ow = (wd + 2 * P - K) / S + 1;
  double const* const bias = w + F * c * K * K;
  values y;
  for (int f = 0; f < F; ++f)
    for (std::int64_t oy = 0; oy < oh; ++oy)
      for (std::int64_t ox = 0; ox < ow; ++ox) {
        double s = bias[f];
        for (std::int64_t ch = 0; ch < c; ++ch)
          for (int i = 0; i < K; ++i)
            for (int j = 0; j < K; ++j) {
              auto const yy = oy * S + i - P, xx = ox * S + j - P;
              if (yy >= 0 && yy < h && xx >= 0 && xx < wd)
                s += w[((f * c + ch) * K + i) * K + j] * x[at((ch * h + yy) * wd + xx)];
            }
        y.push_back(s);
      }
  w = bias + F;
  return y;
}

template <int K, int S>
values apply(nn::max_pool<K, S>, shape const& in, values const& x, double const*&) {
  values y;
  for (std::int64_t c = 0; c < in[0]; ++c)
    for (std::int64_t oy = 0; oy <= (in[1] - K) / S; ++oy)
      for (std::int64_t ox = 0; ox <= (in[2] - K) / S; ++ox) {
        double m = -1e300;
        for (int i = 0; i < K; ++i)
          for (int j = 0; j < K; ++j) m = std::fmax(m, x[at((c * in[1] + oy * S + i) * in[2] + ox * S + j)]);
        y.push_back(m);
      }
  return y;
}

inline values apply(nn::flatten, shape const&, values const& x, double const*&) { return x; }
inline values apply(nn::relu, shape const&, values x, double const*&) {
  for (auto& v : x) v = v > 0 ? v : 0;
  return x;
}
inline values apply(nn::tanh, shape const&, values x, double const*&) {
  for (auto& v : x) v = std::tanh(v);
  return x;
}
inline values apply(nn::sigmoid, shape const&, values x, double const*&) {
  for (auto& v : x) v = sigmoid(v);
  return x;
}
template <float Rate>
values apply(nn::dropout<Rate>, shape const&, values x, double const*&) {
  return x;
}

/// Tokens arrive as numbers.
template <int V, int D>
values apply(nn::embedding<V, D>, shape const&, values const& tokens, double const*& w) {
  values y;
  for (double const t : tokens)
    for (int d = 0; d < D; ++d) y.push_back(w[static_cast<int>(t) * D + d]);
  w += V * D;
  return y;
}

/// One row of (W x + b): gate `g`, unit `j` of `h` units.
inline double affine(double const* w, double const* b, double const* x, std::int64_t n, std::int64_t row) {
  double s = b[row];
  for (std::int64_t i = 0; i < n; ++i) s += w[row * n + i] * x[i];
  return s;
}

template <int H>
values apply(nn::lstm<H>, shape const& in, values const& x, double const*& w) {
  std::int64_t const f = in[1];
  double const *wi = w, *wh = wi + 4 * H * f, *bi = wh + 4 * H * H, *bh = bi + 4 * H;
  w = bh + 4 * H;
  values h(H), c(H), y;
  for (std::int64_t t = 0; t < in[0]; ++t) {
    values next(H);
    for (int j = 0; j < H; ++j) {
      double g[4];
      for (int k = 0; k < 4; ++k)
        g[k] = affine(wi, bi, &x[at(t * f)], f, k * H + j) + affine(wh, bh, h.data(), H, k * H + j);
      c[at(j)] = sigmoid(g[1]) * c[at(j)] + sigmoid(g[0]) * std::tanh(g[2]);
      next[at(j)] = sigmoid(g[3]) * std::tanh(c[at(j)]);
    }
    h = next;
    y.insert(y.end(), h.begin(), h.end());
  }
  return y;
}

template <int H>
values apply(nn::gru<H>, shape const& in, values const& x, double const*& w) {
  std::int64_t const f = in[1];
  double const *wi = w, *wh = wi + 3 * H * f, *bi = wh + 3 * H * H, *bh = bi + 3 * H;
  w = bh + 3 * H;
  values h(H), y;
  for (std::int64_t t = 0; t < in[0]; ++t) {
    values next(H);
    for (int j = 0; j < H; ++j) {
      double const* const xt = &x[at(t * f)];
      double const r = sigmoid(affine(wi, bi, xt, f, j) + affine(wh, bh, h.data(), H, j));
      double const z = sigmoid(affine(wi, bi, xt, f, H + j) + affine(wh, bh, h.data(), H, H + j));
      double const n = std::tanh(affine(wi, bi, xt, f, 2 * H + j) + r * affine(wh, bh, h.data(), H, 2 * H + j));
      next[at(j)] = (1 - z) * n + z * h[at(j)];
    }
    h = next;
    y.insert(y.end(), h.begin(), h.end());
  }
  return y;
}

/// Outputs of one sample.
template <class Backend, shape Input, class... Layers>
values outputs(std::type_identity<nn::basic_network<Backend, Input, Layers...>>, values const& weights, values x) {
  using network = nn::basic_network<Backend, Input, Layers...>;
  double const* w = weights.data();
  std::size_t i = 0;
  ((x = apply(Layers{}, network::shapes[i++], x, w)), ...);
  return x;
}

/// Sum of the cross-entropies of a batch.
template <class Network>
double loss(values const& weights, dovetail::data::batch const& b) {
  auto const n = Network::input_shape.size(), classes = nn::width(Network::output_shape);
  double sum = 0;
  for (std::int64_t s = 0; s < b.size; ++s) {
    values x;
    for (std::int64_t i = s * n; i < (s + 1) * n; ++i)
      x.push_back(Network::input_is_tokens ? static_cast<double>(b.tokens[at(i)])
                                           : static_cast<double>(b.values[at(i)]));
    auto const y = outputs(std::type_identity<Network>{}, weights, x);
    for (std::int64_t p = 0; p < Network::positions; ++p) {
      double z = 0;
      for (std::int64_t k = 0; k < classes; ++k) z += std::exp(y[at(p * classes + k)]);
      sum += std::log(z) - y[at(p * classes + b.targets[at(s * Network::positions + p)])];
    }
  }
  return sum;
}

}  // namespace reference
