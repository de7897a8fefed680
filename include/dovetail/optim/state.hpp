// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/tensor_layout.hpp>
#include <dovetail/optim/engine/plan.hpp>
#include <dovetail/optim/sharding.hpp>
#include <dovetail/optim/tensorwise.hpp>

namespace dovetail::optim {

/// Elements of one partial sum of a reduction, counted from a tensor's beginning: partial sums, and so norms, do not
/// depend on the number of threads.
inline constexpr std::size_t reduction_block = 4096;

namespace detail {

/// True if `kept` is `declared`, or that with the number that tells two of one name apart.
inline bool is_called(std::string_view kept, std::string_view declared) {
  if (!kept.starts_with(declared)) return false;
  kept.remove_prefix(declared.size());
  return kept.empty() ||
         (kept.size() > 1 && kept[0] == '_' && kept.find_first_not_of("0123456789", 1) == std::string_view::npos);
}
template <class Arrays>
DOVETAIL_COLD std::string listed(Arrays const& arrays) {
  std::string all;
  for (auto const& a : arrays) all += message(all.empty() ? "" : ", ", a.name, ' ', a.shape);
  return all.empty() ? "nothing" : all;
}
/// Throws argument_error unless a tensor's arrays, as they were made, are those that a rule wants now: its
/// hyperparameters may say another number or another shape of them.
template <class Arrays>
void check_arrays(Arrays const& kept, std::vector<named_shape> const& wanted, named_shape const& tensor,
                  char const* whose) {
  bool same = kept.size() == wanted.size();
  for (std::size_t k = 0; same && k < wanted.size(); ++k)
    same = kept[k].shape == wanted[k].shape && is_called(kept[k].name, wanted[k].name);
  if (!same) [[unlikely]]
    throw argument_error(message(whose, ": of parameter '", tensor.name, "' ", tensor.shape, " it keeps ", listed(kept),
                                 ", but this rule, with its hyperparameters of now, needs ", listed(wanted),
                                 ": make the state with this optimizer's init()"));
}

}  // namespace detail

/// What an optimizer remembers: how many steps were applied; the slots of its rule, each an array over the flat index
/// space; the scalars of reducing stages, one per tensor or one for all; the arrays of tensorwise stages, of any shape.
/// A value: copyable, comparable, saved and loaded by parameter name.
template <class T>
class basic_state {
  using array = basic_tensor_array<T>;

 public:
  basic_state() = default;

  /// Zero slots for a parameter list; `group_of` says to which group of hyperparameters each tensor belongs.
  template <class Space>
  DOVETAIL_COLD basic_state(basic_parameter_list<T, Space> const& parameters, plan const& p,
                            std::vector<std::uint32_t> group_of)
      : tensors_(parameters), group_(std::move(group_of)) {
    require(group_.size() == parameters.size(), "optimizer: ", group_.size(), " groups were given for ",
            parameters.size(), " parameters: give one per parameter, in the list's order");
    for (std::size_t s = 0; s < p.slots; ++s) {
      auto const n = parameters.flat_size();
      slots_.push_back({unused_name(p.slot_names[s]), shape{static_cast<std::int64_t>(n)}, buffer<T>(n)});
    }
    for (std::size_t s = 0; s < p.scalars; ++s) {
      bool const each = p.scalar_per_tensor[s];
      scalars_.push_back({unused_name(p.scalar_names[s]), each, buffer<double>(each ? parameters.size() : 1)});
    }
    if (p.tensorwise) arrays_.resize(p.stages * parameters.size());
    make_room(parameters, p);
  }

  /// Steps applied so far.
  std::int64_t steps() const { return step_; }
  void set_steps(std::int64_t n) {
    check_count(n, "optimizer state: the number of steps");
    step_ = n;
  }

  std::size_t slots() const { return slots_.size(); }
  std::string const& slot_name(std::size_t s) const { return slots_[s].name; }
  /// Slot s over the flat index space.
  std::span<T> slot(std::size_t s) { return slots_[s].values.span(); }
  std::span<T const> slot(std::size_t s) const { return slots_[s].values.span(); }
  /// Scalar s of a reducing stage: one per tensor, or one.
  std::span<double> scalar(std::size_t s) { return scalars_[s].values.span(); }
  std::span<double const> scalar(std::size_t s) const { return scalars_[s].values.span(); }
  std::string const& scalar_name(std::size_t s) const { return scalars_[s].name; }
  /// What tensorwise stage `stage` remembers of tensor i.
  std::span<array> arrays(std::size_t stage, std::size_t i) { return arrays_[stage * tensors_.size() + i]; }
  std::span<array const> arrays(std::size_t stage, std::size_t i) const { return arrays_[stage * tensors_.size() + i]; }
  DOVETAIL_COLD void set_arrays(std::size_t stage, std::size_t i, std::vector<named_shape> const& layout) {
    auto& list = arrays_[stage * tensors_.size() + i];
    for (auto const& a : layout) {
      auto name = unused_name(a.name);
      for (std::size_t before = 0; before < stage; ++before)  // two stages of one kind
        for (auto const& other : arrays(before, i))
          if (other.name == name) name += message('_', stage);
      list.push_back({std::move(name), a.shape, buffer<T>(static_cast<std::size_t>(a.shape.size()))});
    }
  }
  /// All of the value (optim/sharding.hpp). Scalars come from sums over all ranks.
  DOVETAIL_COLD std::vector<divisible_array> divisible_arrays() {
    std::vector<divisible_array> all{equal_everywhere(step_)};
    for (auto& s : scalars_) all.push_back(equal_everywhere(s.values.span()));
    std::size_t at = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      auto const n = static_cast<std::size_t>(tensors_[i].shape.size());
      for (auto& s : slots_)
        if (!slots_elsewhere_) all.push_back(divided(i, s.values.span().subspan(at, n)));
      for (std::size_t a = i; a < arrays_.size(); a += tensors_.size())
        for (auto& x : arrays_[a]) all.push_back(divided(i, x.values.span(), undivided));
      at += n;
    }
    return all;
  }
  std::size_t scalars() const { return scalars_.size(); }
  /// Group of tensor i.
  std::uint32_t group(std::size_t i) const { return group_[i]; }

  /// Gives up the slots' memory: for optim::low_precision_state, which keeps them in another format.
  void release_slots() {
    for (auto& s : slots_) s.values = {};
    slots_elsewhere_ = true;
  }
  /// Room for blocks, also for a rule without sums.
  template <class List>
  DOVETAIL_COLD void make_blocks(List const& parameters) {
    if (scratch_.first_block.size() > 1) return;
    for (auto const& x : parameters)
      scratch_.first_block.push_back(scratch_.first_block.back() + (x.size() + reduction_block - 1) / reduction_block);
  }

  /// Bytes of state, all tensors together.
  std::size_t bytes() const {
    std::size_t n = 0;
    for (auto const& s : slots_) n += s.values.size() * sizeof(T);
    for (auto const& s : scalars_) n += s.values.size() * sizeof(double);
    for (auto const& list : arrays_)
      for (auto const& a : list) n += a.values.size() * sizeof(T);
    return n;
  }

  /// "<prefix><parameter>.<slot>" with the parameter's shape, or that of an array or a scalar; "<prefix><scalar>" of
  /// all tensors, and "<prefix>step".
  DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
    std::vector<named_tensor> list;
    list.push_back(make_named_count(prefix + "step", step_));
    for (auto& s : scalars_)
      if (!s.per_tensor) list.push_back(make_named_tensor(prefix + s.name, s.values[0]));
    std::size_t at = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      auto const& [name, shape] = tensors_[i];
      auto const n = static_cast<std::size_t>(shape.size());
      auto const add = [&](std::string const& what, auto&& values, auto const&... of) {
        list.push_back(make_named_tensor(message(prefix, name, '.', what), values, of...));
      };
      for (auto& s : slots_)
        if (!slots_elsewhere_) add(s.name, s.values.span().subspan(at, n), shape);
      for (auto& s : scalars_)
        if (s.per_tensor) add(s.name, s.values[i]);
      for (std::size_t a = i; a < arrays_.size(); a += tensors_.size())
        for (auto& x : arrays_[a]) add(x.name, x.values.span(), x.shape);
      at += n;
    }
    return list;
  }

  /// Throws argument_error unless this state was made for such a parameter list, a rule with `p`'s slots and groups,
  /// and slots kept here (or elsewhere: release_slots).
  template <class Space>
  void check(basic_parameter_list<T, Space> const& parameters, plan const& p, std::size_t groups = 1,
             bool slots_here = true) const {
    check_rule(p);
    tensors_.check(parameters, "optimizer state");
    for (auto const g : group_)
      require(g < groups, "optimizer state was made for an optimizer with more groups: make it with this one's init()");
    require(has_room(parameters, p),
            "optimizer state was made for a rule of other passes: make the state with this optimizer's init()");
    require(slots_elsewhere_ != slots_here || slots_.empty(), "optimizer state: slots are kept ",
            slots_here ? "by optim::low_precision_state, step it with that"
                       : "here, make the state with optim::low_precision_state's init()");
    check_count(step_, "optimizer state: the number of steps");
  }
  /// The same as far as tensor i and stages' arrays are concerned: what taking in a layer depends on.
  void check_tensor(basic_parameter_list<T> const& parameters, plan const& p, std::size_t i) const {
    check_rule(p);
    tensors_.check(parameters, i, "optimizer state");
    require(arrays_.size() == (p.tensorwise ? p.stages * tensors_.size() : 0),
            "optimizer state was made for a rule of other stages: make the state with this optimizer's init()");
  }
  /// Throws argument_error unless tensorwise stage `stage` keeps `wanted` of tensor i.
  void check_arrays(std::size_t stage, std::size_t i, std::vector<named_shape> const& wanted) const {
    detail::check_arrays(arrays(stage, i), wanted, tensors_[i], "optimizer state");
  }

  friend bool operator==(basic_state const& a, basic_state const& b) {
    return a.step_ == b.step_ && a.tensors_ == b.tensors_ && a.slots_ == b.slots_ && a.scalars_ == b.scalars_ &&
           a.arrays_ == b.arrays_ && a.group_ == b.group_;
  }

  /// Room of a step, so that it allocates nothing; no part of the value.
  struct scratch_memory {
    std::vector<std::size_t> first_block;  ///< per tensor, then the number of blocks
    buffer<double> blocks;                 ///< per block: the sums of a pass
    buffer<double> tensors;                ///< per tensor: the same
    buffer<float> factors;                 ///< per tensor: the factors of all reducing stages
    buffer<T> update;                      ///< what tensorwise stages map
    buffer<T> turned;                      ///< a column-major tensor, by rows
    std::vector<T> work;                   ///< theirs
    bool observed = false;                 ///< a layer was observed since this state was made
  };
  scratch_memory& scratch() { return scratch_; }
  /// A layer was observed since this state was made.
  bool observed() const { return scratch_.observed; }

 private:
  void check_rule(plan const& p) const {
    bool same = slots() == p.slots && scalars() == p.scalars;
    for (std::size_t s = 0; same && s < p.slots; ++s) same = detail::is_called(slots_[s].name, p.slot_names[s]);
    for (std::size_t s = 0; same && s < p.scalars; ++s)
      same = detail::is_called(scalars_[s].name, p.scalar_names[s]) && scalars_[s].per_tensor == p.scalar_per_tensor[s];
    if (!same) [[unlikely]]
      refuse_rule(p);
  }
  DOVETAIL_COLD void refuse_rule(plan const& p) const {
    require(slots() == p.slots, "optimizer state has ", slots(), " slots, the rule needs ", p.slots,
            ": make the state with this optimizer's init()");
    require(scalars() == p.scalars, "optimizer state has ", scalars(), " scalars, the rule needs ", p.scalars,
            ": make the state with this optimizer's init()");
    for (std::size_t s = 0; s < p.slots; ++s)
      require(detail::is_called(slots_[s].name, p.slot_names[s]), "optimizer state has the slot '", slots_[s].name,
              "' where the rule needs '", p.slot_names[s], "': make the state with this optimizer's init()");
    for (std::size_t s = 0; s < p.scalars; ++s)
      require(
          detail::is_called(scalars_[s].name, p.scalar_names[s]) && scalars_[s].per_tensor == p.scalar_per_tensor[s],
          "optimizer state has the scalar '", scalars_[s].name, "', ", scalars_[s].per_tensor ? "per tensor" : "one",
          ", where the rule needs '", p.scalar_names[s], "', ", p.scalar_per_tensor[s] ? "per tensor" : "one",
          ": make the state with this optimizer's init()");
  }
  /// The room that make_room makes for such a rule.
  template <class List>
  bool has_room(List const& parameters, plan const& p) const {
    std::size_t const n = tensors_.size(), blocks = scratch_.first_block.empty() ? 0 : scratch_.first_block.back();
    bool const in_blocks = p.reduces() || slots_elsewhere_;
    return scratch_.first_block.size() >= (in_blocks ? n + 1 : 1) && scratch_.blocks.size() == p.sums() * blocks &&
           scratch_.tensors.size() == p.sums() * n && scratch_.factors.size() == (p.reduces() ? p.factors * n : 0) &&
           scratch_.update.size() == update_room(parameters, p) && arrays_.size() == (p.tensorwise ? p.stages * n : 0);
  }
  template <class List>
  static std::size_t update_room(List const& parameters, plan const& p) {
    if (!p.tensorwise) return 0;
    if (!p.by_tensor) return parameters.flat_size();
    std::size_t most = 0;
    for (auto const& x : parameters) most = std::max(most, x.size());
    return most;
  }

  /// Two stages with the same name in one chain.
  DOVETAIL_COLD std::string unused_name(std::string name) const {
    auto const taken = [&](auto const& before) { return before.name == name; };
    if (std::ranges::any_of(slots_, taken) || std::ranges::any_of(scalars_, taken))
      return name + message('_', slots_.size() + scalars_.size());
    return name;
  }
  template <class List>
  DOVETAIL_COLD void make_room(List const& parameters, plan const& p) {
    scratch_.first_block.push_back(0);
    if (p.reduces()) {
      make_blocks(parameters);
      scratch_.blocks = buffer<double>(p.sums() * scratch_.first_block.back());
      scratch_.tensors = buffer<double>(p.sums() * parameters.size());
      scratch_.factors = buffer<float>(p.factors * parameters.size());
    }
    scratch_.update = buffer<T>(update_room(parameters, p));
  }

  struct scalar_numbers {  // one for all tensors, or one each
    std::string name;
    bool per_tensor;
    buffer<double> values;
    friend bool operator==(scalar_numbers const&, scalar_numbers const&) = default;
  };

  std::int64_t step_ = 0;
  tensor_layout tensors_;
  std::vector<array> slots_;
  bool slots_elsewhere_ = false;
  std::vector<scalar_numbers> scalars_;
  std::vector<std::vector<array>> arrays_;  // per stage and tensor
  std::vector<std::uint32_t> group_;
  scratch_memory scratch_;
};
/// Of floats: what a network's optimizer remembers.
using state = basic_state<float>;

}  // namespace dovetail::optim
