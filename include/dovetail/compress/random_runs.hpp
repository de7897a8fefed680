// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <dovetail/compress/context.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/rounded.hpp>

// Which k of n elements a random sparsifier sends: no element twice, and each with the probability k / n exactly.
//
// The elements lie on a circle. It is cut into m = ceil(k / block) arcs of equal length (or one more), at a random
// turn, and of each arc a run of `block` elements (or what is left of k, as evenly) is taken at a random place. In its
// arc an element may be likelier than its neighbor, but by the turn every element is at every place of every arc alike:
// the probability is the sum over the arcs of their run's length, divided by n. Places rise, so memory is read in
// order, and they take one or two random words a run; a permutation of all indices would jump about in memory.
namespace dovetail::compress::detail {

class random_runs {
 public:
  /// k ≤ n ≤ 2^32 − 1, block ≥ 1; of the numbers, words [0, runs) of the uses `use` to `use` + 2.
  random_runs(std::size_t n, std::size_t k, std::size_t block, context const& where, bool common, std::uint32_t use = 0)
      : n_(n), runs_(k == 0 ? 0 : (k - 1) / block + 1) {
    if (runs_ == 0) return;
    arc_ = n / runs_, longer_arcs_ = n % runs_;
    length_ = k / runs_, longer_ = k % runs_;
    auto const numbers = [&](std::uint32_t which) {
      return common ? where.common_random(use + which) : where.own_random(use + which);
    };
    high_ = numbers(0), low_ = numbers(1);
    auto const turn = numbers(2);
    turn_ = below(n, turn.word(0), turn.word(1));
  }

  /// f(first element, number of elements) for each run, in the order in which they are sent. A run may lie over the
  /// end: it goes on with element 0. `ahead` is called with the first element long before f is: a core that finds out
  /// only when it gets there waits for each of them.
  template <class Ahead, class F>
  void each(Ahead&& ahead, F&& f) const {
    constexpr std::size_t batch = 64;  // a multiple of 4
    std::size_t at[2 * batch] = {};
    std::array<std::uint32_t, 4> high{}, low{};
    std::size_t arc = turn_, done = 0;
    for (std::size_t i = 0; i < runs_; ++i) {
      std::size_t const number = high_.offset + i, word = number % 4;
      if (i == 0 || word == 0) {
        high = high_.stream.words(static_cast<std::uint32_t>(number / 4));
        if (arc_ > short_arc) low = low_.stream.words(static_cast<std::uint32_t>(number / 4));
      }
      std::size_t const room = arc_ + (i < longer_arcs_);
      std::size_t const first = on_circle(arc + below(room - length(i) + 1, high[word], low[word]));
      ahead(first);
      at[i % (2 * batch)] = first;
      arc += room;
      if (i % batch + 1 == batch && i >= batch)
        for (std::size_t const stop = done + batch; done < stop; ++done) f(at[done % (2 * batch)], length(done));
    }
    for (; done < runs_; ++done) f(at[done % (2 * batch)], length(done));
  }
  template <class F>
  void each(F&& f) const {
    each([](std::size_t) {}, f);
  }
  /// Run i as `each` finds it, by itself: the threads of a device have one each.
  struct run {
    std::size_t first, length;
    std::size_t before;  ///< elements that are sent before it
  };
  DOVETAIL_HD run at(std::size_t i) const {
    std::size_t const arc = turn_ + i * arc_ + (i < longer_arcs_ ? i : longer_arcs_);
    std::size_t const room = arc_ + (i < longer_arcs_), low = arc_ > short_arc ? low_.word(i) : 0;
    return {on_circle(arc + below(room - length(i) + 1, high_.word(i), low)), length(i),
            i * length_ + (i < longer_ ? i : longer_)};
  }
  /// How many there are.
  DOVETAIL_HD std::size_t count() const { return runs_; }
  /// The element where the circle begins.
  std::size_t turn() const { return turn_; }
  DOVETAIL_HD bool single() const { return length_ == 1 && longer_ == 0; }

 private:
  static constexpr std::size_t short_arc = 4096;  // below: one word of 32 bits is off by less than a millionth
  // The longer runs are in the longer arcs: these are no fewer where both have to be longer to fit.
  DOVETAIL_HD std::size_t length(std::size_t i) const { return length_ + (i < longer_); }
  /// Places beyond the end go on with element 0. What goes around twice is longer than the circle: there is none.
  DOVETAIL_HD std::size_t on_circle(std::size_t place) const { return place < n_ ? place : place - n_; }
  /// Uniform in [0, n): 64 random bits as a fraction, times n.
  DOVETAIL_HD static std::size_t below(std::size_t n, std::size_t high, std::size_t low) {
    return (high * n + ((low * n) >> 32)) >> 32;
  }

  std::size_t n_, runs_, arc_ = 0, longer_arcs_ = 0, length_ = 0, longer_ = 0, turn_ = 0;
  random_numbers high_{}, low_{};
};

/// Whether all elements are finite, looked at piece by piece just before runs of them are read, while they are in
/// cache.
class finite_ahead {
 public:
  finite_ahead(std::span<float const> x, std::size_t from) : x_(x), begin_(from), at_(from) {}
  /// Before the run that begins with this element: first elements rise on the circle that begins at `from`.
  void reach(std::size_t first) {
    if (!turned_ && first < begin_) {
      look(x_.size());
      at_ = 0;
      turned_ = true;
    }
    if (first >= at_) look(std::min(first + piece, turned_ ? begin_ : x_.size()));
  }
  bool all() {
    if (!turned_) look(x_.size()), at_ = 0;
    look(begin_);
    return finite_;
  }

 private:
  static constexpr std::size_t piece = 8192;
  void look(std::size_t stop) {
    if (stop > at_) finite_ = finite_ && kernel_.all_finite(x_.data() + at_, stop - at_);
    at_ = std::max(at_, stop);
  }
  kernels::kernel_set kernel_ = kernels::best();
  std::span<float const> x_;
  std::size_t begin_, at_;
  bool turned_ = false, finite_ = true;
};

/// Writes the elements of the runs as floats. One who is not sent must be seen if it is not finite: then the first
/// float is NaN.
inline void gather_runs(std::span<float const> x, random_runs const& runs, std::span<std::byte> out) {
  std::byte* to = out.data();
  float const* const from = x.data();
  std::size_t const n = x.size();
  if (n == 0) return;
  finite_ahead finite(x, runs.turn());
  if (runs.single()) {
    runs.each([&](std::size_t at) { finite.reach(at); },
              [&](std::size_t at, std::size_t) {
                std::memcpy(to, from + at, 4);
                to += 4;
              });
  } else {
    runs.each([&](std::size_t at) { finite.reach(at); },
              [&](std::size_t at, std::size_t length) {
                std::size_t const straight = std::min(length, n - at);
                std::memcpy(to, from + at, 4 * straight);
                std::memcpy(to + 4 * straight, from, 4 * (length - straight));
                to += 4 * length;
              });
  }
  if (finite.all()) return;
  float const nan = not_a_number<float>();
  std::memcpy(out.data(), &nan, 4);
}

/// weight · n / k: what makes a sum over k of n elements unbiased.
inline float scaled_by(float weight, std::size_t n, std::size_t k) {
  return static_cast<float>(static_cast<double>(weight) * static_cast<double>(n) / static_cast<double>(k));
}

/// Adds what gather_runs has written, times weight.
inline void add_runs(std::span<std::byte const> payload, random_runs const& runs, std::span<float> out, float weight) {
  std::byte const* from = payload.data();
  float* const to = out.data();
  std::size_t const n = out.size();
  if (runs.single()) {
    auto const ahead = [&](std::size_t at) { __builtin_prefetch(to + at, 1); };
    runs.each(ahead, [&](std::size_t at, std::size_t) {
      float value;
      std::memcpy(&value, from, 4);
      from += 4;
      to[at] += rounded(weight * value);
    });
  } else {
    auto const kernel = kernels::best();
    runs.each([&](std::size_t at, std::size_t length) {
      std::size_t const straight = std::min(length, n - at);
      kernel.add_float(from, straight, weight, to + at);
      if (straight < length) kernel.add_float(from + 4 * straight, length - straight, weight, to);
      from += 4 * length;
    });
  }
}

}  // namespace dovetail::compress::detail
