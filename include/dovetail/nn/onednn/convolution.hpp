// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include <dnnl.h>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/nn/convolution_size.hpp>
#include <dovetail/nn/onednn/computation.hpp>
#include <dovetail/nn/onednn/handles.hpp>
#include <dovetail/nn/onednn/threads.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn::onednn {

/// The primitives of one convolution of one size. Images stay channels-last, so only the weights, which are small,
/// change their format: into the one that oneDNN prefers, and their gradients back.
class convolution : computation {
 public:
  explicit convolution(convolution_size const& size)
      : computation(message("a convolution of ", size.batch, " images of ", size.channels, " x ", size.height, " x ",
                            size.width, " with ", size.filters, " filters of ", size.kernel, " x ", size.kernel)),
        size_(size),
        plan_{describe({size.batch, size.channels, size.height, size.width}, dnnl_nhwc),
              describe({size.filters, size.channels, size.kernel, size.kernel}, dnnl_format_tag_any),
              describe({size.filters}, dnnl_x),
              describe({size.batch, size.filters, size.out_height(), size.out_width()}, dnnl_nhwc),
              {size.stride, size.stride},
              {0, 0},
              {size.padding, size.padding},
              deterministic()},
        weight_(describe({size.filters, size.channels, size.kernel, size.kernel}, dnnl_oihw)) {
    check(plan_.forward(forward_.desc, engine_));
    check(dnnl_primitive_create(forward_.run.out(), forward_.desc));
  }

  void forward(float const* x, float const* w, float const* bias, float* y) {
    execute(forward_.run, {{DNNL_ARG_SRC, view(plan_.image, x)},
                           {DNNL_ARG_WEIGHTS, pack(forward_, w)},
                           {DNNL_ARG_BIAS, view(plan_.bias, bias)},
                           {DNNL_ARG_DST, view(plan_.result, y)}});
  }

  void backward_data(float const* w, float const* dy, float* dx) {
    if (!data_.run) {
      check(plan_.backward_data(data_.desc, engine_, forward_.desc));
      check(dnnl_primitive_create(data_.run.out(), data_.desc));
    }
    execute(data_.run, {{DNNL_ARG_DIFF_DST, view(plan_.result, dy)},
                        {DNNL_ARG_WEIGHTS, pack(data_, w)},
                        {DNNL_ARG_DIFF_SRC, view(plan_.image, dx)}});
  }

  void backward_weights(float const* x, float const* dy, float* dw, float* dbias, bool accumulate) {
    if (skips_pixels()) {
      gather(x);
      dense_->backward_weights(pixels_.data(), dy, dw, dbias, accumulate);
      return;
    }
    detail::sum_rows(dbias, dy, static_cast<std::size_t>(size_.batch * pixels_out()),
                     static_cast<std::size_t>(size_.filters), accumulate);
    auto const n = static_cast<std::size_t>(size_.weight_count());
    if (auto const images = images_at_once(); images < size_.batch) {
      add_parts(images, x, dy, dw, accumulate);
    } else if (accumulate) {
      if (part_weights_.empty()) part_weights_ = buffer<float>(n);
      multiply(x, dy, part_weights_.data());
      detail::add_to(dw, part_weights_.data(), n);
    } else {
      multiply(x, dy, dw);
    }
  }

 private:
  /// One direction: its primitive, made when it is first needed, and the weights in the format that it prefers.
  struct direction {
    primitive_desc desc;
    primitive run, reorder;
    memory packed;
  };

  /// Weights in the format that `to` prefers.
  dnnl_memory_t pack(direction& to, float const* w) const {
    if (!to.packed) {
      auto const format = dnnl_primitive_desc_query_md(to.desc, dnnl_query_weights_md, 0);
      to.packed = allocate(format);
      to.reorder = make_reorder(weight_, format);
    }
    execute(to.reorder, {{DNNL_ARG_FROM, view(weight_, w)}, {DNNL_ARG_TO, to.packed}});
    return to.packed;
  }

  /// A kernel of one pixel reads only every stride-th. For the gradient of its weights these pixels are laid together
  /// here, because oneDNN (2.6 to 3.12 at least, its issue 6035) writes past the memory in which it does the same when
  /// there are fewer channels than its kernels' vectors have lanes.
  bool skips_pixels() const { return size_.kernel == 1 && size_.stride > 1 && size_.padding == 0; }
  void gather(float const* x) {
    auto const height = size_.out_height(), width = size_.out_width(), channels = size_.channels;
    if (!dense_) {
      dense_ =
          std::make_unique<convolution>(convolution_size{size_.batch, channels, height, width, size_.filters, 1, 1, 0});
      pixels_ = buffer<float>(static_cast<std::size_t>(size_.batch * height * width * channels));
    }
    parallel(static_cast<std::size_t>(size_.batch * height), static_cast<std::size_t>(width * channels),
             [&](std::size_t begin, std::size_t end) {
               for (auto row = static_cast<std::int64_t>(begin); row < static_cast<std::int64_t>(end); ++row) {
                 auto const line = (row / height * size_.height + row % height * size_.stride) * size_.width;
                 for (std::int64_t i = 0; i < width; ++i)
                   std::memcpy(pixels_.data() + (row * width + i) * channels, x + (line + i * size_.stride) * channels,
                               static_cast<std::size_t>(channels) * sizeof(float));
               }
             });
  }

  /// The gradient of the weights from all images.
  void multiply(float const* x, float const* dy, float* dw) {
    if (!weights_.run) {
      check(plan_.backward_weights(weights_.desc, engine_, forward_.desc));
      check(dnnl_primitive_create(weights_.run.out(), weights_.desc));
      auto const format = dnnl_primitive_desc_query_md(weights_.desc, dnnl_query_diff_weights_md, 0);
      weights_.packed = allocate(format);
      weights_.reorder = make_reorder(format, weight_);
      unused_bias_ = buffer<float>(static_cast<std::size_t>(size_.filters));
    }
    // oneDNN's own sum for the bias, which cannot be left out, adds all pixels in floats.
    execute(weights_.run, {{DNNL_ARG_SRC, view(plan_.image, x)},
                           {DNNL_ARG_DIFF_DST, view(plan_.result, dy)},
                           {DNNL_ARG_DIFF_WEIGHTS, weights_.packed},
                           {DNNL_ARG_DIFF_BIAS, view(plan_.bias, unused_bias_.data())}});
    execute(weights_.reorder, {{DNNL_ARG_FROM, weights_.packed}, {DNNL_ARG_TO, view(weight_, dw)}});
  }

  std::int64_t pixels_out() const { return size_.out_height() * size_.out_width(); }
  /// oneDNN adds the pixels of a core one after the other in float: no longer sums than of so many images.
  std::int64_t images_at_once() const {
    constexpr std::int64_t pixels_per_core = 16384;
    return std::max<std::int64_t>(1, pixels_per_core * threads_ / pixels_out());
  }
  /// The same from parts of the batch, whose gradients are added in double precision.
  void add_parts(std::int64_t images, float const* x, float const* dy, float* dw, bool accumulate) {
    auto const n = static_cast<std::size_t>(size_.weight_count());
    if (totals_.empty()) {
      totals_ = buffer<double>(n);
      if (part_weights_.empty()) part_weights_ = buffer<float>(n);
    }
    for (std::size_t i = 0; i < n; ++i) totals_[i] = accumulate ? static_cast<double>(dw[i]) : 0.0;
    for (std::int64_t at = 0; at < size_.batch; at += images) {
      auto const count = std::min(images, size_.batch - at);
      auto& part = count == images ? part_ : rest_;
      if (!part) {
        auto smaller = size_;
        smaller.batch = count;
        part = std::make_unique<convolution>(smaller);
      }
      part->multiply(x + at * size_.height * size_.width * size_.channels, dy + at * pixels_out() * size_.filters,
                     part_weights_.data());
      for (std::size_t i = 0; i < n; ++i) totals_[i] += static_cast<double>(part_weights_[i]);
    }
    for (std::size_t i = 0; i < n; ++i) dw[i] = static_cast<float>(totals_[i]);
  }

  convolution_size size_;
  convolution_plan plan_;
  memory_desc weight_;
  direction forward_, data_, weights_;
  int threads_ = omp_get_max_threads();
  std::unique_ptr<convolution> dense_;        // of the pixels that are read, where some are skipped
  std::unique_ptr<convolution> part_, rest_;  // of some of the images
  buffer<float> unused_bias_, part_weights_, pixels_;
  buffer<double> totals_;
};

}  // namespace dovetail::nn::onednn
