// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/optim/plan.hpp>

namespace dovetail::optim {

/// Elements of one partial sum of a reduction, counted from a tensor's beginning: partial sums, and so norms, do not
/// depend on the number of threads.
inline constexpr std::size_t reduction_block = 4096;

/// What an optimizer remembers: how many steps were applied, and the slots of its rule, each an array over the flat
/// index space. A value: copyable, comparable, saved and loaded by parameter name.
class state {
 public:
  state() = default;

  /// Zero slots for a parameter list; `group_of` says to which group of hyperparameters each tensor belongs.
  state(parameter_list const& parameters, plan const& p, std::vector<std::uint32_t> group_of)
      : group_(std::move(group_of)) {
    for (auto const& x : parameters) tensors_.push_back({x.name, x.shape});
    for (std::size_t s = 0; s < p.slots; ++s) {
      std::string name = p.slot_names[s];
      for (std::size_t before = 0; before < s; ++before)  // two stages with the same slot name in one chain
        if (slot_names_[before] == name) name += message('_', s);
      slot_names_.push_back(std::move(name));
      slots_.emplace_back(parameters.flat_size());
    }
    scratch_.first_block.push_back(0);
    if (p.passes > 1) {
      for (auto const& x : parameters)
        scratch_.first_block.push_back(scratch_.first_block.back() +
                                       (x.size() + reduction_block - 1) / reduction_block);
      scratch_.blocks = buffer<double>(2 * scratch_.first_block.back());
      scratch_.tensors = buffer<double>(2 * parameters.size() * (p.passes - 1));
    }
  }

  /// Steps applied so far.
  std::int64_t steps() const { return step_; }
  void set_steps(std::int64_t n) { step_ = n; }

  std::size_t slots() const { return slots_.size(); }
  std::string const& slot_name(std::size_t s) const { return slot_names_[s]; }
  /// Slot s over the flat index space.
  std::span<float> slot(std::size_t s) { return slots_[s].span(); }
  std::span<float const> slot(std::size_t s) const { return slots_[s].span(); }
  /// Group of tensor i.
  std::uint32_t group(std::size_t i) const { return group_[i]; }

  /// "<prefix><parameter>.<slot>" with the parameter's shape, and "<prefix>step".
  std::vector<named_tensor> tensors(std::string const& prefix) {
    std::vector<named_tensor> list;
    list.push_back(make_named_tensor(prefix + "step", step_));
    std::size_t at = 0;
    for (auto const& [name, shape] : tensors_) {
      auto const n = static_cast<std::size_t>(shape.size());
      for (std::size_t s = 0; s < slots_.size(); ++s)
        list.push_back(make_named_tensor(message(prefix, name, '.', slot_names_[s]), slot(s).subspan(at, n), shape));
      at += n;
    }
    return list;
  }

  /// Throws argument_error unless this state was made for such a parameter list, a rule with `p`'s slots and groups.
  void check(parameter_list const& parameters, plan const& p, std::size_t groups = 1) const {
    require(slots_.size() == p.slots, "optimizer state has ", slots_.size(), " slots, the rule needs ", p.slots,
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
    require(p.passes == 1 || scratch_.tensors.size() == 2 * tensors_.size() * (p.passes - 1),
            "optimizer state was made for a rule of other passes: make the state with this optimizer's init()");
  }

  friend bool operator==(state const& a, state const& b) {
    return a.step_ == b.step_ && a.tensors_ == b.tensors_ && a.slot_names_ == b.slot_names_ && a.slots_ == b.slots_ &&
           a.group_ == b.group_;
  }

  /// Room for partial sums, so that a step allocates nothing; no part of the value.
  struct scratch {
    std::vector<std::size_t> first_block;  ///< per tensor, then the number of blocks
    buffer<double> blocks;                 ///< per block: sums of squares of update and weight
    buffer<double> tensors;                ///< per pass and tensor: the same
  };
  scratch& room() { return scratch_; }

 private:
  std::int64_t step_ = 0;
  std::vector<named_shape> tensors_;
  std::vector<std::string> slot_names_;
  std::vector<buffer<float>> slots_;
  std::vector<std::uint32_t> group_;
  scratch scratch_;
};

}  // namespace dovetail::optim
