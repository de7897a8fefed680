// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/data/dataset.hpp>
#include <dovetail/data/epoch_order.hpp>

namespace dovetail::data {

/// Whose share is loaded, in which order, from where on.
struct loader_options {
  std::int64_t batch = 1;  ///< samples per rank and step
  int rank = 0;
  int ranks = 1;
  std::uint64_t seed = 0;  ///< of the order; the same on all ranks
  bool shuffle = true;
  bool own_order = false;  ///< every rank goes through all samples, in an order of its own
  std::int64_t start =
      0;                 ///< samples of the order, of all epochs, that were taken before: a resumed run continues here
  bool prefetch = true;  ///< a thread fills the next batch while this one is used
};

/// What next() gives: this rank's share of one step's samples.
struct loaded_batch {
  dovetail::data::batch view;           ///< valid until the following next(); may be empty at the end of an epoch
  std::int64_t global_predictions = 0;  ///< of this step over all ranks: what a mean divides by
  std::int64_t epoch = 0;
  std::int64_t position = 0;  ///< samples of the order, of all epochs, that come before it
};

/// A step takes the next P·B positions of the epoch's order (P ranks, B samples per rank) and rank r its shard of them:
/// P ranks with B see the samples of one rank with P·B, in the same order. The last slice of an epoch may be smaller;
/// it is divided as evenly as possible, and a rank's share of it may be empty. With own_order a rank takes the next B
/// positions of an order of its own; rank 0's is that of a single rank.
/// Positions are counted in samples, through all epochs: where a run stands means the same with another batch or number
/// of ranks, and an order is a pure function of seed and epoch, so `start` is all that a resumed run needs.
///
/// Throws argument_error for options that do not fit; what the dataset throws while loading comes out of next(), and
/// out of every later next(). Used by one thread.
template <class Dataset>
class loader {
  static_assert(detail::must_be_a_dataset<Dataset>::holds);

 public:
  loader(Dataset dataset, loader_options options) : shared_(std::make_unique<shared>(std::move(dataset), options)) {
    if (options.prefetch) shared_->thread = std::thread([s = shared_.get()] { s->work(); });
  }

  /// Steps of one whole epoch, the smaller last one included.
  std::int64_t steps_per_epoch() const { return shared_->steps_per_epoch; }
  /// Samples of the dataset.
  std::int64_t samples() const { return shared_->samples; }
  /// What a step takes.
  struct sample_counts {
    std::int64_t own = 0, all = 0;  ///< samples of this rank, and of all ranks together
    std::int64_t positions = 0;     ///< of the order: the following step begins so much later
  };
  /// Of a step that begins at `position`.
  sample_counts samples_at(std::int64_t position) const { return shared_->samples_at(position); }
  /// Steps from one position to a later one.
  std::int64_t steps_between(std::int64_t from, std::int64_t to) const { return shared_->steps_between(from, to); }
  /// Where the batch begins that the following next() gives.
  std::int64_t position() const { return shared_->position; }

  /// Whether next() would return, or throw, within so long. Without prefetch nothing is loaded before next().
  bool ready_within(std::chrono::milliseconds patience) const { return shared_->ready_within(patience); }
  /// The batch of the next step; gives the previous one back.
  loaded_batch next() { return shared_->next(); }

 private:
  struct slot {
    batch_buffer buffer;
    loaded_batch result;
  };

  // Behind a pointer: the thread refers to it while the loader moves.
  struct shared {
    static constexpr std::int64_t furthest = std::int64_t{1} << 62;  // nobody gets from here to the largest number
    Dataset const source;
    loader_options const options;
    int sharers = 1;  // the ranks that divide an epoch among each other
    std::int64_t samples = 0, slice = 0, steps_per_epoch = 0;

    std::vector<std::int64_t> order;
    std::int64_t order_epoch = -1;
    std::array<slot, 2> slots;
    std::int64_t taken = 0, position = 0;  // batches that next() has given out, and where the following one begins
    std::int64_t fill_position = 0;        // where the batch begins that fill() loads next

    std::mutex mutex;
    std::condition_variable changed;
    std::int64_t filled = 0;  // batches that are loaded; guarded, as is everything below
    std::int64_t needed = 1;  // batches up to which slots are free to be filled
    bool stop = false;
    std::exception_ptr failure;
    std::thread thread;

    DOVETAIL_COLD shared(Dataset&& d, loader_options const& o) : source(std::move(d)), options(o) {
      samples = static_cast<std::int64_t>(source.size());
      require(samples >= 1, "loader: the dataset is empty: there is nothing to load");
      require(o.batch >= 1, "loader: batch is ", o.batch, ": it must be at least 1 sample per rank");
      require(o.ranks >= 1, "loader: ranks is ", o.ranks, ": it must be at least 1");
      require(o.rank >= 0 && o.rank < o.ranks, "loader: rank is ", o.rank, ", but ranks run from 0 to ", o.ranks - 1);
      require(o.start >= 0 && o.start <= furthest, "loader: start is ", o.start,
              ": samples are counted from 0 to at most 2^62, through all epochs");
      sharers = o.own_order ? 1 : o.ranks;
      require(o.batch <= samples / sharers, "loader: ", sharers, " rank(s) × batch ", o.batch, " is more than the ",
              samples, " samples of the dataset: use a batch of at most ", samples / sharers,
              samples < sharers ? " (there are fewer samples than ranks)" : "");
      slice = o.batch * sharers;
      auto const predictions = static_cast<std::int64_t>(source.predictions_per_sample());
      require(predictions >= 1 && predictions <= furthest / o.batch / o.ranks, "loader: the dataset says ", predictions,
              " predictions per sample: there must be at least 1, and few enough to be counted");
      steps_per_epoch = (samples + slice - 1) / slice;
      position = fill_position = o.start;
    }
    DOVETAIL_COLD ~shared() {
      {
        std::lock_guard const lock(mutex);
        stop = true;
      }
      changed.notify_all();
      if (thread.joinable()) thread.join();
    }

    slot& slot_of(std::int64_t nth) { return slots[static_cast<std::size_t>(nth % 2)]; }

    std::int64_t slice_at(std::int64_t at) const { return std::min(slice, samples - at % samples); }
    range own_part(std::int64_t n) const {
      return shard(static_cast<std::size_t>(n), sharers, sharers == 1 ? 0 : options.rank);
    }
    sample_counts samples_at(std::int64_t at) const {
      auto const n = slice_at(at);
      return {static_cast<std::int64_t>(own_part(n).size()), n * options.ranks / sharers, n};
    }
    std::int64_t steps_between(std::int64_t from, std::int64_t to) const {
      if (from >= to) return 0;
      auto const within = [&](std::int64_t positions) { return (positions + slice - 1) / slice; };
      if (from / samples == to / samples) return within(to - from);
      return within(samples - from % samples) + (to / samples - from / samples - 1) * steps_per_epoch +
             within(to % samples);
    }

    void fill(slot& s) {
      std::int64_t const epoch = fill_position / samples, first = fill_position % samples;
      if (epoch != order_epoch) {
        epoch_order(samples, options.seed, epoch, options.shuffle, order,
                    options.own_order ? static_cast<std::uint32_t>(options.rank) : 0);
        order_epoch = epoch;
      }
      auto const counts = samples_at(fill_position);
      auto const mine = own_part(counts.positions);
      source.load(
          std::span<std::int64_t const>(order).subspan(static_cast<std::size_t>(first) + mine.begin, mine.size()),
          s.buffer);
      s.result = {s.buffer.view(), counts.all * static_cast<std::int64_t>(source.predictions_per_sample()), epoch,
                  fill_position};
      fill_position += counts.positions;
    }

    bool ready_within(std::chrono::milliseconds patience) {
      std::unique_lock lock(mutex);
      auto const ready = [&] { return filled > taken || failure; };
      return options.prefetch ? changed.wait_for(lock, patience, ready) : ready();
    }

    loaded_batch next() {
      // A dataset that has thrown stays failed, whoever loads: a batch that is missing must not be passed over.
      std::unique_lock lock(mutex);
      if (!options.prefetch && !failure) {
        try {
          fill(slot_of(taken));
          ++filled;
        } catch (...) {
          failure = std::current_exception();
        }
      }
      changed.wait(lock, [&] { return filled > taken || failure; });
      if (filled <= taken) std::rethrow_exception(failure);
      auto const result = slot_of(taken++).result;
      position = result.position + slice_at(result.position);
      needed = taken + 1;  // the slot that the caller has just given back
      lock.unlock();
      changed.notify_all();
      return result;
    }

    void work() {
      std::unique_lock lock(mutex);
      for (;;) {
        changed.wait(lock, [&] { return stop || filled < needed; });
        if (stop) return;
        auto& next = slot_of(filled);
        lock.unlock();
        std::exception_ptr thrown;
        try {
          fill(next);
        } catch (...) {
          thrown = std::current_exception();
        }
        lock.lock();
        if (thrown)
          failure = thrown;
        else
          ++filled;
        changed.notify_all();
        if (thrown) return;
      }
    }
  };

  std::unique_ptr<shared> shared_;
};

}  // namespace dovetail::data
