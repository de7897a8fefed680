// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/tensor_layout.hpp>
#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/engine/engine_of.hpp>
#include <dovetail/optim/gradient_source.hpp>
#include <dovetail/optim/low_precision/storage.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/rule_needs.hpp>
#include <dovetail/optim/sharding.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step.hpp>

namespace dovetail::optim {

/// What low_precision_state keeps: the state of its rule without slots, and those packed.
template <class Slots>
class stored_state {
 public:
  using code = typename Slots::code;

  stored_state() = default;
  template <class Space>
  stored_state(basic_parameter_list<float, Space> const& parameters, Slots const& slots, bool low, state full)
      : base_(std::move(full)), tensors_(parameters) {
    for (auto const& p : parameters)
      first_block_.push_back(first_block_.back() + (p.size() + storage_block - 1) / storage_block);
    for (std::size_t s = 0; s < base_.slots(); ++s) {
      names_.push_back(base_.slot_name(s));
      codes_.emplace_back(parameters.flat_size());
      scales_.emplace_back(Slots::scaled ? first_block_.back() : 0);
      for (std::size_t i = 0; i < parameters.size(); ++i)
        for (std::size_t at = 0; at < parameters[i].size(); at += storage_block) {
          std::size_t const n = std::min(storage_block, parameters[i].size() - at), flat = parameters.offset(i) + at;
          float const scale = slots.encode(base_.slot(s).subspan(flat, n), codes_[s].data() + flat, 0);
          if constexpr (Slots::scaled) scales_[s][block(i, at)] = scale;
        }
    }
    if (low) low_ = buffer<std::uint16_t>(parameters.flat_size());
    base_.release_slots();
  }

  std::int64_t steps() const { return base_.steps(); }
  /// Bytes of state, all tensors together.
  std::size_t bytes() const {
    std::size_t n = base_.bytes() + low_.size() * sizeof(std::uint16_t);
    for (std::size_t s = 0; s < codes_.size(); ++s)
      n += codes_[s].size() * sizeof(code) + scales_[s].size() * sizeof(float);
    return n;
  }
  /// "<prefix><parameter>.<slot>" as codes, "<prefix><parameter>.<slot>.scales" per block, "<prefix><parameter>.low"
  /// the lower halves of weights; and what the rule has beside slots.
  std::vector<named_tensor> tensors(std::string const& prefix) {
    auto list = base_.tensors(prefix);
    std::size_t at = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      auto const& [name, shape] = tensors_[i];
      auto const n = static_cast<std::size_t>(shape.size());
      for (std::size_t s = 0; s < codes_.size(); ++s) {
        auto const slot = message(prefix, name, '.', names_[s]);
        list.push_back(make_named_tensor(slot, codes_[s].span().subspan(at, n), shape));
        if constexpr (Slots::scaled)
          list.push_back(make_named_tensor(
              slot + ".scales", scales_[s].span().subspan(first_block_[i], first_block_[i + 1] - first_block_[i])));
      }
      if (!low_.empty())
        list.push_back(make_named_tensor(message(prefix, name, ".low"), low_.span().subspan(at, n), shape));
      at += n;
    }
    return list;
  }
  /// All of the value (optim/sharding.hpp).
  std::vector<divisible_array> divisible_arrays() {
    auto all = base_.divisible_arrays();
    std::size_t at = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      auto const n = static_cast<std::size_t>(tensors_[i].shape.size());
      for (std::size_t s = 0; s < codes_.size(); ++s) {
        all.push_back(divided(i, codes_[s].span().subspan(at, n)));
        if constexpr (Slots::scaled) {
          std::size_t const first = first_block_[i];
          all.push_back(divided(i, scales_[s].span().subspan(first, first_block_[i + 1] - first), storage_block));
        }
      }
      if (!low_.empty()) all.push_back(divided(i, low_.span().subspan(at, n)));
      at += n;
    }
    return all;
  }
  friend bool operator==(stored_state const& a, stored_state const& b) {
    auto const same = [](auto const& x, auto const& y) {
      auto const p = std::as_bytes(x.span()), q = std::as_bytes(y.span());
      return std::equal(p.begin(), p.end(), q.begin(), q.end());
    };
    return a.base_ == b.base_ && a.tensors_ == b.tensors_ && a.scales_ == b.scales_ && a.low_ == b.low_ &&
           std::equal(a.codes_.begin(), a.codes_.end(), b.codes_.begin(), b.codes_.end(), same);
  }

  // ---- for the engine
  state& base() { return base_; }
  state const& base() const { return base_; }
  /// Throws argument_error unless this state keeps the lower halves of weights, if they are needed, or nothing of them.
  void check_low(parameter_list const& parameters, bool needed) const {
    std::size_t const wanted = needed ? parameters.flat_size() : 0;
    require(low_.size() == wanted, "optim::low_precision_state: the state keeps the lower halves of ", low_.size(),
            " weights, this rule needs those of ", wanted, ": make the state with this optimizer's init()");
  }
  std::size_t block(std::size_t tensor, std::size_t at) const { return first_block_[tensor] + at / storage_block; }
  code* codes(std::size_t slot) { return codes_[slot].data(); }
  float* scales(std::size_t slot) { return scales_[slot].data(); }
  std::uint16_t* low() { return low_.data(); }

 private:
  state base_;
  tensor_layout tensors_;
  std::vector<std::string> names_;
  std::vector<std::size_t> first_block_{0};
  std::vector<buffer<code>> codes_;
  std::vector<buffer<float>> scales_;
  buffer<std::uint16_t> low_;
};

namespace detail {

/// Slots in fp32, packed like the others only because the weights are.
struct copied_slots {
  static constexpr bool plain = false, scaled = false;
  using code = float;
  std::uint64_t seed = 0;
  static float encode(std::span<float const> x, float* codes, std::uint32_t) {
    std::copy(x.begin(), x.end(), codes);
    return 1;
  }
  static void decode(float const* codes, float, std::span<float> x) { std::copy_n(codes, x.size(), x.begin()); }
};

/// The seed that weights are rounded with: their policy's own, or that of the slots.
template <class Slots, class Weights>
std::uint64_t weight_seed(Slots const& slots, Weights const& weights) {
  if constexpr (requires { weights.seed; })
    return weights.seed;
  else
    return slots.seed;
}

/// The words of a block's arrays.
template <std::size_t Arrays>
std::array<std::uint32_t, (Arrays + 3) / 4 * 4> random_words(random_stream const& random, std::uint64_t block) {
  std::array<std::uint32_t, (Arrays + 3) / 4 * 4> all;
  for (std::size_t i = 0; i < all.size(); i += 4) {
    auto const four = random.words(static_cast<std::uint32_t>((block_word(block, Arrays) + i) / 4));
    std::copy(four.begin(), four.end(), &all[i]);
  }
  return all;
}

/// Runs the loop of a pass on unpacked blocks.
template <class Slots, class Weights>
struct packed_store {
  static constexpr bool plain = false;
  Slots const& slots;
  Weights const& weights;
  stored_state<Slots>& state;

  /// n elements of a tensor from `begin` on, where the view's gradients and update begin.
  template <class Loop, class Kernels>
  typename Loop::sums run(Kernels const& k, float const* factors, parameter_list const& parameters, std::size_t tensor,
                          std::size_t begin, std::size_t n, typename Loop::view const& from) const {
    typename Loop::sums total{};
    for (std::size_t at = begin; at < begin + n; at += storage_block) {
      std::size_t const count = std::min(storage_block, begin + n - at), flat = parameters.offset(tensor) + at;
      std::size_t const in_whole = parameters[tensor].first + at;  // of which this rank may have a part
      alignas(64) float w[storage_block], values[Loop::slots + 1][storage_block];
      float* weight = w;
      if constexpr (Weights::in_parameters)
        weight = parameters[tensor].weight.data() + at;
      else if constexpr (Loop::reads(weight_bit))
        weights.load(tensor, in_whole, low(flat), std::span(w, count));
      std::size_t const done = at - begin;
      typename Loop::view a{weight,
                            from.input.advanced(done),
                            from.gradient.advanced(done),
                            from.factor,
                            {},
                            from.update ? from.update + done : nullptr};
      Loop::each_slot([&](auto s) {
        a.slot[s] = values[s];
        if constexpr (Loop::reads(slot_bit(s)))
          slots.decode(state.codes(s) + flat, scale(s, tensor, at), std::span(values[s], count));
      });
      auto const sums = Loop::run(k, factors, a, count);
      for (std::size_t i = 0; i < sums.size(); ++i) total[i] += sums[i];
      // One word for every array and block.
      random_stream const of_slots{slots.seed, static_cast<std::uint32_t>(tensor)};
      auto const words = random_words<Loop::slots + 1>(of_slots, in_whole / storage_block);
      auto const step = static_cast<std::uint64_t>(state.steps());
      Loop::each_slot([&](auto s) {
        if constexpr (Loop::writes(slot_bit(s))) {
          float const scale = slots.encode(std::span<float const>(values[s], count), state.codes(s) + flat,
                                           codes::word_of_step(words[s], step));
          if constexpr (Slots::scaled) state.scales(s)[state.block(tensor, at)] = scale;
        }
      });
      if constexpr (Loop::writes(weight_bit) && !Weights::plain) {
        random_stream const random{weight_seed(slots, weights), static_cast<std::uint32_t>(tensor), step};
        weights.store(tensor, in_whole, low(flat), std::span<float const>(weight, count),
                      random.word(block_word(in_whole / storage_block, Loop::slots + 1) + Loop::slots));
      }
    }
    return total;
  }

  /// f(its place in the tensor, value) for each value of a slot, which is packed again.
  template <class F>
  void each_of_slot(optim::state const& base, std::size_t s, parameter_list const& parameters, std::size_t tensor,
                    F const& f) const {
    random_stream const random{slots.seed, static_cast<std::uint32_t>(tensor)};
    for (std::size_t at = 0; at < parameters[tensor].size(); at += storage_block) {
      float values[storage_block];
      std::size_t const n = std::min(storage_block, parameters[tensor].size() - at);
      auto* const codes = state.codes(s) + parameters.offset(tensor) + at;
      slots.decode(codes, scale(s, tensor, at), std::span(values, n));
      for (std::size_t i = 0; i < n; ++i) f(at + i, values[i]);
      // The word of a step that would write this slot.
      auto const word = random.word(block_word((parameters[tensor].first + at) / storage_block, base.slots() + 1) + s);
      float const scale = slots.encode(std::span<float const>(values, n), codes,
                                       codes::word_of_step(word, static_cast<std::uint64_t>(state.steps())));
      if constexpr (Slots::scaled) state.scales(s)[state.block(tensor, at)] = scale;
    }
  }

 private:
  std::uint16_t* low(std::size_t flat) const { return Weights::needs_low ? state.low() + flat : nullptr; }
  float scale(std::size_t s, std::size_t tensor, std::size_t at) const {
    return Slots::scaled ? state.scales(s)[state.block(tensor, at)] : 1.0f;
  }
};

}  // namespace detail

/// A rule whose slots and weights are kept in other formats than fp32; its arithmetic stays fp32:
///
///     optim::low_precision_state{optim::adamw{}, optim::blockwise_8bit{}}   // 2 bytes of slots per weight
///     optim::low_precision_state{optim::adamw{}, optim::bf16_slots{}, optim::split_weights{{spans of bf16 weights}}}
///     optim::low_precision_state{optim::adamw{}, optim::fp32_slots{}, optim::master_weights<fp16>{{spans}}}
///
/// Weights that are not in the parameter list (split, rounded) go with a list of names and shapes
/// (parameter_list::add_opaque) and a gradient source of their own. Arrays of tensorwise stages stay fp32. init
/// makes fp32 slots for a moment. Random numbers are keyed by the policy's seed, the tensor's place in the list and the
/// step.
template <class Rule, class Slots = fp32_slots, class Weights = fp32_weights>
class low_precision_state {
  static_assert(!Slots::plain || !Weights::plain,
                "optim::low_precision_state: nothing here differs from the rule itself");
  DOVETAIL_REQUIRE(
      Slots::plain || !static_cast<optim::plan const&>(Rule::plan).slots_hold_weights,
      "keeps weights of before in its slots (averages, lookahead, schedule_free, prodigy, dog, dowg, "
      "cocob, madgrad, entropy_sgd), which have to keep all their bits: store its weights in another format, but "
      "not its slots",
      Rule);
  DOVETAIL_REQUIRE(Slots::plain || !static_cast<optim::plan const&>(Rule::plan).exact_slots,
                   "magnifies what rounding does to its slots (rmsprop_centered divides by a difference of them, "
                   "dadapt_adamw finds its rate from them): store its weights in another format, but not its slots",
                   Rule);
  using kept_slots = std::conditional_t<Slots::plain, detail::copied_slots, Slots>;

 public:
  using state_type = stored_state<kept_slots>;
  using slots_type = kept_slots;
  static constexpr int passes = Rule::passes;
  static constexpr rule_needs needs = optimizer_traits<Rule>::needs;
  static constexpr std::size_t division_block = storage_block;

  low_precision_state(Rule rule, Slots slots = {}, Weights weights = {})
      : rule_(std::move(rule)), slots_(kept(slots)), weights_(std::move(weights)) {}

  Rule const& rule() const { return rule_; }
  kept_slots const& slots() const { return slots_; }
  Weights const& weights() const { return weights_; }

  /// Throws argument_error if the weights are not where the policy for them says, or for hyperparameters that the rule
  /// cannot work with.
  template <class Space>
  void check(basic_parameter_list<float, Space> const& parameters) const {
    detail::check_rule(rule_);
    weights_.check(parameters);
    require(!Weights::in_parameters || !parameters.has_opaque(),
            "optim::low_precision_state: weights of this list are elsewhere: say where with split_weights or "
            "rounded_weights");
  }

  template <std::same_as<double> T>
  auto init(basic_parameter_list<T> const&) const {
    DOVETAIL_REQUIRE((!std::is_same_v<T, double>),
                     "keeps slots or weights of floats in fewer bits: step doubles with the rule itself", Rule, T);
  }
  state_type init(parameter_list const& parameters) const {
    check(parameters);
    return {parameters, slots_, Weights::needs_low, full_state(parameters)};
  }

  /// See chain::check_state. Weights have to be where the policy for them says.
  void check_state(parameter_list const& parameters, state_type const& s) const {
    check(parameters);
    if constexpr (requires { rule_.chains(); }) {
      auto const all = rule_.chains();
      all[0].check_state(all, parameters, s.base(), false);
    } else {
      as_chain().template check_state<1>({as_chain()}, parameters, s.base(), false);
    }
    s.check_low(parameters, Weights::needs_low);
  }
  /// See chain::check_next_step.
  void check_next_step(parameter_list const& parameters, state_type const& s, step_context const& context) const {
    if constexpr (requires { rule_.chains(); }) {
      auto const all = rule_.chains();
      all[0].check_next_step(all, parameters, s.base(), context, false);
    } else {
      as_chain().template check_next_step<1>({as_chain()}, parameters, s.base(), context, false);
    }
  }

  /// See chain::observe.
  void observe(parameter_list const& parameters, state_type& s, kfac_statistics const& f) const {
    rule_.observe(parameters, s.base(), f);
  }
  std::vector<std::span<float>> unreduced_statistics(parameter_list const& parameters, state_type& s) const {
    return rule_.unreduced_statistics(parameters, s.base());
  }
  bool observe(parameter_list const& parameters, state_type& s, hessian_diagonal const& d) const {
    check_state(parameters, s);
    detail::packed_store<kept_slots, Weights> const store{slots_, weights_, s};
    if constexpr (requires { rule_.groups_of(parameters); })
      return rule_.observe_stored(parameters, s.base(), d, store);
    else
      return as_chain().template observe_groups<1>({as_chain()}, parameters, s.base(), d, store);
  }

  step_result step(parameter_list const& parameters, state_type& s, step_context const& context = {}) const {
    return step(parameters, s, gradient::dense{}, context);
  }
  template <detail::source_argument Source>
  step_result step(parameter_list const& parameters, state_type& s, Source const& source,
                   step_context const& context = {}) const {
    static_assert(detail::must_be_a_source<Source>::holds);
    check_state(parameters, s);
    static_assert(Weights::in_parameters || static_cast<optim::plan const&>(Rule::plan).tensorwise == 0,
                  "optim::low_precision_state: tensorwise stages read the parameter list's weights: keep those there");
    detail::packed_store<kept_slots, Weights> const store{slots_, weights_, s};
    if constexpr (requires { rule_.groups_of(parameters); })
      return rule_.step_stored(parameters, s.base(), source, context, store);
    else
      return as_chain().template step_groups<1>({as_chain()}, parameters, s.base(), source, context, store);
  }

  DOVETAIL_OTHER_MEMORY

  /// Brings weights that are not in the list up to date with what other ranks did (optim/sharding.hpp).
  template <class Exchange>
  void share(parameter_list const& parameters, state_type&, Exchange const& exchange) const {
    weights_.share(parameters, exchange);
  }

 private:
  static kept_slots kept(Slots const& s) {
    if constexpr (Slots::plain)
      return {};
    else
      return s;
  }
  auto as_chain() const { return detail::as_chain(rule_); }
  state full_state(parameter_list const& parameters) const {
    auto s = rule_.init(parameters);
    s.make_blocks(parameters);
    return s;
  }

  Rule rule_;
  kept_slots slots_;
  Weights weights_;
};

}  // namespace dovetail::optim
