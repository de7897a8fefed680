// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <dovetail/core/error.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/io/saved_state.hpp>

namespace dovetail::train {

/// Where a training stands: everything that is not a tensor. Saved as one row of integers. Epochs are counted in
/// samples of the data: batch, accumulation and number of ranks may be others when a run goes on, and no sample is left
/// out or seen twice.
struct position {
  std::int64_t step = 0;  ///< optimizer steps tried
  std::int64_t skipped = 0;
  std::int64_t batches = 0;                           ///< global micro-batches taken: they number the noise of layers
  std::int64_t epoch = 0, offset = 0;                 ///< whole epochs of this data, and samples of the next one
  std::int64_t samples = 0, data = 0;                 ///< size of the data, and data::identity_of; 0: not known
  std::int64_t seed = 0, shuffle = 1;                 ///< of the order
  std::int64_t ranks = 0, batch = 0, accumulate = 0;  ///< with which it was reached
  std::int64_t parameters = 0;                        ///< sync::fingerprint_of the weights' list

  static constexpr char const* name = "train.position";
  static constexpr std::size_t fields = 13;
  named_tensor tensor() { return make_named_tensor(name, std::span<std::int64_t>(&step, fields)); }

  /// Samples of the order that were taken, through all epochs: what data::loader begins with.
  std::int64_t taken() const { return epoch * samples + offset; }
  /// Further by `n` samples.
  void advance(std::int64_t n) {
    offset += n;
    epoch += offset / samples;
    offset %= samples;
  }

  /// That of a saved state. Throws checkpoint_error if there is none, or if it cannot be one.
  DOVETAIL_COLD static position of(io::saved_state const& saved) {
    auto const* p = saved.find(name);
    require<checkpoint_error>(p, "saved state: there is no '", name, "': it was not saved by a training");
    position found;
    auto const expected = found.tensor();
    require<checkpoint_error>(
        p->type == expected.type && p->shape == expected.shape && p->bytes.size() == expected.bytes.size(),
        "saved state: '", name, "' has shape ", p->shape, ", expected ", expected.shape,
        ": it was saved by another version of this library");
    std::memcpy(expected.bytes.data(), p->bytes.data(), p->bytes.size());
    auto const least = [](char const* what, std::int64_t value, std::int64_t minimum) {
      require<checkpoint_error>(value >= minimum, "saved state: its position has ", what, ' ', value, ", at least ",
                                minimum, " is possible: it is damaged");
    };
    least("ranks", found.ranks, 1);
    least("batch", found.batch, 1);
    least("accumulate", found.accumulate, 1);
    least("samples", found.samples, 1);
    least("step", found.step, 0);
    least("batches", found.batches, 0);
    least("epoch", found.epoch, 0);
    least("offset", found.offset, 0);
    least("skipped steps", found.skipped, 0);
    require<checkpoint_error>(
        found.skipped <= found.step && found.offset < found.samples && found.epoch <= most / found.samples &&
            found.ranks <= 1 << 30 && is_count(found.step) && is_count(found.batches),
        "saved state: its position is step ", found.step, ", of which ", found.skipped, " were skipped, micro-batch ",
        found.batches, ", epoch ", found.epoch, ", sample ", found.offset, " of ", found.samples, ", on ", found.ranks,
        " ranks, which cannot be: it is damaged");
    return found;
  }
  static constexpr std::int64_t most = std::int64_t{1} << 62;  ///< samples of all epochs that are counted
};
static_assert(sizeof(position) == position::fields * sizeof(std::int64_t));

}  // namespace dovetail::train
