// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/concepts.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/data/loader.hpp>
#include <dovetail/optim/step_options.hpp>
#include <dovetail/train/options.hpp>
#include <dovetail/train/saved_state.hpp>

namespace dovetail::train {

/// Where a training stands: everything that is not a tensor. Saved as one row of integers.
struct position {
  std::int64_t step = 0;     ///< optimizer steps tried
  std::int64_t batches = 0;  ///< global micro-batches taken from the data
  std::int64_t skipped = 0;
  std::int64_t ranks = 0, batch = 0, accumulate = 0, seed = 0;  ///< with which it was reached

  static constexpr char const* name = "train.position";
  named_tensor tensor() { return make_named_tensor(name, std::span<std::int64_t>(&step, 7)); }
};
static_assert(sizeof(position) == 7 * sizeof(std::int64_t));

/// The weights of a list, by name: what a model contributes to a checkpoint.
DOVETAIL_COLD inline std::vector<named_tensor> weights_of(parameter_list& parameters) {
  std::vector<named_tensor> all;
  for (auto& p : parameters) all.push_back(make_named_tensor(p.name, p.weight, p.shape));
  return all;
}

/// One rank's part of one call of fit: joins model, optimizer, synchroniser and communicator, and loops.
template <class Model, class Optimizer, class Sync, class Dataset, communicator Communicator>
class rank_run {
 public:
  DOVETAIL_COLD rank_run(Model& model, Optimizer const& opt, Sync const& sync, Dataset const& data, Communicator& comm,
                         fit_options const& options, int threads)
      : model_(model),
        comm_(comm),
        options_(options),
        threads_(threads),
        data_(data),
        session_(sync.join(model.parameters(), opt, comm)) {
    if constexpr (requires { session_.record(options.trace); }) session_.record(options.trace);
    for (auto& p : model_.parameters()) comm_.broadcast(p.weight, 0);
  }

  /// Takes up everything that `saved` holds: weights, optimizer, this rank's residuals, the place in the data.
  DOVETAIL_COLD void restore(saved_state const& saved) {
    position found;
    saved.restore({found.tensor()});
    require<checkpoint_error>(found.seed == static_cast<std::int64_t>(options_.seed), "the saved run has seed ",
                              found.seed, ", this one ", options_.seed, ": give the same seed to go on with it");
    saved.check(weights_of(model_.parameters()));
    saved.check(session_.replicated(""));
    restore_own(saved, session_.own(""), found.ranks, comm_.size(), comm_.rank());
    saved.restore(weights_of(model_.parameters()));
    saved.restore(session_.replicated(""));
    if (found.ranks != comm_.size() || found.batch != options_.batch) {
      // As many epochs, and within the last one as many samples, in batches of another size.
      std::int64_t const samples = data_.size(), before = found.ranks * found.batch,
                         now = comm_.size() * options_.batch;
      auto const per_epoch = [samples](std::int64_t global) { return (samples + global - 1) / global; };
      found.batches =
          found.batches / per_epoch(before) * per_epoch(now) + found.batches % per_epoch(before) * before / now;
    }
    at_ = found;
  }

  /// This rank's own state and, if asked, what all ranks have in common.
  DOVETAIL_COLD saved_state capture(bool common) {
    at_.ranks = comm_.size();
    at_.batch = options_.batch;
    at_.accumulate = options_.accumulate;
    at_.seed = static_cast<std::int64_t>(options_.seed);
    saved_state s;
    s.add(session_.own(""), "rank" + std::to_string(comm_.rank()) + ".");
    if (common) {
      s.add(weights_of(model_.parameters()));
      s.add(session_.replicated(""));
      s.add({at_.tensor()});
    }
    return s;
  }

  DOVETAIL_COLD fit_report run() {
    data::loader<Dataset> loader(data_, {.batch = options_.batch,
                                         .rank = comm_.rank(),
                                         .ranks = comm_.size(),
                                         .seed = options_.seed,
                                         .shuffle = options_.shuffle,
                                         .start = at_.batches});
    std::int64_t const per_epoch = loader.steps_per_epoch();
    total_steps_ = options_.steps > 0 ? options_.steps
                                      : (options_.epochs * per_epoch + options_.accumulate - 1) / options_.accumulate;
    begin_ = last_report_ = clock::now();
    while (at_.step < total_steps_ && !report_.stopped) {
      skipped_in_a_row_ = one_step(loader) ? skipped_in_a_row_ + 1 : 0;
      bool const skipped_enough = skipped_in_a_row_ > 0 && skipped_in_a_row_ >= options_.max_skipped;
      bool const last = at_.step == total_steps_ || skipped_enough;
      if (last || at_.step % std::max<std::int64_t>(options_.log_every, 1) == 0) report();
      if (skipped_enough || (bad_losses_in_a_row_ > 0 && bad_losses_in_a_row_ >= options_.max_skipped)) give_up();
      if (last || report_.stopped || (options_.save_every > 0 && at_.step % options_.save_every == 0))
        save(options_.on_save);
    }
    report_.step = at_.step;
    report_.seconds = seconds_since(begin_);
    return std::move(report_);
  }

 private:
  using clock = std::chrono::steady_clock;
  static double seconds_since(clock::time_point t) { return std::chrono::duration<double>(clock::now() - t).count(); }

  DOVETAIL_COLD bool one_step(data::loader<Dataset>& loader) {
    auto const before = comm_.traffic();
    session_.begin();
    loss_sums sums;
    std::int64_t epoch = 0;
    std::int64_t samples = 0, window = 0;
    // The window's count is needed before its first backward: every micro-batch is weighed by the whole window's.
    for (std::int64_t m = 0; m < options_.accumulate; ++m) window += predictions_at(loader, at_.batches + m);
    for (std::int64_t m = 0; m < options_.accumulate; ++m) {
      auto const share = loader.next();
      gradient_pass pass{.scale = session_.gradient_scale(share.view.size * data_.predictions_per_sample(), window),
                         .accumulate = m > 0,
                         .seed = options_.seed,
                         .step = static_cast<std::uint64_t>(at_.batches),
                         .rank = static_cast<std::uint32_t>(comm_.rank()),
                         .threads = threads_};
      if constexpr (requires { pass.observe = session_.observer(); }) pass.observe = session_.observer();
      if (m + 1 == options_.accumulate) pass.ready = [this](std::size_t first) { session_.ready(first); };
      trace_span const computing(options_.trace, "forward and backward", "nn", comm_.rank());
      sums += model_.gradients(share.view, pass);
      ++at_.batches;
      epoch = share.epoch;
      samples += share.global_predictions / data_.predictions_per_sample();
    }
    auto const result = step();
    ++at_.step;
    at_.skipped += result.skipped;
    report_.skipped += result.skipped;
    report_.samples += samples;
    auto const moved = comm_.traffic() - before;
    report_.traffic.bytes_sent += moved.bytes_sent;
    report_.traffic.bytes_received += moved.bytes_received;
    report_.traffic.operations += moved.operations;
    pending_sums_.insert(pending_sums_.end(),
                         {sums.loss, static_cast<double>(sums.count), static_cast<double>(sums.correct)});
    pending_.push_back({.step = at_.step,
                        .epoch = epoch,
                        .lr = result.lr,
                        .skipped = result.skipped,
                        .gradient_norm = result.gradient_norm,
                        .seconds = seconds_since(begin_),
                        .bytes_sent = moved.bytes_sent,
                        .total_steps = total_steps_});
    pending_samples_ += samples;
    return result.skipped;
  }

  optim::step_result step() {
    if constexpr (requires(optim::step_options const& o) { session_.step(o); })
      return session_.step({.threads = threads_});
    else
      return session_.step();
  }

  /// Predictions of global micro-batch `b` over all ranks: the last one of an epoch may be smaller.
  std::int64_t predictions_at(data::loader<Dataset> const& loader, std::int64_t b) const {
    std::int64_t const global = options_.batch * comm_.size(), in_epoch = b % loader.steps_per_epoch();
    return std::min(global, loader.samples() - in_epoch * global) * data_.predictions_per_sample();
  }

  /// Collective: sums the pending losses over ranks and asks whether anybody wants to stop.
  DOVETAIL_COLD void report() {
    pending_sums_.push_back(options_.stop && options_.stop->load() ? 1.0 : 0.0);
    comm_.all_reduce(std::span<double>(pending_sums_), comm::reduction::sum);
    report_.stopped = pending_sums_.back() > 0;
    double const rate = static_cast<double>(pending_samples_) / std::max(seconds_since(last_report_), 1e-9);
    for (std::size_t i = 0; i < pending_.size(); ++i) {
      auto& r = pending_[i];
      double const count = std::max(pending_sums_[3 * i + 1], 1.0);
      r.loss = pending_sums_[3 * i] / count;
      r.accuracy = pending_sums_[3 * i + 2] / count;
      r.samples_per_second = rate;
      bad_losses_in_a_row_ = std::isfinite(r.loss) ? 0 : bad_losses_in_a_row_ + 1;
      report_.losses.push_back(r.loss);
      if (comm_.rank() == 0 && options_.on_step) options_.on_step(r);
    }
    if (!pending_.empty()) last_loss_ = pending_.back().loss;
    pending_.clear();
    pending_sums_.clear();
    pending_samples_ = 0;
    last_report_ = clock::now();
  }

  /// Collective: rank 0 collects what every rank has of its own and hands the whole to `take`.
  DOVETAIL_COLD void save(std::function<void(saved_state&)> const& take) {
    std::int64_t wanted = comm_.rank() == 0 && take ? 1 : 0;
    comm_.broadcast(std::span<std::int64_t>(&wanted, 1), 0);
    if (!wanted) return;
    trace_span const saving(options_.trace, "save", "train", comm_.rank());
    auto mine = capture(comm_.rank() == 0);
    if (comm_.rank() != 0) {
      auto const packed = mine.pack();
      std::uint64_t const n = packed.size();
      comm_.send(std::as_bytes(std::span(&n, 1)), 0, 0);
      comm_.send(std::span<std::byte const>(packed), 0, 0);
    } else {
      for (int r = 1; r < comm_.size(); ++r) {
        std::uint64_t n = 0;
        comm_.recv(std::as_writable_bytes(std::span(&n, 1)), r, 0);
        std::vector<std::byte> packed(n);
        comm_.recv(std::span<std::byte>(packed), r, 0);
        mine.merge(saved_state::unpack(packed));
      }
      take(mine);
    }
    comm_.barrier();  // nobody goes on, and changes weights that are views, before the state is safe
  }

  [[noreturn]] DOVETAIL_COLD void give_up() {
    save(options_.on_give_up);
    bool const gradient = skipped_in_a_row_ >= options_.max_skipped;
    throw numeric_error(message(gradient ? "the gradient" : "the loss", " was not finite for ",
                                gradient ? skipped_in_a_row_ : bad_losses_in_a_row_, " steps in a row, up to step ",
                                at_.step, " (loss ", last_loss_,
                                "): lower the learning rate or clip the gradient, and go on from the last good state"));
  }

  Model& model_;
  Communicator& comm_;
  fit_options const& options_;
  int threads_;
  Dataset data_;
  decltype(std::declval<Sync const&>().join(std::declval<parameter_list&>(), std::declval<Optimizer const&>(),
                                            std::declval<Communicator&>())) session_;
  position at_;
  fit_report report_;
  std::int64_t total_steps_ = 0;
  clock::time_point begin_, last_report_;
  std::vector<step_record> pending_;
  std::vector<double> pending_sums_;
  std::int64_t pending_samples_ = 0;
  std::int64_t skipped_in_a_row_ = 0, bad_losses_in_a_row_ = 0;
  double last_loss_ = 0;
};

}  // namespace dovetail::train
