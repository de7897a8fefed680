// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/bits.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/cosine_tiles.hpp>
#include <dovetail/compress/demo_kernels.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/select.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// Decoupled momentum: each rank keeps a momentum of its own, sends what of it is largest in frequency space, and takes
/// that out of it. On rank i, for each tile of at most 64 x 64 elements of a matrix (64 of a vector),
///   D = beta · D + G,   C = the `coefficients` largest of DCT(D),   D = D − inverse DCT(C),
/// and what is decoded is, for each coefficient, the mean over the ranks that sent it, times the number of ranks: the
/// sum if all of them did.
///
/// Momentum is in the codec: behind it belongs a rule without one. The paper's takes the sign of what is decoded
/// (optim::sign_sgd), with decoupled weight decay. D is in units of the gradient; the paper has the rate in
/// it.
///
/// Tensors of more than two dimensions are matrices of the first one against the others. Tiles of a dimension are
/// equally long and padded with zeros: 257 is 5 of 52. Payloads are gathered: a mean over some ranks is not a sum.
///
/// A payload is, for each tile in order, its coefficients' values as floats, in native byte order and by rising index;
/// then for each its index in the tile, row by row, in the bits that a tile of this size needs: 12 of 64 x 64, 6 of 64.
///
/// A bucket with a non-finite gradient is sent without the momentum, which stays as it was; a tile that has one is not
/// finite in what is decoded. Where momentum and gradient overflow, what is sent is not finite either, and these
/// elements of the momentum restart at 0, also when the step is taken back.
///
/// Errors: argument_error for fields outside of their ranges, tensors over one another, or a state that was made for
/// another bucket; input_error for payloads of another size, with indices that do not rise or lie outside of their
/// tile, or bits behind the last one.
///
/// Source: Peng, Quesnelle, Kingma, "DeMo: Decoupled Momentum Optimization", arXiv 2411.19870, 2024, algorithms 1
/// and 2.
struct demo {
  int coefficients = 32;  ///< of a tile, that are sent
  float beta = 0.999f;    ///< share of the momentum that a step keeps
  static constexpr auto describe() {
    return policy{"demo", field{"coefficients", &demo::coefficients, bounds{.low = 1, .high = 4096}},
                  field{"beta", &demo::beta, ranges::unit}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;  ///< it is fixed, but in two phases the sum of some would be encoded
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;  ///< the momentum keeps what is not sent

  struct state {
    buffer<float> momentum;
    buffer<float> before;  ///< the last step
    bool taken = false;    ///< whether that can be taken back
    bucket_layout layout;
    std::size_t size = 0;
    std::vector<tiled_tensor> tensors_of;
    cosine_transform transform;
    // Of what is decoded: of all ranks, values and indices.
    std::vector<float> values;
    std::vector<std::uint16_t> indices;

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> all{make_named_tensor(prefix + "momentum", momentum.span())};
      all[0].kind = state_kind::summed;
      return all;
    }
    friend bool operator==(state const& a, state const& b) { return a.momentum == b.momentum && a.layout == b.layout; }
  };

  static constexpr char const* name() { return "DeMo"; }
  /// Of one line of n elements.
  constexpr std::size_t wire_size(std::size_t n) const { return wire_size(bucket{{}, {}}, n); }
  std::size_t wire_size(bucket const& b) const { return wire_size(b, b.size()); }

  state init(bucket const& b) const {
    check_policy(*this);
    state s;
    require_in_order(name(), b);
    for_tiled_tensors(b, [&](tiled_tensor const& t) {
      s.transform.prepare(t.height);
      s.transform.prepare(t.width);
      s.tensors_of.push_back(t);
    });
    s.momentum = s.before = buffer<float>(b.size());
    s.layout = bucket_layout(b);
    s.size = b.size();
    return s;
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out) const {
    check_size(s, b.size());
    s.layout.check(b, name());
    std::size_t const bytes = wire_size(b);
    require_room(name(), b.size(), bytes, out);
    commit(s);
    auto const& kernel = demo_kernels::best();
    bool const finite = kernels::best().all_finite(b.values.data(), b.size());
    float const* from = b.values.data();
    if (finite) {
      kernel.accumulate(b.values.data(), s.momentum.data(), beta, b.size(), s.before.data());
      from = s.before.data();
    }
    std::byte* values = out.data();
    bit_writer indices(out.first(bytes).subspan(sizeof(float) * count(s)));
    cosine_transform::tile x;
    for (auto const& t : s.tensors_of)
      for_tiles(t, [&](tile_place const& at) {
        load(at, from, x);
        s.transform.forward(x, t, kernel);
        keep_largest(x, t, values, indices);
        if (!finite) return;
        s.transform.inverse(x, t, kernel);
        add(at, x, -1.0f, s.before.data());
      });
    if (!finite) return bytes;
    if (!kernels::best().all_finite(s.before.data(), s.size)) restart_overflowed(s.momentum.span(), s.before.span());
    std::swap(s.momentum, s.before);
    s.taken = true;
    return bytes;
  }

  /// Payloads come one by one, in the order of their ranks; with the last one what is decoded is added.
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                  context const& where) const {
    check_size(s, out.size());
    std::size_t const each = count(s);
    if (where.first) {
      s.values.clear();
      s.indices.clear();
    }
    std::size_t const before = s.values.size();
    try {
      read(payload, s, each);
    } catch (...) {
      s.values.resize(before);
      s.indices.resize(before);
      throw;
    }
    if (!where.last || each == 0) return;
    auto const& kernel = demo_kernels::best();
    cosine_transform::tile x;
    std::array<std::uint16_t, cosine_transform::stride * cosine_transform::stride> senders{};
    auto const ranks = static_cast<float>(s.values.size() / each);
    std::size_t begin = 0;  // of a tile's coefficients in a payload
    for (auto const& t : s.tensors_of) {
      std::size_t const k = of_tile(t);
      for_tiles(t, [&](tile_place const& at) {
        x.fill(0);
        for (std::size_t first = begin; first < s.values.size(); first += each)
          for (std::size_t i = first; i < first + k; ++i) {
            x[place(t, s.indices[i])] += s.values[i];
            ++senders[s.indices[i]];
          }
        for (std::size_t first = begin; first < s.values.size(); first += each)
          for (std::size_t i = first; i < first + k; ++i)
            if (auto& n = senders[s.indices[i]]; n > 0) {
              x[place(t, s.indices[i])] *= ranks / static_cast<float>(n);
              n = 0;
            }
        begin += k;
        s.transform.inverse(x, t, kernel);
        add(at, x, weight, out.data());
      });
    }
  }
  void commit(state& s) const { s.taken = false; }
  void rollback(state& s) const {
    if (std::exchange(s.taken, false)) std::swap(s.momentum, s.before);
  }

 private:
  /// Where a tile's elements are in the bucket: rows of `width` elements, `stride` apart.
  struct tile_place {
    std::size_t begin, height, width, stride;
  };

  void check_size(state const& s, std::size_t n) const {
    require(s.size == n, name(), ": a bucket of ", n, " elements meets a state made for ", s.size,
            ": make one state per bucket with init");
  }
  constexpr std::size_t of_tile(tiled_tensor const& t) const {
    return t.coefficients(static_cast<std::size_t>(coefficients));
  }
  constexpr std::size_t wire_size(bucket const& b, std::size_t n) const {
    check_policy(*this);
    std::size_t values = 0, bits = 0;
    auto const add_size = [&](tiled_tensor const& t) {
      values += t.tiles() * of_tile(t);
      bits += t.tiles() * of_tile(t) * static_cast<std::size_t>(t.index_bits());
    };
    if (b.tensors.empty()) {
      if (n > 0) add_size(tiled_tensor(0, 1, n));
    } else {
      for_tiled_tensors(b, add_size);
    }
    return sizeof(float) * values + (bits + 7) / 8;
  }
  /// Coefficients of a payload.
  std::size_t count(state const& s) const {
    std::size_t n = 0;
    for (auto const& t : s.tensors_of) n += t.tiles() * of_tile(t);
    return n;
  }
  static std::size_t place(tiled_tensor const& t, std::size_t index) {
    return index / t.width * cosine_transform::stride + index % t.width;
  }
  template <class F>
  static void for_tiles(tiled_tensor const& t, F const& f) {
    for (std::size_t i = 0; i < t.down; ++i)
      for (std::size_t j = 0; j < t.across; ++j) {
        std::size_t const row = i * t.height, column = j * t.width;
        std::size_t const height = std::min(t.height, t.rows - row), width = std::min(t.width, t.columns - column);
        f(tile_place{t.begin + row * t.columns + column, height, width, t.columns});
      }
  }
  static void load(tile_place const& at, float const* values, cosine_transform::tile& x) {
    x.fill(0);
    for (std::size_t i = 0; i < at.height; ++i)
      std::memcpy(x.data() + i * cosine_transform::stride, values + at.begin + i * at.stride, at.width * sizeof(float));
  }
  static void add(tile_place const& at, cosine_transform::tile const& x, float weight, float* values) {
    for (std::size_t i = 0; i < at.height; ++i)
      kernels::best().add_float(reinterpret_cast<std::byte const*>(x.data() + i * cosine_transform::stride), at.width,
                                weight, values + at.begin + i * at.stride);
  }
  /// Writes the largest coefficients, of equal ones those of the lowest frequencies, and makes all others 0.
  void keep_largest(cosine_transform::tile& x, tiled_tensor const& t, std::byte*& values, bit_writer& indices) const {
    std::array<std::uint64_t, cosine_transform::stride * cosine_transform::stride> keys;
    std::size_t const n = t.area(), k = of_tile(t);
    for (std::size_t i = 0, at = 0; i < t.height; ++i)
      for (std::size_t j = 0; j < t.width; ++j, ++at)
        keys[at] = std::uint64_t{detail::magnitude_key(x[i * cosine_transform::stride + j])} << 32 | (n - 1 - at);
    auto const first = keys.begin(), last = first + static_cast<std::ptrdiff_t>(k);
    if (k < n) std::nth_element(first, last, first + static_cast<std::ptrdiff_t>(n), std::greater<>{});
    for (auto i = first; i != last; ++i) *i = n - 1 - (*i & 0xffffffffu);
    std::sort(first, last);
    std::array<float, cosine_transform::stride * cosine_transform::stride> kept;
    for (std::size_t i = 0; i < k; ++i) {
      kept[i] = x[place(t, keys[i])];
      indices.put(keys[i], t.index_bits());
    }
    std::memcpy(values, kept.data(), k * sizeof(float));
    values += k * sizeof(float);
    x.fill(0);
    for (std::size_t i = 0; i < k; ++i) x[place(t, keys[i])] = kept[i];
  }
  /// Appends a payload's values and indices to those of other ranks.
  void read(std::span<std::byte const> payload, state& s, std::size_t each) const {
    std::size_t bits = 0;
    for (auto const& t : s.tensors_of) bits += t.tiles() * of_tile(t) * static_cast<std::size_t>(t.index_bits());
    require_payload(name(), s.size, sizeof(float) * each + (bits + 7) / 8, payload);
    std::size_t const before = s.values.size();
    s.values.resize(before + each);
    if (each > 0) std::memcpy(s.values.data() + before, payload.data(), sizeof(float) * each);
    bit_reader reader(payload.subspan(sizeof(float) * each));
    for (auto const& t : s.tensors_of)
      for (std::size_t tile = 0; tile < t.tiles(); ++tile) {
        std::int64_t last = -1;
        for (std::size_t i = 0; i < of_tile(t); ++i) {
          auto const index = static_cast<std::int64_t>(reader.get(t.index_bits()));
          require<input_error>(index > last && index < static_cast<std::int64_t>(t.area()), name(), ": coefficient ", i,
                               " of a tile has the index ", index, " after ", last, " of ", t.area(),
                               ": indices must rise below it, the payload is damaged");
          last = index;
          s.indices.push_back(static_cast<std::uint16_t>(index));
        }
      }
    reader.require_end();
  }
};

}  // namespace dovetail::compress
