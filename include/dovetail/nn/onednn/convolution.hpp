// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <utility>

#include <dnnl.h>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/nn/convolution_size.hpp>
#include <dovetail/nn/onednn/threads.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn::onednn {

/// Owns an object of oneDNN's C interface, or nothing. The C++ interface would cost every program a second of
/// compiling.
template <class Object, dnnl_status_t (*Destroy)(Object)>
class handle {
 public:
  handle() = default;
  handle(handle&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  handle& operator=(handle&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~handle() {
    if (object_) Destroy(object_);
  }
  explicit operator bool() const { return object_ != nullptr; }
  operator Object() const { return object_; }
  /// For functions that make an object; it must be empty.
  Object* out() { return &object_; }

 private:
  Object object_ = nullptr;
};
using engine = handle<dnnl_engine_t, dnnl_engine_destroy>;
using stream = handle<dnnl_stream_t, dnnl_stream_destroy>;
using memory = handle<dnnl_memory_t, dnnl_memory_destroy>;
using primitive_desc = handle<dnnl_primitive_desc_t, dnnl_primitive_desc_destroy>;
using primitive = handle<dnnl_primitive_t, dnnl_primitive_destroy>;

/// The primitives of one convolution of one size. Images stay channels-last, so only the weights, which are small,
/// change their format: into the one that oneDNN prefers, and their gradients back.
class convolution {
 public:
  explicit convolution(convolution_size const& size)
      : size_(size),
        strides_{size.stride, size.stride},
        padding_{size.padding, size.padding},
        image_(describe({size.batch, size.channels, size.height, size.width}, dnnl_nhwc)),
        result_(describe({size.batch, size.filters, size.out_height(), size.out_width()}, dnnl_nhwc)),
        weight_(describe({size.filters, size.channels, size.kernel, size.kernel}, dnnl_oihw)),
        any_weight_(describe({size.filters, size.channels, size.kernel, size.kernel}, dnnl_format_tag_any)),
        bias_(describe({size.filters}, dnnl_x)) {
    check(dnnl_engine_create(engine_.out(), dnnl_cpu, 0));
    check(dnnl_stream_create(stream_.out(), engine_, dnnl_stream_default_flags));
    dnnl_convolution_desc_t d;
    check(dnnl_convolution_forward_desc_init(&d, dnnl_forward_training, dnnl_convolution_direct, &image_, &any_weight_,
                                             &bias_, &result_, strides_, padding_, padding_));
    make(forward_, &d, nullptr);
  }

  void forward(float const* x, float const* w, float const* bias, float* y) {
    execute(forward_.run, {{DNNL_ARG_SRC, view(image_, x)},
                           {DNNL_ARG_WEIGHTS, pack(forward_, w)},
                           {DNNL_ARG_BIAS, view(bias_, bias)},
                           {DNNL_ARG_DST, view(result_, y)}});
  }

  void backward_data(float const* w, float const* dy, float* dx) {
    if (!data_.run) {
      dnnl_convolution_desc_t d;
      check(dnnl_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, &image_, &any_weight_, &result_,
                                                     strides_, padding_, padding_));
      make(data_, &d, forward_.desc);
    }
    execute(data_.run, {{DNNL_ARG_DIFF_DST, view(result_, dy)},
                        {DNNL_ARG_WEIGHTS, pack(data_, w)},
                        {DNNL_ARG_DIFF_SRC, view(image_, dx)}});
  }

  void backward_weights(float const* x, float const* dy, float* dw, float* dbias, bool accumulate) {
    if (!weights_.run) {
      dnnl_convolution_desc_t d;
      check(dnnl_convolution_backward_weights_desc_init(&d, dnnl_convolution_direct, &image_, &any_weight_, &bias_,
                                                        &result_, strides_, padding_, padding_));
      make(weights_, &d, forward_.desc);
      auto const& format = *dnnl_primitive_desc_query_md(weights_.desc, dnnl_query_diff_weights_md, 0);
      weights_.packed = allocate(format);
      weights_.reorder = make_reorder(format, weight_);
    }
    auto const n = static_cast<std::size_t>(size_.weight_count()), f = static_cast<std::size_t>(size_.filters);
    if (accumulate && sums_.empty()) sums_ = buffer<float>(n + f);
    float* const w = accumulate ? sums_.data() : dw;
    float* const b = accumulate ? sums_.data() + n : dbias;
    execute(weights_.run, {{DNNL_ARG_SRC, view(image_, x)},
                           {DNNL_ARG_DIFF_DST, view(result_, dy)},
                           {DNNL_ARG_DIFF_WEIGHTS, weights_.packed},
                           {DNNL_ARG_DIFF_BIAS, view(bias_, b)}});
    execute(weights_.reorder, {{DNNL_ARG_FROM, weights_.packed}, {DNNL_ARG_TO, view(weight_, w)}});
    if (accumulate) {
      detail::add_to(dw, w, n);
      detail::add_to(dbias, b, f);
    }
  }

 private:
  /// One direction: its primitive, made when it is first needed, and the weights in the format that it prefers.
  struct direction {
    primitive_desc desc;
    primitive run, reorder;
    memory packed;
  };

  void check(dnnl_status_t status) const {
    require<error>(status == dnnl_success, "oneDNN: a convolution of ", size_.batch, " images of ", size_.channels,
                   " x ", size_.height, " x ", size_.width, " with ", size_.filters, " filters of ", size_.kernel,
                   " x ", size_.kernel, " failed with status ", static_cast<int>(status), " (dnnl_types.h)");
  }
  dnnl_memory_desc_t describe(std::initializer_list<dnnl_dim_t> extents, dnnl_format_tag_t format) const {
    dnnl_memory_desc_t d;
    check(dnnl_memory_desc_init_by_tag(&d, static_cast<int>(extents.size()), extents.begin(), dnnl_f32, format));
    return d;
  }
  void make(direction& to, dnnl_convolution_desc_t const* what, const_dnnl_primitive_desc_t forward) const {
    check(dnnl_primitive_desc_create(to.desc.out(), what, nullptr, engine_, forward));
    check(dnnl_primitive_create(to.run.out(), to.desc));
  }
  primitive make_reorder(dnnl_memory_desc_t const& from, dnnl_memory_desc_t const& to) const {
    primitive_desc d;
    primitive p;
    check(dnnl_reorder_primitive_desc_create(d.out(), &from, engine_, &to, engine_, nullptr));
    check(dnnl_primitive_create(p.out(), d));
    return p;
  }
  memory make_memory(dnnl_memory_desc_t const& desc, void* at) const {
    memory m;
    check(dnnl_memory_create(m.out(), &desc, engine_, at));
    return m;
  }
  memory allocate(dnnl_memory_desc_t const& desc) const { return make_memory(desc, DNNL_MEMORY_ALLOCATE); }
  memory view(dnnl_memory_desc_t const& desc, float const* p) const {
    return make_memory(desc, const_cast<float*>(p));  // oneDNN has no view of const memory
  }

  /// Weights in the format that `to` prefers.
  dnnl_memory_t pack(direction& to, float const* w) const {
    if (!to.packed) {
      auto const& format = *dnnl_primitive_desc_query_md(to.desc, dnnl_query_weights_md, 0);
      to.packed = allocate(format);
      to.reorder = make_reorder(weight_, format);
    }
    execute(to.reorder, {{DNNL_ARG_FROM, view(weight_, w)}, {DNNL_ARG_TO, to.packed}});
    return to.packed;
  }

  void execute(primitive const& p, std::initializer_list<dnnl_exec_arg_t> arguments) const {
    check(dnnl_primitive_execute(p, stream_, static_cast<int>(arguments.size()), arguments.begin()));
    check(dnnl_stream_wait(stream_));
  }

  convolution_size size_;
  dnnl_dims_t strides_, padding_;
  dnnl_memory_desc_t image_, result_, weight_, any_weight_, bias_;
  engine engine_;
  stream stream_;
  direction forward_, data_, weights_;
  buffer<float> sums_;
};

/// Convolutions by size and number of threads: oneDNN cuts the work when a primitive is made, so one that was made for
/// two threads must not run on one. Batches of a few sizes come again and again; when all places are taken, the oldest
/// goes.
class convolution_cache {
 public:
  convolution& find(convolution_size const& size) {
    int const threads = omp_get_max_threads();
    for (auto& e : entries_)
      if (e.primitives && e.size == size && e.threads == threads) return *e.primitives;
    auto& oldest = entries_[made_++ % entries_.size()];
    oldest = {size, threads, std::make_unique<convolution>(size)};
    return *oldest.primitives;
  }

 private:
  struct entry {
    convolution_size size{};
    int threads = 0;
    std::unique_ptr<convolution> primitives;
  };
  std::array<entry, 256> entries_;
  std::size_t made_ = 0;
};

}  // namespace dovetail::nn::onednn
