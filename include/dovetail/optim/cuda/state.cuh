// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/cuda.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/tensor_layout.hpp>
#include <dovetail/optim/cuda/algebra.cuh>
#include <dovetail/optim/cuda/gradients.cuh>
#include <dovetail/optim/cuda/rates.cuh>
#include <dovetail/optim/cuda/table.cuh>
#include <dovetail/optim/engine/plan.hpp>
#include <dovetail/optim/state.hpp>
#include <dovetail/optim/step.hpp>

namespace dovetail::optim::cuda {

/// What the device knows of the last step; lives in device memory and is written by the step's own kernels.
struct step_record {
  std::int64_t steps = 0;     ///< steps applied
  double gradient_norm = -1;  ///< global L2 norm, when the chain computes it
  float lr = 0;
  std::int32_t skipped = 0;
  std::int32_t outrun = 0;  ///< a step ran beyond the rates that the device had been given
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

/// What a state is made for, beside parameters and a plan.
struct state_layout {
  std::size_t kernel_bytes = 0;         ///< constants of one step and group
  std::size_t groups = 1;               ///< of hyperparameters
  std::vector<std::uint32_t> group_of;  ///< per tensor
  std::size_t block = 0;                ///< slots are kept by somebody else, in blocks of so many elements; 0: here
  bool packed = false;                  ///< and in another format than fp32
};

/// optim::state on a device: the slots, the step counter and all that a step needs, allocated once. Copies own copies.
/// Made by cuda::init for parameters in device memory, whose addresses it remembers.
class state {
 public:
  state() = default;
  template <gradient_source Source>
  state(parameter_list const& parameters, plan const& p, state_layout layout, Source const& source)
      : device_(parameters.where().device),
        plan_(p),
        layout_(std::move(layout)),
        tensors_(parameters),
        parameters_(parameters) {
    auto const& d = device_;
    source.check(parameters);
    auto const places = detail::places_of(parameters, source, layout_.group_of);
    begin_ = layout_.block ? block_layout(places, layout_.block)
                           : slot_layout(places, sizeof(typename detail::reader_type<Source>::type));
    bind(parameters, source);
    optim::state const names(dovetail::parameter_list{}, p, {});
    for (std::size_t s = 0; s < p.slots; ++s) {
      slot_names_.push_back(names.slot_name(s));
      slots_.emplace_back(layout_.block ? 0 : begin_.back(), d);
    }
    record_ = dovetail::cuda::device_buffer<step_record>(std::vector{step_record{}}, d);
    rates_ = sent_rates(layout_.groups * p.rates, d);
    kernels_ = dovetail::cuda::device_buffer<std::byte>(layout_.kernel_bytes * layout_.groups, d);
    if (p.reduces()) {
      group_of_ = dovetail::cuda::device_buffer<std::uint32_t>(layout_.group_of, d);
      sums_ = dovetail::cuda::device_buffer<double>(p.sums() * parameters.size(), d);
      totals_ = dovetail::cuda::device_buffer<double>(p.sums(), d);
      factors_ = dovetail::cuda::device_buffer<float>(parameters.size() * p.factors, d);
    }
    if (p.tensorwise) {
      update_ = dovetail::cuda::device_buffer<float>(begin_.back(), d);
      arrays_.resize(p.stages * parameters.size());
    }
    scalar_stride_ = std::max<std::size_t>(1, parameters.size());
    scalars_ = dovetail::cuda::device_buffer<double>(p.scalars * scalar_stride_, d);
  }

  dovetail::cuda::device const& device() const { return device_; }

  /// Remembers the addresses of the same tensors, when the caller has moved them. Waits for the device.
  template <gradient_source Source = gradient::dense>
  void bind(parameter_list const& parameters, Source const& source = {}) {
    tensors_.check(parameters, "optim::cuda: the state");
    check_device(parameters);
    source.check(parameters);
    device_.wait();
    gradient_size_ = sizeof(typename detail::reader_type<Source>::type);
    places_ = detail::places_of(parameters, source, layout_.group_of);
    std::size_t const longest = layout_.packed ? packed_piece(parameters.flat_size()) : plain_piece;
    if (!layout_.block)
      runs_ = dovetail::cuda::device_buffer<piece>(make_pieces(places_, gradient_size_, begin_, longest, true).pieces,
                                                   device_);
    if (layout_.block || plan_.reduces()) {
      auto const tensors = make_pieces(places_, gradient_size_, begin_, longest, false);
      tensor_pieces_ = dovetail::cuda::device_buffer<piece>(tensors.pieces, device_);
      first_ = dovetail::cuda::device_buffer<std::size_t>(tensors.first, device_);
      partials_ = dovetail::cuda::device_buffer<double>(plan_.sums() * tensors.pieces.size(), device_);
    }
    parameters_ = parameters;
  }

  /// Throws argument_error unless this state was made for such a rule and for these tensors at these addresses.
  template <gradient_source Source>
  void check(parameter_list const& parameters, Source const& source, plan const& p, std::size_t kernel_bytes,
             std::size_t groups) const {
    tensors_.check(parameters, "optim::cuda: the state");
    check_device(parameters);
    source.check(parameters);
    require(layout_.kernel_bytes == kernel_bytes && layout_.groups == groups && plan_.stages == p.stages &&
                plan_.slots == p.slots && plan_.passes == p.passes,
            "optim::cuda: this state was made for another rule: make it with this optimizer's init()");
    require(gradient_size_ == sizeof(typename detail::reader_type<Source>::type),
            "optim::cuda: this state was bound to gradients of ", gradient_size_,
            " bytes per element: call optim::cuda::rebind(optimizer, parameters, state, source) with the source of "
            "this step");
    for (std::size_t i = 0; i < parameters.size(); ++i)
      require(places_[i].weight == parameters[i].weight.data() &&
                  places_[i].gradient == detail::gradient_address(source, parameters, i),
              "optim::cuda: parameter '", parameters[i].name,
              "' has moved since the state was made: call optim::cuda::rebind(optimizer, parameters, state), with the "
              "gradients' source if they have one");
  }

  /// "<prefix><parameter>.<slot>" with the parameter's shape, as optim::state lists them, in device memory.
  std::vector<device_tensor> tensors(std::string const& prefix) {
    std::vector<device_tensor> list;
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      for (std::size_t s = 0; s < slots_.size() && !layout_.block; ++s)
        list.push_back({prefix + parameters_[i].name + '.' + slot_names_[s], parameters_[i].shape,
                        slots_[s].span().subspan(begin_[i], parameters_[i].size())});
    for (std::size_t a = 0; a < arrays_.size(); ++a)
      for (auto& x : arrays_[a])
        list.push_back({prefix + parameters_[a % parameters_.size()].name + '.' + x.name, x.shape, x.values.span()});
    return list;
  }
  /// The same state as the host's engine would have it, to be saved, compared or stepped there. Waits.
  optim::state to_host() const {
    optim::state h = host_of(parameters_, [](shape const& s) { return s; });
    step_record r;
    record_.queue_download(device_, {&r, 1});
    copy_slots(h, [&](std::size_t s, std::size_t at, std::span<float> there) {
      slots_[s].queue_download(device_, there, at);
    });
    for (std::size_t c = 0; c < plan_.scalars; ++c) scalars_.queue_download(device_, h.scalar(c), c * scalar_stride_);
    for (std::size_t a = 0; a < arrays_.size(); ++a)
      for (std::size_t k = 0; k < arrays_[a].size(); ++k)
        arrays_[a][k].values.queue_download(device_, host_array(h, a, k).values.span());
    device_.wait();
    h.set_steps(r.steps);
    return h;
  }
  /// What that state would be called, of one element for each tensor and array.
  optim::state named_host() const {
    return host_of(one_of_each(), [](shape const&) { return shape{1}; });
  }
  dovetail::parameter_list one_of_each() const {
    dovetail::parameter_list list;
    for (auto const& x : parameters_) list.add_opaque(x.name, shape{1});
    return list;
  }
  /// Takes over a state of the host's engine for the same rule and parameters. Waits.
  void from_host(optim::state h) {
    h.check(parameters_, plan_, layout_.groups, layout_.block == 0);
    for (std::size_t a = 0; a < arrays_.size(); ++a)
      for (std::size_t k = 0; k < arrays_[a].size(); ++k) {
        auto const& from = host_array(h, a, k);
        require(from.values.size() == arrays_[a][k].values.size(), "optim::cuda: the host's state has ",
                from.values.size(), " numbers of '", from.name, "', this one ", arrays_[a][k].values.size(),
                ": make it with the same optimizer");
      }
    copy_slots(
        h, [&](std::size_t s, std::size_t at, std::span<float> there) { slots_[s].queue_upload(device_, there, at); });
    for (std::size_t c = 0; c < plan_.scalars; ++c) scalars_.queue_upload(device_, h.scalar(c), c * scalar_stride_);
    for (std::size_t a = 0; a < arrays_.size(); ++a)
      for (std::size_t k = 0; k < arrays_[a].size(); ++k)
        arrays_[a][k].values.queue_upload(device_, host_array(h, a, k).values.span());
    set_steps(h.steps());
  }
  void set_steps(std::int64_t n) {
    check_count(n, "optim::cuda: the number of steps");
    step_record r = record();
    r.steps = n;
    r.outrun = 0;
    record_.upload(device_, {&r, 1});
    calls_ = n;
    rates_.forget();
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
    std::uint32_t const* group_of;
    std::size_t tensor_count;
  };
  pass_arrays arrays() {
    return {runs_,          tensor_pieces_,  first_.data(),    partials_.data(),  sums_.data(),
            totals_.data(), factors_.data(), group_of_.data(), parameters_.size()};
  }
  step_record* record_data() { return record_.data(); }
  /// For a kernel's word to the next one.
  std::int32_t* flag() {
    if (flag_.empty()) flag_ = dovetail::cuda::device_buffer<std::int32_t>(1, device_);
    return flag_.data();
  }
  sent_rates& rates() { return rates_; }
  std::byte* kernels_data() { return kernels_.data(); }
  detail::scalar_array scalars() { return {scalars_.data(), scalar_stride_}; }
  void set_scalar(std::size_t c, double value) {
    scalars_.upload(device_, std::vector<double>(scalar_stride_, value), c * scalar_stride_);
  }
  std::size_t slots() const { return slots_.size(); }
  float* slot_data(std::size_t s) { return slots_[s].data(); }
  std::size_t slot_size() const { return begin_.back(); }
  std::vector<std::size_t> const& begin() const { return begin_; }
  state_layout const& layout() const { return layout_; }
  parameter_list const& parameters() const { return parameters_; }
  /// The update that tensorwise stages map, laid out like a slot, and that of tensor i.
  float* update_data() { return update_.data(); }
  std::span<float> update(std::size_t i) { return update_.span().subspan(begin_[i], parameters_[i].size()); }
  std::span<device_array> stage_arrays(std::size_t stage, std::size_t i) {
    return arrays_[stage * parameters_.size() + i];
  }
  /// Throws argument_error unless tensorwise stage `stage` keeps `wanted` of tensor i.
  void check_arrays(std::size_t stage, std::size_t i, std::vector<named_shape> const& wanted) const {
    optim::detail::check_arrays(arrays_[stage * parameters_.size() + i], wanted, tensors_[i], "optim::cuda: the state");
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
           dovetail::cuda::device_buffer<float>(static_cast<std::size_t>(layout[k].shape.size()), device_)});
  }
  optim::state empty_names() const {
    dovetail::parameter_list list;
    for (auto const& x : parameters_) list.add(x.name, {}, {}, shape{0});
    return {list, plan_, std::vector<std::uint32_t>(list.size())};
  }
  optim::cuda::algebra algebra() { return {device_, memory_}; }
  std::int64_t calls() const { return calls_; }
  bool observed = false;  ///< a layer was observed since this state was made

  /// What the last step did; throws argument_error, once, if replays of a graph ran out of learning rates. Waits.
  step_record checked_record() {
    step_record r = record();
    if (r.outrun) {
      r.outrun = 0;
      record_.upload(device_, {&r, 1});
      throw argument_error(message("optim::cuda: a step beyond ", rate_table::room,
                                   " replays of a graph used an old learning rate: call optim::cuda::refresh more "
                                   "often"));
    }
    return r;
  }
  /// Steps that the device has applied, of which the host did not know. Waits.
  std::int64_t count_again() { return calls_ = checked_record().steps; }
  /// A step was queued; how many of them were applied, only the device knows.
  void count_call() { ++calls_; }

 private:
  void check_device(parameter_list const& parameters) const {
    auto const& d = parameters.where().device;
    require(d.index == device_.index && d.stream == device_.stream, "optim::cuda: the state was made on device ",
            device_.index, ", the list is of device ", d.index,
            d.index == device_.index ? ", and of another stream" : "",
            ": make it with the device and stream of init()");
  }
  template <class List, class ShapeOf>
  optim::state host_of(List const& parameters, ShapeOf const& shape_of) const {
    optim::state h(parameters, plan_, layout_.group_of);
    for (std::size_t a = 0; a < arrays_.size(); ++a) {
      std::vector<named_shape> layout;
      for (auto const& x : arrays_[a]) layout.push_back({x.name, shape_of(x.shape)});
      h.set_arrays(a / parameters_.size(), a % parameters_.size(), layout);
    }
    return h;
  }
  tensor_array& host_array(optim::state& h, std::size_t a, std::size_t k) const {
    auto const list = h.arrays(a / parameters_.size(), a % parameters_.size());
    require(k < list.size(), "optim::cuda: the host's state has other arrays: make it with the same optimizer");
    return list[k];
  }
  template <class Copy>
  void copy_slots(optim::state& h, Copy const& copy) const {
    for (std::size_t s = 0; s < slots_.size() && !layout_.block; ++s)
      each_run(
          parameters_.size(), [&](std::size_t i) { return parameters_[i].size(); },
          [&](std::size_t i) { return begin_[i]; }, [&](std::size_t i) { return parameters_.offset(i); },
          [&](std::size_t i, std::size_t n) { copy(s, begin_[i], h.slot(s).subspan(parameters_.offset(i), n)); });
  }

  dovetail::cuda::device device_;
  plan plan_;
  state_layout layout_;
  tensor_layout tensors_;
  parameter_list parameters_;  ///< names, shapes, device addresses
  std::vector<place> places_;
  std::size_t gradient_size_ = 0;   ///< bytes of an element
  std::vector<std::size_t> begin_;  ///< of each tensor in every slot array
  std::vector<std::string> slot_names_;
  std::vector<dovetail::cuda::device_buffer<float>> slots_;
  dovetail::cuda::device_buffer<piece> runs_, tensor_pieces_;
  dovetail::cuda::device_buffer<std::size_t> first_;
  dovetail::cuda::device_buffer<std::uint32_t> group_of_;
  dovetail::cuda::device_buffer<double> partials_, sums_, totals_, scalars_;
  std::size_t scalar_stride_ = 1;
  dovetail::cuda::device_buffer<float> factors_;
  dovetail::cuda::device_buffer<step_record> record_;
  dovetail::cuda::device_buffer<std::int32_t> flag_;
  sent_rates rates_;
  dovetail::cuda::device_buffer<std::byte> kernels_;
  dovetail::cuda::device_buffer<float> update_;
  std::vector<std::vector<device_array>> arrays_;  ///< per stage and tensor
  algebra_memory memory_;
  std::int64_t calls_ = 0;
};

}  // namespace dovetail::optim::cuda
