// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <filesystem>
#include <utility>

#include <dovetail/core/error.hpp>
#include <dovetail/io/checkpoint.hpp>
#include <dovetail/io/saved_state.hpp>

// A run's whole state as one checkpoint file. The weights keep their own names, so that other programs can read them.
namespace dovetail::io {

/// For fit_options::on_save. Replaces the file whole or not at all; throws checkpoint_error and leaves the old one. The
/// file's metadata are `metadata` and the state's notes: what the run trained with.
inline void save_state(std::filesystem::path const& path, saved_state& state,
                       checkpoint_metadata const& metadata = {}) {
  auto all = metadata;
  all.insert(state.notes().begin(), state.notes().end());
  save_checkpoint(path, state.tensors(), all);
}

/// For trainer::restore. Throws checkpoint_error for a file that is damaged or was not written by save_state.
inline saved_state load_state(std::filesystem::path const& path) {
  auto file = checkpoint_file::open(path);
  require<checkpoint_error>(file.has_checksums(), path, " has no checksums: it was not written by a run");
  saved_state state;
  for (auto const& [name, text] : file.metadata()) state.note(name, text);
  for (auto const& e : file.entries()) {
    require<checkpoint_error>(e.shape.size() <= static_cast<std::size_t>(shape::max_rank), path, ": tensor '", e.name,
                              "' has ", e.shape.size(), " dimensions, at most ", shape::max_rank, " are known");
    require<checkpoint_error>(e.type.has_value(), path, ": tensor '", e.name, "' has the dtype '", e.unknown_type,
                              "': it was not written by a run");
    shape s;
    for (auto extent : e.shape) s.push_back(extent);
    state.add(e.name, {*e.type, s, file.read(e.name)});
  }
  return state;
}

}  // namespace dovetail::io
