// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/decorators/decorated_world.hpp>
#include <dovetail/comm/decorators/forwarding.hpp>
#include <dovetail/comm/topology.hpp>
#include <dovetail/comm/volume.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/refuse.hpp>

namespace dovetail::comm {

/// A communicator whose ranks say that they are on other hosts than they are. Made by with_topology. Its traffic counts
/// what would leave a host.
template <class C>
class topology_communicator : public forwarding<topology_communicator<C>, C> {
  DOVETAIL_REQUIRE(
      !requires(C & c) { c.algorithm(); },
      "has an algorithm, whose messages are counted where they are sent: give the topology to the communicator below, "
      "comm::with_algorithm(comm::with_topology(comm, hosts), algorithm)",
      C);
  using base = forwarding<topology_communicator<C>, C>;

 public:
  template <class Inner>
  topology_communicator(Inner&& inner, comm::topology hosts, comm::traffic hidden = {})
      : base(std::forward<Inner>(inner)), hidden_(hidden), hosts_(comm::topology::of(hosts.host_of)) {
    require(hosts_.ranks() == base::size(), "comm::with_topology: the hosts of ", hosts_.ranks(), " ranks for ",
            base::size());
  }
  comm::topology const& topology() const { return hosts_; }
  comm::traffic traffic() const {
    auto t = base::traffic() - hidden_;
    t.sent_off_host = off_host_;
    return t;
  }

  template <class F>
  void around(call const& c, F const& operation) {
    operation();
    off_host_ += volume_of(c, base::size(), base::rank(), hosts_).sent_off_host;
  }
  std::vector<std::size_t> all_gather_v(std::span<std::byte const> in, std::vector<std::byte>& all) {
    auto offsets = base::all_gather_v(in, all);
    off_host_ += detail::bytes_off_host(hosts_, base::rank(), [&](int) { return in.size(); });
    return offsets;
  }
  template <class Part>
  auto wrap(Part part) const {
    std::vector<std::int32_t> labels(static_cast<std::size_t>(part.size()));
    std::int32_t const mine = hosts_.host(base::rank());
    auto const before = part.traffic();
    part.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(labels)));
    auto const hidden = part.traffic() - before;
    return topology_communicator<Part>(std::move(part), comm::topology::of(labels), hidden);
  }

 private:
  comm::traffic hidden_;  // of finding out who is where
  comm::topology hosts_;
  std::uint64_t off_host_ = 0;
};

/// `communicator`, or a world of communicators, with these hosts in place of those that it knows: to try on one machine
/// what an algorithm does on several.
template <class C>
auto with_topology(C&& communicator, topology hosts) {
  using inner = std::remove_cvref_t<C>;
  if constexpr (detail::one_ranks_end<inner>)
    return topology_communicator<inner>(std::forward<C>(communicator), std::move(hosts));
  else
    return decorated_world(std::forward<C>(communicator), [hosts = std::move(hosts)](auto& c) {
      return topology_communicator<std::remove_cvref_t<decltype(c)>>(c, hosts);
    });
}

}  // namespace dovetail::comm
