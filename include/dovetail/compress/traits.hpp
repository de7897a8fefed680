// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/member_constant.hpp>
#include <dovetail/core/member_function.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/state.hpp>

// The only place that looks at the members of codecs: what synchronizers, tables and other codecs ask of one beyond the
// least (dovetail::codec of concepts.hpp), with defaults for those who say nothing:
//
//   static constexpr bool contraction = false           E|decode(encode(x)) - x|² <= (1 - d)|x|², d > 0: what error
//                                                       feedback needs, or what it keeps grows without bound
//   static constexpr int rounds = 1                     exchanges of one bucket; more than one needs a summable codec,
//     an encode with the context, which says the round, and absorb(payload, state, context const&) between two rounds
//   using wire_type = void                              element of a summable codec's payload, which needs one
//   init(bucket, context const&)                        where the state depends on the ranks; default: init(bucket)
//   encode(bucket, state, out, context const&)          the context says step, rank, place and random numbers; the
//                                                       step is then saved with the session; default: without
//   std::size_t wire_size(bucket) const                 of a codec that needs the shapes; default: wire_size(n)
//   std::size_t wire_size(bucket, int round) const      of one of several rounds; default: wire_size(bucket)
//   name() const                                        for messages and tables: converts to std::string; "codec"
//   decode_add(payload, out, weight, context const&)    the context of the encode that wrote the payload, or
//     decode_add(payload, out, weight, state&, context const&)   which may also change the receiver's state
//   commit(state&), rollback(state&)                    both or neither: the step of encode and decode_add was made,
//                                                       or was not, and the state becomes what it was before;
//                                                       what is encoded again after neither counts as committed;
//                                                       default: a copy of the state is kept
//   reader(payload, std::size_t n) const                a value that reads the payload of n elements in parts, after
//                                                       everything of it is checked: void add(std::size_t first,
//                                                       std::span<float> out, float weight = 1) const adds elements
//                                                       from first on, a multiple of payload_step, with the bits that
//                                                       decode_add adds; size() is n, bytes() the payload's. Refers to
//                                                       the payload. For sync::exchange::fused
//   std::size_t count(n) const                          of a codec that sends up to count(n) elements and nothing else:
//     std::size_t read_entries(payload, n, std::span<std::uint32_t> pairs) const, their number; checks as decode_add
//     std::size_t write_entries(std::span<std::uint32_t> pairs, n, out) const, bytes; may write to `pairs`
//                                                       An entry is index and bits of the value, by rising index; such
//                                                       payloads can be merged (sync::exchange::merge_tree)
//   return_entries(std::span<std::uint32_t const> pairs, state&) const   of such a codec with a residual: what was
//                                                       encoded last and did not count in the end. It needs one then
//   std::size_t encode_with_residual(bucket, std::span<float> residual, std::span<float> next, state&, out) const
//                                                       error feedback in passes of its own: `next` becomes bucket +
//                                                       residual less what is sent; default: encode, then decode_add
//
// A member of these names that cannot be used so is refused. Of wire_size and decode_add, which have several forms,
// that is seen where no form fits.
namespace dovetail::compress {

/// Where parts of payloads begin, in elements: there a byte begins, whatever the packing (5 numbers a byte, or 8 in
/// some).
inline constexpr std::size_t payload_step = 80;

/// State of a codec that remembers nothing.
struct no_state {
  std::vector<named_tensor> tensors(std::string const& /*prefix*/) { return {}; }
  friend bool operator==(no_state const&, no_state const&) = default;
};

namespace detail {

namespace codec_members {
DOVETAIL_MEMBER(wire_type)
DOVETAIL_MEMBER(name)
DOVETAIL_MEMBER(absorb)
DOVETAIL_MEMBER(encode_with_residual)
DOVETAIL_MEMBER(reader)
DOVETAIL_MEMBER(commit)
DOVETAIL_MEMBER(rollback)
DOVETAIL_MEMBER_CONSTANT(summable)
DOVETAIL_MEMBER_CONSTANT(fixed_size)
DOVETAIL_MEMBER_CONSTANT(unbiased)
DOVETAIL_MEMBER_CONSTANT(wants_error_feedback)
DOVETAIL_MEMBER_CONSTANT(contraction)
DOVETAIL_MEMBER_CONSTANT(rounds)
}  // namespace codec_members

template <class C>
struct codec_state {
  using type = void;
};
template <class C>
requires requires(C const& c, bucket const& b) { c.init(b); }
struct codec_state<C> {
  using type = decltype(std::declval<C const&>().init(std::declval<bucket const&>()));
};
template <class C>
requires(
    !requires(C const& c, bucket const& b) { c.init(b); } &&
    requires(C const& c, bucket const& b, context const& where) { c.init(b, where); })  //
    struct codec_state<C> {
  using type = decltype(std::declval<C const&>().init(std::declval<bucket const&>(), std::declval<context const&>()));
};
template <class C>
struct wire_type {
  using type = void;
};
template <class C>
requires requires { typename C::wire_type; }
struct wire_type<C> {
  using type = typename C::wire_type;
};

using bytes_out = std::span<std::byte>;
using bytes_in = std::span<std::byte const>;
template <class C, class State>
concept encodes_plainly = requires(C const& c, bucket const& b, State& s, bytes_out out) {
  { c.encode(b, s, out) } -> std::same_as<std::size_t>;
};
template <class C, class State>
concept encodes_with_context = requires(C const& c, bucket const& b, State& s, bytes_out out, context const& where) {
  { c.encode(b, s, out, where) } -> std::same_as<std::size_t>;
};
template <class C, class State>
concept absorbs = requires(C const& c, bytes_in payload, State& s, context const& where) {
  c.absorb(payload, s, where);
};
template <class C, class State>
concept decodes_with_state = requires(C const& c, bytes_in payload, std::span<float> out, float weight, State& s,
                                      context const& where) {
  c.decode_add(payload, out, weight, s, where);
};
template <class C>
concept decodes_with_context = requires(C const& c, bytes_in payload, std::span<float> out, float weight,
                                        context const& where) {
  c.decode_add(payload, out, weight, where);
};
template <class C, class State>
concept encodes_residual = requires(C const& c, bucket const& b, std::span<float> residual, State& s, bytes_out out) {
  { c.encode_with_residual(b, residual, residual, s, out) } -> std::same_as<std::size_t>;
};
template <class C>
concept reads_parts = requires(C const& c, bytes_in payload, std::span<float> out) {
  c.reader(payload, out.size()).add(std::size_t{}, out);
  c.reader(payload, out.size()).add(std::size_t{}, out, 1.0f);
  { c.reader(payload, out.size()).size() } -> std::same_as<std::size_t>;
  { c.reader(payload, out.size()).bytes() } -> std::same_as<std::size_t>;
};
template <class C, class State>
concept commits = requires(C const& c, State& s) {
  c.commit(s);
};
template <class C, class State>
concept rolls_back = requires(C const& c, State& s) {
  c.rollback(s);
};
template <class C, class State>
concept returns_entries = requires(C const& c, std::span<std::uint32_t const> pairs, State& s) {
  c.return_entries(pairs, s);
};
template <class T>
concept size_like = std::convertible_to<T, std::size_t> && !std::floating_point<std::remove_cvref_t<T>>;
template <class State>
concept lists_tensors = requires(State& s, std::string const& prefix) {
  { s.tensors(prefix) } -> std::convertible_to<std::vector<named_tensor>>;
};

}  // namespace detail

/// Who reads a codec's payloads in parts; of a codec around another one, that one.
template <class C>
struct codec_reader {
  static constexpr bool exists = detail::reads_parts<C>;
  static auto read(C const& codec, std::span<std::byte const> payload, std::size_t n) requires exists {
    return codec.reader(payload, n);
  }
};

/// What a codec is and has: the answers of all questions that are asked of one.
template <class C>
struct codec_traits {
  using state_type = typename detail::codec_state<C>::type;  ///< what init makes
  using wire_type = typename detail::wire_type<C>::type;

  static constexpr bool summable = detail::codec_members::summable_or<C>(false);
  static constexpr bool fixed_size = detail::codec_members::fixed_size_or<C>(false);
  static constexpr bool unbiased = detail::codec_members::unbiased_or<C>(false);
  static constexpr bool wants_error_feedback = detail::codec_members::wants_error_feedback_or<C>(false);
  static constexpr bool contraction = detail::codec_members::contraction_or<C>(false);
  static constexpr int rounds = detail::codec_members::rounds_or<C>(1);

  static constexpr bool has_name = requires(C const& c) { std::string(c.name()); };
  static constexpr bool sizes_elements = requires(C const& c, std::size_t n) {
    { c.wire_size(n) } -> std::same_as<std::size_t>;
  };
  static constexpr bool sizes_buckets = requires(C const& c, bucket const& b) { c.wire_size(b); };
  static constexpr bool sizes_rounds = requires(C const& c, bucket const& b, int round) { c.wire_size(b, round); };
  static constexpr bool inits_with_context = requires(C const& c, bucket const& b, context const& where) {
    c.init(b, where);
  };
  static constexpr bool takes_context = detail::encodes_with_context<C, state_type>;
  static constexpr bool encodes = takes_context || detail::encodes_plainly<C, state_type>;
  static constexpr bool absorbs = detail::absorbs<C, state_type>;
  static constexpr bool encodes_residual = detail::encodes_residual<C, state_type>;
  static constexpr bool reads_parts = codec_reader<C>::exists;
  static constexpr bool decodes_with_state = detail::decodes_with_state<C, state_type>;
  static constexpr bool decodes_with_context = detail::decodes_with_context<C>;
  static constexpr bool decodes_plainly =
      requires(C const& c, detail::bytes_in payload, std::span<float> out, float weight) {
    c.decode_add(payload, out, weight);
  };
  static constexpr bool decodes = decodes_with_state || decodes_with_context || decodes_plainly;
  static constexpr bool has_entries = requires(C const& c, detail::bytes_in payload, detail::bytes_out out,
                                               std::span<std::uint32_t> pairs, std::size_t n) {
    { c.count(n) } -> std::same_as<std::size_t>;
    { c.read_entries(payload, n, pairs) } -> std::same_as<std::size_t>;
    { c.write_entries(pairs, n, out) } -> std::same_as<std::size_t>;
  };
  static constexpr bool returns_entries = detail::returns_entries<C, state_type>;
  static constexpr bool takes_back = detail::commits<C, state_type> && detail::rolls_back<C, state_type>;
};

namespace detail {

/// Each breach of a codec's contract, in the order in which they are looked for.
enum class codec_fault : std::uint8_t {
  none,
  value,
  algebra,
  init,
  size,
  size_of_bucket,
  encode,
  decode,
  wire_type,
  rounds,
  several,
  absorb,
  name,
  residual,
  reader,
  taking_back
};

template <class C>
consteval codec_fault fault_of_codec() {
  using enum codec_fault;
  using traits = codec_traits<C>;
  using S = typename traits::state_type;
  namespace members = codec_members;
  if (!std::copyable<C>) return value;
  if (!members::summable_fits<C, bool> || !members::fixed_size_fits<C, bool> || !members::unbiased_fits<C, bool> ||
      !members::wants_error_feedback_fits<C, bool> || members::contraction_misfits<C, bool>())
    return algebra;
  if constexpr (!std::copyable<S> || !lists_tensors<S>) {
    return init;
  } else {
    if (!traits::sizes_elements) return size;
    if constexpr (traits::sizes_buckets)
      if (!size_like<decltype(std::declval<C const&>().wire_size(std::declval<bucket const&>()))>)
        return size_of_bucket;
    if constexpr (traits::sizes_rounds)
      if (!size_like<decltype(std::declval<C const&>().wire_size(std::declval<bucket const&>(), 0))>)
        return size_of_bucket;
    if (!traits::encodes) return encode;
    if (!traits::decodes) return decode;
    // Names are looked for where a use is not possible only: a codec that is as it should be costs no more.
    if constexpr (std::is_void_v<typename traits::wire_type>) {
      constexpr bool is_type = requires { typename C::wire_type; };
      if (traits::summable || (!is_type && members::has_wire_type<C>)) return wire_type;
    } else {
      using wire = typename traits::wire_type;
      if (traits::summable && (!std::is_trivially_copyable_v<wire> || std::is_const_v<wire>)) return wire_type;
    }
    if (members::rounds_misfits<C, int>() || traits::rounds < 1) return rounds;
    if (traits::rounds > 1) {
      if (!traits::summable || !traits::takes_context || !traits::absorbs) return several;
    } else {
      if (members::has_absorb<C>) return absorb;
    }
    if constexpr (!traits::has_name)
      if (members::has_name<C>) return name;
    if constexpr (!traits::encodes_residual)
      if (members::has_encode_with_residual<C>) return residual;
    if constexpr (!traits::reads_parts)
      if (members::has_reader<C>) return reader;
    if constexpr (!traits::takes_back)
      if (members::has_commit<C> || members::has_rollback<C>) return taking_back;
    return none;
  }
}

/// Refuses a codec for its first breach.
template <class C, codec_fault Fault = fault_of_codec<C>()>
struct must_be_a_codec {
  using enum codec_fault;
#define DOVETAIL_BREACH(fault, reason) DOVETAIL_REQUIRE(Fault != fault, reason, C)
  DOVETAIL_BREACH(value, "this is not a codec: it is not a value that can be copied and assigned");
  DOVETAIL_BREACH(algebra,
                  "this is not a codec: it does not say `static constexpr bool summable, fixed_size, unbiased, "
                  "wants_error_feedback`, all four (and perhaps `contraction`)");
  DOVETAIL_BREACH(
      init,
      "the codec's `init` cannot be called as `state init(compress::bucket const&) const`, perhaps with a last "
      "`compress::context const&`, for a copyable state with `std::vector<named_tensor> tensors(std::string const& "
      "prefix)`");
  DOVETAIL_BREACH(size, "the codec's `wire_size` cannot be called as `std::size_t wire_size(std::size_t n) const`");
  DOVETAIL_BREACH(size_of_bucket,
                  "the codec's `wire_size` of a bucket cannot be called as `std::size_t wire_size(compress::bucket "
                  "const&) const` or `std::size_t wire_size(compress::bucket const&, int round) const`");
  DOVETAIL_BREACH(encode,
                  "the codec's `encode` cannot be called as `std::size_t encode(compress::bucket const&, state&, "
                  "std::span<std::byte> out) const`, perhaps with a last `compress::context const&`");
  DOVETAIL_BREACH(decode,
                  "the codec's `decode_add` cannot be called as `decode_add(std::span<std::byte const> payload, "
                  "std::span<float> out, float weight) const`, perhaps with a last `compress::context const&`, and "
                  "`state&` before that");
  DOVETAIL_BREACH(wire_type,
                  "the codec's `wire_type` is not the type of the numbers that a summable codec's payload is an array "
                  "of: `using wire_type = float`, say");
  DOVETAIL_BREACH(rounds, "the codec's `rounds` is not `static constexpr int rounds = ...`, at least 1");
  DOVETAIL_BREACH(several,
                  "a codec of several rounds is summable, and has `std::size_t encode(compress::bucket const&, state&, "
                  "std::span<std::byte> out, compress::context const&) const` and `absorb(std::span<std::byte const> "
                  "payload, state&, compress::context const&) const`");
  DOVETAIL_BREACH(absorb,
                  "the codec has `absorb`, which is called between rounds, and does not say `static constexpr int "
                  "rounds`: it would never be called");
  DOVETAIL_BREACH(name, "the codec's `name` cannot be called as `name() const`, for what converts to a std::string");
  DOVETAIL_BREACH(residual,
                  "the codec's `encode_with_residual` cannot be called as `std::size_t "
                  "encode_with_residual(compress::bucket const&, std::span<float> residual, std::span<float> next, "
                  "state&, std::span<std::byte> out) const`");
  DOVETAIL_BREACH(
      reader,
      "the codec's `reader` cannot be called as `reader(std::span<std::byte const> payload, std::size_t n) "
      "const`, for a value with `void add(std::size_t first, std::span<float> out, float weight = 1) const` "
      "and `std::size_t size() const, bytes() const`");
  DOVETAIL_BREACH(taking_back,
                  "the codec's `commit` and `rollback` cannot be called as `commit(state&) const` and "
                  "`rollback(state&) const`: it has both or neither");
#undef DOVETAIL_BREACH
  static constexpr bool holds = Fault == none;
};
template <class C>
struct must_be_a_codec<C, codec_fault::none> {
  static constexpr bool holds = true;
};

}  // namespace detail

/// Exchanges that one bucket takes: 1 unless the codec says `rounds`.
template <class C>
inline constexpr int rounds_of = codec_traits<C>::rounds;

/// Element type of a summable codec's payload, void for others.
template <class C>
using wire_type_of = typename codec_traits<C>::wire_type;

/// Bytes of the payload of `round` for `b`: exact if the codec is of fixed size, otherwise at most. Takes the most
/// detailed of wire_size(bucket, round), wire_size(bucket) and wire_size(n) that the codec has: a low-rank codec needs
/// the shapes.
template <class C>
constexpr std::size_t wire_size(C const& codec, bucket const& b, int round = 0) {
  if constexpr (codec_traits<C>::sizes_rounds)
    return codec.wire_size(b, round);
  else if constexpr (codec_traits<C>::sizes_buckets)
    return codec.wire_size(b);
  else
    return codec.wire_size(b.size());
}

/// The state for one bucket, or for one shard of it.
template <class C>
typename codec_traits<C>::state_type init(C const& codec, bucket const& b, context const& where) {
  if constexpr (codec_traits<C>::inits_with_context)
    return codec.init(b, where);
  else
    return codec.init(b);
}

/// Encodes as the codec can: with the context, or without.
template <class C>
std::size_t encode(C const& codec, bucket const& b, typename codec_traits<C>::state_type& s, std::span<std::byte> out,
                   context const& where) {
  if constexpr (codec_traits<C>::takes_context)
    return codec.encode(b, s, out, where);
  else
    return codec.encode(b, s, out);
}

/// Decodes as the codec can. `s` is the receiver's state, `where` the context in which the payload was encoded.
template <class C>
void decode_add(C const& codec, std::span<std::byte const> payload, std::span<float> out, float weight,
                typename codec_traits<C>::state_type& s, context const& where) {
  if constexpr (codec_traits<C>::decodes_with_state)
    codec.decode_add(payload, out, weight, s, where);
  else if constexpr (codec_traits<C>::decodes_with_context)
    codec.decode_add(payload, out, weight, where);
  else
    codec.decode_add(payload, out, weight);
}

/// A value that reads a payload of n elements in parts; what traits' `reader` says.
template <class C>
requires codec_traits<C>::reads_parts auto read(C const& codec, std::span<std::byte const> payload, std::size_t n) {
  return codec_reader<C>::read(codec, payload, n);
}

/// The name for messages and tables: what the codec's `name()` says, otherwise "codec".
template <class C>
std::string name_of(C const& codec) {
  if constexpr (codec_traits<C>::has_name)
    return std::string(codec.name());
  else
    return "codec";
}

/// Throws argument_error unless `out` can take what `codec` may write for n elements.
inline void require_room(std::string_view codec, std::size_t n, std::size_t needed, std::span<std::byte const> out) {
  require(out.size() >= needed, codec, ": the payload of ", n, " elements takes ", needed, " bytes, the buffer has ",
          out.size(), ": size it by wire_size");
}

/// Throws input_error unless `payload` has the size that a fixed-size codec writes for n elements.
inline void require_payload(std::string_view codec, std::size_t n, std::size_t expected,
                            std::span<std::byte const> payload) {
  require<input_error>(payload.size() == expected, codec, ": a payload of ", payload.size(), " bytes for ", n,
                       " elements, where ", expected, " are written: it is truncated, or ranks disagree on the bucket");
}

}  // namespace dovetail::compress
