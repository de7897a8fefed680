// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>

#include <dovetail/core/finite.hpp>
#include <dovetail/core/parallel.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/engine/driver.hpp>
#include <dovetail/optim/engine/pass_loop.hpp>
#include <dovetail/optim/engine/plan.hpp>
#include <dovetail/optim/engine/stage_calls.hpp>
#include <dovetail/optim/engine/stage_traits.hpp>
#include <dovetail/optim/engine/tensorwise_calls.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/optim/tensorwise.hpp>

// Runs a plan on the host: one loop per pass, and what happens between passes.

namespace dovetail::optim {

namespace detail {

/// A thread gets at least this many elements: about 100 us of work.
inline constexpr std::size_t grain = std::size_t{1} << 16;

/// Elements that are decoded together where nothing asks for whole blocks: what the loop asks for early of the next
/// ones (detail::ahead) comes while they are decoded.
inline constexpr std::size_t window = 1024;
static_assert(reduction_block <= 4096 && window <= 4096, "what a source's window(n, room) has to be able to");

/// Slots and weights as they are, where the loops find them.
struct plain_store {
  static constexpr bool plain = true;

  /// f(its place in the tensor, value) for each value of a slot of tensor i.
  template <class T, class F>
  void each_of_slot(basic_state<T>& s, std::size_t slot, basic_parameter_list<T> const& parameters, std::size_t i,
                    F const& f) const {
    auto const values = s.slot(slot).subspan(parameters.offset(i), parameters[i].size());
    for (std::size_t at = 0; at < values.size(); ++at) f(at, values[at]);
  }
};

/// One step of a flow with one value of hyperparameters per group. `Lanes` keeps apart what was compiled with other
/// flags.
template <class T, class Flow, std::size_t Groups, class Source, class Store = plain_store,
          int Lanes = simd::pack::lanes>
class engine {
  using list = basic_parameter_list<T>;
  using state = basic_state<T>;

 public:
  using kernels = typename Flow::kernels;
  static constexpr plan all = Flow::make();

  engine(std::array<kernels, Groups> const& groups, list const& parameters, state& s, Source const& source,
         step_context const& context, Store const& store = {})
      : groups_(groups), parameters_(parameters), state_(s), source_(source), context_(context), store_(store) {}

  /// False if the step was skipped; state and weights are then as before.
  bool run() { return run_passes<Flow>(*this); }
  /// The gradient's norm, if the chain measures it, and -1 otherwise.
  double gradient_norm() const { return gradient_norm_; }

  // ---- for the driver
  static constexpr bool by_tensor = true;  // while it is in the cache
  template <class F>
  void each_tensor(F const& f) const {
    for (std::size_t i = 0; i < parameters_.size(); ++i) f(i);
  }
  template <std::size_t P>
  void launch() {
    if constexpr (all.pass[P].reduces || !Store::plain)
      parallel_for(context_.threads, state_.scratch().first_block.back(), grain / reduction_block,
                   [&](range r) { over_blocks<P>(r); });
    else
      parallel_for(context_.threads, parameters_.flat_size(), grain, [&](range r) { apply<P>(r); });
  }
  template <std::size_t P>
  void launch(std::size_t i) {
    auto const& first = state_.scratch().first_block;
    if constexpr (Store::plain)
      parallel_for(context_.threads, parameters_[i].size(), grain, [&](range r) {
        apply<P>({parameters_.offset(i) + r.begin, parameters_.offset(i) + r.end});
      });
    else
      parallel_for(context_.threads, first[i + 1] - first[i], grain / reduction_block, [&](range r) {
        over_blocks<P>({first[i] + r.begin, first[i] + r.end});
      });
  }
  template <std::size_t P>
  bool fold() {
    return add_blocks<P>();
  }
  template <std::size_t P>
  void map() {
    each_tensor([&](std::size_t i) { turn_update(i, false); });
    each_tensorwise<Flow, P>([&](auto stage) { map_all<stage>(); });
    each_tensor([&](std::size_t i) { turn_update(i, true); });
  }
  template <std::size_t P>
  void map(std::size_t i) {
    turn_update(i, false);
    each_tensorwise<Flow, P>([&](auto stage) { map_one<stage>(i); });
    turn_update(i, true);
  }

 private:
  template <std::size_t P>
  using loop = pass_loop<T, Flow, P, loop_source<T, Source>>;

  /// A pass without sums over flat indices r, in runs that are as long as memory allows.
  template <std::size_t P>
  void apply(range r) {
    if (r.empty()) return;
    std::size_t i = tensor_at(r.begin), at = r.begin;
    while (at < r.end) {
      auto const weight = parameters_[i].weight.data() + (at - parameters_.offset(i));
      auto const input = input_at<P>(i, at);
      auto const gradient = gradient_at<P>(i, at);
      std::size_t const first = i;
      std::size_t end = std::min(r.end, parameters_.offset(i + 1));
      for (++i; end < r.end && joins<P>(first, i, weight, input, gradient, end - at); ++i)
        end = std::min(r.end, parameters_.offset(i + 1));
      opened<std::remove_const_t<decltype(input)>> inputs;
      opened<std::remove_const_t<decltype(gradient)>> gradients;
      constexpr bool in_windows = inputs.in_windows || gradients.in_windows;
      for (std::size_t done = 0; at < end;) {
        std::size_t const n = in_windows ? std::min(end - at, window) : end - at;
        loop<P>::run(groups_[state_.group(first)], factors_of(first),
                     {weight + done, inputs(input.advanced(done), n), gradients(gradient.advanced(done), n),
                      context_.gradient_factor, slots_at(at), update_at(first, at)},
                     n);
        at += n;
        done += n;
      }
      while (at < r.end && parameters_.offset(i + 1) == at) ++i;  // empty tensors
    }
  }
  /// Tensor i continues the run of n elements that began in tensor `first`.
  template <std::size_t P, class Cursor, class Gradient>
  bool joins(std::size_t first, std::size_t i, T const* weight, Cursor const& input, Gradient const& gradient,
             std::size_t n) const {
    if (parameters_[i].size() == 0) return true;
    for (std::size_t p = 0; p < P; ++p)
      if (all.pass[p].per_tensor) return false;
    return state_.group(i) == state_.group(first) && parameters_[i].weight.data() == weight + n &&
           input.continued_by(n, input_at<P>(i, parameters_.offset(i))) &&
           gradient.continued_by(n, gradient_at<P>(i, parameters_.offset(i)));
  }

  /// A pass over blocks r, each within one tensor: one with sums, or one over packed memory.
  template <std::size_t P>
  void over_blocks(range r) {
    if (r.empty()) return;
    auto& scratch = state_.scratch();
    auto const& first = scratch.first_block;
    auto i = static_cast<std::size_t>(std::upper_bound(first.begin(), first.end(), r.begin) - first.begin()) - 1;
    for (std::size_t b = r.begin; b < r.end; ++i) {
      if (first[i + 1] == b) continue;  // an empty tensor
      for (; b < std::min(r.end, first[i + 1]); ++b) {
        std::size_t const at = (b - first[i]) * reduction_block;
        auto const s = block<P>(i, at, std::min(reduction_block, parameters_[i].size() - at));
        if constexpr (all.pass[P].reduces) std::copy(s.begin(), s.end(), scratch.blocks.data() + width * b);
      }
    }
  }
  /// n elements of tensor i from `at` on.
  template <std::size_t P>
  auto block(std::size_t i, std::size_t at, std::size_t n) {
    auto const& k = groups_[state_.group(i)];
    std::size_t const flat = parameters_.offset(i) + at;
    auto const input = input_at<P>(i, flat);
    auto const gradient = gradient_at<P>(i, flat);
    opened<std::remove_const_t<decltype(input)>> inputs;
    opened<std::remove_const_t<decltype(gradient)>> gradients;
    typename loop<P>::view const a{Store::plain ? parameters_[i].weight.data() + at : nullptr,
                                   inputs(input, n),
                                   gradients(gradient, n),
                                   context_.gradient_factor,
                                   Store::plain ? slots_at(flat) : std::array<T*, Flow::slots>{},
                                   Store::plain ? nullptr : update_at(i, flat)};
    if constexpr (Store::plain)
      return loop<P>::run(k, factors_of(i), a, n);
    else
      return store_.template run<loop<P>>(k, factors_of(i), parameters_, i, at, n, a);
  }

  /// Adds the blocks of each tensor, then the tensors, in their order, and other ranks' sums where it is asked for;
  /// decides whether the step is skipped, and the factors that waited for these sums.
  template <std::size_t P>
  bool add_blocks() {
    auto& scratch = state_.scratch();
    constexpr std::size_t count = all.pass[P].sums();
    auto const tensors = scratch.tensors.span().subspan(0, count * parameters_.size());
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      for (std::size_t k = 0; k < count; ++k) {
        double sum = 0;
        for (std::size_t b = scratch.first_block[i]; b < scratch.first_block[i + 1]; ++b)
          sum += scratch.blocks[width * b + k];
        tensors[count * i + k] = sum;
      }
    if (all.pass[P].per_tensor && context_.all_reduce_sums) context_.all_reduce_sums(tensors);
    std::array<double, count> total{};
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      for (std::size_t k = 0; k < count; ++k) total[k] += tensors[count * i + k];
    if (!all.pass[P].per_tensor && context_.all_reduce_sums) context_.all_reduce_sums(total);
    if constexpr (P == all.gradient_pass()) gradient_norm_ = std::sqrt(total[0]);
    if (all.pass[P].skips(total[0], std::is_same_v<T, double>)) return false;
    [&]<std::size_t... S>(std::index_sequence<S...>) { (decide<P, S>(tensors.data(), total.data()), ...); }
    (std::make_index_sequence<Flow::stages>{});
    return true;
  }
  /// The factors of stage S, if they waited for pass P, for every tensor.
  template <std::size_t P, std::size_t S>
  void decide(double const* tensors, double const* total) {
    using stage = typename Flow::template stage<S>;
    if constexpr (stage_traits<stage>::factors > 0)
      if constexpr (all.point[S] == P) {
        constexpr std::size_t count = all.pass[P].sums(),
                              own = stage_traits<stage>::measured > 0 ? all.pass[P].own_sums() : 0;
        constexpr std::size_t scalars = stage_traits<stage>::scalars;
        std::array<double, scalars + 1> before{}, now{};
        auto const remember = [&](std::array<double, scalars + 1>& x, std::size_t i) {
          for (std::size_t c = 0; c < scalars; ++c) x[c] = state_.scalar(Flow::first_scalar[S] + c)[i];
        };
        auto const keep = [&](std::array<double, scalars + 1> const& x, std::size_t i) {
          for (std::size_t c = 0; c < scalars; ++c) state_.scalar(Flow::first_scalar[S] + c)[i] = x[c];
        };
        if constexpr (!stage::needs.per_tensor) remember(before, 0);
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
          if constexpr (stage::needs.per_tensor) remember(before, i);
          now = before;
          auto const factors = factor_of<stage>(std::get<S>(groups_[state_.group(i)]),
                                                (stage::needs.per_tensor ? tensors + count * i : total) + own,
                                                now.data(), std::make_index_sequence<scalars>{});
          float* const to = state_.scratch().factors.data() + Flow::factors * i + Flow::first_factor[S];
          if constexpr (std::is_arithmetic_v<decltype(factors)>)
            *to = static_cast<float>(factors);
          else
            std::copy(factors.begin(), factors.end(), to);
          if constexpr (stage::needs.per_tensor) keep(now, i);
        }
        if constexpr (scalars > 0 && !stage::needs.per_tensor) {
          // What is remembered of all tensors together is one, and what the first group makes of it.
          now = before;
          factor_of<stage>(std::get<S>(groups_[0]), total + own, now.data(), std::make_index_sequence<scalars>{});
          if (parameters_.size() > 0) keep(now, 0);
        }
      }
  }

  // ---- tensorwise stages

  template <std::size_t S>
  auto const& whole(std::size_t i) const {
    return *std::get<S>(groups_[state_.group(i)]).stage;
  }
  template <std::size_t S>
  auto view(std::size_t i) {
    auto const& p = parameters_[i];
    std::size_t const at = parameters_.offset(i);
    std::span<T const> weight = p.weight;
    if (p.transposed) {
      auto const rows = room_to_turn(p.size());
      turn<T>(p.logical_shape(), weight.data(), rows.data());
      weight = rows;
    }
    basic_tensor_update<basic_host_algebra<T>> t{p.name,
                                                 p.logical_shape(),
                                                 state_.steps() + 1,
                                                 context_.threads,
                                                 weight,
                                                 {update_at(i, at), p.size()},
                                                 state_.arrays(S, i),
                                                 {state_.scratch().work, context_.threads}};
    if (!all.by_tensor && i + 1 < parameters_.size()) {
      t.next_name = &parameters_[i + 1].name;
      t.next_update = {t.update.data() + p.size(), parameters_[i + 1].size()};
    }
    return t;
  }
  /// Kept from step to step.
  std::span<T> room_to_turn(std::size_t n) {
    auto& turned = state_.scratch().turned;
    if (turned.size() < n) turned = buffer<T>(n);
    return turned.span().first(n);
  }
  /// Turns the update of a column-major tensor into rows, which tensorwise stages see, or back.
  void turn_update(std::size_t i, bool back) {
    auto const& p = parameters_[i];
    if (!p.transposed || p.size() == 0) return;
    auto const copy = room_to_turn(p.size());
    T* const update = update_at(i, parameters_.offset(i));
    std::copy_n(update, p.size(), copy.data());
    turn<T>(p.logical_shape(), copy.data(), update, back);
  }
  /// A stage's calls for tensor i, which has nothing to solve.
  template <std::size_t S>
  void map_one(std::size_t i) {
    if (!parameters_[i].size()) return;
    using stage = typename Flow::template stage<S>;
    auto const& own = whole<S>(i);
    if constexpr (observes_with<stage, decltype(view<S>(i))>) own.observe(view<S>(i));
    if constexpr (applies_with<stage, decltype(view<S>(i))>) own.apply(view<S>(i));
  }
  template <std::size_t S>
  void map_all() {
    auto const stage = [&](std::size_t i) -> auto const& { return whole<S>(i); };
    auto const tensor = [&](std::size_t i) { return view<S>(i); };
    map_tensors(stage, parameters_, tensor, [&](auto const& of) {
      if constexpr (std::is_same_v<T, float>)  // what ranks divide
        divide_work(parameters_, context_, state_.steps() + 1, of, tensor);
      else
        solve_all(of, parameters_, tensor, state_.steps() + 1);
    });
  }

  // ---- where things are

  static constexpr std::size_t width = all.sums();

  template <std::size_t P>
  auto input_at(std::size_t tensor, std::size_t flat) const {
    if constexpr (all.pass[P].from_update)
      return gradient::dense::cursor_of<T>{update_at(tensor, flat)};
    else
      return source_.at(parameters_, tensor).advanced(flat - parameters_.offset(tensor));
  }
  template <std::size_t P>
  auto gradient_at([[maybe_unused]] std::size_t tensor, [[maybe_unused]] std::size_t flat) const {
    if constexpr (all.loads_both(P))
      return source_.at(parameters_, tensor).advanced(flat - parameters_.offset(tensor));
    else
      return no_cursor{};
  }
  /// Where the update of a flat index in some tensor is stored.
  T* update_at([[maybe_unused]] std::size_t tensor, [[maybe_unused]] std::size_t flat) const {
    if constexpr (all.tensorwise == 0)
      return nullptr;
    else
      return state_.scratch().update.data() + flat - (all.by_tensor ? parameters_.offset(tensor) : 0);
  }
  float const* factors_of(std::size_t tensor) const { return state_.scratch().factors.data() + Flow::factors * tensor; }
  std::array<T*, Flow::slots> slots_at(std::size_t flat) {
    std::array<T*, Flow::slots> p{};
    for (std::size_t s = 0; s < Flow::slots; ++s) p[s] = state_.slot(s).data() + flat;
    return p;
  }
  /// The tensor that holds flat index `at`.
  std::size_t tensor_at(std::size_t at) const {
    std::size_t low = 0, high = parameters_.size();
    while (high - low > 1) {
      std::size_t const middle = (low + high) / 2;
      (parameters_.offset(middle) <= at ? low : high) = middle;
    }
    return low;
  }

  std::array<kernels, Groups> const& groups_;
  list const& parameters_;
  state& state_;
  Source const& source_;
  step_context const& context_;
  Store const& store_;
  double gradient_norm_ = -1;
};

}  // namespace detail

}  // namespace dovetail::optim
