// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
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
  std::int64_t start = 0;  ///< global step of the first batch: a resumed run continues here
  bool prefetch = true;    ///< a thread fills the next batch while this one is used
};

/// What next() gives: this rank's share of one step's samples.
struct loaded_batch {
  dovetail::batch view;                 ///< valid until the following next(); may be empty at the end of an epoch
  std::int64_t global_predictions = 0;  ///< of this step over all ranks: what a mean divides by
  std::int64_t epoch = 0;
  std::int64_t step = 0;  ///< global: counted from 0 through all epochs
};

/// Step s of an epoch, from 0, takes positions [s·P·B, (s+1)·P·B) of the epoch's order (P ranks, B samples per rank)
/// and rank r its shard of them: P ranks with B see the samples of one rank with P·B, in the same order. The last
/// slice of an epoch may be smaller; it is divided as evenly as possible, and a rank's share of it may be empty.
/// With own_order a rank takes positions [s·B, (s+1)·B) of an order of its own; rank 0's is that of a single rank.
/// Where the loader stands is a pure function of the step, so `start` is all that a resumed run needs.
///
/// Throws argument_error for options that do not fit; what the dataset throws while loading comes out of next(), and
/// out of every later next(). Used by one thread.
template <dataset Dataset>
class loader {
 public:
  loader(Dataset dataset, loader_options options) : shared_(std::make_unique<shared>(std::move(dataset), options)) {
    if (options.prefetch) shared_->thread = std::thread([s = shared_.get()] { s->work(); });
  }

  /// Steps of one epoch, the smaller last one included.
  std::int64_t steps_per_epoch() const { return shared_->steps_per_epoch; }
  /// Samples of the dataset.
  std::int64_t samples() const { return shared_->samples; }
  /// What a step takes.
  struct sample_counts {
    std::int64_t own = 0, all = 0;  ///< samples of this rank, and of all ranks together
  };
  sample_counts samples_in(std::int64_t step) const { return shared_->samples_in(step); }
  /// Global step of the batch that the following next() gives.
  std::int64_t position() const { return shared_->taken; }

  /// The batch of the next step; gives the previous one back.
  loaded_batch next() { return shared_->next(); }

 private:
  struct slot {
    batch_buffer buffer;
    loaded_batch result;
  };

  // Behind a pointer: the thread refers to it while the loader moves.
  struct shared {
    Dataset const source;
    loader_options const options;
    int sharers = 1;  // the ranks that divide an epoch among each other
    std::int64_t samples = 0, slice = 0, steps_per_epoch = 0;

    std::vector<std::int64_t> order;
    std::int64_t order_epoch = -1;
    std::array<slot, 2> slots;
    std::int64_t taken = 0;  // steps that next() has given out

    std::mutex mutex;
    std::condition_variable changed;
    std::int64_t filled = 0;  // steps that are loaded; guarded, as is everything below
    std::int64_t needed = 0;  // steps up to which slots are free to be filled
    bool stop = false;
    std::exception_ptr failure;
    std::thread thread;

    shared(Dataset&& d, loader_options const& o) : source(std::move(d)), options(o) {
      samples = static_cast<std::int64_t>(source.size());
      require(samples >= 1, "loader: the dataset is empty: there is nothing to load");
      require(o.batch >= 1, "loader: batch is ", o.batch, ": it must be at least 1 sample per rank");
      require(o.ranks >= 1, "loader: ranks is ", o.ranks, ": it must be at least 1");
      require(o.rank >= 0 && o.rank < o.ranks, "loader: rank is ", o.rank, ", but ranks run from 0 to ", o.ranks - 1);
      require(o.start >= 0, "loader: start is step ", o.start, ": steps are counted from 0");
      sharers = o.own_order ? 1 : o.ranks;
      require(o.batch <= samples / sharers, "loader: ", sharers, " rank(s) × batch ", o.batch, " is more than the ",
              samples, " samples of the dataset: use a batch of at most ", samples / sharers,
              samples < sharers ? " (there are fewer samples than ranks)" : "");
      slice = o.batch * sharers;
      steps_per_epoch = (samples + slice - 1) / slice;
      taken = filled = o.start;
      needed = o.start + 1;
    }
    ~shared() {
      {
        std::lock_guard const lock(mutex);
        stop = true;
      }
      changed.notify_all();
      if (thread.joinable()) thread.join();
    }

    slot& slot_of(std::int64_t step) { return slots[static_cast<std::size_t>(step % 2)]; }

    std::int64_t slice_at(std::int64_t step) const { return std::min(slice, samples - step % steps_per_epoch * slice); }
    range own_part(std::int64_t n) const {
      return shard(static_cast<std::size_t>(n), sharers, sharers == 1 ? 0 : options.rank);
    }
    sample_counts samples_in(std::int64_t step) const {
      auto const n = slice_at(step);
      return {static_cast<std::int64_t>(own_part(n).size()), n * options.ranks / sharers};
    }

    void fill(std::int64_t step) {
      std::int64_t const epoch = step / steps_per_epoch, first = step % steps_per_epoch * slice;
      if (epoch != order_epoch) {
        epoch_order(samples, options.seed, epoch, options.shuffle, order,
                    options.own_order ? static_cast<std::uint32_t>(options.rank) : 0);
        order_epoch = epoch;
      }
      auto const mine = own_part(slice_at(step));
      auto& s = slot_of(step);
      source.load(
          std::span<std::int64_t const>(order).subspan(static_cast<std::size_t>(first) + mine.begin, mine.size()),
          s.buffer);
      s.result = {s.buffer.view(), samples_in(step).all * static_cast<std::int64_t>(source.predictions_per_sample()),
                  epoch, step};
    }

    loaded_batch next() {
      if (!options.prefetch) {
        fill(taken);
        return slot_of(taken++).result;
      }
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return filled > taken || failure; });
      if (filled <= taken) std::rethrow_exception(failure);
      auto const result = slot_of(taken++).result;
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
        std::int64_t const step = filled;
        lock.unlock();
        std::exception_ptr thrown;
        try {
          fill(step);
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
