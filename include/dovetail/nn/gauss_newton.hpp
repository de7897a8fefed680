// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/flat_copy.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/nn/loss.hpp>
#include <dovetail/nn/with_loss.hpp>
#include <dovetail/optim/second_order/hvp.hpp>

// The curvature of a network's loss that is left when the network is taken to be linear in its weights.

namespace dovetail::nn {

/// A loss that can multiply with its Hessian in the logits, which must be positive semi-definite: `curvature(p, scale,
/// v, out)` writes scale H v into out, rows × classes as p.logits.
template <class L>
concept curved_loss = loss<L> && loss_traits<L>::has_curvature;

namespace detail {
/// What curvature reads of a batch: of targets those that numbers or an ignored one make it read.
template <class Model>
void check_curvature_batch(Model const& model, data::batch const& b) {
  using traits = loss_traits<decltype(Model::loss)>;
  if constexpr (requires { Model::check_masks(b); }) {
    if (traits::takes_values || traits::ignore_index(model.loss))
      Model::check(b);
    else
      Model::check_masks(b);
  }
}
}  // namespace detail

/// Products with the Gauss-Newton matrix G = Jᵀ H J of a batch (Schraudolph, Fast curvature matrix-vector products,
/// Neural Computation 2002): J the derivative of all logits in the weights, H the Hessian of pass.scale × the sum of
/// the losses in the logits. J v is a central difference of logits, Jᵀ a backward pass: three forward passes and a
/// backward one. G is positive semi-definite wherever H is. A `hvp`; overwrites the gradients; dropout
/// keeps the mask that `pass` names. Refers to the model and the batch's memory. With pass.scale = 1/count it goes with
/// optim::batch_objective.
template <class Model>
class gauss_newton {
  DOVETAIL_REQUIRE(curved_loss<decltype(Model::loss)>,
                   "gauss_newton: the loss does not know its curvature: it needs curvature(predictions, scale, v, out)",
                   decltype(Model::loss));

 public:
  gauss_newton(Model& model, data::batch const& b, gradient_pass pass = {})
      : model_(&model), batch_(b), pass_(std::move(pass)), weights_(model.parameters().flat_size()) {
    pass_.accumulate = false;
    pass_.ready = {};
    pass_.observe = {};
    pass_.updates_buffers = false;
    detail::check_curvature_batch(model, b);
  }

  void operator()(std::span<float const> v, std::span<float> out) {
    auto& list = model_->parameters();
    require(v.size() == list.flat_size() && out.size() == v.size(), "gauss_newton: vectors of ", v.size(), " and ",
            out.size(), " elements for ", list.flat_size(), " parameters");
    auto& network = model_->network;
    double const step = optim::move_both_ways(list, v, weights_.span(), {.threads = pass_.threads}, [&](double way) {
      auto const p = network.forward(batch_, pass_, true);
      auto const n = static_cast<std::size_t>(p.rows() * p.classes);
      if (way > 0)
        change_.assign(p.logits, p.logits + n);
      else
        for (std::size_t i = 0; i < n; ++i) change_[i] -= p.logits[i];
    });
    if (step == 0) {
      std::fill(out.begin(), out.end(), 0.0f);
      return;
    }
    auto const p = network.forward(batch_, pass_, true);
    // The difference is divided behind H, which is linear: one rounding less.
    model_->loss.curvature(p, static_cast<float>(static_cast<double>(pass_.scale) * 0.5 / step), change_.data(),
                           p.gradients);
    network.backward(batch_, pass_);
    copy_to_flat(list, &parameter::gradient, out);
  }

 private:
  Model* model_;
  data::batch batch_;
  gradient_pass pass_;
  buffer<float> weights_;
  std::vector<float> change_;
};

/// Products with the Fisher information of a model of probabilities, for the natural gradient (Amari, Neural
/// Computation 1998): optim::hessian_free with it steps along (F + damping I)^-1 g. For a loss that is the negative
/// log-likelihood of an exponential family in its natural parameters, as softmax cross-entropy is, F = E[Jᵀ
/// (∂loss)(∂loss)ᵀ J] over the model's own targets is Jᵀ H J: the logits' Fisher information is the Hessian of the
/// log-partition function, which does not depend on the target (Martens, New insights and perspectives on the natural
/// gradient method, JMLR 2020, section 9.2). So this is gauss_newton, for losses that say so.
template <class Model>
class fisher : public gauss_newton<Model> {
  DOVETAIL_REQUIRE(loss_traits<decltype(Model::loss)>::is_log_likelihood,
                   "fisher: the loss is no negative log-likelihood in natural parameters: use gauss_newton",
                   decltype(Model::loss));

 public:
  using gauss_newton<Model>::gauss_newton;
};
template <class Model>
fisher(Model&, data::batch const&, gradient_pass) -> fisher<Model>;
template <class Model>
fisher(Model&, data::batch const&) -> fisher<Model>;

/// Gradients of the loss for targets drawn from the model's own softmax, into the parameters: pass.scale × their sum.
/// Their squares estimate the diagonal of the Gauss-Newton matrix (optim::bartlett_diagonal). Target of row r comes
/// from element r of `draw`, which must differ from step to step and, for other data, from rank to rank.
/// Running statistics stay; who observes layers is shown those of the drawn targets. Throws argument_error for weights
/// of predictions and for label smoothing, with which squares of drawn gradients estimate something else.
template <class Model>
void sampled_gradients(Model& model, data::batch const& b, gradient_pass pass, random_stream const& draw) {
  using traits = loss_traits<decltype(Model::loss)>;
  DOVETAIL_REQUIRE(!traits::takes_values,
                   "sampled_gradients: targets are drawn from a softmax, and this loss reads target_values",
                   decltype(Model::loss));
  require(b.weights.empty(),
          "sampled_gradients: of weighted predictions the squares of drawn gradients have the weights twice: give the "
          "batch without weights, and lengths for what is left out");
  if constexpr (requires { model.loss.label_smoothing; })
    require(model.loss.label_smoothing == 0, "sampled_gradients: with a label_smoothing of ",
            model.loss.label_smoothing,
            " the gradients of drawn targets have a mean, which their squares contain: sample with a model whose loss "
            "has none");
  detail::check_curvature_batch(model, b);
  pass.updates_buffers = false;
  auto p = model.network.forward(b, pass, true);
  auto const ignored = traits::ignore_index(model.loss);
  std::vector<std::int32_t> targets(static_cast<std::size_t>(p.rows()));
  for (std::int64_t r = 0; r < p.rows(); ++r) {
    auto const x = p.row(r);
    double const most = static_cast<double>(*std::max_element(x.begin(), x.end()));
    double sum = 0;
    for (float const z : x) sum += std::exp(static_cast<double>(z) - most);
    double left = static_cast<double>(draw.uniform(static_cast<std::uint64_t>(r))) * sum;
    std::size_t j = 0;
    for (; j + 1 < x.size(); ++j)
      if ((left -= std::exp(static_cast<double>(x[j]) - most)) < 0) break;
    auto& target = targets[static_cast<std::size_t>(p.sample(r) * p.positions + p.position(r))];
    target = ignored && p.target(r) == *ignored ? *ignored : static_cast<std::int32_t>(j);
  }
  p.targets = targets;
  static_cast<void>(model.loss(p, pass.scale));
  model.network.backward(b, pass);
}

}  // namespace dovetail::nn
