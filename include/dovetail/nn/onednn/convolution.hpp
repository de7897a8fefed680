// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstring>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include <dnnl.hpp>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/nn/convolution_size.hpp>
#include <dovetail/nn/onednn/threads.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn::onednn {

/// The primitives of one convolution of one size. Images stay channels-last, so only the weights, which are small,
/// change their format: into the one that oneDNN prefers, and their gradients back.
class convolution {
 public:
  explicit convolution(convolution_size const& size)
      : size_(size), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    auto const padding = dims{size.padding, size.padding};
    forward_ = dnnl::convolution_forward::primitive_desc({dnnl::prop_kind::forward_training,
                                                          dnnl::algorithm::convolution_direct,
                                                          image(),
                                                          weight(),
                                                          bias(),
                                                          result(),
                                                          {size.stride, size.stride},
                                                          padding,
                                                          padding},
                                                         engine_);
  }

  void forward(float const* x, float const* w, float const* bias_values, float* y) {
    guarded([&] {
      if (!run_forward_) run_forward_.emplace(forward_);
      run_forward_->execute(stream_, {{DNNL_ARG_SRC, view(image(), x)},
                                      {DNNL_ARG_WEIGHTS, reordered(w, forward_.weights_desc())},
                                      {DNNL_ARG_BIAS, view(bias(), bias_values)},
                                      {DNNL_ARG_DST, view(result(), y)}});
    });
  }

  void backward_data(float const* w, float const* dy, float* dx) {
    guarded([&] {
      if (!run_data_) {
        auto const padding = dims{size_.padding, size_.padding};
        data_ = dnnl::convolution_backward_data::primitive_desc({dnnl::algorithm::convolution_direct,
                                                                 image(),
                                                                 weight(),
                                                                 result(),
                                                                 {size_.stride, size_.stride},
                                                                 padding,
                                                                 padding},
                                                                engine_, forward_);
        run_data_.emplace(data_);
      }
      run_data_->execute(stream_, {{DNNL_ARG_DIFF_DST, view(result(), dy)},
                                   {DNNL_ARG_WEIGHTS, reordered(w, data_.weights_desc())},
                                   {DNNL_ARG_DIFF_SRC, view(image(), dx)}});
    });
  }

  void backward_weights(float const* x, float const* dy, float* dw, float* dbias, bool accumulate) {
    guarded([&] {
      if (!run_weights_) {
        auto const padding = dims{size_.padding, size_.padding};
        weights_ = dnnl::convolution_backward_weights::primitive_desc({dnnl::algorithm::convolution_direct,
                                                                       image(),
                                                                       weight(),
                                                                       bias(),
                                                                       result(),
                                                                       {size_.stride, size_.stride},
                                                                       padding,
                                                                       padding},
                                                                      engine_, forward_);
        run_weights_.emplace(weights_);
        gradient_ = dnnl::memory(weights_.diff_weights_desc(), engine_);
      }
      auto const n = static_cast<std::size_t>(size_.weight_count()), f = static_cast<std::size_t>(size_.filters);
      if (accumulate && sums_.empty()) sums_ = buffer<float>(n + f);
      float* const w = accumulate ? sums_.data() : dw;
      float* const b = accumulate ? sums_.data() + n : dbias;
      run_weights_->execute(stream_, {{DNNL_ARG_SRC, view(image(), x)},
                                      {DNNL_ARG_DIFF_DST, view(result(), dy)},
                                      {DNNL_ARG_DIFF_WEIGHTS, gradient_},
                                      {DNNL_ARG_DIFF_BIAS, view(bias(), b)}});
      auto plain = view(plain_weight(), w);
      dnnl::reorder(gradient_, plain).execute(stream_, gradient_, plain);
      if (accumulate) {
        detail::add_to(dw, w, n);
        detail::add_to(dbias, b, f);
      }
    });
  }

 private:
  using dims = dnnl::memory::dims;
  using tag = dnnl::memory::format_tag;
  static constexpr auto f32 = dnnl::memory::data_type::f32;

  dnnl::memory::desc image() const {
    return {{size_.batch, size_.channels, size_.height, size_.width}, f32, tag::nhwc};
  }
  dnnl::memory::desc result() const {
    return {{size_.batch, size_.filters, size_.out_height(), size_.out_width()}, f32, tag::nhwc};
  }
  dnnl::memory::desc weight() const {
    return {{size_.filters, size_.channels, size_.kernel, size_.kernel}, f32, tag::any};
  }
  dnnl::memory::desc plain_weight() const {
    return {{size_.filters, size_.channels, size_.kernel, size_.kernel}, f32, tag::oihw};
  }
  dnnl::memory::desc bias() const { return {{size_.filters}, f32, tag::x}; }
  dnnl::memory view(dnnl::memory::desc const& desc, float const* p) const {
    return {desc, engine_, const_cast<float*>(p)};  // oneDNN has no view of const memory
  }

  /// Weights in the format that a primitive wants.
  dnnl::memory reordered(float const* w, dnnl::memory::desc const& wanted) {
    auto plain = view(plain_weight(), w);
    if (plain.get_desc() == wanted) return plain;
    if (!packed_ || packed_->get_desc() != wanted) packed_.emplace(wanted, engine_);
    dnnl::reorder(plain, *packed_).execute(stream_, plain, *packed_);
    return *packed_;
  }

  template <class F>
  void guarded(F const& f) try {
    f();
    stream_.wait();
  } catch (dnnl::error const& e) {
    throw error(message("oneDNN: a convolution of ", size_.batch, " images of ", size_.channels, " x ", size_.height,
                        " x ", size_.width, " with ", size_.filters, " filters of ", size_.kernel, " x ", size_.kernel,
                        " failed: ", e.what()));
  }

  convolution_size size_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::convolution_forward::primitive_desc forward_;
  dnnl::convolution_backward_data::primitive_desc data_;
  dnnl::convolution_backward_weights::primitive_desc weights_;
  std::optional<dnnl::convolution_forward> run_forward_;
  std::optional<dnnl::convolution_backward_data> run_data_;
  std::optional<dnnl::convolution_backward_weights> run_weights_;
  std::optional<dnnl::memory> packed_;
  dnnl::memory gradient_;
  buffer<float> sums_;
};

/// Convolutions by size and number of threads: oneDNN cuts the work when a primitive is made, so one that was made for
/// two threads must not run on one. Batches of a few sizes come again and again; beyond `most`, the oldest goes.
class convolution_cache {
 public:
  convolution& find(convolution_size const& size) {
    int const threads = omp_get_max_threads();
    for (auto& e : entries_)
      if (e.size == size && e.threads == threads) return *e.primitives;
    if (entries_.size() == most) entries_.erase(entries_.begin());
    entries_.push_back({size, threads, std::make_unique<convolution>(size)});
    return *entries_.back().primitives;
  }

 private:
  static constexpr std::size_t most = 256;
  struct entry {
    convolution_size size;
    int threads;
    std::unique_ptr<convolution> primitives;
  };
  std::vector<entry> entries_;
};

}  // namespace dovetail::nn::onednn
