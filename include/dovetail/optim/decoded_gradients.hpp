// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <span>

#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/gradient_source.hpp>

namespace dovetail::optim {

/// What reads an encoded gradient in parts: adds elements from `first` on, a multiple of 80, to `out`; size() elements
/// in bytes() bytes. Codecs of compress/ that have one give it by compress::read(codec, payload, n).
template <class R>
concept payload_reader = std::copyable<R> && requires(R const r, std::size_t first, std::span<float> out) {
  r.add(first, out);
  { r.size() } -> std::convertible_to<std::size_t>;
  { r.bytes() } -> std::convertible_to<std::size_t>;
};

namespace gradient {

/// A payload and the flat index of its first element.
template <payload_reader Reader>
struct encoded_part {
  std::size_t begin;
  Reader reader;
  std::size_t end() const { return begin + reader.size(); }
};

/// factor × the sum of encoded gradients, decoded where they are used: neither what each rank sent nor their sum is
/// ever written to memory. Parts are in the order in which they begin; those of the same elements are those of several
/// ranks, and are added in the order in which they stand. The bits are those of decode_add, one after the other, and of
/// gradient::scaled{factor} behind it.
///
///     std::vector<gradient::encoded_part<decltype(reader)>> parts;   // one a rank
///     opt.step(parameters, state, gradient::decoded{std::span(parts), 1.0f / ranks});
///
/// Errors, of check: argument_error where parts do not cover the list, or two overlap without being of the same
/// elements.
template <payload_reader Reader>
struct decoded {
  std::span<encoded_part<Reader> const> parts;
  float factor = 1;

  struct cursor {
    decoded const* from;
    std::size_t first;  ///< flat index of element 0

    static constexpr std::size_t before = 79;  ///< parts are read from a multiple of 80 on
    static constexpr std::size_t window_room = before + 4096;
    dense::cursor window(std::size_t n, std::span<float> room) const { return {from->read(first, n, room)}; }
    simd::pack load(std::size_t i) const {
      float room[before + simd::pack::lanes];
      return simd::pack::load(from->read(first + i, simd::pack::lanes, room));
    }
    cursor advanced(std::size_t n) const { return {from, first + n}; }
    cursor padded(std::size_t, std::byte*) const { return *this; }
    bool continued_by(std::size_t n, cursor next) const { return next.first == first + n; }
  };

  double bytes() const {
    std::size_t all = 0, last = 0;
    for (auto const& p : parts) {
      all += p.reader.bytes();
      last = std::max(last, p.end());
    }
    return last ? static_cast<double>(all) / static_cast<double>(last) : 0;
  }
  void check(parameter_list const& p) const {
    detail::check_factor("gradient::decoded", factor);
    std::size_t begin = 0, end = 0;
    for (auto const& part : parts) {
      bool const again = part.begin == begin && part.end() == end;
      require(again || part.begin == end, "gradient::decoded: a part of the elements ", part.begin, " to ", part.end(),
              " stands behind one of ", begin, " to ", end,
              ": parts follow each other without a gap, in the order of their elements");
      begin = part.begin;
      end = part.end();
    }
    require(end == p.flat_size(), "gradient::decoded: parts of ", end, " elements for a list of ", p.flat_size());
  }
  cursor at(parameter_list const& p, std::size_t i) const { return {this, p.offset(i)}; }

  /// n elements from flat index `first` on, decoded into `room`, which begins cursor::before floats earlier; where they
  /// are.
  float const* read(std::size_t first, std::size_t n, std::span<float> room) const {
    // Both begins and ends of parts rise.
    auto part = std::lower_bound(parts.begin(), parts.end(), first + 1,
                                 [](auto const& p, std::size_t index) { return p.end() < index; });
    float* const out = room.data() + cursor::before;
    std::memset(room.data(), 0, (cursor::before + n) * sizeof(float));
    for (; part != parts.end() && part->begin < first + n; ++part) {
      std::size_t const from = std::max(first, part->begin), to = std::min(first + n, part->end());
      std::size_t const skipped = (from - part->begin) % (cursor::before + 1);
      part->reader.add(from - part->begin - skipped,
                       std::span<float>(out + (from - first) - skipped, to - from + skipped));
    }
    if (factor < 1 || factor > 1) {
      std::size_t i = 0;
      for (; i + simd::pack::lanes <= n; i += simd::pack::lanes) (factor * simd::pack::load(out + i)).store(out + i);
      for (; i < n; ++i) out[i] = rounded(factor * out[i]);
    }
    return out;
  }
};
template <class Reader>
decoded(std::span<encoded_part<Reader>>, float = 1) -> decoded<Reader>;
template <class Reader>
decoded(std::span<encoded_part<Reader> const>, float = 1) -> decoded<Reader>;

}  // namespace gradient
}  // namespace dovetail::optim
