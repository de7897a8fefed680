// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress/bytes.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/indices.hpp>
#include <dovetail/compress/kept.hpp>
#include <dovetail/compress/magnitudes.hpp>
#include <dovetail/compress/select.hpp>
#include <dovetail/compress/signs.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// Unbiased sparsification of least variance: element i is sent with the probability
///   p_i = min(1, |x_i| / M),  as x_i / p_i,
/// where M is such that the p_i add up to k = max(1, ceil(ratio · n)). What is above M is sent as it is, all else as M
/// or −M: a sign.
///
/// M begins at sum|x| / k. As long as elements are above it they are taken out (p = 1), and M becomes what is left of
/// the sum over what is left of k: it falls until no more are above. Elements are drawn systematically, as Madow did:
/// over each 4096 of them |x| is added up from a random beginning in [0, M), and the element that completes the next M
/// is sent. Each has the probability p_i exactly, the number of 4096 is what is expected, rounded down or up, and one
/// random number of the rank does for all of them. E|decoded − x|² = sum x²(1/p − 1) as of independent draws.
///
/// A payload is the number of elements that are sent (u32), M (f32), of each two bits (0: M, 1: −M, 2: a value, zeros
/// fill the last byte), the values of those above M (f32), then all indices (compress/indices.hpp), the same on every
/// processor. If anything is not finite, or M overflows, the payload is the number 2^32 − 1 alone, which decodes to NaN
/// in every element. It is unbiased and no contraction: error feedback must not be around it.
///
/// Errors: argument_error for a ratio outside (0, 1] or more than 2^32 − 1 elements; input_error for payloads that are
/// truncated, too long, or damaged in number, M, bits or indices.
///
/// Sources: Wangni, Wang, Liu, Zhang, "Gradient Sparsification for Communication-Efficient Distributed Optimization",
/// NeurIPS 2018, algorithm 3; drawing: Madow, "On the Theory of Systematic Sampling, II", Annals of Mathematical
/// Statistics 1949.
struct wangni {
  float ratio = 0.01f;
  static constexpr auto describe() { return policy{"wangni", field{"ratio", &wangni::ratio, ranges::positive_unit}}; }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = true;
  static constexpr bool wants_error_feedback = false;
  static constexpr bool contraction = false;

  /// Only scratch memory, reused from step to step: nothing to save, and all states are equal.
  struct state {
    buffer<std::uint32_t> indices, values;
    std::vector<named_tensor> tensors(std::string const&) { return {}; }
    friend bool operator==(state const&, state const&) { return true; }
  };

  static constexpr char const* name() { return "wangni"; }
  /// The sum of the probabilities.
  constexpr std::size_t count(std::size_t n) const {
    check_policy(*this);
    detail::check_indexable(name(), n);
    return detail::kept(ratio, n);
  }
  /// Number of elements that are sent of n at most: of each 4096 one more than is expected.
  constexpr std::size_t most(std::size_t n) const { return std::min(n, count(n) + (n + chunk - 1) / chunk); }
  constexpr std::size_t wire_size(std::size_t n) const {
    std::size_t const k = most(n);
    return 8 + (k + 3) / 4 + 4 * k + indices_size_up_to(n, k);
  }
  state init(bucket const& b) const {
    return {buffer<std::uint32_t>(most(b.size())), buffer<std::uint32_t>(most(b.size()))};
  }
  /// What is remembered is memory that is written before it is read: there is nothing to take back.
  void commit(state&) const {}
  void rollback(state&) const {}

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    std::size_t const n = b.size();
    require_room(name(), n, wire_size(n), out);
    detail::grow(s.indices, most(n));
    detail::grow(s.values, most(n));
    float const unit = magnitude(b.values);
    if (!is_finite(unit)) return detail::write_non_finite(out.data());

    std::size_t sent = 0;
    auto const random = where.own_random();
    for (std::size_t at = 0; at < n; at += chunk)
      sent += draw(b.values.subspan(at, std::min(chunk, n - at)), unit, random.word(at), static_cast<std::uint32_t>(at),
                   s.indices.data() + sent, s.values.data() + sent, most(n) - sent);

    detail::store_word(out.data(), static_cast<std::uint32_t>(sent));
    detail::store_float(out.data() + 4, unit);
    detail::bit_sink codes(out.data() + 8);
    std::byte* to = out.data() + 8 + (sent + 3) / 4;
    for (std::size_t i = 0; i < sent; ++i) {
      bool const whole = is_above(s.values[i], unit);
      codes.put(whole ? 2 : s.values[i] >> 31, 2);
      if (!whole) continue;
      detail::store_word(to, s.values[i]);
      to += 4;
    }
    codes.finish();
    to += write_indices({s.indices.data(), sent}, n, to);
    return static_cast<std::size_t>(to - out.data());
  }

  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    std::size_t const n = out.size(), limit = most(n);
    if (detail::is_non_finite(payload)) {
      for (float& v : out) v += not_a_number<float>();
      return;
    }
    require<input_error>(payload.size() >= 8, name(), ": a payload of ", payload.size(), " bytes for ", n,
                         " elements: it is truncated");
    std::size_t const k = detail::load_word<std::uint32_t>(payload.data());
    float const unit = detail::load_float(payload.data() + 4);
    require<input_error>(k <= limit && payload.size() - 8 >= (k + 3) / 4, name(), ": a payload of ", payload.size(),
                         " bytes with ", k, " of ", n, " elements, where up to ", limit,
                         " are sent: it is truncated or damaged");
    require<input_error>(is_finite(unit) && std::bit_cast<std::uint32_t>(unit) >> 31 == 0, name(), ": the magnitude ",
                         unit, " is not one: the payload is damaged");
    auto const codes = payload.subspan(8, (k + 3) / 4);
    auto rest = payload.subspan(8 + codes.size());
    std::size_t values = 0;
    detail::bit_source check(codes);
    for (std::size_t i = 0; i < k; ++i) {
      std::uint32_t const code = check.get(2);
      require<input_error>(code < 3, name(), ": entry ", i, " has the code 3: the payload is damaged");
      values += code == 2;
    }
    require<input_error>(check.at_end() && rest.size() / 4 >= values, name(), ": a payload of ", payload.size(),
                         " bytes with ", values, " values: it is truncated or damaged");
    std::byte const* value = rest.data();
    rest = rest.subspan(4 * values);
    check_indices(name(), rest, n, k);
    detail::bit_source source(codes);
    index_reader reader(name(), rest, n, k);
    float const plus = weight * unit;
    for (std::size_t i = 0; i < k; ++i) {
      float& sum = out[reader.next()];
      std::uint32_t const code = source.get(2);
      if (code == 2) {
        sum += rounded(weight * detail::load_float(value));
        value += 4;
      } else {
        sum += code ? -plus : plus;
      }
    }
  }

 private:
  static constexpr std::size_t chunk = 4096;
  static bool is_above(std::uint32_t bits, float unit) {
    return (bits & 0x7fffffffu) > std::bit_cast<std::uint32_t>(unit);
  }

  /// M; not finite if an element is not, or if it overflows.
  float magnitude(std::span<float const> x) const {
    std::size_t left = count(x.size());
    float unit = detail::largest_float;
    for (int pass = 0; pass < 64; ++pass) {
      // Any M is unbiased: to stop early sends fewer elements than it might.
      auto const below = detail::magnitudes_up_to(x, unit);
      if (pass == 0 && below.above) return not_a_number<float>();  // of what is above the largest float
      if (pass > 0 && below.above == count(x.size()) - left) break;
      left = count(x.size()) - std::min(below.above, count(x.size()));
      if (below.sum <= 0) return 0;  // what is left is zeros
      if (left == 0) break;          // by rounding; what is below is sent beyond the budget
      double const next = below.sum / static_cast<double>(left);
      if (next > static_cast<double>(detail::largest_float)) return positive_infinity<float>();
      unit = std::min(unit, static_cast<float>(next));
    }
    return unit;
  }
  /// The elements of x that are sent: all above the unit, and of the others those that complete it.
  static std::size_t draw(std::span<float const> x, float unit, std::uint32_t random, std::uint32_t first,
                          std::uint32_t* indices, std::uint32_t* values, std::size_t room) {
    double const whole = static_cast<double>(unit);
    double sum = (static_cast<double>(random) + 0.5) * 0x1p-32 * whole;
    std::size_t found = 0;
    auto const take = [&](std::size_t i) {
      indices[found] = first + static_cast<std::uint32_t>(i);
      values[found++] = std::bit_cast<std::uint32_t>(x[i]);
    };
    for (std::size_t i = 0; i < x.size(); i += 16) {
      std::size_t const stop = std::min(i + 16, x.size());
      if (stop - i == 16) {
        auto const here = detail::magnitudes_of_16(x.data() + i);
        if (here.largest <= unit && sum + here.sum < whole) {
          sum += here.sum;
          continue;
        }
      }
      for (std::size_t j = i; j < stop && found < room; ++j) {
        double const size = std::fabs(static_cast<double>(x[j]));
        if (size > whole) {
          take(j);
        } else if (sum += size; sum >= whole && size > 0) {
          sum -= whole;
          take(j);
        }
      }
    }
    return found;
  }
};

}  // namespace dovetail::compress
