// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <dovetail/core/error.hpp>

namespace dovetail::comm {

/// Which ranks share a host: host_of[r] is the number of rank r's host. Hosts are numbered from 0 in the order of their
/// first ranks. Empty where nothing is known.
struct topology {
  std::vector<int> host_of;

  static topology one_host(int ranks) { return {std::vector<int>(static_cast<std::size_t>(ranks), 0)}; }
  /// Of any labels, equal for ranks of one host.
  template <class Label>
  static topology of(std::vector<Label> const& labels) {
    topology t;
    std::vector<Label> seen;
    for (auto const& label : labels) {
      auto const at = std::find(seen.begin(), seen.end(), label) - seen.begin();
      if (static_cast<std::size_t>(at) == seen.size()) seen.push_back(label);
      t.host_of.push_back(static_cast<int>(at));
    }
    return t;
  }

  bool empty() const { return host_of.empty(); }
  int ranks() const { return static_cast<int>(host_of.size()); }
  int hosts() const { return empty() ? 0 : 1 + *std::max_element(host_of.begin(), host_of.end()); }
  int host(int rank) const { return host_of[static_cast<std::size_t>(rank)]; }
  bool same_host(int a, int b) const { return empty() || host(a) == host(b); }
  /// In their order.
  std::vector<int> ranks_on(int h) const {
    std::vector<int> all;
    for (int r = 0; r < ranks(); ++r)
      if (host(r) == h) all.push_back(r);
    return all;
  }
  friend bool operator==(topology const&, topology const&) = default;
};

}  // namespace dovetail::comm
