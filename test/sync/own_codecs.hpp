// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress.hpp>
#include <dovetail/core/error.hpp>

// Codecs that somebody else could write, each for something that the library's own do not need.
namespace test {

using namespace dovetail;

template <class T>
void put(std::byte* at, T const& value) {
  std::memcpy(at, &value, sizeof value);
}
template <class T>
T get(std::byte const* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// One scale a tensor: the payload's size depends on shapes, and decoding needs them. A payload begins with the context
/// that it was encoded in, which must be the one that the decoder is told.
struct scale_per_tensor {
  static constexpr bool summable = false, fixed_size = true, unbiased = false, wants_error_feedback = false;
  struct state {
    std::vector<compress::bucket_tensor> tensors_of;
    std::size_t elements = 0;
    std::vector<named_tensor> tensors(std::string const&) { return {}; }
  };
  struct stamp {
    std::int64_t step;
    std::uint64_t seed, offset;
    int rank, ranks, bucket, shard;
    compress::context::inputs input;
    float rate;
  };

  static std::size_t wire_size(std::size_t n) { return sizeof(stamp) + sizeof(float) + n; }  // of one tensor
  static std::size_t wire_size(compress::bucket const& b) {
    return sizeof(stamp) + b.tensors.size() * sizeof(float) + b.size();
  }
  static state init(compress::bucket const& b) { return {{b.tensors.begin(), b.tensors.end()}, b.size()}; }

  static std::size_t encode(compress::bucket const& b, state& s, std::span<std::byte> out,
                            compress::context const& where) {
    compress::require_room("scale_per_tensor", b.size(), wire_size(b), out);
    require(s.elements == b.size() && s.tensors_of.size() == b.tensors.size(), "another bucket");
    put(out.data(), of(where));
    auto* at = out.data() + sizeof(stamp);
    for (auto const& t : b.tensors) {
      auto const x = b.values.subspan(t.begin, static_cast<std::size_t>(t.shape.size()));
      float largest = 0;
      for (float const v : x) largest = std::max(largest, std::fabs(v));
      put(at, largest / 127);
      at += sizeof(float);
      for (float const v : x)
        *at++ = static_cast<std::byte>(static_cast<signed char>(v == 0 ? 0 : std::lround(v / largest * 127)));
    }
    return wire_size(b);
  }
  static void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                         compress::context const& where) {
    require<input_error>(
        payload.size() == sizeof(stamp) + s.tensors_of.size() * sizeof(float) + out.size() && out.size() == s.elements,
        "a payload of ", payload.size(), " bytes");
    auto const said = get<stamp>(payload.data()), told = of(where);
    require<input_error>(said.step == told.step && said.seed == told.seed && said.offset == told.offset &&
                             said.rank == told.rank && said.ranks == told.ranks && said.bucket == told.bucket &&
                             said.shard == told.shard && said.input == told.input && said.rate == told.rate,
                         "another context: rank ", said.rank, " and ", told.rank, ", shard ", said.shard, " and ",
                         told.shard, ", offset ", said.offset, " and ", told.offset);
    auto const* at = payload.data() + sizeof(stamp);
    for (auto const& t : s.tensors_of) {
      auto const unit = get<float>(at);
      at += sizeof(float);
      for (float& v : out.subspan(t.begin, static_cast<std::size_t>(t.shape.size())))
        v += weight * unit * static_cast<float>(static_cast<signed char>(*at++));
    }
  }

 private:
  static stamp of(compress::context const& w) {
    return {w.step, w.seed, w.offset, w.rank, w.ranks, w.bucket, w.shard, w.input, w.rate};
  }
};
static_assert(codec<scale_per_tensor>);

/// Multiples of `unit`, rounded up or down at random: of the sum of P ranks' the error is √P times that of one.
template <bool Summable>
struct dithered {
  float unit = 1;
  static constexpr bool summable = Summable, fixed_size = true, unbiased = true, wants_error_feedback = false;
  using wire_type = float;
  static std::size_t wire_size(std::size_t n) { return n * sizeof(float); }
  static compress::no_state init(compress::bucket const&) { return {}; }
  std::size_t encode(compress::bucket const& b, compress::no_state&, std::span<std::byte> out,
                     compress::context const& where) const {
    auto const random = where.own_random();
    for (std::size_t i = 0; i < b.size(); ++i)
      put(out.data() + i * sizeof(float), unit * std::floor(b.values[i] / unit + random.uniform(i)));
    return wire_size(b.size());
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight) const {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += weight * get<float>(payload.data() + i * sizeof(float));
  }
};
static_assert(codec<dithered<true>> && codec<dithered<false>>);

/// Sends half of gradient and rest, and keeps the other half; counts its calls. Cannot be taken back but by a copy.
struct halves {
  static constexpr bool summable = true, fixed_size = true, unbiased = false, wants_error_feedback = false;
  using wire_type = float;
  struct state {
    std::vector<float> rest;
    std::int64_t calls = 0;
    std::vector<named_tensor> tensors(std::string const& prefix) {
      auto kept = make_named_tensor(prefix + "rest", std::span<float>(rest));
      kept.kind = state_kind::summed;
      return {kept, make_named_count(prefix + "calls", calls)};
    }
  };
  static std::size_t wire_size(std::size_t n) { return n * sizeof(float); }
  static state init(compress::bucket const& b) { return {std::vector<float>(b.size()), 0}; }
  static std::size_t encode(compress::bucket const& b, state& s, std::span<std::byte> out) {
    ++s.calls;
    for (std::size_t i = 0; i < b.size(); ++i) {
      s.rest[i] = (b.values[i] + s.rest[i]) / 2;
      put(out.data() + i * sizeof(float), s.rest[i]);
    }
    return wire_size(b.size());
  }
  static void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += weight * get<float>(payload.data() + i * sizeof(float));
  }
};
static_assert(codec<halves>);

/// Its state is of no use to another rank.
struct of_one_rank : halves {
  struct state : halves::state {
    std::vector<named_tensor> tensors(std::string const& prefix) {
      auto all = halves::state::tensors(prefix);
      all[0].kind = state_kind::own;
      return all;
    }
  };
  static state init(compress::bucket const& b) { return {halves::init(b)}; }
};
static_assert(codec<of_one_rank>);

}  // namespace test
