// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include <dovetail/comm/operation.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/trace.hpp>
#include <dovetail/io/saved_state.hpp>
#include <dovetail/optim/schedules/batch_schedule.hpp>

namespace dovetail::train {

/// One optimizer step, as rank 0 reports it. Losses are means over all ranks' predictions and equal on all backends;
/// where ranks train apart, each rank's are those of its own weights.
struct step_record {
  std::int64_t step = 0;   ///< optimizer steps tried so far, this one included
  std::int64_t epoch = 0;  ///< of the step's last batch, from 0
  double loss = 0;         ///< mean per prediction, in nats for cross-entropy
  double accuracy = 0;
  double lr = 0;                  ///< learning rate; where ranks train apart the mean of theirs
  std::int64_t samples = 0;       ///< over all ranks, in this step
  double noise_scale = 0;         ///< in samples, if the synchronizer measures it (optim::noise_scale)
  bool skipped = false;           ///< a gradient was not finite, nothing was changed (apart: on one rank or more)
  double gradient_norm = -1;      ///< if the optimizer computes it; -1 otherwise
  double seconds = 0;             ///< since fit began
  double samples_per_second = 0;  ///< over all ranks, since the previous report
  std::uint64_t bytes_sent = 0;   ///< by this rank in this step's exchange
  std::int64_t total_steps = 0;   ///< where fit will stop; 0: at the end of an epoch, batches change on the way
};

/// What a whole call of fit did.
struct fit_report {
  std::vector<double> losses;  ///< of every step made in this call, in order
  std::int64_t step = 0;       ///< steps since the training began, those before a restore included
  std::int64_t samples = 0;    ///< over all ranks, in this call
  std::int64_t skipped = 0;
  bool stopped = false;  ///< options.stop was raised
  double seconds = 0;
  comm::traffic traffic;  ///< moved by this rank's exchanges; logging and saving are not counted
};

/// How to train. All ranks must give the same values, `on_…`, `stop` and `trace` apart.
struct fit_options {
  std::int64_t batch = 32;      ///< samples per rank and micro-batch
  std::int64_t epochs = 1;      ///< of this data, counted from the beginning of the training, restored ones included
  std::int64_t steps = 0;       ///< if positive: stop after so many steps instead, likewise counted, skipped ones too
  std::int64_t accumulate = 1;  ///< micro-batches whose gradients make one step; fewer where the last epoch ends
  /// If set, their number for the next step instead: optim::increase_batch, noise_batch, coupled_batch or any function
  /// of what is equal on all ranks. Steps are then reported one by one, whatever log_every says.
  std::function<std::int64_t(optim::batch_facts const&)> accumulate_at{};
  std::uint64_t seed = 0;  ///< of shuffle and dropout
  bool shuffle = true;
  bool new_data = false;        ///< go on although the data are others than before: their epochs are counted from 0
  int threads = 0;              ///< cores per rank; 0: this machine's by all ranks of the job, of those that it may use
  std::int64_t log_every = 10;  ///< steps between reports, of which saving makes one, too; `stop` is looked at then
  std::int64_t save_every = 0;  ///< steps between calls of on_save; 0: only when fit ends, also if it makes no step
  /// After so many steps in a row whose gradient or loss is not finite fit gives up with numeric_error.
  std::int64_t max_skipped = 10;
  /// Raised by anyone: save and return. By a signal handler only on a stack of its own (SA_ONSTACK), or better by a
  /// thread that waits for signals (examples/interruption.hpp): oneDNN's products keep numbers where a handler writes.
  std::atomic<bool> const* stop = nullptr;
  dovetail::trace* trace = nullptr;                   ///< records compute, exchange and steps of this process's ranks
  std::function<void(step_record const&)> on_step{};  ///< on rank 0, once for every step, in groups of log_every
  std::function<void(io::saved_state&)> on_save{};    ///< on rank 0: everything that is needed to go on
  /// On rank 0, instead of on_save, when fit gives up. The steps before those that failed may have ruined the weights:
  /// keep this state apart from the last good one.
  std::function<void(io::saved_state&)> on_give_up{};
};

/// Throws argument_error for values that cannot work; otherwise the same options.
DOVETAIL_COLD inline fit_options const& checked(fit_options const& o) {
  require(o.batch >= 1, "fit: batch is ", o.batch, ": it must be at least 1 sample per rank");
  require(o.accumulate >= 1, "fit: accumulate is ", o.accumulate, ": it must be at least 1 micro-batch");
  require(o.epochs >= 0 && o.steps >= 0, "fit: epochs is ", o.epochs, " and steps ", o.steps,
          ": neither can be negative");
  require(o.threads >= 0, "fit: threads is ", o.threads, ": it is a number of cores, or 0 for all of them");
  require(o.log_every >= 0 && o.save_every >= 0, "fit: log_every is ", o.log_every, " and save_every ", o.save_every,
          ": both are numbers of steps");
  require(o.max_skipped >= 1, "fit: max_skipped is ", o.max_skipped, ": it must be at least 1 step");
  return o;
}

}  // namespace dovetail::train
