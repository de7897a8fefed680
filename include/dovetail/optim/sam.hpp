// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/model_traits.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/linalg/span_math.hpp>

namespace dovetail::optim {

/// Sharpness-aware minimization (SAM: Foret et al., ICLR 2021, algorithm 1; ASAM: Kwon et al., ICML 2021, equation 9)
/// as a model around a model: its gradients are those at w + e, where e climbs from w by `rho`:
///
///     e = rho g / |g|                      with `adaptive` off
///     e = rho T^2 g / |T g|, T = |w| + eta   with it, elementwise: the same for rescaled weights
///
/// g being this batch's gradient at w, |g| over all tensors. Losses are those at w; weights are w again afterwards, to
/// the bit. Every rank climbs by its own share of the batch, as in the paper (m-sharpness, section 4.1). Two
/// evaluations of gradients per step; any optimizer, codec and synchronizer works behind it:
///
///     train::trainer t{optim::sam{model, 0.05f}, optim::adamw{}, sync::all_reduce{}, comm};
template <class Model>
struct sam {
  Model model;            ///< whose weights are trained
  float rho = 0.05f;      ///< length of the climb, in units of the weights
  bool adaptive = false;  ///< ASAM instead of SAM; rho is then ten times as large
  float eta = 0.01f;      ///< of ASAM: keeps small weights moving
  static constexpr auto describe() {
    return policy{"sam", field{"model", &sam::model}, field{"rho", &sam::rho, ranges::not_negative},
                  field{"adaptive", &sam::adaptive}, field{"eta", &sam::eta, ranges::not_negative}};
  }

  /// Whether the model can be evaluated, and so this one.
  static constexpr bool evaluates = model_traits<Model>::evaluates;

  parameter_list& parameters() { return model.parameters(); }
  parameter_list const& parameters() const { return model.parameters(); }

  /// Of data without masks as many as there are targets, of a model that does not say.
  std::int64_t predictions(data::batch const& b) {
    if constexpr (!model_traits<Model>::has_predictions)
      require(b.weights.empty() && b.lengths.empty(),
              "sam: the batch leaves predictions out (weights, lengths), and the model has no "
              "`predictions(data::batch const&)`: the mean over those that count needs their number");
    auto const given = b.targets.empty() ? b.target_values.size() : b.targets.size();
    return model_traits<Model>::predictions(model, b, static_cast<std::int64_t>(given));
  }
  bool masks() { return model_traits<Model>::masks(model); }
  static constexpr bool buffered = model_traits<Model>::has_buffers;
  std::vector<named_tensor> buffers() { return model_traits<Model>::buffers(model); }

  /// As the model's. A gradient of 0, or one that is not finite, climbs nowhere.
  template <class Batch>
  loss_sums gradients(Batch const& b, gradient_pass const& pass) {
    check_policy(*this);
    auto& list = model.parameters();
    if (weights_.size() != list.flat_size()) weights_ = buffer<float>(list.flat_size());
    if (pass.accumulate && sums_.size() != list.flat_size()) sums_ = buffer<float>(list.flat_size());
    each(list, [&](parameter& p, std::size_t at) {
      std::copy(p.weight.begin(), p.weight.end(), weights_.data() + at);
      if (pass.accumulate) std::copy(p.gradient.begin(), p.gradient.end(), sums_.data() + at);
    });
    gradient_pass here = pass;
    here.accumulate = false;
    here.ready = {};
    here.observe = {};
    auto const losses = model.gradients(b, std::as_const(here));
    climb(list);
    if (pass.accumulate)
      each(list, [&](parameter& p, std::size_t at) { std::copy_n(sums_.data() + at, p.size(), p.gradient.begin()); });
    restore const back{*this, list};
    gradient_pass second = pass;
    second.updates_buffers = false;
    model.gradients(b, std::as_const(second));
    return losses;
  }
  template <class Batch, class M = Model>
  requires(model_traits<M, Batch>::evaluates) auto evaluate(Batch const& b, int threads = 1) {
    return model.evaluate(b, threads);
  }
  template <class Batch, class M = Model>
  requires(model_traits<M, Batch>::predicts) auto predict(Batch const& b, int threads = 1) {
    return model.predict(b, threads);
  }

  // Room that grows with the model; no part of the value.
  buffer<float> weights_{}, sums_{};

 private:
  /// The weights go back even if the second evaluation throws.
  struct restore {
    sam& self;
    parameter_list& list;
    ~restore() {
      each(list,
           [&](parameter& p, std::size_t at) { std::copy_n(self.weights_.data() + at, p.size(), p.weight.begin()); });
    }
  };
  template <class F>
  static void each(parameter_list& list, F const& f) {
    std::size_t i = 0;
    for (auto& p : list) f(p, list.offset(i++));
  }
  void climb(parameter_list& list) const {
    simd::pack const shift = eta;
    bool const scaled = adaptive;
    auto const direction = [=](simd::pack w, simd::pack g) {
      return scaled ? (simd::abs(w) + shift) * g : g;  // T g
    };
    double sum = 0;
    each(list, [&](parameter& p, std::size_t) {
      detail::map(p.gradient, direction, p.weight, p.gradient);
      sum += detail::sum_of_squares(p.gradient);
    });
    double const norm = std::sqrt(sum);
    if (!is_finite(norm) || !(norm > 0)) return;
    simd::pack const step = static_cast<float>(static_cast<double>(rho) / norm);
    each(list, [&](parameter& p, std::size_t) {
      detail::map(
          p.weight, [=](simd::pack w, simd::pack d) { return w + step * (scaled ? (simd::abs(w) + shift) * d : d); },
          p.weight, p.gradient);
    });
  }
};
template <class Model>
sam(Model) -> sam<Model>;
template <class Model, class... Rest>
sam(Model, Rest...) -> sam<Model>;

}  // namespace dovetail::optim
