// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

#include <dovetail/compress/context.hpp>
#include <dovetail/compress/cuda/codec.cuh>
#include <dovetail/compress/cuda/elements.cuh>
#include <dovetail/compress/error_feedback.hpp>
#include <dovetail/core/cuda.hpp>
#include <dovetail/core/cuda_launch.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>

// compress::error_feedback around any codec with kernels: the residual is in device memory, and has the host's bits.
// Whether a gradient is finite is decided on the device, so that the host waits for nothing.
namespace dovetail::compress::cuda {
namespace detail {

/// What was found of one encoding: whether the gradient, and what is left of it, has an element that is not finite.
struct finite_marks {
  std::uint32_t gradient, rest;
};

/// next becomes gradient + residual; the gradient alone, if that is not finite.
template <class T>
__global__ __launch_bounds__(threads) void add_residual(T const* gradient, float const* residual, std::size_t n,
                                                        finite_marks const* found, float* next) {
  bool const alone = found->gradient != 0;
  for (std::size_t i = first_thing(); i < n; i += all_threads())
    next[i] = alone ? gradient[i] : sum_of(residual[i], gradient[i]);
}
/// Of a gradient that is not finite the residual stays; where a sum has overflowed, both begin again at 0.
template <class T>
__global__ __launch_bounds__(threads) void keep_or_restart(T* residual, float* next, std::size_t n,
                                                           finite_marks const* found) {
  if (!found->gradient && !found->rest) return;
  for (std::size_t i = first_thing(); i < n; i += all_threads())
    if (found->gradient)
      next[i] = residual[i];
    else if (!is_finite(next[i]))
      residual[i] = next[i] = 0;
}

}  // namespace detail

/// State of error_feedback{codec} on a device.
template <class Codec>
class feedback_state {
 public:
  feedback_state(std::size_t n, std::size_t bytes, dovetail::cuda::device const& where)
      : inner_(n, bytes, where), received_(n, bytes, where), residual_(n, where), before_(n, where), found_(1, where) {}

  std::size_t size() const { return inner_.size(); }
  dovetail::cuda::device const& device() const { return inner_.device(); }
  std::size_t scratch_bytes() const { return inner_.scratch_bytes(); }
  fault_word take_fault() { return received_.take_fault(); }

  /// What is owed, one float an element: to be saved, and loaded, as the host's residual is.
  dovetail::cuda::device_buffer<float>& residual() { return residual_; }
  /// The step of the last encode was made.
  void commit() { open_ = false; }
  /// It was skipped: the residual has the bits that it had before.
  void rollback() {
    if (std::exchange(open_, false)) std::swap(residual_, before_);
  }

 private:
  friend struct form<error_feedback<Codec>>;
  typename form<Codec>::state inner_;     // of what is encoded, and decoded to find what is lost
  typename form<Codec>::state received_;  // of the others' payloads: one that is damaged is not this residual's affair
  dovetail::cuda::device_buffer<float> residual_, before_;
  dovetail::cuda::device_buffer<detail::finite_marks> found_;
  bool open_ = false;  ///< whether the last encode can be taken back
};

/// An encode exchanges the two residuals, which a graph cannot: it throws argument_error on a stream that is captured.
template <class Codec>
requires has_kernels<Codec>
struct form<error_feedback<Codec>> {
  using state = feedback_state<Codec>;
  static std::size_t scratch(error_feedback<Codec> const& feedback, std::size_t n) {
    return form<Codec>::scratch(feedback.codec, n);
  }
  static void encode(error_feedback<Codec> const& feedback, device_span<float const> values, state& s, std::byte* out,
                     context const& where) {
    using dovetail::cuda::launch;
    auto const& d = s.device();
    require(!d.capturing(),
            "error feedback on a device cannot be captured in a graph: each step goes on with another "
            "array");
    std::size_t const n = values.size();
    unsigned const blocks = detail::blocks_for((n + 3) / 4);
    device_span<float> const next(s.before_);
    auto* const found = s.found_.data();
    {
      auto const here = d.use();
      dovetail::cuda::check(cudaMemsetAsync(found, 0, sizeof *found, d.stream), "cudaMemset");
    }
    launch("a look at a gradient", d, blocks, detail::threads, detail::find_non_finite<float>, values.data(), n,
           &found->gradient);
    launch("gradient and residual", d, blocks, detail::threads, detail::add_residual<float>, values.data(),
           s.residual_.data(), n, found, next.data());
    form<Codec>::encode(feedback.codec, next, s.inner_, out, where);
    form<Codec>::decode_add(feedback.codec, out, next, -1.0f, s.inner_, where);
    launch("a look at a residual", d, blocks, detail::threads, detail::find_non_finite<float>, next.data(), n,
           &found->rest);
    launch("a residual", d, blocks, detail::threads, detail::keep_or_restart<float>, s.residual_.data(), next.data(), n,
           found);
    std::swap(s.residual_, s.before_);
    s.open_ = true;
  }
  static void decode_add(error_feedback<Codec> const& feedback, std::byte const* payload, device_span<float> out,
                         float weight, state& s, context const& where) {
    form<Codec>::decode_add(feedback.codec, payload, out, weight, s.received_, where);
  }
  static void check(error_feedback<Codec> const& feedback, float const* values, std::size_t n) {
    detail::check_codec(feedback.codec, values, n);
  }
};

}  // namespace dovetail::compress::cuda
