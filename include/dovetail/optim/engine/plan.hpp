// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <tuple>
#include <utility>

#include <dovetail/core/config.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/engine/stage_calls.hpp>
#include <dovetail/optim/engine/stage_traits.hpp>
#include <dovetail/optim/rule_needs.hpp>
#include <dovetail/optim/stage.hpp>

// From a list of stages to passes over memory. The chain is cut where a stage needs sums: the pass before it reads what
// they depend on, and the pass behind it evaluates the earlier stages again (their emit is pure) instead of storing
// what they had passed on. Only in front of a tensorwise stage the update is stored, and the passes behind it read it
// instead of the gradient. Which arrays a pass touches is not declared by anybody: each pass is evaluated once with
// simd::tracer, at compile time.

namespace dovetail::optim {

inline constexpr std::size_t max_slots = 16, max_passes = 8;

/// The arrays of a step, as bits of a mask: the weights, the gradient, the slots of all stages in order, and the update
/// that is stored for tensorwise stages.
inline constexpr std::uint64_t weight_bit = 1, gradient_bit = 2, update_bit = std::uint64_t{1} << 63;
constexpr std::uint64_t slot_bit(std::size_t slot) { return std::uint64_t{4} << slot; }

/// One pass over memory.
struct pass_plan {
  std::uint64_t reads = 0, writes = 0;  ///< masks of arrays
  std::size_t begin = 0;                ///< first stage that this pass evaluates
  std::size_t advance_from = 0;         ///< stages [advance_from, end) advance in this pass, those before only emit
  std::size_t end = 0;                  ///< first stage that this pass does not evaluate
  bool reduces = false;                 ///< ends in sums of the update that reaches stage `end`
  bool of_gradient = false;             ///< its norm is that of the gradient: no stage in front has changed it
  bool stores = false;                  ///< stores the update, which stages [end, tensorwise_end) then map
  std::size_t tensorwise_end = 0;
  bool from_update = false;  ///< begins with the stored update instead of the gradient
  bool applies = false;      ///< the last pass: adds the update to the weights
  bool can_skip = false;     ///< nothing has been written when this pass ends
  bool guards = false;       ///< a stage that only skips is in it: squares that overflow a float are skipped, too
  // What a reducing pass adds up: the squares of the update and of the weights, then what a stage measures itself.
  bool per_tensor = false, update_norm = false, weight_norm = false;
  std::size_t measured = 0;
  /// True if the step must be skipped, from the sum of the squares of an update of floats or `doubles`.
  DOVETAIL_HD constexpr bool skips(double squares, bool doubles = false) const {
    // By bits, which order what is not negative, infinity and NaN above all numbers: whatever the compiler's flags.
    double const most = guards && !doubles ? 3.40282347e38 : 1.7976931348623157e308;
    return can_skip && dovetail::detail::bits_of<std::uint64_t>(squares) > std::bit_cast<std::uint64_t>(most);
  }
  constexpr std::size_t own_sums() const { return std::size_t{update_norm} + std::size_t{weight_norm}; }
  constexpr std::size_t sums() const { return own_sums() + measured; }
};

/// What a step costs, before it runs. Printable.
struct plan {
  std::size_t stages = 0, slots = 0, passes = 0;
  std::array<pass_plan, max_passes> pass{};
  std::array<char const*, max_slots> slot_names{};
  /// The pass whose sums stage i waits for.
  std::array<std::size_t, 32> point{};
  std::size_t factors = 0;          ///< numbers that all reducing stages make of their sums
  std::size_t scalars = 0;          ///< numbers that reducing stages remember
  std::size_t tensorwise = 0;       ///< tensorwise stages
  std::size_t rates = 0;            ///< stages with a learning rate
  bool slots_hold_weights = false;  ///< slots hold weights of before
  bool exact_slots = false;         ///< rounding of slots would be magnified
  bool by_tensor = false;           ///< from the first tensorwise stage on, the step can go tensor by tensor
  std::array<char const*, max_slots> scalar_names{};
  std::array<bool, max_slots> scalar_per_tensor{};

  /// The largest number of sums of a pass.
  constexpr std::size_t sums() const {
    std::size_t most = 0;
    for (std::size_t p = 0; p < passes; ++p)
      if (pass[p].reduces && pass[p].sums() > most) most = pass[p].sums();
    return most;
  }
  constexpr bool reduces() const { return sums() > 0; }
  /// The first pass that measures the norm of the gradient; `passes` if none does.
  constexpr std::size_t gradient_pass() const {
    std::size_t p = 0;
    while (p < passes && !pass[p].of_gradient) ++p;
    return p;
  }
  /// True if pass p loads the stored update and the gradient beside it.
  constexpr bool loads_both(std::size_t p) const { return pass[p].from_update && (pass[p].reads & gradient_bit); }

  /// Bytes that one step moves per parameter, if reading the gradient costs `gradient` bytes. What tensorwise stages
  /// do themselves is not in it.
  constexpr double bytes(double gradient = 4) const {
    double sum = 0;
    for (std::size_t p = 0; p < passes; ++p) {
      std::uint64_t const arrays = pass[p].reads & ~gradient_bit;
      sum += 4 * (std::popcount(arrays) + std::popcount(pass[p].writes));
      if (pass[p].reads & gradient_bit) sum += gradient;
    }
    return sum;
  }

  template <class Traits>  // so that <ostream> is needed where a plan is printed only
  friend std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out, plan const& p) {
    auto const list = [&](std::uint64_t mask) {
      if (mask & weight_bit) out << " weight";
      if (mask & gradient_bit) out << " gradient";
      if (mask & update_bit) out << " update";
      for (std::size_t s = 0; s < p.slots; ++s)
        if (mask & slot_bit(s)) out << ' ' << p.slot_names[s];
    };
    out << p.passes << (p.passes == 1 ? " pass, " : " passes, ") << p.bytes() << " bytes per parameter\n";
    for (std::size_t i = 0; i < p.passes; ++i) {
      out << "  pass " << i + 1 << ": reads";
      list(p.pass[i].reads);
      out << "; writes";
      if (!p.pass[i].writes) out << " nothing";
      list(p.pass[i].writes);
      if (p.pass[i].reduces)
        out << (p.pass[i].measured     ? "; sums"
                : p.pass[i].per_tensor ? "; norms"
                                       : "; global norm")
            << (p.pass[i].per_tensor ? " per tensor"
                : p.pass[i].measured ? " over all tensors"
                                     : "");
      if (p.pass[i].stores) out << "; then tensor by tensor";
      out << '\n';
    }
    return out;
  }
};

namespace detail {

/// 0, the first count, the sum of the first two, …
template <std::size_t... Counts>
consteval auto running_sum() {
  std::array<std::size_t, sizeof...(Counts) + 1> first{};
  std::size_t const counts[] = {Counts..., 0};
  for (std::size_t i = 0; i < sizeof...(Counts); ++i) first[i + 1] = first[i] + counts[i];
  return first;
}

template <class... Stages>
struct flow {
  static constexpr std::size_t stages = sizeof...(Stages);
  static constexpr std::size_t slots = (std::size_t{0} + ... + stage_traits<Stages>::slots);
  static constexpr std::size_t factors = (std::size_t{0} + ... + stage_traits<Stages>::factors);
  static constexpr std::size_t rates = (std::size_t{0} + ... + stage_traits<Stages>::has_rate);
  static constexpr rule_needs needs{.layers = (stage_traits<Stages>::collects || ...),
                                    .loss = (stage_traits<Stages>::wants_loss || ...),
                                    .curvature = (stage_traits<Stages>::observes_curvature || ...),
                                    .whole_tensors = (stage_traits<Stages>::is_tensorwise || ...)};
  using kernels = std::tuple<kernel_of<Stages>...>;
  template <std::size_t I>
  using stage = std::tuple_element_t<I, std::tuple<Stages...>>;

  /// First slot, factor, scalar and rate of each stage.
  static constexpr auto first_slot = running_sum<stage_traits<Stages>::slots...>();
  static constexpr auto first_factor = running_sum<stage_traits<Stages>::factors...>();
  static constexpr auto first_scalar = running_sum<stage_traits<Stages>::scalars...>();
  static constexpr auto first_rate = running_sum<std::size_t{stage_traits<Stages>::has_rate}...>();

  /// The update that reaches stage `End`, from `x`, whose update reaches stage `Begin`; stages from `From` on advance
  /// their slots. `factor` has those of all stages.
  template <std::size_t Begin, std::size_t From, std::size_t End, class T>
  DOVETAIL_INLINE static constexpr T run(kernels const& k, element_of<T> const& x, T* slot, T const* factor) {
    return run_stages<Begin, From>(k, x, slot, factor, std::make_index_sequence<End - Begin>{});
  }
  /// Advances stage S, which the update of `x` has reached, and gives the terms of the sums that it measures.
  template <std::size_t S, class T>
  DOVETAIL_INLINE static constexpr auto measure(kernels const& k, element_of<T> const& x, T* slot) {
    return measure_stage<stage<S>>(std::get<S>(k), x, slot + first_slot[S],
                                   std::make_index_sequence<stage_traits<stage<S>>::slots>{},
                                   gradient_argument<stage<S>>{});
  }

  /// Where the chain is cut.
  static constexpr plan cut() {
    plan p;
    p.slots_hold_weights = (stage_traits<Stages>::slots_hold_weights || ...);
    p.exact_slots = (stage_traits<Stages>::exact_slots || ...);
    p.stages = stages;
    p.rates = rates;
    p.slots = slots;
    p.factors = factors;
    p.scalars = first_scalar[stages];
    constexpr bool reducing[] = {stage_traits<Stages>::is_reducing..., false},
                   guards[] = {stage_traits<Stages>::precedes_state..., false},
                   through[] = {stage_traits<Stages>::passes_through..., false},
                   whole[] = {stage_traits<Stages>::is_tensorwise..., false},
                   solving[] = {stage_traits<Stages>::solves..., false};
    constexpr std::size_t measures[] = {stage_traits<Stages>::measured..., 0},
                          advances[] = {stage_traits<Stages>::slots..., 0};
    constexpr reduction wanted[] = {stage_traits<Stages>::needs..., reduction{}};
    std::size_t begin = 0, from = 0;
    bool stored = false;
    for (std::size_t i = 0; i < stages; ++i) {
      if (whole[i]) {
        ++p.tensorwise;
        pass_plan* pass = &p.pass[p.passes];
        if (stored && begin == i)
          --pass;  // two in a row: nothing comes between them
        else
          *pass = {.begin = begin, .advance_from = from, .end = i, .stores = true, .from_update = stored}, ++p.passes;
        if (!stored) p.by_tensor = true;
        if (solving[i]) p.by_tensor = false;
        pass->tensorwise_end = begin = from = i + 1;
        stored = true;
      }
      if (!reducing[i]) continue;
      if (stored) p.by_tensor = false;
      pass_plan& pass = p.pass[p.passes];
      pass = {.begin = begin, .advance_from = from, .end = i, .reduces = true, .from_update = stored};
      for (;; ++i) {  // consecutive reductions of the same update share the pass
        p.point[i] = p.passes;
        pass.end = i;
        pass.per_tensor |= wanted[i].per_tensor;
        pass.update_norm |= measures[i] == 0;
        pass.weight_norm |= wanted[i].weight_norm;
        pass.measured = measures[i];
        pass.guards |= guards[i];
        if (!through[i] || !reducing[i + 1] || advances[i + 1]) break;  // slots must not change before a skip
      }
      from = i + 1;
      ++p.passes;
    }
    p.pass[p.passes++] = {.begin = begin, .advance_from = from, .end = stages, .from_update = stored, .applies = true};
    return p;
  }

  /// The whole plan: cut, then traced.
  static constexpr plan make() {
    constexpr plan p = cut();
    static_assert(slots <= max_slots && stages <= 32 && p.passes <= max_passes && p.scalars <= max_slots,
                  "this chain is too long");
    return trace(p, std::make_index_sequence<p.passes>{});
  }

 private:
  template <std::size_t Begin, std::size_t From, class T, std::size_t... I>
  DOVETAIL_INLINE static constexpr T run_stages([[maybe_unused]] kernels const& k, element_of<T> x,
                                                [[maybe_unused]] T* slot, [[maybe_unused]] T const* factor,
                                                std::index_sequence<I...>) {
    ((x.u = apply_stage<stage<Begin + I>, (Begin + I >= From)>(
          std::get<Begin + I>(k), x, slot + first_slot[Begin + I], factor + first_factor[Begin + I],
          std::make_index_sequence<stage_traits<stage<Begin + I>>::slots>{},
          std::make_index_sequence<stage_traits<stage<Begin + I>>::factors>{}, gradient_argument<stage<Begin + I>>{})),
     ...);
    return x.u;
  }
  template <std::size_t... P>
  static constexpr plan trace(plan p, std::index_sequence<P...>) {
    std::uint64_t written = 0;
    (trace_pass<P>(p.pass[P], written), ...);
    std::size_t slot = 0, scalar = 0;
    (name_state<Stages>(p, slot, scalar), ...);
    return p;
  }
  template <std::size_t P>
  static constexpr void trace_pass(pass_plan& pass, std::uint64_t& written) {
    constexpr pass_plan known = cut().pass[P];
    kernels k{};
    simd::tracer slot[slots + 1]{}, f[factors + 1]{};
    for (std::size_t s = 0; s < slots; ++s) slot[s] = simd::tracer::input(static_cast<int>(s) + 2);
    element_of<simd::tracer> x{simd::tracer::input(0), simd::tracer::input(known.from_update ? 63 : 1),
                               simd::tracer::input(1)};
    auto const u = x.u = run<known.begin, known.advance_from, known.end>(k, x, slot, f);
    // The last pass and one that stores need the update itself, sums what they are made of.
    if (!pass.reduces || pass.update_norm) pass.reads = u.inputs;
    if (pass.weight_norm || pass.applies) pass.reads |= weight_bit;
    if constexpr (known.measured > 0)
      for (auto const& term : measure<known.end>(k, x, slot)) pass.reads |= term.a.inputs | term.b.inputs;
    pass.of_gradient = pass.update_norm && u.untouched && u.inputs == gradient_bit;
    if (pass.applies) pass.writes |= weight_bit;
    if (pass.stores) pass.writes |= update_bit;
    for (std::size_t s = 0; s < slots; ++s)
      if (!slot[s].untouched || slot[s].inputs != slot_bit(s)) {
        pass.writes |= slot_bit(s);
        pass.reads |= slot[s].inputs;
      }
    written |= pass.writes;
    pass.can_skip = pass.reduces && pass.update_norm && written == 0;
  }
  template <class S>
  static constexpr void name_state(plan& p, std::size_t& slot, std::size_t& scalar) {
    if constexpr ((stage_traits<S>::slots > 0))
      for (auto const* name : S::slots) p.slot_names[slot++] = name;
    if constexpr ((stage_traits<S>::scalars > 0))
      for (auto const* name : S::scalars) {
        p.scalar_per_tensor[scalar] = S::needs.per_tensor;
        p.scalar_names[scalar++] = name;
      }
  }
};

}  // namespace detail

}  // namespace dovetail::optim
