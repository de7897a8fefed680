// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/comm/communicator_traits.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/flat_copy.hpp>
#include <dovetail/core/hyperparameters.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/tensor_layout.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/sharding.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/sync/agreement.hpp>
#include <dovetail/sync/replica.hpp>

namespace dovetail::sync {

namespace detail {
/// The gradients of a range of the flat index space.
template <optim::gradient_source Source>
struct range_source {
  Source const* all;
  parameter_list const* list;

  double bytes() const { return all->bytes(); }
  static void check(parameter_list const&) {}  // the whole list was checked
  auto at(parameter_list const& own, std::size_t i) const {
    return all->at(*list, i).advanced(own[i].size() ? own[i].first - (*list)[i].first : 0);
  }
};
}  // namespace detail

/// An optimizer whose state is divided among ranks: each keeps and updates its part of the flat index space and then
/// gives its weights to the others (Rajbhandari et al., ZeRO, SC 2020, section 5.1). All ranks hold all weights, in the
/// list or where optim::low_precision_state has them, and the same gradients (and loss, if the rule needs it); every
/// call is collective. Sums over tensors run over all ranks, so LARS and LAMB see the norms of whole tensors;
/// elementwise rules give the bits of the undivided optimizer.
///
///     auto opt = sync::shard(optim::adamw{}, comm);    // comm must outlive it
///
/// Parts are equal, or what `bounds` says. optim::low_precision_state has them begin with a block of 256 elements; a
/// rule with tensorwise stages, and optim::partition, with a tensor; as evenly as these allow.
template <class Optimizer, communicator Communicator>
class sharded {
  static_assert(comm::detail::must_keep_replicas_equal<Communicator>::holds);
  /// What a rule needs that is known only when the program runs, its constructor checks.
  static constexpr bool chosen_when_run = optim::optimizer_traits<Optimizer>::chosen_when_run;
  static_assert(optim::detail::must_take_gradients<Optimizer>::holds);
  static_assert(chosen_when_run || !optim::optimizer_traits<Optimizer>::needs.layers,
                "sync::shard: this rule learns from layers, whose work sync::all_reduce divides among ranks already");
  using inner_state = decltype(std::declval<Optimizer const&>().init(std::declval<parameter_list&>()));

 public:
  /// One rank's part.
  struct state_type {
    /// This rank's state: "<prefix><parameter>.<slot>", of a divided tensor only the part that it has.
    std::vector<named_tensor> tensors(std::string const& prefix) { return inner.tensors(prefix); }
    friend bool operator==(state_type const& a, state_type const& b) {
      return a.bounds == b.bounds && a.rank == b.rank && a.tensors_of == b.tensors_of && a.inner == b.inner;
    }

    std::vector<std::size_t> bounds;  ///< rank r has flat indices bounds[r] to bounds[r + 1]
    int rank = 0;                     ///< whose part it is
    tensor_layout tensors_of;         ///< the whole list that it was made for
    inner_state inner;
    parameter_list list;                            ///< this rank's views, as they were last seen; no part of the value
    std::array<std::vector<std::byte>, 2> staging;  ///< of what is sent and what comes; no part of the value
    std::int64_t calls = 0;   ///< of step: what exchanges say that they are of; no part of the value
    std::vector<float> flat;  ///< weights that lie apart from each other, in one piece; no part of the value
  };

  static constexpr bool steps_together = true;
  /// Not layers: a rule that needs them was refused.
  static constexpr optim::rule_needs needs = [] {
    auto inner = optim::optimizer_traits<Optimizer>::needs;
    inner.layers = false;
    return inner;
  }();
  /// See optim::any_optimizer.
  optim::rule_needs chosen_needs() const { return needs_; }

  sharded(Optimizer rule, Communicator& comm, std::vector<std::size_t> bounds = {})
      : rule_(std::move(rule)), comm_(&comm), bounds_(std::move(bounds)), needs_(optim::needs_of(rule_)) {
    if constexpr (chosen_when_run)
      require(!needs_.layers, "sync::shard: ", policy_name(rule_),
              " learns from layers, whose work sync::all_reduce divides among ranks already: train with that");
  }

  /// Throws argument_error, as sync::all_reduce's join, if the ranks' parameters differ.
  state_type init(parameter_list const& parameters) const {
    require_same_list(parameters, *comm_, "sync::shard");
    return own_state(parameters);
  }
  template <class T, class Space>
  requires detail::other_list<basic_parameter_list<T, Space>>
  auto init(basic_parameter_list<T, Space> const&) const {
    static_assert(detail::refuse_list<basic_parameter_list<T, Space>>());
  }

 private:
  state_type own_state(parameter_list const& parameters) const {
    state_type s;
    s.bounds = bounds_.empty() ? even_bounds(parameters) : bounds_;
    check_bounds(parameters, s.bounds);
    s.rank = comm_->rank();
    s.tensors_of = tensor_layout(parameters);
    s.list = part_of(parameters, own(s));
    s.inner = rule_.init(s.list);
    return s;
  }

 public:
  optim::step_result step(parameter_list const& parameters, state_type& s,
                          optim::step_context const& context = {}) const {
    return step(parameters, s, optim::gradient::dense{}, context);
  }
  template <optim::detail::source_argument Source>
  optim::step_result step(parameter_list const& parameters, state_type& s, Source const& source,
                          optim::step_context context = {}) const {
    static_assert(optim::detail::must_be_a_source<Source>::holds);
    source.check(parameters);
    check(parameters, s);
    if (moved(parameters, s)) s.list = part_of(parameters, own(s));
    ++s.calls;
    context.all_reduce_sums = [&](std::span<double> sums) {
      detail::with_subject(*comm_, comm::subject{s.calls, 0}, [&] { comm_->all_reduce(sums, comm::reduction::sum); });
    };
    context.preconditioning = {};
    auto const r = optim::step_optimizer(rule_, s.list, s.inner, own_source(source, parameters), context);
    // Also if the step was skipped: of optim::partition that may be one rule's alone.
    detail::with_subject(*comm_, comm::subject{s.calls, 1}, [&] { share_weights(parameters, s); });
    return r;
  }

  /// Takes in this rank's part of an estimate of the Hessian's diagonal, which all ranks have whole.
  bool observe(parameter_list const& parameters, state_type& s, optim::hessian_diagonal const& d) const
      requires(needs.curvature) {
    check(parameters, s);
    require(d.estimate.size() == parameters.flat_size(), "sync::shard: an estimate of the Hessian's diagonal has ",
            d.estimate.size(), " elements, there are ", parameters.flat_size(), " parameters");
    if (!all_finite(d.estimate)) return false;  // in any part: the ranks' states stay of one step
    if (moved(parameters, s)) s.list = part_of(parameters, own(s));
    return rule_.observe(s.list, s.inner, optim::hessian_diagonal{d.estimate.subspan(own(s).begin, own(s).size())});
  }

  /// The state of the undivided optimizer, on every rank: what a checkpoint keeps, whatever the number of ranks.
  inner_state gathered(parameter_list const& parameters, state_type& s) const {
    check(parameters, s);
    auto whole = rule_.init(parameters);
    auto const to = arrays_of(whole), from = arrays_of(s.inner);
    each_own(parameters, s, to, from, [](std::span<std::byte> all, std::span<std::byte> own) { copy(own, all); });
    exchange(parameters, s, to);
    return whole;
  }
  /// This rank's part of an undivided state. Sends nothing. Throws argument_error if it is of another rule or list.
  state_type part_of_state(parameter_list const& parameters, inner_state whole) const {
    if constexpr (optim::optimizer_traits<Optimizer>::checks_states) rule_.check_state(parameters, whole);
    auto s = own_state(parameters);
    auto const from = arrays_of(whole), to = arrays_of(s.inner);
    each_own(parameters, s, from, to, [](std::span<std::byte> all, std::span<std::byte> own) { copy(all, own); });
    return s;
  }

 private:
  /// How to read what this rank has of the gradients. Its list has its parts of the parameters' own.
  template <class Source>
  static auto own_source(Source const& source, parameter_list const& parameters) {
    if constexpr (std::is_same_v<Source, optim::gradient::dense> || std::is_same_v<Source, optim::gradient::scaled>)
      return source;
    else
      return detail::range_source<Source>{&source, &parameters};
  }
  /// The elements between which bounds of parts cannot lie.
  std::size_t block() const {
    if constexpr (chosen_when_run)
      return needs_.whole_tensors ? optim::undivided : 1;
    else
      return optim::optimizer_traits<Optimizer>::division_block;
  }
  static std::vector<optim::divisible_array> arrays_of(inner_state& s) {
    DOVETAIL_REQUIRE(optim::divisible_state<inner_state>,
                     "sync::shard cannot put this state together or cut it: give it divisible_arrays(), as "
                     "optim/sharding.hpp says",
                     inner_state);
    return s.divisible_arrays();
  }

  range part(state_type const& s, int rank) const {
    auto const r = static_cast<std::size_t>(rank);
    return {s.bounds[r], s.bounds[r + 1]};
  }
  range own(state_type const& s) const { return part(s, comm_->rank()); }
  /// What of tensor i lies in a range of flat indices, counted from its beginning.
  static range in_tensor(parameter_list const& p, std::size_t i, range r) {
    auto const at = [&](std::size_t x) { return std::clamp(x, p.offset(i), p.offset(i + 1)) - p.offset(i); };
    return {at(r.begin), at(r.end)};
  }

  std::vector<std::size_t> even_bounds(parameter_list const& p) const {
    int const ranks = comm_->size();
    std::vector<std::size_t> bounds{0};
    for (int r = 0; r < ranks; ++r) {
      std::size_t const end = dovetail::shard(p.flat_size(), ranks, r).end;
      auto const [below, above] = allowed_around(p, end);
      bounds.push_back(std::max(above - end <= end - below ? above : below, bounds.back()));
    }
    return bounds;
  }
  /// The nearest bounds that the rule's blocks allow: x twice, or one below and one above it.
  std::pair<std::size_t, std::size_t> allowed_around(parameter_list const& p, std::size_t x) const {
    std::size_t const block = this->block();
    std::size_t i = 0;
    while (p.offset(i + 1) < x) ++i;
    std::size_t const first = p.offset(i), last = p.offset(i + 1);
    if (block == 1 || x == first || x == last) return {x, x};
    std::size_t const at = (x - first) % block;
    return {x - at, at ? std::min(last - (x - at), block) + (x - at) : x};
  }
  void check_bounds(parameter_list const& p, std::vector<std::size_t> const& b) const {
    require(b.size() == static_cast<std::size_t>(comm_->size()) + 1 && b.front() == 0 && b.back() == p.flat_size() &&
                std::is_sorted(b.begin(), b.end()),
            "sync::shard: ", b.size(), " bounds for ", comm_->size(), " ranks and ", p.flat_size(),
            " parameters: give one more than there are ranks, ascending from 0 to the number of parameters");
    for (auto const x : b) {
      auto const [below, above] = allowed_around(p, x);
      if (x == below) continue;
      std::size_t i = 0;
      while (p.offset(i + 1) < x) ++i;
      throw argument_error(
          message("sync::shard: the bound ", x, " divides tensor '", p[i].name, "' of flat indices ", p.offset(i),
                  " to ", p.offset(i + 1), ", of which this rule needs ",
                  block() == optim::undivided ? "all" : message("each ", block(), " elements from its beginning"),
                  " together: the nearest bounds are ", below, " and ", above));
    }
  }
  /// Every tensor of the list, as far as it lies in a range.
  static parameter_list part_of(parameter_list const& all, range r) {
    parameter_list list;
    for (std::size_t i = 0; i < all.size(); ++i) list.add_part(all[i], in_tensor(all, i, r));
    return list;
  }
  void check(parameter_list const& parameters, state_type const& s) const {
    require(s.bounds.size() == static_cast<std::size_t>(comm_->size()) + 1 && s.rank == comm_->rank(),
            "sync::shard: the state is the part of rank ", s.rank, " of ",
            s.bounds.size() < 2 ? 0 : s.bounds.size() - 1, ", this is rank ", comm_->rank(), " of ", comm_->size(),
            ": make it with this rank's init()");
    s.tensors_of.check(parameters, "sync::shard: the state");
  }
  static bool moved(parameter_list const& all, state_type const& s) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!s.list[i].size() || all[i].opaque()) continue;
      std::size_t const skip = s.list[i].first - all[i].first;
      if (s.list[i].weight.data() != all[i].weight.data() + skip ||
          s.list[i].gradient.data() != all[i].gradient.data() + skip)
        return true;
    }
    return false;
  }

  static void copy(std::span<std::byte const> from, std::span<std::byte> to) {
    if (!from.empty()) std::memcpy(to.data(), from.data(), from.size());
  }
  /// f(what this rank has of an array of the whole state, the array of its part).
  template <class F>
  void each_own(parameter_list const& p, state_type const& s, std::vector<optim::divisible_array> whole,
                std::vector<optim::divisible_array> parts, F const& f) const {
    auto const elements = [&](optim::divisible_array const& a) { return in_tensor(p, a.tensor, own(s)); };
    auto const not_here = [&](optim::divisible_array const& a) { return a.tensor < p.size() && elements(a).empty(); };
    std::erase_if(whole, not_here);
    std::erase_if(parts, not_here);
    bool same = whole.size() == parts.size();
    for (std::size_t k = 0; same && k < whole.size(); ++k) {
      auto const &a = whole[k], &b = parts[k];
      bool const divided = a.tensor < p.size();
      same = a.tensor == b.tensor && a.bytes.size() == (divided ? a.size(p[a.tensor].size()) : b.bytes.size()) &&
             b.bytes.size() == (divided ? a.size(elements(a).size()) : a.bytes.size());
    }
    require(same,
            "sync::shard: this state is of other parameters or of another rule than this one: make it with the "
            "undivided rule's init() for this list");
    for (std::size_t k = 0; k < whole.size(); ++k)
      f(whole[k].tensor < p.size() ? whole[k].of(elements(whole[k])) : whole[k].bytes, parts[k].bytes);
  }
  /// Gives this rank's part of whole arrays to the others, in place.
  void exchange(parameter_list const& p, state_type& s, std::vector<optim::divisible_array> const& arrays) const {
    auto& [sent, all] = s.staging;
    for (std::size_t first = 0, last = 0; first < arrays.size(); first = last) {
      std::size_t bytes = 0;
      while (last < arrays.size() && bytes < together) bytes += arrays[last++].bytes.size();
      if (!bytes) continue;
      auto const each_of_rank = [&](int r, auto const& f) {
        for (std::size_t k = first; k < last; ++k)
          if (auto const& a = arrays[k]; a.tensor != optim::everywhere) f(a.of(in_tensor(p, a.tensor, part(s, r))));
      };
      sent.clear();
      each_of_rank(comm_->rank(), [&](std::span<std::byte> x) { sent.insert(sent.end(), x.begin(), x.end()); });
      auto const offsets = comm_->all_gather_v(sent, all);
      for (int r = 0; r < comm_->size(); ++r) {
        std::size_t expected = 0, from = offsets[static_cast<std::size_t>(r)];
        each_of_rank(r, [&](std::span<std::byte> x) { expected += x.size(); });
        require(offsets[static_cast<std::size_t>(r) + 1] - from == expected,
                "sync::shard: the ranks have different parts: make every rank's state with the same bounds");
        if (r != comm_->rank())
          each_of_rank(r, [&](std::span<std::byte> x) {
            copy(std::span(all).subspan(from, x.size()), x);
            from += x.size();
          });
      }
    }
  }
  void share_weights(parameter_list const& parameters, state_type& s) const {
    bool even = true;
    for (int r = 0; r < comm_->size(); ++r)
      even = even && part(s, r).end == dovetail::shard(parameters.flat_size(), comm_->size(), r).end;
    // Which of the two: the same on all ranks, whatever their memory looks like.
    if (even && !parameters.has_opaque()) {
      auto const flat = parameters.flat_weights();
      if (!flat.empty() || !parameters.flat_size())
        comm_->all_gather(flat);  // without a copy
      else
        gather_apart(parameters, s);
    } else {
      std::vector<optim::divisible_array> weights;
      for (std::size_t i = 0; i < parameters.size(); ++i)
        if (!parameters[i].opaque()) weights.push_back(optim::divided(i, parameters[i].weight));
      exchange(parameters, s, weights);
    }
    auto const others = [&](std::vector<optim::divisible_array> const& arrays) { exchange(parameters, s, arrays); };
    if constexpr (optim::optimizer_traits<Optimizer>::template shares<decltype(others)>)
      rule_.share(parameters, s.inner, others);
  }

  /// The same as all_gather over weights that lie in one piece.
  void gather_apart(parameter_list const& parameters, state_type& s) const {
    s.flat.resize(parameters.flat_size());
    copy_to_flat(parameters, &parameter::weight, s.flat);
    comm_->all_gather(std::span(s.flat));
    copy_from_flat(s.flat, parameters, &parameter::weight);
  }

  /// Bytes of arrays that are exchanged at once, about: they are copied for that.
  static constexpr std::size_t together = std::size_t{1} << 22;

  Optimizer rule_;
  Communicator* comm_;
  std::vector<std::size_t> bounds_;
  optim::rule_needs needs_;
};

/// See sharded.
template <class Optimizer, communicator Communicator>
auto shard(Optimizer rule, Communicator& comm, std::vector<std::size_t> bounds = {}) {
  return sharded<Optimizer, Communicator>(std::move(rule), comm, std::move(bounds));
}

}  // namespace dovetail::sync
