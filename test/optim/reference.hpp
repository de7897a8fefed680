// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>

// What the tests of optimizers share: parameters of awkward sizes, gradients that depend on the weights, and the rules
// in double precision, one tensor at a time, written from the papers' formulas and from nothing of the library's.
namespace test {

using dovetail::arena;
using dovetail::parameter_list;

inline std::vector<arena::tensor> awkward_sizes() {
  return {{"a.weight", {1}},  {"a.bias", {31}},          {"empty", {0}},  {"b.weight", {3, 11}},
          {"b.bias", {1000}}, {"c.weight", {2, 37, 59}}, {"c.bias", {32}}};
}

inline void fill(std::span<float> x, std::uint32_t stream, float scale = 1) {
  dovetail::random_stream const r{11, stream};
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = scale * (2 * r.uniform(i) - 1);
}

/// The gradient of step t: noise plus a pull towards 0, so that trajectories differ if weights do.
inline void make_gradients(arena& a, std::uint32_t t, float scale = 1) {
  fill(a.gradients(), 100 + t, scale);
  for (std::size_t i = 0; i < a.gradients().size(); ++i) a.gradients()[i] += 0.3f * scale * a.weights()[i];
}

using vec = std::vector<double>;

inline double norm(vec const& x) {
  double s = 0;
  for (double v : x) s += v * v;
  return std::sqrt(s);
}

/// One tensor: the weights in double and the rule's memory.
struct tensor {
  vec w;
  vec m, v;
};

/// A rule for one tensor: changes it by the gradient of step t (from 1).
using reference_rule = std::function<void(tensor&, vec g, int t)>;

/// Runs `steps` steps of the library's optimizer and of the reference beside it, each with the gradient at the
/// library's weights, and returns the largest difference of weights.
template <class Optimizer>
double largest_difference(Optimizer const& opt, reference_rule const& rule, int steps = 60, float gradient_scale = 1,
                          std::function<void(std::vector<vec>&)> const& prepare = {}) {
  arena a(awkward_sizes());
  fill(a.weights(), 1);
  auto& p = a.parameters();
  auto state = opt.init(p);
  std::vector<tensor> ref(p.size());
  for (std::size_t i = 0; i < p.size(); ++i) {
    ref[i].w.assign(p[i].weight.begin(), p[i].weight.end());
    ref[i].m.assign(ref[i].w.size(), 0);
    ref[i].v.assign(ref[i].w.size(), 0);
  }
  double worst = 0;
  for (int t = 1; t <= steps; ++t) {
    make_gradients(a, static_cast<std::uint32_t>(t), gradient_scale);
    std::vector<vec> g;
    for (auto const& x : p) g.emplace_back(x.gradient.begin(), x.gradient.end());
    if (prepare) prepare(g);
    opt.step(p, state);
    for (std::size_t i = 0; i < p.size(); ++i) {
      rule(ref[i], g[i], t);
      for (std::size_t k = 0; k < ref[i].w.size(); ++k)
        worst = std::max(worst, std::abs(ref[i].w[k] - static_cast<double>(p[i].weight[k])));
    }
  }
  return worst;
}

// ---- the papers' rules

inline reference_rule sgd(double lr, double decay) {
  return [=](tensor& x, vec g, int) {
    for (std::size_t i = 0; i < g.size(); ++i) x.w[i] -= lr * (g[i] + decay * x.w[i]);
  };
}
inline reference_rule momentum(double lr, double mu, double dampening, double decay, bool nesterov) {
  return [=](tensor& x, vec g, int t) {
    for (std::size_t i = 0; i < g.size(); ++i) {
      double const d = g[i] + decay * x.w[i];
      x.m[i] = t == 1 ? d : mu * x.m[i] + (1 - dampening) * d;
      x.w[i] -= lr * (nesterov ? d + mu * x.m[i] : x.m[i]);
    }
  };
}
/// Adam with both kinds of decay.
inline reference_rule adam(double lr, double b1, double b2, double eps, double l2, double decoupled) {
  return [=](tensor& x, vec g, int t) {
    for (std::size_t i = 0; i < g.size(); ++i) {
      double const d = g[i] + l2 * x.w[i];
      x.m[i] = b1 * x.m[i] + (1 - b1) * d;
      x.v[i] = b2 * x.v[i] + (1 - b2) * d * d;
      double const mhat = x.m[i] / (1 - std::pow(b1, t)), vhat = x.v[i] / (1 - std::pow(b2, t));
      x.w[i] = x.w[i] * (1 - lr * decoupled) - lr * mhat / (std::sqrt(vhat) + eps);
    }
  };
}
inline reference_rule lars(double lr, double mu, double decay, double trust) {
  return [=](tensor& x, vec g, int) {
    double const wn = norm(x.w), gn = norm(g);
    double const rate = wn > 0 && gn > 0 ? trust * wn / (gn + decay * wn) : 1;
    for (std::size_t i = 0; i < g.size(); ++i) {
      x.m[i] = mu * x.m[i] + lr * rate * (g[i] + decay * x.w[i]);
      x.w[i] -= x.m[i];
    }
  };
}
inline reference_rule lamb(double lr, double b1, double b2, double eps, double decay, double low = 0,
                           double high = INFINITY) {
  return [=](tensor& x, vec g, int t) {
    vec r(g.size());
    for (std::size_t i = 0; i < g.size(); ++i) {
      x.m[i] = b1 * x.m[i] + (1 - b1) * g[i];
      x.v[i] = b2 * x.v[i] + (1 - b2) * g[i] * g[i];
      double const mhat = x.m[i] / (1 - std::pow(b1, t)), vhat = x.v[i] / (1 - std::pow(b2, t));
      r[i] = mhat / (std::sqrt(vhat) + eps) + decay * x.w[i];
    }
    double const phi = std::min(std::max(norm(x.w), low), high), rn = norm(r);
    double const ratio = phi > 0 && rn > 0 ? phi / rn : 1;
    for (std::size_t i = 0; i < g.size(); ++i) x.w[i] -= lr * ratio * r[i];
  };
}
/// Scales all gradients so that their common norm is at most `most`.
inline void clip(std::vector<vec>& all, double most) {
  double s = 0;
  for (auto const& g : all) s += norm(g) * norm(g);
  double const f = std::sqrt(s) > most ? most / std::sqrt(s) : 1;
  for (auto& g : all)
    for (double& x : g) x *= f;
}

}  // namespace test
