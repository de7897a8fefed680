// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <zstd.h>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/revocable.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

namespace detail {
/// zstd's own scratch memory: a copy has another one.
class zstd_scratch {
 public:
  zstd_scratch() : context_(ZSTD_createCCtx()) {
    if (!context_) throw std::bad_alloc();
  }
  zstd_scratch(zstd_scratch const&) : zstd_scratch() {}
  zstd_scratch(zstd_scratch&&) noexcept = default;
  zstd_scratch& operator=(zstd_scratch const&) { return *this; }
  zstd_scratch& operator=(zstd_scratch&&) noexcept = default;
  ZSTD_CCtx* get() {
    if (!context_) *this = zstd_scratch();  // moved from
    return context_.get();
  }

 private:
  struct free {
    void operator()(ZSTD_CCtx* c) const { ZSTD_freeCCtx(c); }
  };
  std::unique_ptr<ZSTD_CCtx, free> context_;
};
}  // namespace detail

/// A codec whose payloads are entropy-coded by zstd: nothing more is lost, and fewer bytes are sent where codes are
/// unevenly frequent, as QSGD's with few levels, 3LC's and the indices of sparse gradients are. Worth it on slow links
/// only: at level 1 it takes several times as long as most codecs.
///
///     compress::error_feedback{compress::zstd{compress::three_lc{}}}
///
/// A payload is one byte, 1, and a zstd frame, or 0 and the codec's own payload where that is not longer. Needs zstd
/// (dovetail::zstd).
///
/// Errors: argument_error for a level outside −7 … 22; input_error for payloads that are no frame, or one of another
/// size; otherwise the codec's own.
///
/// Source: Collet and Kucherawy, "Zstandard Compression and the 'application/zstd' Media Type", RFC 8878, 2021.
template <class Codec>
struct zstd {
  static_assert(detail::must_be_a_codec<Codec>::holds);
  Codec codec;
  int level = 1;  ///< of compression: higher ones take longer
  using self = zstd;
  static constexpr auto describe() {
    return policy{"zstd", field{"codec", &self::codec}, field{"level", &self::level, bounds{.low = -7, .high = 22}}};
  }

  DOVETAIL_REQUIRE((rounds_of<Codec> == 1 && !codec_traits<Codec>::decodes_with_state),
                   "compress::zstd is around codecs of one round that keep nothing of what they decode", Codec);
  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = codec_traits<Codec>::unbiased;
  static constexpr bool wants_error_feedback = codec_traits<Codec>::wants_error_feedback;
  static constexpr bool contraction = codec_traits<Codec>::contraction;

  struct state {
    revocable<Codec> inner;
    std::vector<std::byte> plain;  ///< scratch
    detail::zstd_scratch context;
    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      return inner.state().tensors(prefix + "inner.");
    }
    friend bool operator==(state const& a, state const& b) { return a.inner == b.inner; }
  };

  std::string name() const { return "zstd + " + name_of(codec); }
  constexpr std::size_t wire_size(std::size_t n) const { return 1 + codec.wire_size(n); }
  std::size_t wire_size(bucket const& b) const { return 1 + compress::wire_size(codec, b); }
  state init(bucket const& b, context const& where = {}) const {
    check_policy(*this);
    state s{revocable<Codec>(compress::init(codec, b, where)), {}, {}};
    s.plain.resize(compress::wire_size(codec, b));
    return s;
  }
  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    require_room(name(), b.size(), wire_size(b), out);
    s.inner.begin(codec);
    std::size_t const bytes = compress::encode(codec, b, s.inner.state(), s.plain, where);
    std::size_t const packed =
        ZSTD_compressCCtx(s.context.get(), out.data() + 1, out.size() - 1, s.plain.data(), bytes, level);
    bool const shorter = !ZSTD_isError(packed) && packed < bytes;  // an error: it does not fit
    out[0] = std::byte{shorter};
    if (!shorter) std::copy_n(s.plain.begin(), bytes, out.begin() + 1);
    return 1 + (shorter ? packed : bytes);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, context const& where) const {
    require<input_error>(!payload.empty() && std::to_integer<int>(payload[0]) < 2, name(), ": a payload of ",
                         payload.size(), " bytes that does not begin with 0 or 1: it is damaged");
    auto const rest = payload.subspan(1);
    if (payload[0] == std::byte{0}) return decode_plain(rest, out, weight, where);
    // A codec that looks at tensors may send more than of so many elements: place, length and value of each at most.
    std::size_t const most = codec.wire_size(out.size()) + 16 * out.size();
    unsigned long long const size = ZSTD_getFrameContentSize(rest.data(), rest.size());
    require<input_error>(size <= most, name(), ": a frame that does not say its size, or more than the ", most,
                         " bytes that ", out.size(), " elements take: the payload is damaged");
    std::vector<std::byte> plain(static_cast<std::size_t>(size));
    std::size_t const got = ZSTD_decompress(plain.data(), plain.size(), rest.data(), rest.size());
    require<input_error>(!ZSTD_isError(got) && got == plain.size(), name(), ": ", rest.size(),
                         " bytes are no frame of zstd: the payload is damaged");
    decode_plain(plain, out, weight, where);
  }
  void commit(state& s) const { s.inner.commit(codec); }
  void rollback(state& s) const { s.inner.rollback(codec); }

 private:
  void decode_plain(std::span<std::byte const> plain, std::span<float> out, float weight, context const& where) const {
    if constexpr (codec_traits<Codec>::decodes_with_context)
      codec.decode_add(plain, out, weight, where);
    else
      codec.decode_add(plain, out, weight);
  }
};

template <class Codec, class... Level>
zstd(Codec, Level...) -> zstd<Codec>;

}  // namespace dovetail::compress
