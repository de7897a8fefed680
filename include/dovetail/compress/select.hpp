// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>

#include <dovetail/compress/kernels.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/finite.hpp>

// Exact selection of the k largest magnitudes in one pass over memory:
//   1. a sample says below which bound the k-th magnitude lies almost surely, and not far;
//   2. one pass compacts all elements above the bound (and adds the residual, when there is one);
//   3. the exact threshold is found among these candidates, and k of them are written.
// Where fewer than k elements differ from zero, zeros fill up. If the sample was misleading, a radix histogram of
// everything finds the threshold: slower, with the same result. Magnitudes are compared as the integers of their bits:
// an order without exceptions, in which NaN is largest.
namespace dovetail::compress {

/// Memory that selections reuse.
struct selection_scratch {
  buffer<std::uint32_t> indices, values, keys;
};

namespace detail {

inline std::uint32_t magnitude_key(float x) { return std::bit_cast<std::uint32_t>(x) & 0x7fffffffu; }

/// The k-th largest key, how many are larger, and how many equal it.
struct threshold {
  std::uint32_t key = 0;
  std::size_t above = 0, equal = 0;
};

template <class T>
void grow(buffer<T>& b, std::size_t n) {
  if (b.size() < n) b = buffer<T>(n);
}

/// A bound that is below the k-th largest magnitude of n with near certainty: the rank-th of `samples` keys.
struct sampling {
  static constexpr std::size_t most = 16384;
  std::size_t samples, rank;  // rank == samples: everything is a candidate
  sampling(std::size_t n, std::size_t k) : samples(std::min(most, n / 16)), rank(samples) {
    double const hits = static_cast<double>(k) / static_cast<double>(n) * static_cast<double>(samples);
    double const safe = std::ceil(hits + 4 * std::sqrt(hits) + 8);
    if (safe < static_cast<double>(samples)) rank = static_cast<std::size_t>(safe);
  }
  /// Candidates that are expected above the bound, doubled: more means that the sample was misleading.
  std::size_t room(std::size_t n) const {
    return rank == samples ? n : std::min(n, 2 * rank * (n / samples + 1) + 1024);
  }
};

/// One position in each of `samples` equal strata, at a hashed offset: a stride alone could meet the rows of a matrix.
template <class At>
std::uint32_t sampled_bound(std::size_t n, sampling const& plan, buffer<std::uint32_t>& keys, At at) {
  if (plan.rank == plan.samples) return 0;
  std::size_t const stride = n / plan.samples;
  for (std::size_t i = 0; i < plan.samples; ++i) {
    std::uint64_t const hash = (i + 1) * 0x9E3779B97F4A7C15ull;
    keys[i] = magnitude_key(at(i * stride + (((hash >> 32) * stride) >> 32)));
  }
  auto const first = keys.begin(), bound = first + plan.rank - 1;
  std::nth_element(first, bound, first + plan.samples, std::greater<>{});
  return std::max(*bound, 1u);  // zeros are no candidates: where most elements are zero, the others are few
}

/// The threshold among `count` values, all of which have keys >= least; `keys` has room for count.
inline threshold threshold_of_candidates(std::uint32_t const* values, std::size_t count, std::size_t k,
                                         std::uint32_t least, std::uint32_t* keys) {
  // One histogram of the upper bits narrows the search to the few candidates of one bin.
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < count; ++i) largest = std::max(largest, values[i] & 0x7fffffffu);
  int const shift = std::max(0, 32 - std::countl_zero(largest - least) - 11);
  std::array<std::uint32_t, 2048> bins{};
  for (std::size_t i = 0; i < count; ++i) ++bins[((values[i] & 0x7fffffffu) - least) >> shift];
  std::size_t above = 0, bin = bins.size() - 1;
  while (above + bins[bin] < k) above += bins[bin--];

  std::size_t inside = 0;
  for (std::size_t i = 0; i < count; ++i) {
    keys[inside] = values[i] & 0x7fffffffu;
    inside += ((keys[inside] - least) >> shift) == bin;
  }
  auto* const nth = keys + (k - above - 1);
  std::nth_element(keys, nth, keys + inside, std::greater<>{});
  threshold t{*nth, above, 0};
  for (std::size_t i = 0; i < inside; ++i) {
    t.above += keys[i] > t.key;
    t.equal += keys[i] == t.key;
  }
  return t;
}

/// The threshold of anything: 11, 10 and 10 bits of the key, one histogram each.
inline threshold threshold_by_histogram(float const* x, std::size_t n, std::size_t k) {
  threshold t;
  std::uint32_t known = 0;  // the bits of t.key that are settled
  for (int const shift : {20, 10, 0}) {
    std::array<std::size_t, 2048> bins{};
    for (std::size_t i = 0; i < n; ++i) {
      std::uint32_t const key = magnitude_key(x[i]);
      if ((key & known) == t.key) ++bins[(key & ~known) >> shift];
    }
    std::size_t bin = bins.size() - 1;
    while (t.above + bins[bin] < k) t.above += bins[bin--];
    t.key |= static_cast<std::uint32_t>(bin) << shift;
    t.equal = bins[bin];
    known = 0x7fffffffu & ~((1u << shift) - 1);
  }
  return t;
}

/// Where the even spread over `equal` magnitudes at the threshold starts, hashed: neither low nor high indices are
/// preferred.
DOVETAIL_HD constexpr std::uint64_t phase_of_ties(std::uint32_t key, std::uint64_t equal) {
  std::uint64_t const hash = (std::uint64_t{key} << 32 ^ equal) * 0x9E3779B97F4A7C15ull;
  return (hash >> 32) % equal;
}

/// Writes the k selected of the candidates it is shown, in order: all above the threshold, and of the equal ones an
/// even spread: of the first m it takes (phase + m · wanted) / equal.
class selection_writer {
 public:
  selection_writer(threshold const& t, std::size_t k, std::byte* out)
      : key_(t.key),
        wanted_(k - t.above),
        equal_(t.equal),
        left_(k),
        phase_(phase_of_ties(t.key, t.equal)),
        out_(out) {}
  void write(std::uint32_t const* indices, std::uint32_t const* values, std::size_t count) {
    for (std::size_t i = 0; i < count && left_; ++i) {
      std::uint32_t const key = values[i] & 0x7fffffffu;
      std::memcpy(out_, indices + i, 4);  // overwritten by the next one unless it is taken
      std::memcpy(out_ + 4, values + i, 4);
      std::size_t taken = key > key_;
      if (key == key_) [[unlikely]]
        taken = next_equal();
      out_ += 8 * taken;
      left_ -= taken;
    }
  }

 private:
  bool next_equal() {
    phase_ += wanted_;
    if (phase_ < equal_) return false;
    phase_ -= equal_;
    return true;
  }
  std::uint32_t key_;
  std::size_t wanted_, equal_, left_;
  std::uint64_t phase_;
  std::byte* out_;
};

}  // namespace detail

/// Writes the k elements of largest |x| to `out` as (index u32, value f32), by rising index. With `residual` and `next`
/// (as long as x, both or neither may be null, or the same) x is residual + gradient, and `next` becomes that sum, less
/// what was written. Sums that are not finite restart at 0 in both.
inline void select_largest(std::span<float const> gradient, float* residual, float* next, std::size_t k,
                           selection_scratch& scratch, std::byte* out, kernels::kernel_set const& kernel) {
  using namespace detail;
  std::size_t const n = gradient.size();
  if (n == 0) return;
  float const* const g = gradient.data();
  constexpr std::size_t chunk = 4096, slack = 16;

  sampling const plan(n, k);
  std::size_t const room = plan.room(n);
  grow(scratch.indices, room + chunk + slack);
  grow(scratch.values, room + chunk + slack);
  grow(scratch.keys, std::max(room + chunk, plan.samples) + 1);
  auto* const indices = scratch.indices.data();
  auto* const values = scratch.values.data();
  std::uint32_t const least =
      residual ? sampled_bound(n, plan, scratch.keys, [&](std::size_t i) { return residual[i] + g[i]; })
               : sampled_bound(n, plan, scratch.keys, [&](std::size_t i) { return g[i]; });

  std::size_t found = 0, at = 0;
  auto const bound = static_cast<std::int32_t>(least);
  for (std::size_t length; at < n && found <= room; at += length) {
    length = std::min(chunk, n - at);
    auto const first = static_cast<std::uint32_t>(at);
    found += residual ? kernel.add_compact(g + at, residual + at, next + at, length, bound, first, indices + found,
                                           values + found)
                      : kernel.compact(g + at, length, bound, first, indices + found, values + found);
  }

  threshold t;
  if (at == n && found >= k) {
    t = threshold_of_candidates(values, found, k, least, scratch.keys.data());
    selection_writer(t, k, out).write(indices, values, found);
  } else {
    if (residual && at < n) kernel.add_to(g + at, residual + at, n - at, next + at);
    float const* const x = residual ? next : g;
    t = at == n && least == 1 ? threshold{0, found, n - found} : threshold_by_histogram(x, n, k);
    selection_writer writer(t, k, out);
    for (std::size_t i = 0; i < n; i += chunk) {
      std::size_t const count = kernel.compact(x + i, std::min(chunk, n - i), static_cast<std::int32_t>(t.key),
                                               static_cast<std::uint32_t>(i), indices, values);
      writer.write(indices, values, count);
    }
  }

  if (!residual) return;
  for (std::size_t i = 0; i < k; ++i) {
    std::uint32_t index;
    std::memcpy(&index, out + 8 * i, 4);
    float value;
    std::memcpy(&value, out + 8 * i + 4, 4);
    next[index] = 0;
    if (!is_finite(value)) residual[index] = 0;
  }
  if (t.key >= 0x7f800000u) restart_overflowed({residual, n}, {next, n});  // more overflowed than were sent
}

}  // namespace dovetail::compress
