// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/optim/division.hpp>
#include <dovetail/optim/plan.hpp>
#include <dovetail/optim/tensorwise.hpp>

namespace dovetail::optim {

/// Elements of one partial sum of a reduction, counted from a tensor's beginning: partial sums, and so norms, do not
/// depend on the number of threads.
inline constexpr std::size_t reduction_block = 4096;

/// What an optimizer remembers: how many steps were applied; the slots of its rule, each an array over the flat index
/// space; the scalars of reducing stages, one per tensor or one for all; the arrays of tensorwise stages, of any shape.
/// A value: copyable, comparable, saved and loaded by parameter name.
class state {
 public:
  state() = default;

  /// Zero slots for a parameter list; `group_of` says to which group of hyperparameters each tensor belongs.
  state(parameter_list const& parameters, plan const& p, std::vector<std::uint32_t> group_of)
      : group_(std::move(group_of)) {
    for (auto const& x : parameters) tensors_.push_back({x.name, x.shape});
    for (std::size_t s = 0; s < p.slots; ++s) {
      auto const n = parameters.flat_size();
      slots_.push_back({unused_name(p.slot_names[s]), shape{static_cast<std::int64_t>(n)}, buffer<float>(n)});
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
  void set_steps(std::int64_t n) { step_ = n; }

  std::size_t slots() const { return slots_.size(); }
  std::string const& slot_name(std::size_t s) const { return slots_[s].name; }
  /// Slot s over the flat index space.
  std::span<float> slot(std::size_t s) { return slots_[s].values.span(); }
  std::span<float const> slot(std::size_t s) const { return slots_[s].values.span(); }
  /// Scalar s of a reducing stage: one per tensor, or one.
  std::span<double> scalar(std::size_t s) { return scalars_[s].values.span(); }
  std::span<double const> scalar(std::size_t s) const { return scalars_[s].values.span(); }
  std::string const& scalar_name(std::size_t s) const { return scalars_[s].name; }
  /// What tensorwise stage `stage` remembers of tensor i.
  std::span<tensor_array> arrays(std::size_t stage, std::size_t i) { return arrays_[stage * tensors_.size() + i]; }
  std::span<tensor_array const> arrays(std::size_t stage, std::size_t i) const {
    return arrays_[stage * tensors_.size() + i];
  }
  void set_arrays(std::size_t stage, std::size_t i, std::vector<named_shape> const& layout) {
    auto& list = arrays_[stage * tensors_.size() + i];
    for (auto const& a : layout) {
      auto name = unused_name(a.name);
      for (std::size_t before = 0; before < stage; ++before)  // two stages of one kind
        for (auto const& other : arrays(before, i))
          if (other.name == name) name += message('_', stage);
      list.push_back({std::move(name), a.shape, buffer<float>(static_cast<std::size_t>(a.shape.size()))});
    }
  }
  /// All of the value (optim/division.hpp). Scalars come from sums over all ranks.
  std::vector<divisible_array> divisible_arrays() {
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

  /// Gives up the slots' memory: for optim::stored, which keeps them in another format.
  void release_slots() {
    for (auto& s : slots_) s.values = {};
    slots_elsewhere_ = true;
  }
  /// Room for blocks, also for a rule without sums.
  void make_blocks(parameter_list const& parameters) {
    if (scratch_.first_block.size() > 1) return;
    for (auto const& x : parameters)
      scratch_.first_block.push_back(scratch_.first_block.back() + (x.size() + reduction_block - 1) / reduction_block);
  }

  /// Bytes of state, all tensors together.
  std::size_t bytes() const {
    std::size_t n = 0;
    for (auto const& s : slots_) n += s.values.size() * sizeof(float);
    for (auto const& s : scalars_) n += s.values.size() * sizeof(double);
    for (auto const& list : arrays_)
      for (auto const& a : list) n += a.values.size() * sizeof(float);
    return n;
  }

  /// "<prefix><parameter>.<slot>" with the parameter's shape, or that of an array or a scalar; "<prefix><scalar>" of
  /// all tensors, and "<prefix>step".
  std::vector<named_tensor> tensors(std::string const& prefix) {
    std::vector<named_tensor> list;
    list.push_back(make_named_tensor(prefix + "step", step_));
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

  /// Throws argument_error unless this state was made for such a parameter list, a rule with `p`'s slots and groups.
  void check(parameter_list const& parameters, plan const& p, std::size_t groups = 1) const {
    require(slots() == p.slots, "optimizer state has ", slots(), " slots, the rule needs ", p.slots,
            ": make the state with this optimizer's init()");
    require(tensors_.size() == parameters.size(), "optimizer state was made for ", tensors_.size(),
            " parameters, the list has ", parameters.size(), ": call init() again");
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      auto const& x = parameters[i];
      auto const& was = tensors_[i];
      require(was.name == x.name, "optimizer state: parameter ", i, " was '", was.name, "' at init() and is '", x.name,
              "' now: state is kept by name and order, call init() again");
      require(was.shape.size() == x.shape.size(), "optimizer state: parameter '", x.name, "' had shape ", was.shape,
              " at init() and has ", x.shape, " now");
    }
    for (auto const g : group_)
      require(g < groups, "optimizer state was made for an optimizer with more groups: make it with this one's init()");
    require(scalars_.size() == p.scalars && scratch_.tensors.size() == p.sums() * tensors_.size() &&
                arrays_.size() == (p.tensorwise ? p.stages * tensors_.size() : 0),
            "optimizer state was made for a rule of other passes: make the state with this optimizer's init()");
  }

  friend bool operator==(state const& a, state const& b) {
    return a.step_ == b.step_ && a.tensors_ == b.tensors_ && a.slots_ == b.slots_ && a.scalars_ == b.scalars_ &&
           a.arrays_ == b.arrays_ && a.group_ == b.group_;
  }

  /// Room of a step, so that it allocates nothing; no part of the value.
  struct scratch {
    std::vector<std::size_t> first_block;  ///< per tensor, then the number of blocks
    buffer<double> blocks;                 ///< per block: the sums of a pass
    buffer<double> tensors;                ///< per tensor: the same
    buffer<float> factors;                 ///< per tensor: the factors of all reducing stages
    buffer<float> update;                  ///< what tensorwise stages map
    std::vector<float> work;               ///< theirs
    bool observed = false;                 ///< a layer was observed since this state was made
  };
  scratch& room() { return scratch_; }

 private:
  /// Two stages with the same name in one chain.
  std::string unused_name(std::string name) const {
    auto const taken = [&](auto const& before) { return before.name == name; };
    if (std::ranges::any_of(slots_, taken) || std::ranges::any_of(scalars_, taken))
      return name + message('_', slots_.size() + scalars_.size());
    return name;
  }
  void make_room(parameter_list const& parameters, plan const& p) {
    scratch_.first_block.push_back(0);
    if (p.reduces()) {
      make_blocks(parameters);
      scratch_.blocks = buffer<double>(p.sums() * scratch_.first_block.back());
      scratch_.tensors = buffer<double>(p.sums() * parameters.size());
      scratch_.factors = buffer<float>(p.factors * parameters.size());
    }
    if (p.tensorwise) {
      std::size_t most = 0;
      for (auto const& x : parameters) most = std::max(most, x.size());
      scratch_.update = buffer<float>(p.by_tensor ? most : parameters.flat_size());
    }
  }

  struct scalar_array {  // one for all tensors, or one each
    std::string name;
    bool per_tensor;
    buffer<double> values;
    friend bool operator==(scalar_array const&, scalar_array const&) = default;
  };

  std::int64_t step_ = 0;
  std::vector<named_shape> tensors_;
  std::vector<tensor_array> slots_;
  bool slots_elsewhere_ = false;
  std::vector<scalar_array> scalars_;
  std::vector<std::vector<tensor_array>> arrays_;  // per stage and tensor
  std::vector<std::uint32_t> group_;
  scratch scratch_;
};

}  // namespace dovetail::optim
