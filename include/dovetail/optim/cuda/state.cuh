// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/cuda.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/optim/cuda/algebra.cuh>
#include <dovetail/optim/cuda/table.cuh>
#include <dovetail/optim/plan.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step_result.hpp>

namespace dovetail::optim::cuda {

/// What the device knows of the last step; lives in device memory and is written by the step's own kernels.
struct step_record {
  std::int64_t steps = 0;     ///< steps applied
  double gradient_norm = -1;  ///< global L2 norm, when the chain computes it
  float lr = 0;
  std::int32_t skipped = 0;
  std::int32_t outrun = 0;  ///< a step ran beyond the rates that the device had been given
};

/// Learning rates of the steps `base` to `base + count`: schedules are functions of the host, the device reads them
/// here. A count of 0 is one rate for all steps.
struct rate_table {
  static constexpr std::int64_t room = 1024;
  std::int64_t base = 0, count = 0;
  std::array<float, room> value{};
};

namespace detail {
/// What reducing stages remember: `stride` numbers of each, one per tensor or only the first.
struct scalar_array {
  double* data;
  std::size_t stride;
  DOVETAIL_HD double* of(std::size_t scalar) const { return data + scalar * stride; }
};
}  // namespace detail

/// One piece of state in device memory.
struct device_tensor {
  std::string name;
  dovetail::shape shape;
  std::span<float> values;  ///< device addresses
};

/// optim::state on a device: the slots, the step counter and all that a step needs, allocated once. Copies own copies.
/// Made by cuda::init for parameters in device memory, whose addresses it remembers.
class state {
 public:
  state() = default;
  state(parameter_list const& parameters, plan const& p, std::size_t kernel_bytes, dovetail::cuda::device d)
      : device_(d), plan_(p), parameters_(parameters), begin_(slot_layout(parameters)) {
    d.use();
    bind(parameters);
    optim::state const names({}, p, {});
    for (std::size_t s = 0; s < p.slots; ++s) {
      slot_names_.push_back(names.slot_name(s));
      slots_.emplace_back(begin_.back());
    }
    record_ = dovetail::cuda::device_buffer<step_record>(std::vector{step_record{}});
    rates_ = dovetail::cuda::device_buffer<rate_table>(1);
    kernels_ = dovetail::cuda::device_buffer<std::byte>(kernel_bytes);
    if (p.reduces()) {
      sums_ = dovetail::cuda::device_buffer<double>(p.sums() * parameters.size());
      totals_ = dovetail::cuda::device_buffer<double>(p.sums());
      factors_ = dovetail::cuda::device_buffer<float>(parameters.size() * p.factors);
    }
    if (p.tensorwise) {
      update_ = dovetail::cuda::device_buffer<float>(begin_.back());
      arrays_.resize(p.stages * parameters.size());
    }
    scalar_stride_ = std::max<std::size_t>(1, parameters.size());
    scalars_ = dovetail::cuda::device_buffer<double>(p.scalars * scalar_stride_);
  }

  dovetail::cuda::device const& device() const { return device_; }

  /// Remembers the addresses of the same tensors, when the caller has moved them. Waits for the device.
  void bind(parameter_list const& parameters) {
    check_names(parameters);
    device_.wait();
    auto const runs = make_pieces(parameters, begin_, true);
    runs_ = dovetail::cuda::device_buffer<piece>(runs.pieces);
    if (plan_.reduces()) {
      auto const tensors = make_pieces(parameters, begin_, false);
      tensors_ = dovetail::cuda::device_buffer<piece>(tensors.pieces);
      first_ = dovetail::cuda::device_buffer<std::size_t>(tensors.first);
      partials_ = dovetail::cuda::device_buffer<double>(plan_.sums() * tensors.pieces.size());
    }
    parameters_ = parameters;
  }

  /// Throws argument_error unless this state was made for such a rule and for these tensors at these addresses.
  void check(parameter_list const& parameters, plan const& p, std::size_t kernel_bytes) const {
    check_names(parameters);
    require(kernels_.size() == kernel_bytes && plan_.stages == p.stages && plan_.slots == p.slots &&
                plan_.passes == p.passes,
            "optim::cuda: this state was made for another rule: make it with optim::cuda::init and this optimizer");
    for (std::size_t i = 0; i < parameters.size(); ++i)
      require(parameters_[i].weight.data() == parameters[i].weight.data() &&
                  parameters_[i].gradient.data() == parameters[i].gradient.data(),
              "optim::cuda: parameter '", parameters[i].name,
              "' has moved since the state was made: call state.bind(parameters)");
  }

  /// "<prefix><parameter>.<slot>" with the parameter's shape, as optim::state lists them, in device memory.
  std::vector<device_tensor> tensors(std::string const& prefix) {
    std::vector<device_tensor> list;
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      for (std::size_t s = 0; s < slots_.size(); ++s)
        list.push_back({prefix + parameters_[i].name + '.' + slot_names_[s], parameters_[i].shape,
                        slots_[s].span().subspan(begin_[i], parameters_[i].size())});
    for (std::size_t a = 0; a < arrays_.size(); ++a)
      for (auto& x : arrays_[a])
        list.push_back({prefix + parameters_[a % parameters_.size()].name + '.' + x.name, x.shape, x.values.span()});
    return list;
  }
  /// The same state as the host's engine would have it, to be saved, compared or stepped there. Waits.
  optim::state to_host() const {
    optim::state h = empty_host();
    h.set_steps(record().steps);
    copy_slots(h,
               [&](std::size_t s, std::size_t at, std::span<float> there) { slots_[s].download(device_, there, at); });
    for (std::size_t c = 0; c < plan_.scalars; ++c) scalars_.download(device_, h.scalar(c), c * scalar_stride_);
    for (std::size_t a = 0; a < arrays_.size(); ++a)
      for (std::size_t k = 0; k < arrays_[a].size(); ++k)
        arrays_[a][k].values.download(device_, host_array(h, a, k).values.span());
    return h;
  }
  /// Takes over a state of the host's engine for the same rule and parameters. Waits.
  void from_host(optim::state h) {
    h.check(parameters_, plan_);
    copy_slots(h, [&](std::size_t s, std::size_t at, std::span<float> there) { slots_[s].upload(device_, there, at); });
    for (std::size_t c = 0; c < plan_.scalars; ++c) scalars_.upload(device_, h.scalar(c), c * scalar_stride_);
    for (std::size_t a = 0; a < arrays_.size(); ++a)
      for (std::size_t k = 0; k < arrays_[a].size(); ++k) {
        auto const& from = host_array(h, a, k);
        require(from.values.size() == arrays_[a][k].values.size(), "optim::cuda: the host's state has ",
                from.values.size(), " numbers of '", from.name, "', this one ", arrays_[a][k].values.size(),
                ": make it with the same optimizer");
        arrays_[a][k].values.upload(device_, from.values.span());
      }
    set_steps(h.steps());
  }
  void set_steps(std::int64_t n) {
    step_record r = record();
    r.steps = n;
    record_.upload(device_, {&r, 1});
    calls_ = n;
    forget_rates();
  }

  /// What the last step did. Waits for it.
  step_record record() const {
    step_record r;
    record_.download(device_, {&r, 1});
    return r;
  }
  /// The same in device memory, for kernels and asynchronous copies of the caller's.
  step_record const* device_record() const { return record_.data(); }

  // ---- for the engine
  struct pass_arrays {
    dovetail::cuda::device_buffer<piece>& runs;
    dovetail::cuda::device_buffer<piece>& tensors;
    std::size_t const* first;
    double* partials;
    double* sums;
    double* totals;
    float* factors;
    std::size_t tensor_count;
  };
  pass_arrays arrays() {
    return {runs_,        tensors_,       first_.data(),   partials_.data(),
            sums_.data(), totals_.data(), factors_.data(), parameters_.size()};
  }
  step_record* record_data() { return record_.data(); }
  rate_table* rates_data() { return rates_.data(); }
  std::byte* kernels_data() { return kernels_.data(); }
  detail::scalar_array scalars() { return {scalars_.data(), scalar_stride_}; }
  void set_scalar(std::size_t c, double value) {
    scalars_.upload(device_, std::vector<double>(scalar_stride_, value), c * scalar_stride_);
  }
  float* slot_data(std::size_t s) { return slots_[s].data(); }
  std::size_t slot_size() const { return begin_.back(); }
  parameter_list const& parameters() const { return parameters_; }
  /// The update that tensorwise stages map, laid out like a slot, and that of tensor i.
  float* update_data() { return update_.data(); }
  std::span<float> update(std::size_t i) { return update_.span().subspan(begin_[i], parameters_[i].size()); }
  std::span<device_array> stage_arrays(std::size_t stage, std::size_t i) {
    return arrays_[stage * parameters_.size() + i];
  }
  /// Takes zero arrays for a tensorwise stage and tensor i, under the names that the host's state gives them: `names`
  /// begins as empty_names().
  void set_arrays(optim::state& names, std::size_t stage, std::size_t i, std::vector<named_shape> const& layout) {
    auto empty = layout;
    for (auto& x : empty) x.shape = shape{0};
    names.set_arrays(stage, i, empty);
    for (std::size_t k = 0; k < layout.size(); ++k)
      arrays_[stage * parameters_.size() + i].push_back(
          {names.arrays(stage, i)[k].name, layout[k].shape,
           dovetail::cuda::device_buffer<float>(static_cast<std::size_t>(layout[k].shape.size()))});
  }
  optim::state empty_names() const {
    parameter_list list;
    for (auto const& x : parameters_) list.add(x.name, {}, {}, shape{0});
    return {list, plan_, std::vector<std::uint32_t>(list.size())};
  }
  optim::cuda::algebra algebra() { return {device_, memory_}; }
  std::int64_t calls() const { return calls_; }
  bool observed = false;  ///< a layer was observed since this state was made

  /// True if the device has the rates that the next step may need.
  template <class Rate>
  bool has_rates(bool varies, Rate const& rate) const {
    if (!rates_known_) return false;
    if (!varies) return host_rates_.count == 0 && host_rates_.value[0] == rate(1);
    std::int64_t const i = calls_ - host_rates_.base;
    return i >= 0 && i < host_rates_.count && host_rates_.value[static_cast<std::size_t>(i)] == rate(calls_ + 1);
  }
  /// Gives the device the rates of the steps to come. Waits.
  template <class Rate>
  void send_rates(bool varies, Rate const& rate) {
    step_record r = record();
    calls_ = r.steps;
    host_rates_.base = r.steps;
    host_rates_.count = varies ? rate_table::room : 0;
    host_rates_.value[0] = rate(varies ? r.steps + 1 : 1);
    for (std::int64_t i = 1; i < host_rates_.count; ++i)
      host_rates_.value[static_cast<std::size_t>(i)] = rate(r.steps + 1 + i);
    rates_.upload(device_, {&host_rates_, 1});
    rates_known_ = true;
  }
  void forget_rates() { rates_known_ = false; }
  /// A step was queued; how many of them were applied, only the device knows.
  void count_call() { ++calls_; }

 private:
  optim::state empty_host() const {
    optim::state h(parameters_, plan_, std::vector<std::uint32_t>(parameters_.size()));
    for (std::size_t a = 0; a < arrays_.size(); ++a) {
      std::vector<named_shape> layout;
      for (auto const& x : arrays_[a]) layout.push_back({x.name, x.shape});
      h.set_arrays(a / parameters_.size(), a % parameters_.size(), layout);
    }
    return h;
  }
  tensor_array& host_array(optim::state& h, std::size_t a, std::size_t k) const {
    auto const list = h.arrays(a / parameters_.size(), a % parameters_.size());
    require(k < list.size(), "optim::cuda: the host's state has other arrays: make it with the same optimizer");
    return list[k];
  }
  void check_names(parameter_list const& parameters) const {
    require(parameters.size() == parameters_.size(), "optim::cuda: the state was made for ", parameters_.size(),
            " parameters, the list has ", parameters.size(), ": call init() again");
    for (std::size_t i = 0; i < parameters.size(); ++i)
      require(parameters[i].name == parameters_[i].name && parameters[i].size() == parameters_[i].size(),
              "optim::cuda: parameter ", i, " was '", parameters_[i].name, "' of ", parameters_[i].size(),
              " elements at init() and is '", parameters[i].name, "' of ", parameters[i].size(), " now");
  }
  template <class Copy>
  void copy_slots(optim::state& h, Copy const& copy) const {
    for (std::size_t s = 0; s < slots_.size(); ++s) {
      std::size_t flat = 0;
      for (std::size_t i = 0; i < parameters_.size(); flat += parameters_[i++].size())
        copy(s, begin_[i], h.slot(s).subspan(flat, parameters_[i].size()));
    }
  }

  dovetail::cuda::device device_;
  plan plan_;
  parameter_list parameters_;       ///< names, shapes, device addresses
  std::vector<std::size_t> begin_;  ///< of each tensor in every slot array
  std::vector<std::string> slot_names_;
  std::vector<dovetail::cuda::device_buffer<float>> slots_;
  dovetail::cuda::device_buffer<piece> runs_, tensors_;
  dovetail::cuda::device_buffer<std::size_t> first_;
  dovetail::cuda::device_buffer<double> partials_, sums_, totals_, scalars_;
  std::size_t scalar_stride_ = 1;
  dovetail::cuda::device_buffer<float> factors_;
  dovetail::cuda::device_buffer<step_record> record_;
  dovetail::cuda::device_buffer<rate_table> rates_;
  dovetail::cuda::device_buffer<std::byte> kernels_;
  dovetail::cuda::device_buffer<float> update_;
  std::vector<std::vector<device_array>> arrays_;  ///< per stage and tensor
  algebra_memory memory_;
  rate_table host_rates_;
  bool rates_known_ = false;
  std::int64_t calls_ = 0;
};

}  // namespace dovetail::optim::cuda
