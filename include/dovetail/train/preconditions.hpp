// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <dovetail/concepts.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/train/options.hpp>
#include <dovetail/train/position.hpp>

// What must hold before a rank's loop begins.
namespace dovetail::train {

/// Collective. Ranks with other options, or with other data, would train something that nobody asked for, or wait for
/// each other for ever: throws argument_error on every rank, with the option's name and both values. `data` is 0 where
/// ranks may have data of their own.
template <communicator C>
DOVETAIL_COLD void require_same_options(fit_options const& o, std::int64_t samples, std::int64_t data, bool masks,
                                        C& comm) {
  struct field {
    char const* name;
    std::int64_t value;
  };
  std::array const mine{field{"batch", o.batch},
                        field{"epochs", o.epochs},
                        field{"steps", o.steps},
                        field{"accumulate", o.accumulate},
                        field{"accumulate_at (0: not set)", o.accumulate_at ? 1 : 0},
                        field{"seed", static_cast<std::int64_t>(o.seed)},
                        field{"shuffle", o.shuffle},
                        field{"new_data", o.new_data},
                        field{"log_every", o.log_every},
                        field{"save_every", o.save_every},
                        field{"max_skipped", o.max_skipped},
                        field{"masks() of the data or the model", masks},
                        field{"data.size()", samples},
                        field{"data.identity()", data}};
  std::array<std::int64_t, mine.size()> values;
  for (std::size_t i = 0; i < mine.size(); ++i) values[i] = mine[i].value;
  std::vector<std::byte> all;
  auto const offsets = comm.all_gather_v(std::as_bytes(std::span(values)), all);
  for (std::size_t r = 0; r + 1 < offsets.size(); ++r) {
    require(offsets[r + 1] - offsets[r] == sizeof values, "fit: rank ", r, " runs another version of this library");
    for (std::size_t i = 0; i < mine.size(); ++i) {
      std::int64_t first = 0, other = 0;
      std::memcpy(&first, all.data() + i * sizeof first, sizeof first);
      std::memcpy(&other, all.data() + offsets[r] + i * sizeof other, sizeof other);
      require(first == other, "fit: ", mine[i].name, " is ", first, " on rank 0 and ", other, " on rank ", r,
              ": all ranks must give the same");
    }
  }
}

/// What is saved is known by its name: pieces of one name are found before the first step, not behind the last.
DOVETAIL_COLD inline void require_own_names(std::set<std::string> names,
                                            std::initializer_list<std::vector<named_tensor>> state) {
  for (auto const& list : state)
    for (auto const& t : list)
      require(names.insert(t.name).second, "fit: '", t.name,
              "' is what two pieces of the training's state would be saved as: give the parameter another name");
}

/// Makes of a saved position the one that goes on with this data (`here`: its size and identity). A place in one data
/// set says nothing about another one: throws checkpoint_error if they are not the same, unless options say that they
/// are new.
DOVETAIL_COLD inline void go_on_with_data(position& found, position const& here, fit_options const& options) {
  bool const same = found.samples == here.samples && (found.data == here.data || !found.data || !here.data);
  require<checkpoint_error>(same || options.new_data, "the training stands at sample ", found.offset, " of epoch ",
                            found.epoch + 1, " of a data set of ", found.samples, " samples (identity ",
                            static_cast<std::uint64_t>(found.data), "), this one has ", here.samples, " (identity ",
                            static_cast<std::uint64_t>(here.data),
                            "): give the same data, or say .new_data = true, and its epochs are counted from 0");
  if (!same) found.epoch = found.offset = 0;
  require<checkpoint_error>(found.offset == 0 || (found.shuffle != 0) == options.shuffle,
                            "the training stands at sample ", found.offset, " of ", found.samples, " of an epoch ",
                            found.shuffle ? "that is shuffled" : "that is not shuffled",
                            ": give the same .shuffle, or some samples are seen twice and others not at all");
  found.samples = here.samples;
  if (here.data || !same) found.data = here.data;
}

}  // namespace dovetail::train
