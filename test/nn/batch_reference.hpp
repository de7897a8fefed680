// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "nn/differences.hpp"
#include "nn/reference.hpp"

// The reference for networks in which samples of a batch are not apart, or with blocks or noise: all samples layer by
// layer, in double precision and in PyTorch's layouts.
namespace reference {

struct context {
  dovetail::gradient_pass pass;
  bool training = true;
  std::vector<double> buffers{};  ///< of evaluation, in the order of network.buffers()
  std::uint32_t position = 0;     ///< in the flat list of layers and of the ends of blocks
  std::size_t buffer = 0;
};
using samples = std::vector<values>;

template <class L>
void step(L layer, shape& s, samples& x, double const*& w, context& c) {
  double const* end = w;
  for (auto& one : x) {
    end = w;
    one = apply(layer, s, one, end);
  }
  w = end;
  s = L::output(s);
  ++c.position;
}

/// The feature or channel of element i of a sample.
inline std::size_t feature(shape const& s, std::size_t i) {
  return s.rank == 3 ? i / at(s[1] * s[2]) : i % at(s[s.rank - 1]);
}

template <float Momentum, float Epsilon>
void step(nn::batch_norm<Momentum, Epsilon>, shape& s, samples& x, double const*& w, context& c) {
  auto const f = at(nn::width(s)), n = at(s.size());
  values mean(f), variance(f);
  double const count = static_cast<double>(x.size() * n / f);
  for (auto const& one : x)
    for (std::size_t i = 0; i < n; ++i) mean[feature(s, i)] += one[i] / count;
  for (auto const& one : x)
    for (std::size_t i = 0; i < n; ++i) variance[feature(s, i)] += std::pow(one[i] - mean[feature(s, i)], 2) / count;
  if (!c.training)
    for (std::size_t j = 0; j < f; ++j) {
      mean[j] = c.buffers[c.buffer + j];
      variance[j] = c.buffers[c.buffer + f + j];
    }
  for (auto& one : x)
    for (std::size_t i = 0; i < n; ++i) {
      auto const j = feature(s, i);
      one[i] = (one[i] - mean[j]) / std::sqrt(variance[j] + static_cast<double>(Epsilon)) * w[j] + w[f + j];
    }
  w += 2 * f;
  c.buffer += 2 * f;
  ++c.position;
}

template <float Rate>
void step(nn::dropout<Rate>, shape& s, samples& x, double const*&, context& c) {
  auto const random = c.pass.random(0x40000000u + c.position);
  auto const n = s.size(), samples = static_cast<std::int64_t>(x.size()), f = nn::width(s), other = n / f;
  for (std::int64_t b = 0; b < samples && c.training; ++b)
    for (std::int64_t i = 0; i < n; ++i) {
      // Where the network has this element: images channels last, sequences step by step.
      auto const channel = static_cast<std::int64_t>(feature(s, at(i)));
      auto const step_or_pixel = s.rank == 3 ? i % other : i / f;
      auto const row = s.rank == 2 ? step_or_pixel * samples + b : b * other + step_or_pixel;
      bool const kept = random.uniform(static_cast<std::uint64_t>(row * f + channel)) >= Rate;
      auto& v = x[at(b)][at(i)];
      v = kept ? v / (1 - static_cast<double>(Rate)) : 0;
    }
  ++c.position;
}

template <class... L>
void step(nn::sequence<L...>, shape& s, samples& x, double const*& w, context& c);
template <class... L>
void step(nn::residual<L...>, shape& s, samples& x, double const*& w, context& c);
template <class... S, class... L>
void step(nn::residual<nn::shortcut<S...>, L...>, shape& s, samples& x, double const*& w, context& c);

inline void add(samples& x, samples const& y) {
  for (std::size_t b = 0; b < x.size(); ++b)
    for (std::size_t i = 0; i < x[b].size(); ++i) x[b][i] += y[b][i];
}
template <class... L>
void step(nn::sequence<L...>, shape& s, samples& x, double const*& w, context& c) {
  ++c.position;
  (step(L{}, s, x, w, c), ...);
  ++c.position;
}
template <class... L>
void step(nn::residual<L...>, shape& s, samples& x, double const*& w, context& c) {
  ++c.position;
  auto const before = x;
  (step(L{}, s, x, w, c), ...);
  add(x, before);
  ++c.position;
}
template <class... S, class... L>
void step(nn::residual<nn::shortcut<S...>, L...>, shape& s, samples& x, double const*& w, context& c) {
  ++c.position;
  auto side = x;
  auto side_shape = s;
  (step(S{}, side_shape, side, w, c), ...);
  ++c.position;
  (step(L{}, s, x, w, c), ...);
  add(x, side);
  ++c.position;
}

template <class Backend, shape Input, class... Layers>
samples outputs(std::type_identity<nn::basic_network<Backend, Input, Layers...>>, values const& weights, samples x,
                context c) {
  double const* w = weights.data();
  shape s = Input;
  (step(Layers{}, s, x, w, c), ...);
  return x;
}

/// Sum of the cross-entropies of a batch, all its samples at once.
template <class Network>
double batch_loss(values const& weights, dovetail::data::batch const& b, context const& c) {
  auto const n = Network::input_shape.size(), classes = nn::width(Network::output_shape);
  samples x(at(b.size));
  for (std::int64_t s = 0; s < b.size; ++s)
    for (std::int64_t i = s * n; i < (s + 1) * n; ++i)
      x[at(s)].push_back(Network::input_is_tokens ? static_cast<double>(b.tokens[at(i)])
                                                  : static_cast<double>(b.values[at(i)]));
  auto const all = outputs(std::type_identity<Network>{}, weights, x, c);
  double sum = 0;
  for (std::int64_t s = 0; s < b.size; ++s)
    for (std::int64_t p = 0; p < Network::positions; ++p) {
      auto const& y = all[at(s)];
      double z = 0;
      for (std::int64_t k = 0; k < classes; ++k) z += std::exp(y[at(p * classes + k)]);
      sum += std::log(z) - y[at(p * classes + b.targets[at(s * Network::positions + p)])];
    }
  return sum;
}

/// As differences::from_reference, of a batch at once.
template <class Model>
differences::distance from_batch_reference(Model m, dovetail::data::batch const& b,
                                           dovetail::gradient_pass const& pass = {}, std::size_t most = 60) {
  using network = decltype(m.network);
  auto& list = m.parameters();
  auto const before = std::vector<float>(list.flat_gradients().begin(), list.flat_gradients().end());
  double const loss = m.gradients(b, pass).loss;
  values w(list.flat_weights().begin(), list.flat_weights().end());
  auto const at_weights = [&] { return batch_loss<network>(w, b, {pass}); };
  double const expected = at_weights();
  differences::distance d{std::abs(loss - expected) / std::max(1.0, std::abs(expected)), 0, ""};
  constexpr double h = 1e-5;
  // A bias in front of a batch normalization has gradients of zero: tensors are compared with the largest gradient.
  double largest = 1e-6;
  std::vector<double> worst(list.size());
  for (std::size_t i = 0; i < list.size(); ++i)
    for (std::size_t j = 0; j < list[i].size(); j += std::max<std::size_t>(1, list[i].size() / most)) {
      double& x = w[list.offset(i) + j];
      double const was = x;
      x = was + h;
      double const up = at_weights();
      x = was - h;
      double const down = at_weights();
      x = was;
      double slope = static_cast<double>(pass.scale) * (up - down) / (2 * h);
      if (pass.accumulate) slope += static_cast<double>(before[list.offset(i) + j]);
      largest = std::max(largest, std::abs(slope));
      worst[i] = std::max(worst[i], std::abs(slope - static_cast<double>(list[i].gradient[j])));
    }
  for (std::size_t i = 0; i < list.size(); ++i)
    if (worst[i] / largest > d.gradient) d = {d.loss, worst[i] / largest, list[i].name};
  return d;
}

}  // namespace reference
