// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/volume.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/sync/bucket_exchange.hpp>
#include <dovetail/sync/exchange.hpp>
#include <dovetail/sync/host_groups.hpp>

namespace dovetail::sync::detail {

/// What a bucket of n elements moves on a rank beside the exchange between hosts: all meet; the host's sum; and the sum
/// of hosts, from the one who has it.
DOVETAIL_COLD inline comm::traffic cost_inside(std::size_t n, host_place const& place, int lane) {
  comm::traffic total{0, 0, 1};
  auto const add = [&](comm::operation op, int root) {
    total = total + comm::volume_of({op, dtype::f32, comm::reduction::sum, root, n}, place.here, place.local);
  };
  if (place.here > 1) add(comm::operation::all_reduce, -1);
  if (place.here > 1 && place.hosts > 1) add(comm::operation::broadcast, lane);
  return total;
}
/// The exchange between hosts, all of which leaves this one.
inline comm::traffic between_hosts(comm::traffic t) {
  t.sent_off_host = t.bytes_sent;
  return t;
}

/// One rank's part in the exchange of one bucket by sync::exchange::hierarchical: `sum`, then `between` by the rank
/// whose lane it is (`is_here`), then `share`. Codec states lie with that rank only: `own`, because they are of the
/// sums of its host. Between `sum` of one bucket and `share` come those of the lanes beside it, so that these work at
/// once.
template <codec Codec>
class hierarchical_exchange {
 public:
  /// `plan` is for as many ranks as there are hosts. `values` as bucket_exchange's.
  template <class Plan>
  DOVETAIL_COLD hierarchical_exchange(Codec const& codec, Plan const& plan, parameter_list const& parameters,
                                      range part, std::span<float const> values, host_place const& place, int lane)
      : part_(part), lane_(lane), inside_(cost_inside(part.size(), place, lane)) {
    if (place.hosts > 1 && place.local == lane)
      exchange_.emplace(codec, plan, parameters, part, values, place.hosts, place.host);
  }

  range part() const { return part_; }
  /// Of who only sums: all_reduce.
  exchange::plan plan() const { return exchange_ ? exchange_->plan() : exchange::plan::all_reduce; }
  /// Whether this rank exchanges the bucket with other hosts.
  bool is_here() const { return exchange_.has_value(); }
  comm::traffic predicted(std::int64_t step = 0) const {
    return exchange_ ? inside_ + between_hosts(exchange_->predicted(step)) : inside_;
  }

  /// Collective: `values` become the sum of this host's.
  template <communicator C>
  void sum(host_groups<C>& groups, std::span<float> values, comm::subject const& about) {
    groups.inside(about, [&](auto& c) { c.all_reduce(values, comm::reduction::sum); });
  }
  /// Collective among those of this lane: `values`, the sum of a host, become that of all.
  template <communicator C>
  void between(host_groups<C>& groups, std::span<float> values, compress::context const& when,
               comm::subject const& about) {
    groups.between(about, [&](auto& c) { exchange_->run(c, values, when); });
  }
  /// Collective: `values` become those of the rank that has exchanged them.
  template <communicator C>
  void share(host_groups<C>& groups, std::span<float> values, comm::subject const& about) {
    if (groups.place().hosts > 1) groups.inside(about, [&](auto& c) { c.broadcast(values, lane_); });
  }
  void commit() {
    if (exchange_) exchange_->commit();
  }
  void rollback() {
    if (exchange_) exchange_->rollback();
  }
  DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
    std::vector<named_tensor> all;
    if (exchange_) all = exchange_->tensors(prefix);
    for (auto& t : all) t.kind = state_kind::own;
    return all;
  }

 private:
  range part_;
  int lane_;
  comm::traffic inside_;
  std::optional<bucket_exchange<Codec>> exchange_;
};

}  // namespace dovetail::sync::detail
