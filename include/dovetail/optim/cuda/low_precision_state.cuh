// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/optim/cuda/engine.cuh>
#include <dovetail/optim/cuda/low_precision_kernels.cuh>
#include <dovetail/optim/low_precision/low_precision_state.hpp>

// optim::low_precision_state on a device: slots in bf16 or 8 bits, weights in halves, arithmetic in fp32. The spans of
// a policy for weights are device memory.
//
//     optim::master_weights<bf16> const halves{spans};
//     optim::low_precision_state opt{optim::adamw{.lr = 1e-3f}, optim::blockwise_8bit{}, halves};
//     auto state = opt.init(masters);

namespace dovetail::optim::cuda {

/// optim::stored_state on a device. Copies own copies.
template <class Slots>
class stored_state {
 public:
  using code = typename Slots::code;

  stored_state() = default;
  /// Takes a state that keeps no slots itself, and begins with zeros.
  stored_state(state base, Slots const& slots, bool low) : base_(std::move(base)), slots_(slots) {
    std::size_t const n = base_.slot_size();
    for (std::size_t s = 0; s < base_.slots(); ++s) {
      codes_.emplace_back(n, device());
      scales_.emplace_back(Slots::scaled ? n / storage_block : 0, device());
    }
    if (low) low_ = dovetail::cuda::device_buffer<std::uint16_t>(n, device());
  }

  dovetail::cuda::device const& device() const { return base_.device(); }
  step_record record() const { return base_.record(); }
  step_record const* device_record() const { return base_.device_record(); }

  /// The same state as the host's engine would have it, to be saved, compared or stepped there. Waits.
  optim::stored_state<Slots> to_host() const {
    auto full = base_.to_host();
    full.make_blocks(base_.parameters());
    optim::stored_state<Slots> h(base_.parameters(), slots_, !low_.empty(), std::move(full));
    each_tensor(*this, h,
                [&](auto const& ours, auto there, std::size_t at) { ours.queue_download(device(), there, at); });
    device().wait();
    return h;
  }
  /// See state::named_host.
  optim::stored_state<Slots> named_host() const {
    auto const list = base_.one_of_each();
    auto full = base_.named_host();
    full.make_blocks(list);
    return {list, slots_, !low_.empty(), std::move(full)};
  }
  /// Takes over a state of the host's engine for the same rule and parameters. Waits.
  void from_host(optim::stored_state<Slots> h) {
    require((h.low() == nullptr) == low_.empty(), "optim::cuda: the host's state has ", h.low() ? "" : "no ",
            "lower halves of weights, this one ", low_.empty() ? "none" : "has", ": make it with the same optimizer");
    base_.from_host(h.base());
    each_tensor(*this, h, [&](auto& ours, auto there, std::size_t at) { ours.queue_upload(device(), there, at); });
    device().wait();
  }

  /// Remembers the addresses of the same tensors, when the caller has moved them. Waits for the device.
  template <class Weights, gradient_source Source = gradient::dense>
  void bind(parameter_list const& parameters, Weights const& weights, Source const& source = {}) {
    base_.bind(parameters, source);
    halves_ = detail::halves_of(weights, parameters.size());
    std::vector<detail::stored_tensor> tensors;
    for (std::size_t i = 0; i < parameters.size(); ++i) tensors.push_back({base_.begin()[i], halves_[i]});
    tensors_ = dovetail::cuda::device_buffer<detail::stored_tensor>(tensors, device());
  }

  // ---- for the engine
  state& base() { return base_; }
  state const& base() const { return base_; }
  template <class Weights>
  void check(parameter_list const& parameters, Weights const& weights) const {
    require(low_.empty() == (!Weights::needs_low || parameters.flat_size() == 0),
            "optim::cuda: this state was made for another policy for weights: make it with this "
            "optimizer's init()");
    require(detail::halves_of(weights, parameters.size()) == halves_,
            "optim::cuda: halves of weights have moved since the state was made: call optim::cuda::rebind(optimizer, "
            "parameters, state), with the gradients' source if they have one");
  }
  void fill(std::size_t slot, float value) {
    auto const& pieces = base_.arrays().tensors;
    if (!pieces.empty())
      dovetail::cuda::launch("a slot's first value", device(), detail::grid(pieces.size()), detail::threads,
                             detail::fill_stored<Slots>, pieces.data(), pieces.size(), value, codes_[slot].data(),
                             scales_[slot].data());
  }
  template <std::size_t Count>
  detail::stored_arrays<Slots, Count> arrays(std::uint64_t weight_seed) {
    detail::stored_arrays<Slots, Count> a{};
    for (std::size_t s = 0; s < Count; ++s) {
      a.codes[s] = codes_[s].data();
      a.scales[s] = scales_[s].data();
    }
    a.low = low_.data();
    a.tensors = tensors_.data();
    a.slot_seed = slots_.seed;
    a.weight_seed = weight_seed;
    return a;
  }

 private:
  /// f(array, the host's part of it, where that begins) for everything that is kept per element or block.
  template <class Self, class F>
  static void each_tensor(Self& self, optim::stored_state<Slots>& h, F const& f) {
    auto const& all = self.base_.parameters();
    auto const& begin = self.base_.begin();
    auto const each = [&](auto const& size, auto const& here, auto const& there, auto const& copy) {
      each_run(all.size(), size, here, there, [&](std::size_t i, std::size_t n) { copy(here(i), there(i), n); });
    };
    auto const elements = [&](std::size_t i) { return all[i].size(); };
    auto const at = [&](std::size_t i) { return begin[i]; };
    auto const flat = [&](std::size_t i) { return all.offset(i); };
    auto const blocks = [&](std::size_t i) { return (all[i].size() + storage_block - 1) / storage_block; };
    auto const block_at = [&](std::size_t i) { return begin[i] / storage_block; };
    auto const block = [&](std::size_t i) { return h.block(i, 0); };
    for (std::size_t s = 0; s < self.codes_.size(); ++s) {
      each(elements, at, flat, [&](std::size_t here, std::size_t there, std::size_t n) {
        f(self.codes_[s], std::span(h.codes(s) + there, n), here);
      });
      if (Slots::scaled)
        each(blocks, block_at, block, [&](std::size_t here, std::size_t there, std::size_t n) {
          f(self.scales_[s], std::span(h.scales(s) + there, n), here);
        });
    }
    if (!self.low_.empty())
      each(elements, at, flat, [&](std::size_t here, std::size_t there, std::size_t n) {
        f(self.low_, std::span(h.low() + there, n), here);
      });
  }

  state base_;
  Slots slots_;
  std::vector<dovetail::cuda::device_buffer<code>> codes_;
  std::vector<dovetail::cuda::device_buffer<float>> scales_;
  dovetail::cuda::device_buffer<std::uint16_t> low_;
  std::vector<void*> halves_;
  dovetail::cuda::device_buffer<detail::stored_tensor> tensors_;
};

namespace detail {

/// Queues passes over what a stored_state keeps.
template <class Slots, class Weights>
struct packed_store {
  stored_state<Slots>* stored;
  std::uint64_t weight_seed;

  template <class Flow, std::size_t P, class Gradient>
  void queue(state& s, piece const* pieces, std::size_t count, Gradient const& read) const {
    dovetail::cuda::launch("a pass of an optimizer", s.device(), grid(count), threads,
                           run_stored_pass<Flow, P, Gradient, Slots, Weights>, kernels_of<Flow>(s), s.arrays().factors,
                           s.record_data(), pieces, count, read, stored->template arrays<Flow::slots>(weight_seed),
                           s.update_data(), s.arrays().partials);
  }
};

template <class Rule, class Weights>
consteval bool weights_in_reach() {
  return Weights::in_parameters || chain_of<Rule>::plan.tensorwise == 0;
}

}  // namespace detail

namespace detail {
template <class Rule, class Slots, class Weights>
struct initial<optim::low_precision_state<Rule, Slots, Weights>> {
  template <class Source>
  static auto make(optim::low_precision_state<Rule, Slots, Weights> const& optimizer, parameter_list const& parameters,
                   Source const& source) {
    static_assert(weights_in_reach<Rule, Weights>(),
                  "optim::cuda: tensorwise stages read the parameter list's weights: keep those there");
    using kept = typename optim::low_precision_state<Rule, Slots, Weights>::slots_type;
    optimizer.check(parameters);
    std::vector<std::pair<std::size_t, float>> first;
    auto base = make_state(optimizer.rule(), parameters, source, storage_block, packs<kept>,
                           [&](state&, std::size_t slot, float value) { first.emplace_back(slot, value); });
    stored_state<kept> s(std::move(base), optimizer.slots(), Weights::needs_low);
    s.bind(parameters, optimizer.weights(), source);
    for (auto const& [slot, value] : first) s.fill(slot, value);
    return s;
  }
};
}  // namespace detail

/// The state of a stored rule on a device.
template <class Rule, class Slots, class Weights>
using stored_state_of = stored_state<typename optim::low_precision_state<Rule, Slots, Weights>::slots_type>;

namespace detail {
template <class Rule, class Slots, class Weights, class Source>
void check_step(optim::low_precision_state<Rule, Slots, Weights> const& optimizer, parameter_list const& parameters,
                stored_state_of<Rule, Slots, Weights> const& s, Source const& source, step_context const& context) {
  optimizer.check(parameters);
  s.check(parameters, optimizer.weights());
  check_step(optimizer.rule(), parameters, s.base(), source, context);
}
}  // namespace detail

template <class Rule, class Slots, class Weights, gradient_source Source>
void step(optim::low_precision_state<Rule, Slots, Weights> const& optimizer, parameter_list const& parameters,
          stored_state_of<Rule, Slots, Weights>& s, Source const& source, step_context const& context = {}) {
  using kept = typename optim::low_precision_state<Rule, Slots, Weights>::slots_type;
  detail::check_step(optimizer, parameters, s, source, context);
  detail::queue_step(
      optimizer.rule(), parameters, s.base(), source, context,
      detail::packed_store<kept, Weights>{&s, optim::detail::weight_seed(optimizer.slots(), optimizer.weights())});
}
template <class Rule, class Slots, class Weights>
void step(optim::low_precision_state<Rule, Slots, Weights> const& optimizer, parameter_list const& parameters,
          stored_state_of<Rule, Slots, Weights>& s, step_context const& context = {}) {
  step(optimizer, parameters, s, gradient::dense{}, context);
}

template <class Rule, class Slots, class Weights, gradient_source Source = gradient::dense>
void rebind(optim::low_precision_state<Rule, Slots, Weights> const& optimizer, parameter_list const& parameters,
            stored_state_of<Rule, Slots, Weights>& s, Source const& source = {}) {
  optimizer.check(parameters);
  s.bind(parameters, optimizer.weights(), source);
}
template <class Rule, class Slots, class Weights>
void refresh(optim::low_precision_state<Rule, Slots, Weights> const& optimizer,
             stored_state_of<Rule, Slots, Weights>& s) {
  refresh(optimizer.rule(), s.base());
}
template <class Slots>
step_result result(stored_state<Slots>& s) {
  return result(s.base());
}
template <class Rule, class Slots, class Weights>
void observe(optim::low_precision_state<Rule, Slots, Weights> const& optimizer,
             stored_state_of<Rule, Slots, Weights>& s, kfac_statistics const& f) {
  observe(optimizer.rule(), s.base(), f);
}
template <class Rule, class Slots, class Weights>
void observe(optim::low_precision_state<Rule, Slots, Weights> const&, stored_state_of<Rule, Slots, Weights>&,
             hessian_diagonal const&) {
  static_assert(sizeof(Rule) == 0,
                "optim::cuda: slots of optim::low_precision_state take in curvature on the host only: keep this rule's "
                "in fp32");
}

}  // namespace dovetail::optim::cuda
