// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include <dovetail/comm/async.hpp>
#include <dovetail/comm/communicator_traits.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/topology.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/sync/agreement.hpp>
#include <dovetail/sync/all_reduce_session.hpp>
#include <dovetail/sync/buckets.hpp>
#include <dovetail/sync/exchange.hpp>
#include <dovetail/sync/hierarchical_exchange.hpp>
#include <dovetail/sync/host_groups.hpp>
#include <dovetail/sync/hyperparameters.hpp>
#include <dovetail/sync/replica.hpp>

namespace dovetail::sync {

/// Synchronous data parallelism: gradients are summed over all ranks after every backward pass, then every rank takes
/// the same step, so replicas stay bitwise equal. Where there are more cores than ranks, buckets are exchanged by one
/// owner thread per rank while backward still computes earlier layers (wait-free backpropagation, Poseidon; tensor
/// fusion as in Horovod and PyTorch DDP).
///
///     sync::all_reduce{}                                                            // dense
///     sync::all_reduce{compress::error_feedback{compress::top_k{.ratio = 0.01f}}}   // compressed
///     sync::all_reduce{compress::sign{}, sync::exchange::all_gather{}}              // an exchange of one's choice
///     sync::all_reduce{compress::int8{}, sync::exchange::fused{}}                   // decoded by the optimizer's step
///     sync::all_reduce{compress::int8{}, sync::exchange::hierarchical{}}            // encoded between hosts only
///
/// A step whose summed gradient is not finite is skipped on every rank alike, and so is one that the optimizer skips:
/// weights, optimizer state and what codecs keep stay as they were. What is lost by a codec that wants error feedback
/// must be kept, or be said to be lost (compress::without_feedback).
///
/// `join` is collective. It throws argument_error if the ranks' parameters differ in names, shapes or order, naming
/// both; initial weights must be equal on all ranks (sync::make_equal), which `check_equal` makes it compare as well.
/// Every exchange says of which step and bucket it is: a rank whose step was abandoned and begun anew, while the others
/// are still in it, makes all throw rank_diverged.
template <class Codec = compress::identity, class Exchange = exchange::automatic>
struct all_reduce {
  static_assert(compress::detail::must_be_a_codec<Codec>::holds);
  DOVETAIL_REQUIRE(!compress::codec_traits<Codec>::wants_error_feedback,
                   "loses in every step what it does not send, and wants error feedback: write "
                   "compress::error_feedback{codec}, or compress::without_feedback{codec} if that is meant",
                   Codec);
  Codec codec{};
  Exchange plan{};
  std::size_t bucket_bytes = 4u << 20;  ///< fp32 gradients per bucket, at least
  bool measure_noise = false;           ///< squared norms before and after the exchange, for optim::noise_scale
  bool check_equal = false;             ///< join compares all ranks' starting weights, bit for bit, and hyperparameters
  std::uint64_t seed = 0;               ///< of codecs that round or choose at random; the same on all ranks
  comm::progress progress{};            ///< who exchanges: where ranks have all cores at work, step() itself

  template <optimizer Optimizer, communicator Communicator>
  auto join(parameter_list& parameters, Optimizer const& opt, Communicator& comm) const {
    static_assert(exchange::check_legal<exchange::among_payloads<Exchange>, Codec>::holds);
    static_assert(comm::detail::must_keep_replicas_equal<Communicator>::holds);
    require_same_list(parameters, comm, "sync::all_reduce");
    if (check_equal) {
      require_equal_weights(parameters, comm, "sync::all_reduce");
      require_equal_hyperparameters(hyperparameters_of(opt, codec), comm, "sync::all_reduce");
    }
    return all_reduce_session<Optimizer, Communicator, Codec, Exchange>(*this, parameters, opt, comm);
  }

  template <class T, class Space, class Optimizer, class Communicator>
  requires detail::other_list<basic_parameter_list<T, Space>>
  auto join(basic_parameter_list<T, Space>&, Optimizer const&, Communicator&) const {
    static_assert(detail::refuse_list<basic_parameter_list<T, Space>>());
  }

  /// What the buckets of one step (it matters to compress::after) move on rank `rank` of `ranks`: equal to what the
  /// communicator counts (for codecs of variable size an upper bound), before anything runs. What a rule exchanges
  /// besides (its loss, what layers showed it, work that ranks divide) is not in it.
  DOVETAIL_COLD comm::traffic predict(parameter_list const& parameters, int ranks, int rank,
                                      std::int64_t step = 0) const requires(!exchange::is_hierarchical<Exchange>) {
    comm::traffic total;
    each_bucket(parameters, [&](compress::bucket const& b) { total = total + cost_of(b, ranks, rank, step); });
    return total;
  }
  /// The same of sync::exchange::hierarchical among these hosts: what the session's communicator and its own ones count
  /// (`traffic`), and what of it leaves the host (as in comm::traffic).
  DOVETAIL_COLD comm::traffic predict(parameter_list const& parameters, comm::topology const& hosts, int rank,
                                      std::int64_t step = 0) const requires(exchange::is_hierarchical<Exchange>) {
    auto const place = detail::host_place::of(comm::topology::of(hosts.host_of), rank);
    comm::traffic total;
    std::size_t i = 0;
    each_bucket(parameters, [&](compress::bucket const& b) {
      int const lane = place.lane_of(i++);
      total = total + detail::cost_inside(b.size(), place, lane);
      if (place.local == lane) total = total + detail::between_hosts(cost_of(b, place.hosts, place.host, step));
    });
    return total;
  }

 private:
  template <class F>
  void each_bucket(parameter_list const& parameters, F const& f) const {
    static_assert(exchange::check_legal<exchange::among_payloads<Exchange>, Codec>::holds);
    buffer<float> const sizes_only(parameters.flat_gradients().empty() ? parameters.flat_size() : 0);
    auto const gradients = sizes_only.empty() ? std::span<float const>(parameters.flat_gradients()) : sizes_only.span();
    for (auto part : cut_buckets(parameters, bucket_bytes)) {
      auto const tensors = tensors_in(parameters, part);
      f(compress::bucket{gradients.subspan(part.begin, part.size()), tensors});
    }
  }
  comm::traffic cost_of(compress::bucket const& b, int ranks, int rank, std::int64_t step) const {
    return exchange::cost(exchange::choose<Exchange>(codec, b, ranks), codec, b, ranks, rank, step);
  }
};

}  // namespace dovetail::sync
