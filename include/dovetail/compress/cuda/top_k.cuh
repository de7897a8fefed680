// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include <cub/block/block_scan.cuh>

#include <dovetail/compress/context.hpp>
#include <dovetail/compress/cuda/codec.cuh>
#include <dovetail/compress/cuda/elements.cuh>
#include <dovetail/compress/select.hpp>
#include <dovetail/compress/top_k.hpp>
#include <dovetail/core/cuda_launch.hpp>

// compress::top_k on a device: a radix selection of the k-th largest magnitude by histograms of 11, 10 and 10 bits,
// then counts, their scan, and a pass that writes. It is exact, the host waits for nothing in between, and equal
// magnitudes at the threshold are taken as evenly as on the host: of m equal ones the host has taken (phase + m ·
// wanted) / equal, which a thread computes by itself. (CUB sorts, and selects by a predicate; it has no such tie.)
namespace dovetail::compress::cuda {
namespace detail {

inline constexpr std::size_t bin_count = 2048;
/// Elements of a thread, and of a thread block, when the selected ones are counted and written.
inline constexpr unsigned own_elements = 8, selection_tile = threads * own_elements;

__device__ __forceinline__ std::uint32_t key_of(float x) { return std::bit_cast<std::uint32_t>(x) & 0x7fffffffu; }

/// The threshold, as far as it is known: its bits from `shift` on.
struct selection {
  std::uint32_t key, known;
  std::uint64_t above, equal;  ///< elements with larger keys, and with the same known bits
};

template <class T>
__global__ __launch_bounds__(threads) void count_keys(T const* x, std::size_t n, int shift, selection const* s,
                                                      std::uint32_t* bins) {
  __shared__ std::uint32_t own[bin_count];
  for (unsigned b = threadIdx.x; b < bin_count; b += threads) own[b] = 0;
  __syncthreads();
  std::uint32_t const key = s->key, known = s->known;
  for (std::size_t i = first_thing(); i < n; i += all_threads()) {
    std::uint32_t const k = key_of(x[i]);
    if ((k & known) == key) atomicAdd(own + ((k & ~known) >> shift), 1u);
  }
  __syncthreads();
  for (unsigned b = threadIdx.x; b < bin_count; b += threads)
    if (own[b]) atomicAdd(bins + b, own[b]);
}
/// One thread block: the bin of the k-th largest key; the bins are 0 again.
template <class T>
__global__ __launch_bounds__(threads) void choose_bin(selection* s, T* bins, int shift, std::size_t k) {
  constexpr unsigned each = bin_count / threads;
  __shared__ std::uint32_t own[bin_count];
  __shared__ std::uint64_t sums[threads];
  sums[threadIdx.x] = 0;
  for (unsigned b = threadIdx.x * each; b < threadIdx.x * each + each; ++b) {
    sums[threadIdx.x] += own[b] = bins[b];
    bins[b] = 0;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  std::uint64_t above = s->above;
  unsigned part = threads - 1;
  while (above + sums[part] < k) above += sums[part--];
  unsigned bin = part * each + each - 1;
  while (above + own[bin] < k) above += own[bin--];
  s->key |= bin << shift;
  s->known = 0x7fffffffu & ~((1u << shift) - 1);
  s->above = above;
  s->equal = own[bin];
}

/// How many of this thread's elements are above the threshold, and how many equal it, in the halves of a word.
__device__ inline std::uint32_t count_own(float const* x, std::size_t n, std::uint32_t key) {
  std::size_t const first = std::size_t{blockIdx.x} * selection_tile + threadIdx.x * own_elements;
  std::uint32_t both = 0;
  for (std::size_t i = first; i < n && i < first + own_elements; ++i) {
    std::uint32_t const k = key_of(x[i]);
    both += k > key ? 0x10000u : k == key ? 1u : 0u;
  }
  return both;
}
using scan_own = cub::BlockScan<std::uint32_t, threads>;

struct tile_counts {
  std::uint32_t above, equal;
};
template <class T>
__global__ __launch_bounds__(threads) void count_selected(T const* x, std::size_t n, selection const* s,
                                                          tile_counts* tiles) {
  __shared__ typename scan_own::TempStorage shared;
  std::uint32_t before = 0, all = 0;
  scan_own(shared).ExclusiveSum(count_own(x, n, s->key), before, all);
  if (threadIdx.x == 0) tiles[blockIdx.x] = {all >> 16, all & 0xffffu};
}
/// One thread block: each tile's counts become those of all tiles before it.
template <class T>
__global__ __launch_bounds__(threads) void scan_tiles(T* tiles, std::size_t count) {
  using scan = cub::BlockScan<std::uint32_t, threads>;
  __shared__ typename scan::TempStorage shared[2];
  std::size_t const each = (count + threads - 1) / threads, begin = threadIdx.x * each;
  tile_counts own{};
  for (std::size_t t = begin; t < count && t < begin + each; ++t)
    own.above += tiles[t].above, own.equal += tiles[t].equal;
  std::uint32_t all = 0;
  scan(shared[0]).ExclusiveSum(own.above, own.above, all);
  scan(shared[1]).ExclusiveSum(own.equal, own.equal, all);
  for (std::size_t t = begin; t < count && t < begin + each; ++t) {
    tile_counts const here = tiles[t];
    tiles[t] = own;
    own.above += here.above, own.equal += here.equal;
  }
}
template <class T>
__global__ __launch_bounds__(threads) void write_selected(T const* x, std::size_t n, selection const* s,
                                                          tile_counts const* tiles, std::size_t k, std::byte* out) {
  __shared__ typename scan_own::TempStorage shared;
  std::uint32_t const key = s->key;
  std::uint32_t own = count_own(x, n, key), before = 0, all = 0;
  scan_own(shared).ExclusiveSum(own, before, all);
  if (own == 0) return;
  std::uint64_t const equal = s->equal, wanted = k - s->above;
  std::uint64_t const phase = compress::detail::phase_of_ties(key, equal);
  std::uint64_t above = tiles[blockIdx.x].above + (before >> 16), seen = tiles[blockIdx.x].equal + (before & 0xffffu);
  std::uint64_t taken = (phase + seen * wanted) / equal;
  std::size_t const first = std::size_t{blockIdx.x} * selection_tile + threadIdx.x * own_elements;
  for (std::size_t i = first; i < n && i < first + own_elements; ++i) {
    std::uint32_t const here = key_of(x[i]);
    if (here < key) continue;
    std::byte* const to = out + 8 * (above + taken);
    if (here > key) {
      ++above;
    } else {
      std::uint64_t const next = (phase + ++seen * wanted) / equal;
      if (next == taken) continue;
      taken = next;
    }
    put<std::uint32_t>(to, static_cast<std::uint32_t>(i));
    put<float>(to + 4, x[i]);
  }
}

template <class T>
__global__ __launch_bounds__(threads) void check_entries(std::byte const* payload, std::size_t k, std::size_t n,
                                                         T* mark) {
  for (std::size_t i = first_thing(); i < k; i += all_threads()) {
    auto const index = get<std::uint32_t>(payload + 8 * i);
    if (index >= n || (i && index <= get<std::uint32_t>(payload + 8 * (i - 1)))) mark_fault(mark, fault::index, i);
  }
}
template <class T>
__global__ __launch_bounds__(threads) void add_entries(std::byte const* payload, std::size_t k, float weight, T* out,
                                                       fault_word const* mark) {
  if (*mark != intact) return;
  for (std::size_t i = first_thing(); i < k; i += all_threads()) {
    float& sum = out[get<std::uint32_t>(payload + 8 * i)];
    sum = sum_of(sum, product_of(weight, get<float>(payload + 8 * i + 4)));
  }
}

}  // namespace detail

template <>
struct form<top_k> {
  using state = workspace;
  static std::size_t scratch(top_k const&, std::size_t n) {
    return counts_at + sizeof(detail::tile_counts) * tiles_of(n);
  }
  static void encode(top_k const& codec, device_span<float const> values, workspace& s, std::byte* out,
                     context const&) {
    using dovetail::cuda::launch;
    std::size_t const n = values.size(), k = codec.count(n);
    float const* const x = values.data();
    auto* const found = s.scratch<detail::selection>();
    auto* const bins = s.scratch<std::uint32_t>(bins_at);
    auto* const counts = s.scratch<detail::tile_counts>(counts_at);
    auto const tiles = static_cast<unsigned>(tiles_of(n));
    s.clear_scratch(counts_at);
    for (int const shift : {20, 10, 0}) {
      // A histogram of its own costs a thread block as much as 2048 elements.
      launch("a histogram of magnitudes", s.device(), std::min(detail::blocks_for(n), 1024u), detail::threads,
             detail::count_keys<float>, x, n, shift, found, bins);
      launch("a bin of magnitudes", s.device(), 1, detail::threads, detail::choose_bin<std::uint32_t>, found, bins,
             shift, k);
    }
    launch("counts of the largest", s.device(), tiles, detail::threads, detail::count_selected<float>, x, n, found,
           counts);
    launch("places of the largest", s.device(), 1, detail::threads, detail::scan_tiles<detail::tile_counts>, counts,
           std::size_t{tiles});
    launch("the largest magnitudes", s.device(), tiles, detail::threads, detail::write_selected<float>, x, n, found,
           counts, k, out);
  }
  static void decode_add(top_k const& codec, std::byte const* payload, device_span<float> out, float weight,
                         workspace& s, context const&) {
    std::size_t const k = codec.count(out.size());
    dovetail::cuda::launch("a check of indices", s.device(), detail::blocks_for(k), detail::threads,
                           detail::check_entries<fault_word>, payload, k, out.size(), s.fault_at());
    dovetail::cuda::launch("a codec's sum", s.device(), detail::blocks_for(k), detail::threads,
                           detail::add_entries<float>, payload, k, weight, out.data(), s.fault_at());
  }

 private:
  static constexpr std::size_t bins_at = 256, counts_at = bins_at + sizeof(std::uint32_t) * detail::bin_count;
  static std::size_t tiles_of(std::size_t n) { return (n + detail::selection_tile - 1) / detail::selection_tile; }
};

}  // namespace dovetail::compress::cuda
