// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <vector>

#include <dovetail/comm/algorithms/parts.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>

namespace dovetail::comm::algorithm {

/// Everybody sends everybody's part to them at once, and adds what came in rank order: one step for reduce_scatter,
/// all_gather, all_to_all and broadcast, two for all_reduce, 2 (P-1)/P of the array each way. Few steps, but P - 1
/// messages in each, and a broadcast's root sends the array P - 1 times.
struct direct {
  static constexpr char const* name = "direct";
  static constexpr sum_order sums = sum_order::rank_order;
  static constexpr operation_set implements{operation::all_reduce, operation::reduce_scatter, operation::all_gather,
                                            operation::all_to_all, operation::broadcast};

  schedule plan(collective const& c) const {
    schedule s;
    switch (c.op) {
      case operation::all_reduce:
        scatter(s, c);
        gather(s, c, c.block(c.rank));
        break;
      case operation::reduce_scatter:
        scatter(s, c);
        break;
      case operation::all_gather: {
        region const own{memory::input, 0, c.block(c.rank).size};
        s.add().then.push_back({c.block(c.rank), {own}});
        gather(s, c, c.block(c.rank));
        break;
      }
      case operation::all_to_all:
        exchange(s, c);
        break;
      case operation::broadcast: {
        auto& step = s.add();
        if (c.rank != c.root) step.recvs.push_back({c.root, c.all()});
        if (c.rank == c.root) for_peers(c, [&](int r) { step.sends.push_back({r, c.all()}); });
        break;
      }
      default:
        break;
    }
    return s;
  }

 private:
  /// In a rotated order, so that not all send to rank 0 first.
  template <class F>
  static void for_peers(collective const& c, F const& f) {
    for (int i = 1; i < c.ranks; ++i) f((c.rank + i) % c.ranks);
  }
  static void scatter(schedule& s, collective const& c) {
    auto const own = c.block(c.rank);
    std::vector<region> sources(static_cast<std::size_t>(c.ranks), own);
    auto& step = s.add();
    for_peers(c, [&](int r) {
      auto& room = sources[static_cast<std::size_t>(r)];
      room = s.scratch(own.size);
      step.sends.push_back({r, c.block(r)});
      step.recvs.push_back({r, room});
    });
    step.then.push_back({own, sources});
  }
  static void gather(schedule& s, collective const& c, region own) {
    auto& step = s.add();
    for_peers(c, [&](int r) {
      step.sends.push_back({r, own});
      step.recvs.push_back({r, c.block(r)});
    });
  }
  static void exchange(schedule& s, collective const& c) {
    auto& step = s.add();
    for_peers(c, [&](int r) {
      step.sends.push_back({r, detail::copy_of(c.block(r), memory::input)});
      step.recvs.push_back({r, c.block(r)});
    });
    step.then.push_back({c.block(c.rank), {detail::copy_of(c.block(c.rank), memory::input)}});
  }
};

}  // namespace dovetail::comm::algorithm
