// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/communicator_traits.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/volume.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/batch.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/flat_copy.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/trace.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/sync/agreement.hpp>
#include <dovetail/sync/hyperparameters.hpp>
#include <dovetail/sync/replica.hpp>

namespace dovetail::sync {

namespace detail {
/// f(weights) for pieces of memory as large as they come: the whole list, or each of tensors that lie apart.
template <class F>
void each_piece(parameter_list& parameters, F const& f) {
  if (auto const flat = parameters.flat_weights(); !flat.empty()) return f(flat);
  for (auto& p : parameters) f(p.weight);
}
}  // namespace detail

template <optimizer Optimizer, communicator Communicator>
class local_sgd_session;

/// Ranks train apart, each by its own gradients, and agree by taking the mean of their weights: w <- (w_0 + … +
/// w_{P-1}) / P, after every `every` steps (local SGD; Stich, ICLR 2019), or at the end alone. The latter, on weights
/// that all ranks trained together with a large batch, is SWAP (Gupta, Serrano & DeCoste, Stochastic Weight Averaging
/// in Parallel, ICLR 2020):
///
///     train::trainer together{model, optim::lars{…}, sync::all_reduce{}, world};           // phase 1, large batches
///     together.fit(data, {…});
///     train::trainer apart{together.model(), optim::momentum{…}, sync::local_sgd{}, world};  // phases 2 and 3
///     apart.fit(data, {…});                                                                 // apart.model(): the mean
///
/// Any optimizer, not SGD alone. Its state stays on its rank and is never averaged, copies of weights in it included:
/// with `every`, lookahead, schedule_free and entropy_sgd pull each rank back to its own, cocob and madgrad begin each
/// step at their own first weights, and dog, dowg and prodigy measure from theirs. A gradient that is not finite makes
/// its rank alone skip the step. Of the running statistics of batch normalization the trainer takes the mean as well;
/// those of the mean weights are others: take them again, with a few batches that are not stepped, where that matters.
///
/// `join` is collective and checks what sync::all_reduce's does; initial weights must be equal on all ranks
/// (sync::make_equal). A mean says after how many steps it is taken: ranks that have made another number throw
/// rank_diverged.
struct local_sgd {
  std::int64_t every = 0;    ///< steps from one mean to the next, skipped ones included; 0: at the end alone
  bool check_equal = false;  ///< join compares all ranks' starting weights, bit for bit, and hyperparameters

  /// Throws argument_error for a negative `every`, and for weights that are not in the list.
  template <optimizer Optimizer, communicator Communicator>
  auto join(parameter_list& parameters, Optimizer const& opt, Communicator& comm) const {
    DOVETAIL_REQUIRE(!optim::optimizer_traits<Optimizer>::steps_together,
                     "needs the same gradients on all ranks, which sync::local_sgd lets train apart: use "
                     "sync::all_reduce, or the optimizer undivided",
                     Optimizer);
    static_assert(comm::detail::must_keep_replicas_equal<Communicator>::holds);
    require_same_list(parameters, comm, "sync::local_sgd");
    if (check_equal) {
      require_equal_weights(parameters, comm, "sync::local_sgd");
      require_equal_hyperparameters(hyperparameters_of(opt), comm, "sync::local_sgd");
    }
    return local_sgd_session<Optimizer, Communicator>(*this, parameters, opt, comm);
  }

  template <class T, class Space, class Optimizer, class Communicator>
  requires detail::other_list<basic_parameter_list<T, Space>>
  auto join(basic_parameter_list<T, Space>&, Optimizer const&, Communicator&) const {
    static_assert(detail::refuse_list<basic_parameter_list<T, Space>>());
  }

  /// What one mean moves on rank `rank` of `ranks`: equal to what the communicator counts.
  DOVETAIL_COLD comm::traffic predict(parameter_list parameters, int ranks, int rank) const {
    comm::traffic total;
    detail::each_piece(parameters, [&](std::span<float> weights) {
      total =
          total + comm::volume_of({comm::operation::all_reduce, dtype::f32, comm::reduction::sum, -1, weights.size()},
                                  ranks, rank);
    });
    return total;
  }
};

/// One rank's end of local_sgd. Made by local_sgd::join; refers to the caller's parameters and communicator, which must
/// outlive it. Not thread-safe.
template <optimizer Optimizer, communicator Communicator>
class local_sgd_session {
 public:
  static constexpr bool independent = true;

  DOVETAIL_COLD local_sgd_session(local_sgd const& policy, parameter_list& parameters, Optimizer const& opt,
                                  Communicator& comm)
      : replica_(parameters, opt), comm_(&comm), every_(policy.every) {
    require(every_ >= 0, "sync::local_sgd: every is ", every_, ": it is a number of steps, or 0 for the end alone");
    require(!parameters.has_opaque(),
            "sync::local_sgd: some weights are not in the list but elsewhere, where it cannot average them: "
            "give it a list with their memory");
  }
  local_sgd_session(local_sgd_session const&) = delete;
  local_sgd_session& operator=(local_sgd_session const&) = delete;

  /// Begins a step, on this rank's weights.
  void begin() {
    if (now_ != weights::own) put_back();
    now_ = weights::own;
    replica_.forget_observed();
  }
  /// Each rank's loss is a mean over its own predictions.
  float gradient_scale(std::int64_t local, std::int64_t /*global*/) const {
    return 1.f / static_cast<float>(std::max<std::int64_t>(local, 1));
  }
  void ready(std::size_t /*first*/) {}
  /// For gradient_pass::observe: empty unless the optimizer learns from layers, here from this rank's alone.
  std::function<void(kfac_statistics const&)> observer() { return replica_.observer(); }

  /// Between two steps: gives an estimate of the Hessian's diagonal to this rank's optimizer. False if it is not
  /// finite.
  bool observe(optim::hessian_diagonal const& d) requires(optim::optimizer_traits<Optimizer>::needs.curvature) {
    return replica_.observe(d);
  }

  /// Applies the optimizer to this rank's gradients; collective in every `every`-th call.
  optim::step_result step(optim::step_context const& context = {}) {
    ++tried_;
    auto const result = own_step(context);
    if (every_ > 0 && tried_ % every_ == 0) average();
    return result;
  }

  /// Collective: the parameters become the mean over ranks. Nothing else changes: the next begin() puts this rank's
  /// weights back, so a training that goes on is as if it had not been asked.
  DOVETAIL_COLD void finish() {
    if (now_ == weights::mean) return;
    if (now_ == weights::own)
      keep();
    else
      put_back();
    average();
    now_ = weights::mean;
  }

  DOVETAIL_COLD std::vector<named_tensor> replicated(std::string const&) { return {}; }
  /// This rank's weights and its optimizer's state. What is written through them counts from the next begin() or
  /// finish() on.
  DOVETAIL_COLD std::vector<named_tensor> own(std::string const& prefix) {
    if (now_ == weights::own) keep();
    now_ = weights::kept;
    auto all = replica_.state().tensors(prefix + "optimizer.");
    all.push_back(make_named_count(prefix + "steps", tried_));
    auto const& parameters = replica_.parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      auto const& p = parameters[i];
      all.push_back(make_named_tensor(prefix + "weights." + p.name,
                                      kept_.span().subspan(parameters.offset(i), p.size()), p.shape));
    }
    return all;
  }

  /// Records every step and every mean from now on; nullptr stops it.
  void record(trace* to) { trace_ = to; }

 private:
  /// What the parameters hold: this rank's weights; those, or others to be put back, are kept; the mean, and they are.
  enum class weights { own, kept, mean };

  optim::step_result own_step(optim::step_context const& context) {
    bool const finite = std::all_of(replica_.parameters().begin(), replica_.parameters().end(),
                                    [](parameter const& p) { return all_finite(p.gradient); });
    return finite ? replica_.step(context, trace_, comm_->rank()) : replica_.skip();
  }
  /// Sums run in rank order and are divided once: the same bits on every rank and every backend.
  DOVETAIL_COLD void average() {
    trace_span const averaging(trace_, "average weights", "comm", comm_->rank());
    auto const ranks = static_cast<float>(comm_->size());
    comm::subject about{tried_, 0};
    detail::each_piece(replica_.parameters(), [&](std::span<float> w) {
      detail::with_subject(*comm_, about, [&] { comm_->all_reduce(w, comm::reduction::sum); });
      ++about.bucket;
      for (float& x : w) x /= ranks;
    });
  }
  DOVETAIL_COLD void keep() {
    auto const& parameters = replica_.parameters();
    if (kept_.size() != parameters.flat_size()) kept_ = buffer<float>(parameters.flat_size());
    copy_to_flat(parameters, &parameter::weight, kept_.span());
  }
  DOVETAIL_COLD void put_back() { copy_from_flat(kept_.span(), replica_.parameters(), &parameter::weight); }

  replica<Optimizer> replica_;
  Communicator* comm_;
  std::int64_t every_ = 0, tried_ = 0;
  weights now_ = weights::own;
  buffer<float> kept_;  ///< this rank's weights, while the parameters hold others
  trace* trace_ = nullptr;
};

}  // namespace dovetail::sync
