// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/sketch.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// Sends a count sketch, and decodes each element as the median of what the rows say of it. Sketches are linear: their
/// sum is the sketch of the sum, so an all-reduce carries them.
///
/// The error of one element from one row is a random variable of variance at most |x|² / columns, whatever the element:
/// the few that are much larger than |x| / sqrt(columns) are found, the others are noise. In each step the places are
/// others (all ranks draw the same), so that errors cancel over the steps; there is no error feedback, because what is
/// decoded is not nearer to x than 0 is. Where heavy elements are what is wanted, with memory of the rest: fetch_sgd.
///
/// A payload is rows · columns floats, row by row, in native byte order; for buckets of no more elements, the elements,
/// and nothing is lost. An element that is not finite is decoded as not finite, and so is what shares most of its
/// cells.
///
/// Errors: argument_error for fields outside of their ranges; input_error for payloads of another size.
///
/// Source: Charikar, Chen, Farach-Colton, "Finding Frequent Items in Data Streams", ICALP 2002, section 3.
struct count_sketch {
  int rows = 5;                 ///< of the sketch
  std::size_t columns = 16384;  ///< cells of a row
  static constexpr auto describe() {
    return policy{"count_sketch",
                  field{"rows", &count_sketch::rows, bounds{.low = 1, .high = sketch_places::most_rows}},
                  field{"columns", &count_sketch::columns, bounds{.low = 1, .high = 0x1p31}}};
  }

  static constexpr bool summable = true;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = true;  ///< over the places, which each step draws
  static constexpr bool wants_error_feedback = false;
  using wire_type = float;

  /// Only what follows from the step, and scratch memory: nothing to save, and all states are equal.
  struct state {
    sketch_places places;
    buffer<float> cells;
    std::vector<named_tensor> tensors(std::string const&) { return {}; }
    friend bool operator==(state const&, state const&) { return true; }
  };

  static constexpr char const* name() { return "count sketch"; }
  constexpr std::size_t wire_size(std::size_t n) const {
    check_policy(*this);
    return sizeof(float) * sketch_places::cells_for(n, static_cast<std::size_t>(rows), columns);
  }
  state init(bucket const& b) const { return {{}, buffer<float>(wire_size(b.size()) / sizeof(float))}; }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    std::size_t const bytes = wire_size(b.size());
    require_room(name(), b.size(), bytes, out);
    prepare(s, b.size(), where);
    std::fill(s.cells.begin(), s.cells.end(), 0.0f);
    s.places.add(b.values, 0, s.cells.data());
    if (bytes > 0) std::memcpy(out.data(), s.cells.data(), bytes);
    return bytes;
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                  context const& where) const {
    require_payload(name(), out.size(), wire_size(out.size()), payload);
    prepare(s, out.size(), where);
    if (!payload.empty()) std::memcpy(s.cells.data(), payload.data(), payload.size());
    std::array<float, 1024> found;
    for (std::size_t i = 0; i < out.size(); i += found.size()) {
      auto const part = out.subspan(i, std::min(found.size(), out.size() - i));
      s.places.estimate(i, s.cells.data(), std::span(found).first(part.size()));
      for (std::size_t j = 0; j < part.size(); ++j) part[j] += rounded(weight * found[j]);
    }
  }
  /// What is remembered is written before it is read: there is nothing to take back.
  void commit(state&) const {}
  void rollback(state&) const {}

 private:
  void prepare(state& s, std::size_t n, context const& where) const {
    s.places.draw(n, static_cast<std::size_t>(rows), columns, where);
    if (s.cells.size() != s.places.cells()) s.cells = buffer<float>(s.places.cells());
  }
};

}  // namespace dovetail::compress
