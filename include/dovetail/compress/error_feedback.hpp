// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/context.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/revocable.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// Gives a codec a memory of what it lost:
///   e = gradient + residual,  payload = encode(e),  residual = e − decode(payload).
///
/// For a sparsifier decoded + residual == gradient + old residual, bit for bit. The state is two floats an element, the
/// residual and the one before, and the codec's own. Skipped steps, non-finite input, overflow, retries and another
/// number of ranks:
/// - rollback takes the last encode back: the residual has the bits that it had before, so nothing is lost when a step
///   is skipped.
/// - A bucket with a non-finite gradient is encoded without the residual, so that every rank sees it and skips the
///   step; the residual stays as it was.
/// - Where gradient + residual overflows, or the codec does (fp16 beyond 65504), infinity is sent and the residual
///   restarts at 0, also when the step is taken back: or it would overflow again in the next one.
/// - encode consumes the residual: a synchronizer that repeats an exchange sends the payload that it kept, or takes
///   back and encodes again.
/// - When the number of ranks changes, the sum of the residuals over the ranks is what must be kept.
///
/// The codec must be a contraction (a constant that it says): what another one loses grows without bound. Random
/// sparsification that is scaled to be unbiased, of an eighth of the elements, has a residual of 10^12 gradients after
/// 60 steps; unscaled, of 10.
///
/// The residual is in units of the gradient: compress gradients, not steps that already contain the learning rate.
///
/// Errors: argument_error for a state that was made for another bucket: of another size, or of other tensors.
///
/// Sources: Seide et al., "1-bit Stochastic Gradient Descent", Interspeech 2014, section 3.2; contractions: Stich et
/// al., "Sparsified SGD with Memory", NeurIPS 2018, definition 2.1.
template <class Codec>
struct error_feedback {
  static_assert(detail::must_be_a_codec<Codec>::holds);
  Codec codec;

  DOVETAIL_REQUIRE(
      codec_traits<Codec>::contraction,
      "error feedback needs a contraction, and the codec does not say `static constexpr bool contraction = "
      "true`: one that is not keeps what grows without bound. An unbiased codec becomes one when it is "
      "not scaled, or divided by 1 + its relative variance",
      Codec);
  DOVETAIL_REQUIRE(rounds_of<Codec> == 1,
                   "a codec of several rounds must keep its own residual: its loss is known after the last round",
                   Codec);
  DOVETAIL_REQUIRE(!codec_traits<Codec>::decodes_with_state,
                   "a codec that changes its state when it decodes must keep its own residual: what is sent is decoded "
                   "to find its loss, too",
                   Codec);
  static constexpr bool summable = Codec::summable;
  static constexpr bool fixed_size = Codec::fixed_size;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;
  using wire_type = wire_type_of<Codec>;

  struct state {
    buffer<float> residual;
    buffer<float> before;  ///< the last encode: no part of the value
    bool open = false;     ///< whether the last encode can be taken back
    revocable<Codec> inner;
    bucket_layout layout;  ///< of the bucket that it was made for

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> all{make_named_tensor(prefix + "residual", residual.span())};
      all.back().kind = state_kind::summed;
      for (auto& t : inner.state().tensors(prefix + "inner.")) all.push_back(std::move(t));
      return all;
    }
    friend bool operator==(state const& a, state const& b) {
      return a.residual == b.residual && a.inner == b.inner && a.layout == b.layout;
    }
  };

  std::string name() const { return "error feedback + " + name_of(codec); }
  constexpr std::size_t wire_size(std::size_t n) const { return codec.wire_size(n); }
  constexpr std::size_t wire_size(bucket const& b) const { return compress::wire_size(codec, b); }
  state init(bucket const& b, context const& where = {}) const {
    return {buffer<float>(b.size()), buffer<float>(b.size()), false, revocable<Codec>(compress::init(codec, b, where)),
            bucket_layout(b)};
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out) const
      requires(!codec_traits<Codec>::takes_context) {
    return encode_sum(b, s, out, {});
  }
  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const
      requires(codec_traits<Codec>::takes_context) {
    return encode_sum(b, s, out, where);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const
      requires(codec_traits<Codec>::decodes_plainly) {
    codec.decode_add(payload, out, weight);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, context const& where) const
      requires(codec_traits<Codec>::decodes_with_context) {
    codec.decode_add(payload, out, weight, where);
  }
  constexpr std::size_t count(std::size_t n) const requires(codec_traits<Codec>::has_entries) { return codec.count(n); }
  std::size_t read_entries(std::span<std::byte const> payload, std::size_t n, std::span<std::uint32_t> pairs) const
      requires(codec_traits<Codec>::has_entries) {
    return codec.read_entries(payload, n, pairs);
  }
  std::size_t write_entries(std::span<std::uint32_t> pairs, std::size_t n, std::span<std::byte> out) const
      requires(codec_traits<Codec>::has_entries) {
    return codec.write_entries(pairs, n, out);
  }
  /// What was sent and did not count goes back into the residual; of a bucket that was encoded without it, nothing.
  void return_entries(std::span<std::uint32_t const> pairs, state& s) const requires(codec_traits<Codec>::has_entries) {
    for (std::size_t i = 0; s.open && i + 1 < pairs.size(); i += 2)
      if (auto const value = std::bit_cast<float>(pairs[i + 1]); is_finite(value)) s.residual[pairs[i]] += value;
  }
  void commit(state& s) const {
    s.inner.commit(codec);
    s.open = false;
  }
  void rollback(state& s) const {
    s.inner.rollback(codec);
    if (std::exchange(s.open, false)) std::swap(s.residual, s.before);
  }

 private:
  std::size_t encode_sum(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    auto const residual = s.residual.span(), next = s.before.span();
    require(residual.size() == b.size(), name(), ": a bucket of ", b.size(), " elements meets a state made for ",
            residual.size(), ": make one state per bucket with init");
    s.layout.check(b, name());
    require_room(name(), b.size(), wire_size(b), out);  // before the residual is touched
    s.open = false;
    s.inner.begin(codec);
    auto const& kernel = kernels::best();
    if (!kernel.all_finite(b.values.data(), b.size())) return compress::encode(codec, b, s.inner.state(), out, where);
    std::size_t bytes = 0;
    if constexpr (codec_traits<Codec>::encodes_residual) {
      // The codec knows how to do this in fewer passes.
      bytes = codec.encode_with_residual(b, residual, next, s.inner.state(), out);
    } else {
      kernel.add_to(b.values.data(), residual.data(), b.size(), next.data());
      bytes = compress::encode(codec, bucket{next, b.tensors}, s.inner.state(), out, where);
      compress::decode_add(codec, std::span<std::byte const>(out.first(bytes)), next, -1.0f, s.inner.state(), where);
      if (!kernel.all_finite(next.data(), next.size())) restart_overflowed(residual, next);
    }
    std::swap(s.residual, s.before);
    s.open = true;
    return bytes;
  }
};

template <class Codec>
error_feedback(Codec) -> error_feedback<Codec>;

/// Payloads are the codec's.
template <class Codec>
struct codec_reader<error_feedback<Codec>> : codec_reader<Codec> {
  static auto read(error_feedback<Codec> const& c, std::span<std::byte const> payload,
                   std::size_t n) requires codec_reader<Codec>::exists {
    return codec_reader<Codec>::read(c.codec, payload, n);
  }
};

}  // namespace dovetail::compress
