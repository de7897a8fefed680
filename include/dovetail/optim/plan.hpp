// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <tuple>
#include <utility>

#include <dovetail/optim/stage.hpp>

// From a list of stages to passes over memory. The chain is cut where a stage needs a reduction: the pass before it
// reads what the reduction depends on, and the pass behind it evaluates the earlier stages again (their emit is pure)
// instead of storing what they had passed on. Which arrays a pass touches is not declared by anybody: each pass is
// evaluated once with simd::tracer, at compile time.

namespace dovetail::optim {

inline constexpr std::size_t max_slots = 16, max_passes = 8;

/// The arrays of a step, as bits of a mask: the weights, the gradient, then the slots of all stages in order.
inline constexpr std::uint64_t weight_bit = 1, gradient_bit = 2;
constexpr std::uint64_t slot_bit(std::size_t slot) { return std::uint64_t{4} << slot; }

/// One pass over memory.
struct pass_plan {
  std::uint64_t reads = 0, writes = 0;  ///< masks of arrays
  std::size_t advance_from = 0;         ///< stages [advance_from, end) advance in this pass, those before only emit
  std::size_t end = 0;                  ///< first stage that this pass does not evaluate
  bool reduces = false;                 ///< ends in a reduction of the update that reaches stage `end`
  bool applies = false;                 ///< the last pass: adds the update to the weights
  bool can_skip = false;                ///< nothing has been written when this pass ends
  reduction needs{};
};

/// What a step costs, before it runs. Printable.
struct plan {
  std::size_t stages = 0, slots = 0, passes = 0;
  std::array<pass_plan, max_passes> pass{};
  std::array<char const*, max_slots> slot_names{};
  /// The pass whose reduction stage i waits for.
  std::array<std::size_t, 32> point{};

  /// Bytes that one step moves per parameter, if reading the gradient costs `gradient` bytes.
  constexpr double bytes(double gradient = 4) const {
    double sum = 0;
    for (std::size_t p = 0; p < passes; ++p) {
      std::uint64_t const arrays = pass[p].reads & ~gradient_bit;
      sum += 4 * (std::popcount(arrays) + std::popcount(pass[p].writes));
      if (pass[p].reads & gradient_bit) sum += gradient;
    }
    return sum;
  }

  friend std::ostream& operator<<(std::ostream& out, plan const& p) {
    auto const list = [&](std::uint64_t mask) {
      if (mask & weight_bit) out << " weight";
      if (mask & gradient_bit) out << " gradient";
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
      if (p.pass[i].reduces) out << (p.pass[i].needs.per_tensor ? "; norms per tensor" : "; global norm");
      out << '\n';
    }
    return out;
  }
};

namespace detail {

template <class... Stages>
struct flow {
  static constexpr std::size_t stages = sizeof...(Stages);
  static constexpr std::size_t slots = (std::size_t{0} + ... + slot_count<Stages>);
  using kernels = std::tuple<kernel_of<Stages>...>;
  template <std::size_t I>
  using stage = std::tuple_element_t<I, std::tuple<Stages...>>;

  /// First slot of each stage.
  static constexpr std::array<std::size_t, stages + 1> first_slot = [] {
    std::array<std::size_t, stages + 1> first{};
    std::size_t const counts[] = {slot_count<Stages>..., 0};
    for (std::size_t i = 0; i < stages; ++i) first[i + 1] = first[i] + counts[i];
    return first;
  }();

  /// The update that reaches stage `End`, from the gradient `u`; stages from `From` on advance their slots.
  /// `factors` has one entry per stage.
  template <std::size_t From, std::size_t End, class T>
  DOVETAIL_INLINE static constexpr T run(kernels const& k, T w, T u, T* slots, T const* factors) {
    return run_stages<From>(k, w, u, slots, factors, std::make_index_sequence<End>{});
  }

  /// Where the chain is cut.
  static constexpr plan cut() {
    plan p;
    p.stages = stages;
    p.slots = slots;
    constexpr bool reducing[] = {reducing_stage<Stages>..., false}, through[] = {passes_through<Stages>..., false};
    constexpr reduction needs[] = {needs_of<Stages>()..., reduction{}};
    std::size_t from = 0;
    for (std::size_t i = 0; i < stages; ++i) {
      if (!reducing[i]) continue;
      pass_plan& pass = p.pass[p.passes];
      pass.advance_from = from;
      pass.end = from = i;
      pass.reduces = true;
      for (;; ++i) {  // consecutive reductions of the same update share the pass
        p.point[i] = p.passes;
        pass.needs.per_tensor |= needs[i].per_tensor;
        pass.needs.weight_norm |= needs[i].weight_norm;
        if (!through[i] || !reducing[i + 1]) break;
      }
      ++p.passes;
    }
    p.pass[p.passes++] = {.advance_from = from, .end = stages, .applies = true};
    return p;
  }

  /// The whole plan: cut, then traced.
  static constexpr plan make() {
    constexpr plan p = cut();
    static_assert(slots <= max_slots && stages <= 32 && p.passes <= max_passes, "this chain is too long");
    return trace(p, std::make_index_sequence<p.passes>{});
  }

 private:
  template <class S>
  static constexpr reduction needs_of() {
    if constexpr (reducing_stage<S>)
      return S::needs;
    else
      return {};
  }
  template <std::size_t From, class T, std::size_t... I>
  DOVETAIL_INLINE static constexpr T run_stages([[maybe_unused]] kernels const& k, [[maybe_unused]] T w, T u,
                                                [[maybe_unused]] T* slots, [[maybe_unused]] T const* factors,
                                                std::index_sequence<I...>) {
    ((u = apply_stage<stage<I>, (I >= From)>(std::get<I>(k), w, u, slots + first_slot[I], factors[I],
                                             slot_sequence<stage<I>>{})),
     ...);
    return u;
  }
  template <std::size_t... P>
  static constexpr plan trace(plan p, std::index_sequence<P...>) {
    std::uint64_t written = 0;
    ((trace_pass<cut().pass[P].advance_from, cut().pass[P].end>(p.pass[P], written)), ...);
    std::size_t n = 0;
    (name_slots<Stages>(p, n), ...);
    return p;
  }
  template <std::size_t From, std::size_t End>
  static constexpr void trace_pass(pass_plan& pass, std::uint64_t& written) {
    kernels k{};
    simd::tracer slot[slots + 1]{}, factors[stages + 1]{};
    for (std::size_t s = 0; s < slots; ++s) slot[s] = simd::tracer::input(static_cast<int>(s) + 2);
    auto const u = run<From, End>(k, simd::tracer::input(0), simd::tracer::input(1), slot, factors);
    pass.reads = u.inputs;
    if (pass.applies || pass.needs.weight_norm) pass.reads |= weight_bit;
    if (pass.applies) pass.writes |= weight_bit;
    for (std::size_t s = 0; s < slots; ++s)
      if (!slot[s].untouched || slot[s].inputs != slot_bit(s)) {
        pass.writes |= slot_bit(s);
        pass.reads |= slot[s].inputs;
      }
    written |= pass.writes;
    pass.can_skip = pass.reduces && written == 0;
  }
  template <class S>
  static constexpr void name_slots(plan& p, std::size_t& n) {
    if constexpr (has_slots<S>)
      for (auto const* name : S::slots) p.slot_names[n++] = name;
  }
};

}  // namespace detail

}  // namespace dovetail::optim
