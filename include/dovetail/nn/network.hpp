// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/batch.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/nn/block.hpp>
#include <dovetail/nn/host.hpp>
#include <dovetail/nn/layer.hpp>
#include <dovetail/nn/layer_traits.hpp>
#include <dovetail/nn/layout.hpp>
#include <dovetail/nn/loss.hpp>
#include <dovetail/nn/plan.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn {

namespace detail {

/// Memory that may be lost: a copy starts empty, an assignment keeps what it has.
template <class T>
struct transient : T {
  transient() = default;
  transient(transient const&) : T() {}
  transient(transient&&) = default;
  transient& operator=(transient const&) { return *this; }
  transient& operator=(transient&&) = default;
};

/// Fills one tensor from stream (seed, index).
inline void initialize(std::span<float> w, tensor_plan const& plan, random_stream const& random) {
  if (plan.start == initial::zero || plan.start == initial::one) {
    std::fill(w.begin(), w.end(), plan.start == initial::one ? 1.f : 0.f);
    return;
  }
  float const bound = 1.f / std::sqrt(static_cast<float>(std::max<std::int64_t>(plan.fan, 1)));
  for (std::size_t i = 0; i < w.size(); i += 4) {
    auto const words = random.words(static_cast<std::uint32_t>(i / 4));
    std::array<float, 4> v;
    for (std::size_t k = 0; k < 4; ++k) v[k] = bound * (2 * random_stream::to_uniform(words[k]) - 1);
    if (plan.start == initial::normal)
      for (std::size_t k = 0; k < 4; k += 2) {  // Box and Muller's pairs; 1 - u is never 0
        double const u = 1 - static_cast<double>(random_stream::to_uniform(words[k]));
        double const angle = 2 * std::numbers::pi * static_cast<double>(random_stream::to_uniform(words[k + 1]));
        double const radius = std::sqrt(-2 * std::log(u));
        v[k] = static_cast<float>(radius * std::cos(angle));
        v[k + 1] = static_cast<float>(radius * std::sin(angle));
      }
    for (std::size_t k = 0; k < 4 && i + k < w.size(); ++k) w[i + k] = v[k];
  }
}

}  // namespace detail

/// A stack of layers, each fed by the one before: torch.nn.Sequential whose shapes, parameters, memory and arithmetic
/// are constants of its type. A copyable value that owns its weights and gradients in one arena, in forward order and
/// under PyTorch's names ("3.weight"); activations live in scratch memory that grows with the largest batch seen and is
/// not copied. `Backend` does the dense arithmetic. Almost everybody writes nn::network<shape, layers…>.
template <class Backend, shape Input, class... Layers>
class basic_network {
  using plan = detail::plan<Input, Layers...>;
  using indices = typename plan::indices;
  DOVETAIL_REQUIRE(
      !requires { typename Backend::missing; },
      "no backend: install oneDNN (Debian: libdnnl-dev), or name one: nn::basic_network<nn::plain, ...>", Backend);
  DOVETAIL_REQUIRE(sizeof...(Layers) > 0, "a network needs at least one layer", at<0, Input>);
  static_assert(plan::template computed_by<Backend>);

 public:
  /// Layers and blocks.
  static constexpr std::size_t depth = sizeof...(Layers);
  /// Shape of what enters layer i; shapes[depth] is the output's.
  static constexpr std::array<shape, depth + 1> shapes = detail::of_own_list<plan, sizeof...(Layers)>(plan::shapes);
  static constexpr shape input_shape = shapes[0];
  static constexpr shape output_shape = shapes[depth];
  static constexpr bool input_is_tokens = plan::input_is_tokens;
  /// Number of weights.
  static constexpr std::size_t parameter_count = plan::offsets[plan::depth];
  /// First flat index of layer i's weights; parameter_offsets[depth] is their number.
  static constexpr std::array<std::size_t, depth + 1> parameter_offsets =
      detail::of_own_list<plan, sizeof...(Layers)>(plan::offsets);
  /// Number of floats that the network keeps and does not train: running statistics.
  static constexpr std::size_t buffer_count = plan::buffer_offsets[plan::depth];
  /// Floats per sample that live from forward to backward.
  static constexpr std::int64_t activation_floats = plan::activation_floats;
  /// Multiplications and additions of a forward pass of one sample; a training step takes about three times as many.
  static constexpr std::int64_t flops_per_sample = plan::flops;
  /// Predictions per sample: 1, or the steps of a sequence.
  static constexpr std::int64_t positions = output_shape.rank == 2 ? output_shape[0] : 1;

  /// Asks for weights before it reads them (gradient_pass::acquire).
  static constexpr bool acquires = true;

  /// Weights as initialize(0) makes them.
  basic_network() : arena_(layout()) { initialize(0); }

  /// What is kept from batch to batch and not trained, such as running statistics: by name, as parameters are called.
  std::vector<named_tensor> buffers() {
    std::vector<named_tensor> all;
    std::size_t at = 0;
    for (auto const& t : plan::buffers) {
      auto const n = static_cast<std::size_t>(t.plan.shape.size());
      all.push_back(make_named_tensor(name_of(t), std::span<float>(buffers_).subspan(at, n), t.plan.shape));
      at += n;
    }
    return all;
  }
  parameter_list& parameters() { return arena_.parameters(); }
  parameter_list const& parameters() const { return arena_.parameters(); }

  /// PyTorch's default distributions, tensor i from the random stream (seed, i); buffers as at the beginning.
  void initialize(std::uint64_t seed) {
    std::size_t at = 0;
    for (auto const& t : plan::buffers)
      for (std::int64_t i = 0; i < t.plan.shape.size(); ++i) buffers_[at++] = t.plan.start == initial::one ? 1.f : 0.f;
    auto& list = arena_.parameters();
    for (std::size_t i = 0; i < plan::tensor_count; ++i)
      detail::initialize(list[i].weight, plan::tensors[i].plan, {seed, static_cast<std::uint32_t>(i)});
  }

  /// The network's outputs for a batch, without noise, sample by sample in row-major order; valid until the next call.
  /// Throws argument_error when the batch does not have the network's input shape.
  std::span<float const> predict(data::batch const& b, int threads = 1) {
    gradient_pass pass;
    pass.threads = threads;
    auto const p = forward(b, pass, false);
    auto const n = static_cast<std::size_t>(b.size * output_shape.size());
    if (detail::same_layout(output_shape, b.size)) return {p.logits, n};
    float* const out = scratch_.outgoing(n);
    detail::to_caller(out, p.logits, output_shape, b.size);
    return {out, n};
  }

  /// Forward pass with a view for a loss, which writes p.gradients (null unless `training`). Then comes `backward`.
  predictions forward(data::batch const& b, gradient_pass const& pass, bool training) {
    check(b);
    scratch_.lay_out(b.size);
    auto const threads = scratch_.backend.use(pass.threads);
    if (scratch_.incoming) detail::to_network(scratch_.incoming, b.values.data(), Input, b.size);
    if (b.size > 0)
      forward_all(indices{}, typename plan::layers{}, b, pass, training);
    else
      for (std::size_t i = 0; i < plan::depth; ++i) {  // for the ranks that have samples
        acquire(pass, i);
        release(pass, i);
      }
    return {scratch_.outputs[plan::wires.result - 1],
            training ? scratch_.gradients[0] : nullptr,
            b.targets,
            b.size,
            positions,
            width(output_shape),
            b.target_values,
            b.weights,
            b.lengths};
  }

  /// Gradients of all weights from what the loss wrote; the batch and the pass are those of the last `forward`.
  void backward(data::batch const& b, gradient_pass const& pass) {
    auto const threads = scratch_.backend.use(pass.threads);
    backward_all(indices{}, typename plan::layers{}, b, pass);
  }

 private:
  /// Noise must not repeat the numbers that tensors start with.
  static constexpr std::uint32_t noise_streams = 0x40000000u;

  struct memory {
    Backend backend;
    std::array<float*, plan::depth> outputs{}, kept{};
    std::array<float*, 2 + plan::wires.levels> gradients{};  // two that layers pass on, and one of each other path
    float* incoming = nullptr;
    buffer<float> floats, logits;

    /// Places everything for a batch; allocates when it is larger than all before.
    void lay_out(std::int64_t batch) {
      std::size_t total = 0;
      auto const place = [&](std::int64_t n) {
        return std::exchange(total, total + (static_cast<std::size_t>(n) + 15) / 16 * 16);  // 64-byte lines
      };
      constexpr auto const& wires = plan::wires;
      std::array<std::size_t, plan::depth> output_at{}, kept_at{};
      bool const copies_input = !input_is_tokens && !detail::same_layout(Input, batch);
      auto const incoming_at = place(copies_input ? batch * Input.size() : 0);
      for (std::size_t i = 0; i < plan::depth; ++i) {
        if (wires.in_place[i]) output_at[i] = output_at[wires.source[i] - 1];
        if (wires.owns[i]) output_at[i] = place(batch * plan::shapes[i + 1].size());
        kept_at[i] = place(batch * plan::scratch[i].per_sample + plan::scratch[i].fixed);
      }
      std::array<std::size_t, 2 + wires.levels> gradient_at{};
      for (auto& at : gradient_at) at = place(batch * plan::largest_output);
      if (floats.size() < total) floats = buffer<float>(total);
      for (std::size_t i = 0; i < plan::depth; ++i) {
        outputs[i] = floats.data() + output_at[i];
        kept[i] = floats.data() + kept_at[i];
      }
      for (std::size_t i = 0; i < gradients.size(); ++i) gradients[i] = floats.data() + gradient_at[i];
      incoming = copies_input ? floats.data() + incoming_at : nullptr;
    }
    float* outgoing(std::size_t n) {
      if (logits.size() < n) logits = buffer<float>(n);
      return logits.data();
    }
  };

  template <std::size_t... I, class... Flat>
  void forward_all(std::index_sequence<I...>, detail::layer_list<Flat...>, data::batch const& b,
                   gradient_pass const& pass, bool training) {
    using const_call = layer_call<Backend> const&;  // as layers are asked whether they can be called
    if constexpr (plan::nested)
      detail::in_order({(forward_one<Flat, I>(b, pass, training), 0)...});
    else
      detail::in_order({(Flat::forward(static_cast<const_call>(call<I>(b, pass, training))), release(pass, I), 0)...});
  }
  template <class Layer, std::size_t I>
  void forward_one(data::batch const& b, gradient_pass const& pass, bool training) {
    if constexpr (plan::nodes[I] == detail::node::layer) {
      auto const c = call<I>(b, pass, training);
      Layer::forward(c);
      release(pass, I);
    } else if constexpr (plan::nodes[I] == detail::node::join) {
      auto const n = static_cast<std::size_t>(b.size * plan::shapes[I].size());
      detail::add(scratch_.outputs[I], activation<plan::wires.source[I]>(b), activation<plan::wires.other[I]>(b), n);
    }
  }
  /// From the last layer to the first. What is passed along is the gradient of a layer's output and a second buffer for
  /// that of its input; behind these, those of the other paths of residuals.
  using flow_of_gradients = std::array<float*, 2 + plan::wires.levels>;
  template <std::size_t... I, class... Flat>
  void backward_all(std::index_sequence<I...>, detail::layer_list<Flat...>, data::batch const& b,
                    gradient_pass const& pass) {
    using one = void (basic_network::*)(data::batch const&, gradient_pass const&, flow_of_gradients&);
    static constexpr std::array<one, plan::depth> layer{&basic_network::template backward_one<Flat, I>...};
    auto flow = scratch_.gradients;
    for (std::size_t i = plan::depth; i-- > 0;) (this->*layer[i])(b, pass, flow);
  }
  template <class Layer, std::size_t I>
  void backward_one(data::batch const& b, gradient_pass const& pass, flow_of_gradients& flow) {
    if constexpr (plan::nodes[I] != detail::node::layer) {
      if (I >= plan::first_trained) backward_mark<plan::nodes[I], I>(b.size, flow);
    } else if constexpr (I >= plan::first_trained) {
      auto c = call<I>(b, pass, true);
      c.dy = flow[0];
      c.dx = I == plan::first_trained ? nullptr : plan::may_run_in_place[I] ? flow[0] : flow[1];
      c.dw = arena_.gradients().data() + plan::offsets[I];
      c.accumulate = pass.accumulate;
      if constexpr (layer_traits<Layer>::template has_factors<Backend>)
        if (pass.observe && b.size > 0)
          Layer::factors(std::as_const(c), [&](kfac_statistics f) {
            f.first = plan::offsets[I];
            f.scale = pass.scale;
            pass.observe(f);
          });
      if (b.size > 0)
        Layer::backward(std::as_const(c));
      else if (!pass.accumulate)
        std::fill_n(c.dw, plan::offsets[I + 1] - plan::offsets[I], 0.f);
      if (c.dx == flow[1]) std::swap(flow[0], flow[1]);
      release(pass, I);
      if (plan::tensors_per_layer[I] && pass.ready) pass.ready(plan::offsets[I]);
    }
  }
  /// A sum's gradient is that of both its terms: one goes on, the other waits for its path.
  template <detail::node Node, std::size_t I>
  void backward_mark(std::int64_t batch, flow_of_gradients& flow) {
    using enum detail::node;
    auto const n = static_cast<std::size_t>(batch * plan::shapes[I].size());
    float*& waiting = flow[2 + plan::wires.level[I]];
    if (Node == join) std::copy_n(flow[0], n, waiting);
    if (Node == turn) std::swap(flow[0], waiting);
    if (Node == fork || Node == fork_shortcut) detail::add_to(flow[0], waiting, n);
  }

  /// Activation V of wiring.hpp.
  template <std::size_t V>
  float const* activation(data::batch const& b) const {
    if constexpr (V > 0)
      return scratch_.outputs[V - 1];
    else
      return scratch_.incoming ? scratch_.incoming : b.values.data();
  }

  static void acquire(gradient_pass const& pass, std::size_t i) {
    if (plan::tensors_per_layer[i] && pass.acquire) pass.acquire({plan::offsets[i], plan::offsets[i + 1]});
  }
  static void release(gradient_pass const& pass, std::size_t i) {
    if (plan::tensors_per_layer[i] && pass.release) pass.release({plan::offsets[i], plan::offsets[i + 1]});
  }
  /// What layer I is handed, with its weights, which are to be released.
  template <std::size_t I>
  layer_call<Backend> call(data::batch const& b, gradient_pass const& pass, bool training) {
    acquire(pass, I);
    return {.backend = scratch_.backend,
            .batch = b.size,
            .in = plan::shapes[I],
            .out = plan::shapes[I + 1],
            .weights = arena_.weights().data() + plan::offsets[I],
            .buffers = buffers_.data() + plan::buffer_offsets[I],
            .x = activation<plan::wires.source[I]>(b),
            .tokens = b.tokens.data(),
            .y = scratch_.outputs[I],
            .scratch = scratch_.kept[I],
            .training = training,
            .updates_buffers = training && pass.updates_buffers,
            .noise = pass.random(noise_streams + static_cast<std::uint32_t>(I))};
  }

  static std::vector<arena::tensor> layout() {
    std::vector<arena::tensor> tensors;
    for (auto const& t : plan::tensors) tensors.push_back({name_of(t), t.plan.shape});
    return tensors;
  }
  /// "3.weight", and in blocks "3.0.weight" and "3.shortcut.0.weight".
  static std::string name_of(detail::placed_tensor const& t) {
    if constexpr (plan::nested) {
      std::string name;
      auto const& p = plan::paths[static_cast<std::size_t>(t.layer)];
      for (int i = 0; i < p.length; ++i) {
        int const step = p.steps[static_cast<std::size_t>(i)];
        name += step == detail::path::of_shortcut ? "shortcut." : message(step, '.');
      }
      return name + t.plan.name;
    } else {
      return message(t.layer, '.', t.plan.name);
    }
  }

  static void check(data::batch const& b) {
    require(b.size >= 0, "network: a batch of ", b.size, " samples");
    auto const given = input_is_tokens ? b.tokens.size() : b.values.size();
    require(given == static_cast<std::size_t>(b.size * Input.size()), "network: a batch of ", b.size,
            " samples of shape ", Input, " needs ", b.size * Input.size(), input_is_tokens ? " tokens" : " values",
            ", it has ", given, ": build the batch for this network's input shape");
  }

  arena arena_;
  std::vector<float> buffers_ = std::vector<float>(buffer_count);
  detail::transient<memory> scratch_;
};

/// A network on the host's backend (host.hpp).
template <shape Input, class... Layers>
using network = basic_network<host, Input, Layers...>;

}  // namespace dovetail::nn
