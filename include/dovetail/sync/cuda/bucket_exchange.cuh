// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <type_traits>

#include <cuda_runtime.h>

#include <dovetail/comm/nccl.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/cuda/codec.cuh>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/cuda.hpp>
#include <dovetail/core/cuda_span.hpp>
#include <dovetail/core/refuse.hpp>

namespace dovetail::sync::cuda {

/// One rank's end of the exchange of one bucket between devices: `run` replaces the bucket's values by their sum over
/// all ranks, as far as the codec can tell it. Payloads of a summable codec are added by NCCL's all-reduce, in its
/// order; those of others are gathered, and each rank adds what it decodes in rank order: the bits of
/// sync::bucket_exchange on the host.
///
/// Everything is queued on the stream of the communicator that it was made for. Nothing is allocated after
/// construction.
///
/// Errors: those of comm::nccl, and input_error for a payload that arrives damaged, from `wait`.
template <class Codec>
class bucket_exchange {
  using traits = compress::codec_traits<Codec>;
  static_assert(compress::cuda::detail::must_have_kernels<Codec>::holds);
  DOVETAIL_REQUIRE(traits::fixed_size&& traits::rounds == 1,
                   "sync::cuda::bucket_exchange gathers payloads of one size, in one round", Codec);
  static constexpr bool is_plain = std::is_same_v<Codec, compress::identity>;

 public:
  /// `offset`: flat index of the bucket's first element.
  bucket_exchange(Codec const& codec, dovetail::cuda::device_span<float const> values, comm::nccl const& c,
                  std::size_t offset = 0)
      : codec_(codec),
        ranks_(c.size()),
        rank_(c.rank()),
        offset_(offset),
        state_(compress::cuda::init(codec, values, c.device())),
        bytes_(is_plain ? 0 : codec.wire_size(values.size())),
        send_(bytes_, c.device()),
        receive_(traits::summable ? 0 : static_cast<std::size_t>(ranks_) * bytes_, c.device()) {}

  /// Collective, queued. Of `when`, the codec is told step, seed, bucket and rate; the rest follows from where it is.
  void run(comm::nccl& c, dovetail::cuda::device_span<float> values, compress::context const& when = {}) {
    if constexpr (is_plain) {
      sum_ = c.start().all_reduce(values);
    } else if constexpr (traits::summable) {
      using wire = typename traits::wire_type;
      encode(values, when);
      sum_ = c.start().all_reduce(
          dovetail::cuda::device_span<wire>{reinterpret_cast<wire*>(send_.data()), bytes_ / sizeof(wire)});
      clear(values);
      decode(send_, values, of(when, compress::context::sum_of_ranks));
    } else {
      encode(values, when);
      sum_ = c.start().all_gather(send_, receive_);
      clear(values);
      dovetail::cuda::device_span<std::byte const> const all(receive_);
      for (int r = 0; r < ranks_; ++r)
        decode(all.subspan(static_cast<std::size_t>(r) * bytes_, bytes_), values, of(when, r));
    }
  }
  /// Returns when the sum is there; throws where a rank is lost, or a payload was damaged: then the values are not to
  /// be used.
  void wait() {
    sum_.wait();
    compress::cuda::require_intact(codec_, state_);
  }

 private:
  void encode(dovetail::cuda::device_span<float const> values, compress::context const& when) {
    compress::cuda::encode(codec_, values, state_, send_, of(when, rank_));
  }
  void decode(dovetail::cuda::device_span<std::byte const> payload, dovetail::cuda::device_span<float> values,
              compress::context const& where) {
    compress::cuda::decode_add(codec_, payload, values, 1.0f, state_, where);
  }
  void clear(dovetail::cuda::device_span<float> values) {
    if (values.empty()) return;
    auto const& d = state_.device();
    auto const here = d.use();
    dovetail::cuda::check(cudaMemsetAsync(values.data(), 0, values.size_bytes(), d.stream), "cudaMemset");
  }
  /// The context of what `sender` has encoded, one of all ranks or the sum of all.
  compress::context of(compress::context const& when, int sender) const {
    compress::context where = when;
    where.rank = sender;
    where.ranks = ranks_;
    where.offset = offset_;
    where.first = sender <= 0;
    where.last = sender < 0 || sender + 1 == ranks_;
    return where;
  }

  Codec codec_;
  int ranks_, rank_;
  std::size_t offset_;
  typename compress::cuda::form<Codec>::state state_;
  std::size_t bytes_;
  dovetail::cuda::device_buffer<std::byte> send_, receive_;
  comm::nccl_ticket sum_;
};

}  // namespace dovetail::sync::cuda
