// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <span>
#include <tuple>
#include <utility>

#include <dovetail/core/parallel.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/gradient.hpp>
#include <dovetail/optim/plan.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step_options.hpp>
#include <dovetail/optim/step_result.hpp>

// Runs a plan on the host. One loop per pass; its body is the chain's own functions, inlined, on machine registers.
// An element's bits depend on its values only: not on its position, the tensor's size or memory, or on threads.

namespace dovetail::optim {

namespace detail {

/// Elements of one round of a loop: independent registers hide the latency of the square root.
inline constexpr int unroll = 16 / simd::pack::lanes;
/// Elements by which loops ask for memory early.
inline constexpr std::size_t ahead = 512;
/// A thread gets at least this many elements: about 100 us of work.
inline constexpr std::size_t grain = std::size_t{1} << 16;

template <std::size_t Slots, class Cursor>
struct arrays {
  float* weight;
  Cursor gradient;
  std::array<float*, Slots> slot;
};

struct sums {
  double update = 0, weight = 0;
};

/// Pass P of a flow over n elements that lie contiguously in every array.
template <class Flow, std::size_t P, class Cursor, int Lanes = simd::pack::lanes>
struct pass_loop {
  static constexpr plan all = Flow::make();
  static constexpr pass_plan pass = all.pass[P];
  static constexpr std::size_t slots = Flow::slots, round = 16;
  using kernels = typename Flow::kernels;
  using factors = std::array<float, Flow::stages>;
  static constexpr bool reads(std::uint64_t bit) { return (pass.reads & bit) != 0; }
  static constexpr bool writes(std::uint64_t bit) { return (pass.writes & bit) != 0; }

  static sums run(kernels const& k, factors const& f, arrays<slots, Cursor> const& a, std::size_t n) {
    std::size_t const whole = n - n % round;
    sums s;
    if (whole) s = loop(k, f, a, whole, round);
    if (n > whole) {
      auto const t = tail(k, f, a, whole, n - whole);
      s.update += t.update;
      s.weight += t.weight;
    }
    return s;
  }

 private:
  /// The rest of fewer than `round` elements goes through the same machine code, on padded copies.
  static sums tail(kernels const& k, factors const& f, arrays<slots, Cursor> const& a, std::size_t at, std::size_t n) {
    alignas(64) float copies[1 + slots][round] = {};
    alignas(64) std::byte room[64];
    arrays<slots, Cursor> b{copies[0], a.gradient.advanced(at).padded(n, room), {}};
    std::size_t const bytes = n * sizeof(float);
    if constexpr (reads(weight_bit)) std::memcpy(copies[0], a.weight + at, bytes);
    for (std::size_t i = 0; i < slots; ++i) {
      b.slot[i] = copies[1 + i];
      if (reads(slot_bit(i))) std::memcpy(copies[1 + i], a.slot[i] + at, bytes);
    }
    sums const s = loop(k, f, b, round, n);
    if constexpr (writes(weight_bit)) std::memcpy(a.weight + at, copies[0], bytes);
    for (std::size_t i = 0; i < slots; ++i)
      if (writes(slot_bit(i))) std::memcpy(a.slot[i] + at, copies[1 + i], bytes);
    return s;
  }

  /// n is a multiple of `round`; of each round only the first `counted` elements enter the sums. Never inlined or
  /// cloned: that the rest runs through this very code is what makes bits independent of positions.
#if defined(__GNUC__) && !defined(__clang__)
  __attribute__((noclone))
#endif
  DOVETAIL_NOINLINE static sums
  loop(kernels const& kernel, factors const& factor, arrays<slots, Cursor> const& a, std::size_t n,
       [[maybe_unused]] std::size_t counted) {
    using simd::pack;
    constexpr std::size_t lanes = pack::lanes;
    // Local copies: stores to float arrays cannot change them, so they stay in registers.
    kernels const k = kernel;
    auto const arrays = a;
    pack f[Flow::stages + 1];
    for (std::size_t i = 0; i < Flow::stages; ++i) f[i] = factor[i];
    simd::square_sum update[2], weight[2];  // two chains of additions: more would not fit into registers
    simd::pack_mask keep[unroll];
    if constexpr (pass.reduces)
      for (int r = 0; r < unroll; ++r) keep[r] = simd::first_lanes(static_cast<int>(counted) - r * Lanes);

    auto const body = [&](std::size_t i, [[maybe_unused]] std::size_t r) __attribute__((always_inline)) {
      pack w = 0.0f, u = 0.0f, slot[slots + 1];
      if constexpr (reads(weight_bit)) w = pack::load(arrays.weight + i);
      if constexpr (reads(gradient_bit)) u = arrays.gradient.load(i);
      each_slot([&](auto s) __attribute__((always_inline)) {
        if constexpr (reads(slot_bit(s)))
          slot[s] = pack::load(arrays.slot[s] + i);
        else
          slot[s] = 0.0f;
      });
      u = Flow::template run<pass.advance_from, pass.end>(k, w, u, slot, f);
      each_slot([&](auto s) __attribute__((always_inline)) {
        if constexpr (writes(slot_bit(s))) slot[s].store(arrays.slot[s] + i);
      });
      if constexpr (pass.applies) (w + u).store(arrays.weight + i);
      if constexpr (pass.reduces) {
        update[r % 2].add(simd::keep(keep[r], u));
        if constexpr (pass.needs.weight_norm) weight[r % 2].add(w);  // padded with zeros
      }
    };
    for (std::size_t i = 0; i < n; i += round) {
      // A round is one cache line of each array; asking for lines early lets narrow registers keep the bus as busy as
      // wide ones do. Past the end of an array this is harmless.
      if constexpr (reads(weight_bit)) __builtin_prefetch(arrays.weight + i + ahead);
      if constexpr (reads(gradient_bit) && requires { arrays.gradient.prefetch(i); })
        arrays.gradient.prefetch(i + ahead);
      each_slot([&](auto s) __attribute__((always_inline)) {
        if constexpr (reads(slot_bit(s))) __builtin_prefetch(arrays.slot[s] + i + ahead);
      });
      if constexpr (unroll >= 1) body(i, 0);
      if constexpr (unroll >= 2) body(i + lanes, 1);
      if constexpr (unroll >= 4) {
        body(i + 2 * lanes, 2);
        body(i + 3 * lanes, 3);
      }
    }
    sums s;
    if constexpr (pass.reduces)
      for (int r = 0; r < 2; ++r) {
        s.update += update[r].total();
        if constexpr (pass.needs.weight_norm) s.weight += weight[r].total();
      }
    return s;
  }

  template <class F>
  DOVETAIL_INLINE static void each_slot(F const& f) {
    [&]<std::size_t... S>(std::index_sequence<S...>) __attribute__((always_inline)) {
      (f(std::integral_constant<std::size_t, S>{}), ...);
    }
    (std::make_index_sequence<slots>{});
  }
};

/// One step of a flow with one value of hyperparameters per group. `Lanes` keeps apart what was compiled with other
/// flags.
template <class Flow, std::size_t Groups, gradient_source Source, int Lanes = simd::pack::lanes>
class engine {
 public:
  using kernels = typename Flow::kernels;
  using cursor = decltype(std::declval<Source const&>().at(std::declval<parameter_list const&>(), 0));
  static constexpr plan all = Flow::make();

  engine(std::array<kernels, Groups> const& groups, parameter_list const& parameters, state& s, Source const& source,
         step_options const& options)
      : groups_(groups), parameters_(parameters), state_(s), source_(source), options_(options) {}

  /// False if the step was skipped; state and weights are then as before.
  bool run() {
    return [&]<std::size_t... P>(std::index_sequence<P...>) { return (run_pass<P>() && ...); }
    (std::make_index_sequence<all.passes>{});
  }
  /// Sum of squares of the update that reached the first reduction.
  double first_sum() const { return totals_[0].update; }

 private:
  using factors = std::array<float, Flow::stages>;

  template <std::size_t P>
  bool run_pass() {
    if constexpr (!all.pass[P].reduces) {
      parallel_for(options_.threads, parameters_.flat_size(), grain, [&](range r) { apply<P>(r); });
      return true;
    } else {
      auto const& first_block = state_.room().first_block;
      parallel_for(options_.threads, first_block.back(), grain / reduction_block, [&](range r) { reduce<P>(r); });
      add_blocks<P>();
      return !(all.pass[P].can_skip && !std::isfinite(totals_[P].update));
    }
  }

  /// The last pass over flat indices r, in runs that are as long as memory allows.
  template <std::size_t P>
  void apply(range r) {
    if (r.empty()) return;
    std::size_t i = tensor_at(r.begin), at = r.begin;
    while (at < r.end) {
      auto const weight = parameters_[i].weight.data() + (at - parameters_.offset(i));
      auto const gradient = source_.at(parameters_, i).advanced(at - parameters_.offset(i));
      std::size_t const first = i;
      std::size_t end = std::min(r.end, parameters_.offset(i + 1));
      for (++i; end < r.end && joins<P>(first, i, weight, gradient, end - at); ++i)
        end = std::min(r.end, parameters_.offset(i + 1));
      pass_loop<Flow, P, cursor>::run(groups_[state_.group(first)], factors_for<P>(first),
                                      {weight, gradient, slots_at(at)}, end - at);
      at = end;
      while (at < r.end && parameters_.offset(i + 1) == at) ++i;  // empty tensors
    }
  }
  /// Tensor i continues the run of n elements that began in tensor `first`.
  template <std::size_t P>
  bool joins(std::size_t first, std::size_t i, float const* weight, cursor const& gradient, std::size_t n) const {
    if (parameters_[i].size() == 0) return true;
    for (std::size_t p = 0; p < P; ++p)
      if (all.pass[p].needs.per_tensor) return false;
    return state_.group(i) == state_.group(first) && parameters_[i].weight.data() == weight + n &&
           gradient.continued_by(n, source_.at(parameters_, i));
  }

  /// A reducing pass over blocks r, each within one tensor.
  template <std::size_t P>
  void reduce(range r) {
    if (r.empty()) return;
    auto& room = state_.room();
    auto const& first = room.first_block;
    auto i = static_cast<std::size_t>(std::upper_bound(first.begin(), first.end(), r.begin) - first.begin()) - 1;
    for (std::size_t b = r.begin; b < r.end; ++i) {
      if (first[i + 1] == b) continue;  // an empty tensor
      auto const f = factors_for<P>(i);
      auto const& k = groups_[state_.group(i)];
      auto const gradient = source_.at(parameters_, i);
      for (; b < std::min(r.end, first[i + 1]); ++b) {
        std::size_t const at = (b - first[i]) * reduction_block;
        std::size_t const n = std::min(reduction_block, parameters_[i].size() - at);
        sums const s = pass_loop<Flow, P, cursor>::run(
            k, f, {parameters_[i].weight.data() + at, gradient.advanced(at), slots_at(parameters_.offset(i) + at)}, n);
        room.blocks[2 * b] = s.update;
        room.blocks[2 * b + 1] = s.weight;
      }
    }
  }

  /// Adds the blocks of each tensor, then the tensors, in their order; and other ranks' sums where it is asked for.
  template <std::size_t P>
  void add_blocks() {
    auto& room = state_.room();
    auto const tensors = tensor_sums(P);
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      sums s;
      for (std::size_t b = room.first_block[i]; b < room.first_block[i + 1]; ++b) {
        s.update += room.blocks[2 * b];
        s.weight += room.blocks[2 * b + 1];
      }
      tensors[2 * i] = s.update;
      tensors[2 * i + 1] = s.weight;
    }
    if (all.pass[P].needs.per_tensor && options_.combine) options_.combine(tensors);
    sums t;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      t.update += tensors[2 * i];
      t.weight += tensors[2 * i + 1];
    }
    if (!all.pass[P].needs.per_tensor && options_.combine) {
      std::array<double, 2> both{t.update, t.weight};
      options_.combine(both);
      t = {both[0], both[1]};
    }
    totals_[P] = t;
  }

  /// The factors of the reducing stages that were decided before pass P, for tensor i.
  template <std::size_t P>
  factors factors_for(std::size_t i) {
    factors f{};
    auto const& k = groups_[state_.group(i)];
    [&]<std::size_t... S>(std::index_sequence<S...>) { (decide<P, S>(f, k, i), ...); }
    (std::make_index_sequence<Flow::stages>{});
    return f;
  }
  template <std::size_t P, std::size_t S>
  void decide(factors& f, kernels const& k, std::size_t i) {
    using stage = typename Flow::template stage<S>;
    if constexpr (reducing_stage<stage> && !passes_through<stage>)
      if constexpr (all.point[S] < P) {
        sums s = totals_[all.point[S]];
        if constexpr (stage::needs.per_tensor) {
          auto const tensors = tensor_sums(all.point[S]);
          s = {tensors[2 * i], tensors[2 * i + 1]};
        }
        f[S] = std::get<S>(k).factor(norms{std::sqrt(s.update), std::sqrt(s.weight)});
      }
  }

  std::span<double> tensor_sums(std::size_t pass) {
    return state_.room().tensors.span().subspan(2 * parameters_.size() * pass, 2 * parameters_.size());
  }
  std::array<float*, Flow::slots> slots_at(std::size_t flat) {
    std::array<float*, Flow::slots> p{};
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
  parameter_list const& parameters_;
  state& state_;
  Source const& source_;
  step_options const& options_;
  std::array<sums, max_passes> totals_{};
};

}  // namespace detail

}  // namespace dovetail::optim
