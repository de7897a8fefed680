// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/comm/operation.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/optim/gradient.hpp>
#include <dovetail/optim/mixed.hpp>
#include <dovetail/optim/plan.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step_options.hpp>

namespace dovetail::sync {

namespace detail {
/// The gradients of a range of the flat index space.
template <optim::gradient_source Source>
struct range_source {
  Source const* all;
  parameter_list const* list;
  std::size_t begin;

  double bytes() const { return all->bytes(); }
  static void check(parameter_list const&) {}  // the whole list was checked
  auto at(parameter_list const& own, std::size_t i) const {
    std::size_t const first = list->offset(i);
    return all->at(*list, i).advanced(own[i].size() && begin > first ? begin - first : 0);
  }
};
}  // namespace detail

/// An optimizer whose state is divided among ranks: each keeps and updates its part of the flat index space and then
/// gives its weights to the others (Rajbhandari et al., ZeRO, SC 2020, section 5.1). All ranks hold all weights and the
/// same gradients; every call is collective. Sums over tensors run over all ranks, so LARS and LAMB see the norms of
/// whole tensors; elementwise rules give the bits of the undivided optimizer.
///
///     auto opt = sync::shard(optim::adamw{}, comm);    // comm must outlive it
///
/// Parts are equal, or what `bounds` says; a rule with tensorwise stages gets whole tensors, as evenly as they allow.
template <class Optimizer, communicator Communicator>
class sharded {
  static_assert(!optim::detail::observes<Optimizer>,
                "sync::shard: this rule learns from layers, whose work sync::all_reduce divides among ranks already");
  using inner_state = decltype(std::declval<Optimizer const&>().init(std::declval<parameter_list&>()));

 public:
  /// One rank's part.
  struct state_type {
    /// This rank's state: "<prefix><parameter>.<slot>", of a divided tensor only the part that it has.
    std::vector<named_tensor> tensors(std::string const& prefix) { return inner.tensors(prefix); }
    friend bool operator==(state_type const& a, state_type const& b) {
      return a.bounds == b.bounds && a.inner == b.inner;
    }

    std::vector<std::size_t> bounds;  ///< rank r has flat indices bounds[r] to bounds[r + 1]
    inner_state inner;
    parameter_list list;         ///< this rank's views, as they were last seen; no part of the value
    std::vector<float> staging;  ///< for tensors that lie apart from each other; no part of the value
  };

  static constexpr bool steps_together = true;

  sharded(Optimizer rule, Communicator& comm, std::vector<std::size_t> bounds = {})
      : rule_(std::move(rule)), comm_(&comm), bounds_(std::move(bounds)) {}

  state_type init(parameter_list const& parameters) const {
    state_type s;
    s.bounds = bounds_.empty() ? even_bounds(parameters) : bounds_;
    check_bounds(parameters, s.bounds);
    s.list = part_of(parameters, own(s));
    if constexpr (requires { rule_.init(s.list, rule_.groups_of(parameters)); })
      s.inner = rule_.init(s.list, rule_.groups_of(parameters));
    else
      s.inner = rule_.init(s.list);
    return s;
  }

  optim::step_result step(parameter_list const& parameters, state_type& s,
                          optim::step_options const& options = {}) const {
    return step(parameters, s, optim::gradient::dense{}, options);
  }
  template <optim::gradient_source Source>
  optim::step_result step(parameter_list const& parameters, state_type& s, Source const& source,
                          optim::step_options options = {}) const {
    source.check(parameters);
    if (moved(parameters, s)) s.list = part_of(parameters, own(s));
    options.combine = [&](std::span<double> sums) { comm_->all_reduce(sums, comm::reduction::sum); };
    options.division = {};
    auto const r =
        rule_.step(s.list, s.inner, detail::range_source<Source>{&source, &parameters, own(s).begin}, options);
    if (!r.skipped) share_weights(parameters, s);
    return r;
  }

  /// The state of the undivided optimizer, on every rank: what a checkpoint keeps, whatever the number of ranks.
  inner_state gathered(parameter_list const& parameters, state_type& s) const {
    must_be_divisible();
    auto whole = rule_.init(parameters);
    whole.set_steps(s.inner.steps());
    for (std::size_t k = 0; k < whole.slots(); ++k) {
      auto const to = whole.slot(k);
      std::copy_n(s.inner.slot(k).begin(), own(s).size(), to.begin() + static_cast<std::ptrdiff_t>(own(s).begin));
      share(to, s);
    }
    // Scalars are the same everywhere; arrays are where their tensor is.
    each_other(whole, s.inner, [&](std::size_t tensor, std::span<std::byte> to, std::span<std::byte const> from) {
      if (tensor == everywhere) {
        std::copy(from.begin(), from.end(), to.begin());
      } else if (parameters[tensor].size()) {
        int const root = owner(s, parameters.offset(tensor));
        if (root == comm_->rank()) std::copy(from.begin(), from.end(), to.begin());
        comm_->broadcast(to, root);
      }
    });
    return whole;
  }
  /// This rank's part of an undivided state. Sends nothing.
  state_type part_of_state(parameter_list const& parameters, inner_state whole) const {
    must_be_divisible();
    auto s = init(parameters);
    s.inner.set_steps(whole.steps());
    for (std::size_t k = 0; k < whole.slots(); ++k)
      std::copy_n(whole.slot(k).begin() + static_cast<std::ptrdiff_t>(own(s).begin), own(s).size(),
                  s.inner.slot(k).begin());
    each_other(s.inner, whole, [](std::size_t, std::span<std::byte> to, std::span<std::byte const> from) {
      if (to.size() == from.size()) std::copy(from.begin(), from.end(), to.begin());
    });
    return s;
  }

 private:
  static constexpr void must_be_divisible() {
    static_assert(std::is_same_v<inner_state, optim::state>,
                  "sync::shard can put together the state of chains, named rules and optim::grouped only");
  }
  static constexpr std::size_t everywhere = static_cast<std::size_t>(-1);

  range own(state_type const& s) const {
    auto const r = static_cast<std::size_t>(comm_->rank());
    return {s.bounds[r], s.bounds[r + 1]};
  }
  int owner(state_type const& s, std::size_t flat) const {
    int r = 0;
    while (s.bounds[static_cast<std::size_t>(r) + 1] <= flat) ++r;
    return r;
  }
  std::vector<std::size_t> even_bounds(parameter_list const& p) const {
    int const ranks = comm_->size();
    std::vector<std::size_t> bounds{0};
    std::size_t tensor = 0;
    for (int r = 0; r < ranks; ++r) {
      std::size_t end = dovetail::shard(p.flat_size(), ranks, r).end;
      if constexpr (optim::detail::whole_tensors<Optimizer>) {  // the boundary between tensors that is nearest
        while (tensor < p.size() && p.offset(tensor) < end) ++tensor;
        std::size_t const above = p.offset(tensor), below = tensor ? p.offset(tensor - 1) : 0;
        end = r + 1 == ranks || above - end <= end - below ? above : below;
        end = std::max(end, bounds.back());
      }
      bounds.push_back(r + 1 == ranks ? p.flat_size() : end);
    }
    return bounds;
  }
  void check_bounds(parameter_list const& p, std::vector<std::size_t> const& b) const {
    require(b.size() == static_cast<std::size_t>(comm_->size()) + 1 && b.front() == 0 && b.back() == p.flat_size() &&
                std::is_sorted(b.begin(), b.end()),
            "sync::shard: ", b.size(), " bounds for ", comm_->size(), " ranks and ", p.flat_size(),
            " parameters: give one more than there are ranks, ascending from 0 to the number of parameters");
    if constexpr (optim::detail::whole_tensors<Optimizer>)
      for (auto const x : b) {
        std::size_t i = 0;
        while (p.offset(i) < x) ++i;
        require(p.offset(i) == x, "sync::shard: the bound ", x, " divides tensor '", p[i - 1].name,
                "', which this rule needs whole");
      }
  }
  /// Every tensor of the list, as far as it lies in a range; of the same rank of shape.
  static parameter_list part_of(parameter_list const& all, range r) {
    parameter_list list;
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::size_t const first = all.offset(i), last = first + all[i].size();
      std::size_t const begin = std::min(std::max(r.begin, first), last);
      std::size_t const n = std::max(begin, std::min(r.end, last)) - begin;
      shape s = all[i].shape;
      if (n != all[i].size()) {
        for (int d = 0; d < s.rank; ++d) s[d] = 1;
        if (s.rank == 0)
          s.push_back(static_cast<std::int64_t>(n));
        else
          s[s.rank - 1] = static_cast<std::int64_t>(n);
      }
      list.add(all[i].name, all[i].weight.subspan(begin - first, n), all[i].gradient.subspan(begin - first, n), s);
    }
    return list;
  }
  bool moved(parameter_list const& all, state_type const& s) const {
    require(all.size() == s.list.size() && all.flat_size() == s.bounds.back(), "sync::shard: the state was made for ",
            s.list.size(), " tensors of ", s.bounds.back(), " weights, the list has ", all.size(), " of ",
            all.flat_size(), ": call init() again");
    range const r = own(s);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!s.list[i].size()) continue;
      std::size_t const skip = r.begin > all.offset(i) ? r.begin - all.offset(i) : 0;
      if (s.list[i].weight.data() != all[i].weight.data() + skip ||
          s.list[i].gradient.data() != all[i].gradient.data() + skip)
        return true;
    }
    return false;
  }

  /// Gives this rank's part of a flat array to the others.
  void share(std::span<float> flat, state_type const& s) const {
    bool even = true;
    for (int r = 0; r < comm_->size(); ++r)
      even = even && s.bounds[static_cast<std::size_t>(r) + 1] == dovetail::shard(flat.size(), comm_->size(), r).end;
    if (even) {
      comm_->all_gather(flat);
      return;
    }
    std::vector<std::byte> all;
    comm_->all_gather_v(std::as_bytes(std::span<float const>(flat).subspan(own(s).begin, own(s).size())), all);
    require(all.size() == flat.size_bytes(),
            "sync::shard: the ranks have different parts: make every rank's state with ", "the same bounds");
    if (!all.empty()) std::memcpy(flat.data(), all.data(), all.size());
  }
  void share_weights(parameter_list const& parameters, state_type& s) const {
    if (auto const flat = parameters.flat_weights(); !flat.empty() || !parameters.flat_size()) {
      share(flat, s);
      return;
    }
    s.staging.resize(parameters.flat_size());
    for (std::size_t i = 0; i < parameters.size(); ++i)
      std::copy(parameters[i].weight.begin(), parameters[i].weight.end(),
                s.staging.begin() + static_cast<std::ptrdiff_t>(parameters.offset(i)));
    share(s.staging, s);
    for (std::size_t i = 0; i < parameters.size(); ++i)
      std::copy_n(s.staging.begin() + static_cast<std::ptrdiff_t>(parameters.offset(i)), parameters[i].size(),
                  parameters[i].weight.begin());
  }
  /// f(tensor or everywhere, to, from) for all scalars and arrays.
  template <class F>
  static void each_other(inner_state& to, inner_state& from, F const& f) {
    for (std::size_t c = 0; c < to.scalars(); ++c)
      f(everywhere, std::as_writable_bytes(to.scalar(c)), std::as_bytes(std::span<double const>(from.scalar(c))));
    to.each_array(from, [&](std::size_t tensor, std::span<float> a, std::span<float const> b) {
      f(tensor, std::as_writable_bytes(a), std::as_bytes(b));
    });
  }

  Optimizer rule_;
  Communicator* comm_;
  std::vector<std::size_t> bounds_;
};

/// See sharded.
template <class Optimizer, communicator Communicator>
auto shard(Optimizer rule, Communicator& comm, std::vector<std::size_t> bounds = {}) {
  return sharded<Optimizer, Communicator>(std::move(rule), comm, std::move(bounds));
}

}  // namespace dovetail::sync
