// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/refuse.hpp>

namespace dovetail::compress {

/// Gives a codec a memory of what it lost:
///   e = gradient + residual,  payload = encode(e),  residual = e − decode(payload).
///
/// For a sparsifier decoded + residual == gradient + old residual, bit for bit. The state is one float an element and
/// the codec's own. Non-finite input, overflow, retries and another number of ranks:
/// - A bucket with a non-finite gradient is encoded without the residual, so that every rank sees it and skips the
///   step; the residual stays as it was, and knows nothing of the skipped gradient. The residuals of other buckets and
///   ranks have been consumed by then: what their payloads of the skipped step held is lost.
/// - Where gradient + residual overflows, or the codec does (fp16 beyond 65504), infinity is sent and the residual
///   restarts at 0.
/// - encode consumes the residual: a synchronizer that repeats an exchange sends the payload that it kept, and does
///   not encode again.
/// - When the number of ranks changes, the sum of the residuals over the ranks is what must be kept.
///
/// The residual is in units of the gradient: compress gradients, not steps that already contain the learning rate.
///
/// Errors: argument_error for a state that was made for another bucket: of another size, or of other tensors.
///
/// Source: Seide et al., "1-bit Stochastic Gradient Descent", Interspeech 2014, section 3.2.
template <class Codec>
struct error_feedback {
  static_assert(detail::must_be_a_codec<Codec>::holds);
  Codec codec;

  DOVETAIL_REQUIRE(rounds_of<Codec> == 1,
                   "a codec of several rounds must keep its own residual: its loss is known after the last round",
                   Codec);
  static constexpr bool summable = Codec::summable;
  static constexpr bool fixed_size = Codec::fixed_size;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;
  using wire_type = wire_type_of<Codec>;

  using inner_state = typename codec_traits<Codec>::state_type;
  struct state {
    buffer<float> residual;
    inner_state inner;
    bucket_layout layout;  ///< of the bucket that it was made for

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      std::vector<named_tensor> all{make_named_tensor(prefix + "residual", residual.span())};
      all.back().summed = true;
      for (auto& t : inner.tensors(prefix + "inner.")) all.push_back(std::move(t));
      return all;
    }
    friend bool operator==(state const&, state const&) = default;
  };

  std::string name() const { return "error feedback + " + name_of(codec); }
  constexpr std::size_t wire_size(std::size_t n) const { return codec.wire_size(n); }
  constexpr std::size_t wire_size(bucket const& b) const { return compress::wire_size(codec, b); }
  state init(bucket const& b) const { return {buffer<float>(b.size()), codec.init(b), bucket_layout(b)}; }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out) const {
    auto const residual = s.residual.span();
    require(residual.size() == b.size(), name(), ": a bucket of ", b.size(), " elements meets a state made for ",
            residual.size(), ": make one state per bucket with init");
    s.layout.check(b, name());
    require_room(name(), b.size(), wire_size(b), out);  // before the residual is touched
    auto const& kernel = kernels::best();
    if (!kernel.all_finite(b.values.data(), b.size())) return codec.encode(b, s.inner, out);
    if constexpr (codec_traits<Codec>::encodes_residual) {
      return codec.encode_with_residual(b, residual, s.inner, out);  // the codec knows how to do this in fewer passes
    } else {
      auto const gradient = std::as_bytes(b.values);
      kernel.add_float(gradient.data(), b.size(), 1.0f, residual.data());
      std::size_t const bytes = codec.encode(bucket{residual, b.tensors}, s.inner, out);
      codec.decode_add(std::span<std::byte const>(out.first(bytes)), residual, -1.0f);
      if (!kernel.all_finite(residual.data(), residual.size()))
        for (float& r : residual) r = is_finite(r) ? r : 0.0f;
      return bytes;
    }
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    codec.decode_add(payload, out, weight);
  }
};

template <class Codec>
error_feedback(Codec) -> error_feedback<Codec>;

}  // namespace dovetail::compress
