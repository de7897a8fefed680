// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// signSGD with majority vote: every rank sends a sign for each element, and the gradient becomes the sign of most of
/// them, −1 or 1. One bit an element and 4 bytes a payload. With `momentum` above 0 ranks vote with the signs of their
/// own momenta m = momentum · m + (1 − momentum) · g: Signum with majority vote; the optimizer behind it is plain SGD,
/// whose learning rate is the length of every element's step.
///
/// Ties, of an even number of ranks, and zeros have no sign: which one they get alternates from element to element and
/// from step to step, so that none is preferred. A rank whose bucket is all zeros has no vote, and where no rank has
/// one all stays 0. A payload is a fp32 1, 0 from a rank without a vote, or NaN from one with a gradient that is not
/// finite, then ⌈n/8⌉ bytes of signs, the first in the lowest bit, 1 = negative. NaN makes all elements NaN, so that
/// the step is skipped. The momentum of a skipped step is taken back.
///
/// There is no residual: a vote does not say by how much it errs, and what one rank has lost is not lost to the sum.
/// The vote is the gradient, whatever the number of ranks and samples.
///
/// Errors: argument_error for a momentum outside [0, 1) and for a state that was made for another size; input_error for
/// payloads of another size, with another first number, or with signs behind the last element.
///
/// Source: Bernstein et al., "signSGD with Majority Vote is Communication Efficient and Fault Tolerant", ICLR 2019,
/// algorithm 1.
struct majority_vote {
  float momentum = 0;
  static constexpr auto describe() {
    return policy{"majority_vote", field{"momentum", &majority_vote::momentum, ranges::share}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;

  struct state {
    buffer<float> momentum, before;  ///< of this step and the one before; empty without momentum
    buffer<float> votes;             ///< scratch: the sum of what was decoded so far
    std::size_t size = 0;
    bool open = false;
    bool any = false;  ///< of this sum so far: whether a rank has voted

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      if (momentum.size() == 0) return {};
      std::vector<named_tensor> all{make_named_tensor(prefix + "momentum", momentum.span())};
      all.back().kind = state_kind::summed;
      return all;
    }
    friend bool operator==(state const& a, state const& b) { return a.size == b.size && a.momentum == b.momentum; }
  };

  static constexpr char const* name() { return "majority vote"; }
  constexpr std::size_t wire_size(std::size_t n) const { return n == 0 ? 0 : 4 + (n + 7) / 8; }
  state init(bucket const& b) const {
    check_policy(*this);
    std::size_t const kept = momentum > 0 ? b.size() : 0;
    return {buffer<float>(kept), buffer<float>(kept), buffer<float>(b.size()), b.size(), false, false};
  }
  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    std::size_t const n = b.size();
    require_size(n, s);
    require_room(name(), n, wire_size(n), out);
    if (n == 0) return 0;
    commit(s);
    bool const finite = kernels::best().all_finite(b.values.data(), n);
    auto x = b.values;
    if (s.momentum.size() && where.input == context::inputs::gradient && finite) {
      auto const next = s.before.span();
      for (std::size_t i = 0; i < n; ++i) next[i] = rounded(momentum * s.momentum[i]) + rounded((1 - momentum) * x[i]);
      std::swap(s.momentum, s.before);
      s.open = true;
      x = s.momentum.span();
    }
    std::byte* const bits = out.data() + 4;
    double const magnitude = kernels::best().to_signs(x.data(), n, bits);
    float const mark = !finite ? not_a_number<float>() : magnitude > 0 || !is_finite(magnitude) ? 1 : 0;
    std::memcpy(out.data(), &mark, 4);
    // to_signs gives zeros at odd places the sign of −1, in each step. Whether the place or the place before decides
    // changes with the place in the weights and with the step.
    if (turned(where))
      for (std::size_t i = 0; i < n; ++i)
        if (is_zero(x[i])) bits[i / 8] ^= static_cast<std::byte>(1u << i % 8);
    return wire_size(n);
  }
  /// Counts votes; the last payload of a sum decides.
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                  context const& where) const {
    std::size_t const n = out.size();
    require_size(n, s);
    require_payload(name(), n, wire_size(n), payload);
    if (n == 0) return;
    float mark;
    std::memcpy(&mark, payload.data(), 4);
    require<input_error>(is_nan(mark) || is_zero(mark) || !(mark < 1 || mark > 1), name(), ": a payload begins with ",
                         mark, " instead of 0, 1 or NaN: it is damaged");
    require<input_error>(n % 8 == 0 || std::to_integer<unsigned>(payload.back()) >> (n % 8) == 0, name(),
                         ": a payload of ", n, " elements has signs behind the last one: it is damaged");
    auto const votes = s.votes.span();
    if (where.first) {
      std::fill(votes.begin(), votes.end(), 0.0f);
      s.any = false;
    }
    s.any = s.any || !is_zero(mark);
    kernels::best().add_signs(payload.data() + 4, n, mark, votes.data());
    if (!where.last || !s.any) return;
    for (std::size_t i = 0; i < n; ++i) {
      bool const negative = is_zero(votes[i]) ? (i % 2 == 1) != turned(where) : votes[i] < 0;
      out[i] += is_nan(votes[i]) ? not_a_number<float>() : negative ? -weight : weight;
    }
  }
  void commit(state& s) const { s.open = false; }
  void rollback(state& s) const {
    if (std::exchange(s.open, false)) std::swap(s.momentum, s.before);
  }

 private:
  /// Whether even places are those of −1: so that it alternates with the place in all weights and with the step.
  static bool turned(context const& where) { return (where.offset + static_cast<std::uint64_t>(where.step)) % 2 == 1; }
  static bool is_zero(float const& x) { return (dovetail::detail::bits_of<std::uint32_t>(x) & 0x7fffffffu) == 0; }
  void require_size(std::size_t n, state const& s) const {
    require(n == s.size, name(), ": a bucket of ", n, " elements meets a state made for ", s.size,
            ": make one state per bucket with init");
  }
};

}  // namespace dovetail::compress
