// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <cuda_runtime.h>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/cuda.hpp>
#include <dovetail/core/cuda_span.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/refuse.hpp>

// Codecs on a device. The codec is the host's value, and a payload has the bytes that it has on the host, so that ranks
// with and without a device can be in one group:
//
//   compress::int8 const codec;
//   auto state = compress::cuda::init(codec, gradients, device);
//   compress::cuda::encode(codec, gradients, state, payload, {.step = t});
//   compress::cuda::decode_add(codec, payload, sum, 1.0f, state);
//   compress::cuda::require_intact(codec, state);
//
// All but the last are queued on the state's stream, and wait for nothing. A codec's kernels are in a header of its
// family: half.cuh, sign.cuh, levels.cuh, top_k.cuh, random_k.cuh; codecs.cuh has all. Of a codec of your own,
// specialize `form`.
namespace dovetail::compress::cuda {

using dovetail::cuda::device_span;

/// What is wrong with a payload.
enum class fault : std::uint8_t { scale, tail, digits, index };

/// Which payload was damaged first, in device memory: a fault and its place. All bits set: none was.
using fault_word = unsigned long long;
inline constexpr fault_word intact = ~fault_word{0};

/// What encoding and decoding of buckets of one size need on a device beside what the codec remembers: memory that is
/// written before it is read, and the mark of damaged payloads. It belongs to its device and stream, as a
/// device_buffer does, and takes memory when it is made only.
class workspace {
 public:
  workspace(std::size_t n, std::size_t bytes, dovetail::cuda::device const& where)
      : device_(where), size_(n), scratch_(bytes, where), fault_(1, where) {
    clear();
  }

  std::size_t size() const { return size_; }  ///< elements of the bucket
  dovetail::cuda::device const& device() const { return device_; }
  std::size_t scratch_bytes() const { return scratch_.size(); }
  /// The scratch memory from byte `at` on, a multiple of T's size; the first byte is aligned to 256.
  template <class T>
  T* scratch(std::size_t at = 0) {
    return reinterpret_cast<T*>(scratch_.data() + at);
  }
  void clear_scratch(std::size_t bytes) {
    auto const here = device_.use();
    dovetail::cuda::check(cudaMemsetAsync(scratch_.data(), 0, bytes, device_.stream), "cudaMemset");
  }
  fault_word* fault_at() { return fault_.data(); }
  /// What was found since the last call. Waits for what was queued.
  fault_word take_fault() {
    fault_word found = intact;
    fault_.download(device_, {&found, 1});
    if (found != intact) clear();
    return found;
  }

 private:
  void clear() {
    auto const here = device_.use();
    dovetail::cuda::check(cudaMemsetAsync(fault_.data(), 0xff, sizeof(fault_word), device_.stream), "cudaMemset");
  }

  dovetail::cuda::device device_;
  std::size_t size_;
  dovetail::cuda::device_buffer<std::byte> scratch_;
  dovetail::cuda::device_buffer<fault_word> fault_;
};

/// A codec's kernels. A specialization has
///   using state = workspace;      or a type of its own with what is called below
///   static std::size_t scratch(codec const&, std::size_t n)       bytes of a workspace for n elements
///   static void encode(codec const&, device_span<float const> values, state&, std::byte* out, context const&)
///   static void decode_add(codec const&, std::byte const* payload, device_span<float> out, float weight, state&,
///                          context const&)
/// and may have
///   static void check(codec const&, float const* values, std::size_t n)   throws as the codec's init; default: init
/// `encode` writes the bytes that the codec writes on the host, `decode_add` adds what it adds there, nothing where the
/// payload or an earlier one is damaged. Sizes have been checked, there is at least one element, and payloads may lie
/// at any address. Both queue kernels on the state's stream.
template <class Codec>
struct form;

template <class Codec>
concept has_kernels = requires {
  typename form<Codec>::state;
};

namespace detail {

template <class Codec>
struct must_have_kernels {
  DOVETAIL_REQUIRE(
      has_kernels<Codec>,
      "compress::cuda: no kernels of this codec are included: its family's header is in compress/cuda/, and "
      "compress/cuda/codecs.cuh has all that there are",
      Codec);
  static constexpr bool holds = has_kernels<Codec>;
};
/// As the codec's own init does, which makes nothing of size here: throws argument_error for hyperparameters outside of
/// their ranges and for too many elements. Codecs look at a bucket's size only, not at the device's memory.
template <class Codec>
void check_codec(Codec const& codec, float const* values, std::size_t n) {
  if constexpr (requires { form<Codec>::check(codec, values, n); })
    form<Codec>::check(codec, values, n);
  else
    static_cast<void>(compress::init(codec, bucket{{values, n}, {}}, {}));
}
template <class Codec, class State>
void check_call(Codec const& codec, float const* values, std::size_t n, State& s, context const& where) {
  check_codec(codec, values, n);
  require(n == s.size() && form<Codec>::scratch(codec, n) <= s.scratch_bytes(), name_of(codec), ": a bucket of ", n,
          " elements meets a state made for ", s.size(),
          ", or for other hyperparameters: make one state per bucket with compress::cuda::init");
  require(!where.stream || where.stream == s.device().stream, name_of(codec),
          ": the context names another stream than the one that the state was made for");
}

[[noreturn]] DOVETAIL_COLD inline void refuse_payload(std::string_view codec, fault_word found) {
  auto const at = found & ~(fault_word{0xff} << 56);
  switch (static_cast<fault>(found >> 56)) {
    case fault::scale:
      throw input_error(message(codec, ": block ", at, " has a negative scale: the payload is damaged"));
    case fault::tail:
      throw input_error(message(codec, ": a payload has bits set behind the last element: it is damaged"));
    case fault::digits:
      throw input_error(message(codec, ": byte ", at,
                                " of the codes is no number of five digits of base 3: the "
                                "payload is damaged"));
    case fault::index:
      break;
  }
  throw input_error(
      message(codec, ": entry ", at, " has an index that does not rise or lies outside: the payload is damaged"));
}

}  // namespace detail

/// The state for buckets of the size of `values`, on a device and a stream of its own.
template <class Codec>
auto init(Codec const& codec, device_span<float const> values, dovetail::cuda::device const& where) {
  static_assert(detail::must_have_kernels<Codec>::holds);
  detail::check_codec(codec, values.data(), values.size());
  return typename form<Codec>::state(values.size(), form<Codec>::scratch(codec, values.size()), where);
}

/// Queues the encoding of `values` to `out`, which has room for codec.wire_size(n) bytes; returns that number. The
/// context is what the host's codec is told, for the same bytes; in a graph it is frozen.
template <class Codec>
std::size_t encode(Codec const& codec, device_span<float const> values, typename form<Codec>::state& s,
                   device_span<std::byte> out, context const& where = {}) {
  detail::check_call(codec, values.data(), values.size(), s, where);
  std::size_t const bytes = codec.wire_size(values.size());
  require_room(name_of(codec), values.size(), bytes, {out.data(), out.size()});
  if (!values.empty()) form<Codec>::encode(codec, values, s, out.data(), where);
  return bytes;
}

/// Queues out += weight × the decoded payload. A payload of another size is an input_error here; one that is damaged
/// adds nothing, nor do those behind it, until require_intact has said so.
template <class Codec>
void decode_add(Codec const& codec, device_span<std::byte const> payload, device_span<float> out, float weight,
                typename form<Codec>::state& s, context const& where = {}) {
  detail::check_call(codec, out.data(), out.size(), s, where);
  require_payload(name_of(codec), out.size(), codec.wire_size(out.size()), {payload.data(), payload.size()});
  if (!out.empty()) form<Codec>::decode_add(codec, payload.data(), out, weight, s, where);
}

/// Waits for what was queued; throws input_error if a payload was damaged since the last call: it and all behind it
/// have added nothing.
template <class Codec>
void require_intact(Codec const& codec, typename form<Codec>::state& s) {
  fault_word const found = s.take_fault();
  if (found != intact) detail::refuse_payload(name_of(codec), found);
}

}  // namespace dovetail::compress::cuda
