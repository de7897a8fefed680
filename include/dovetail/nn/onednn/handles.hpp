// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// oneDNN's C interface as values that clean up after themselves, and the little in which versions 2 and 3 differ. The
// C++ interface would cost every program a second of compiling.
#include <initializer_list>
#include <utility>

#include <dnnl.h>

namespace dovetail::nn::onednn {

/// Owns an object of oneDNN, or nothing.
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
using primitive_attr = handle<dnnl_primitive_attr_t, dnnl_primitive_attr_destroy>;
using post_ops = handle<dnnl_post_ops_t, dnnl_post_ops_destroy>;
using primitive_desc = handle<dnnl_primitive_desc_t, dnnl_primitive_desc_destroy>;
using primitive = handle<dnnl_primitive_t, dnnl_primitive_destroy>;

/// Extents and format of a tensor of floats.
class memory_desc {
 public:
#if DNNL_VERSION_MAJOR >= 3  // an object
  /// What functions that read a descriptor take.
  using view = const_dnnl_memory_desc_t;
  operator view() const { return desc_; }
  dnnl_status_t make(std::initializer_list<dnnl_dim_t> extents, dnnl_format_tag_t format) {
    return dnnl_memory_desc_create_with_tag(desc_.out(), static_cast<int>(extents.size()), extents.begin(), dnnl_f32,
                                            format);
  }

 private:
  handle<dnnl_memory_desc_t, dnnl_memory_desc_destroy> desc_;
#else  // a struct
  using view = dnnl_memory_desc_t const*;
  operator view() const { return &desc_; }
  dnnl_status_t make(std::initializer_list<dnnl_dim_t> extents, dnnl_format_tag_t format) {
    return dnnl_memory_desc_init_by_tag(&desc_, static_cast<int>(extents.size()), extents.begin(), dnnl_f32, format);
  }

 private:
  dnnl_memory_desc_t desc_{};
#endif
};

/// Asks for kernels that give the same bits for the same input, of every version that can be asked: late ones of 3.
template <class Attr>
dnnl_status_t make_deterministic(Attr attr) {
  if constexpr (requires { dnnl_primitive_attr_set_deterministic(attr, 1); })  // found where the version has it
    return dnnl_primitive_attr_set_deterministic(attr, 1);
  else
    return dnnl_success;
}

/// A convolution as oneDNN sees it; the weights may be of any format.
struct convolution_plan {
  memory_desc image, weight, bias, result;
  dnnl_dims_t strides, dilation, padding;
  primitive_attr attr;

#if DNNL_VERSION_MAJOR >= 3  // primitives are described by arguments
  dnnl_status_t forward(primitive_desc& to, dnnl_engine_t on) const {
    return dnnl_convolution_forward_primitive_desc_create(to.out(), on, dnnl_forward_training, dnnl_convolution_direct,
                                                          image, weight, bias, result, strides, dilation, padding,
                                                          padding, attr);
  }
  dnnl_status_t backward_data(primitive_desc& to, dnnl_engine_t on, const_dnnl_primitive_desc_t forward) const {
    return dnnl_convolution_backward_data_primitive_desc_create(to.out(), on, dnnl_convolution_direct, image, weight,
                                                                result, strides, dilation, padding, padding, forward,
                                                                attr);
  }
  dnnl_status_t backward_weights(primitive_desc& to, dnnl_engine_t on, const_dnnl_primitive_desc_t forward) const {
    return dnnl_convolution_backward_weights_primitive_desc_create(to.out(), on, dnnl_convolution_direct, image, weight,
                                                                   bias, result, strides, dilation, padding, padding,
                                                                   forward, attr);
  }
#else  // and by a struct
  dnnl_status_t forward(primitive_desc& to, dnnl_engine_t on) const {
    dnnl_convolution_desc_t d;
    auto const status =
        dnnl_dilated_convolution_forward_desc_init(&d, dnnl_forward_training, dnnl_convolution_direct, image, weight,
                                                   bias, result, strides, dilation, padding, padding);
    return status != dnnl_success ? status : dnnl_primitive_desc_create(to.out(), &d, attr, on, nullptr);
  }
  dnnl_status_t backward_data(primitive_desc& to, dnnl_engine_t on, const_dnnl_primitive_desc_t forward) const {
    dnnl_convolution_desc_t d;
    auto const status = dnnl_dilated_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, image, weight,
                                                                         result, strides, dilation, padding, padding);
    return status != dnnl_success ? status : dnnl_primitive_desc_create(to.out(), &d, attr, on, forward);
  }
  dnnl_status_t backward_weights(primitive_desc& to, dnnl_engine_t on, const_dnnl_primitive_desc_t forward) const {
    dnnl_convolution_desc_t d;
    auto const status = dnnl_dilated_convolution_backward_weights_desc_init(
        &d, dnnl_convolution_direct, image, weight, bias, result, strides, dilation, padding, padding);
    return status != dnnl_success ? status : dnnl_primitive_desc_create(to.out(), &d, attr, on, forward);
  }
#endif
};

/// C = A B, or C += A B, as oneDNN sees it; B may be of any format.
struct matmul_plan {
  memory_desc a, b, c;
  primitive_attr attr;

  /// Called before `make`, for C += A B.
  dnnl_status_t add() {
    post_ops sum;
    auto status = dnnl_post_ops_create(sum.out());
#if DNNL_VERSION_MAJOR >= 3
    if (status == dnnl_success) status = dnnl_post_ops_append_sum(sum, 1.f, 0, dnnl_data_type_undef);
#else
    if (status == dnnl_success) status = dnnl_post_ops_append_sum(sum, 1.f);
#endif
    return status == dnnl_success ? dnnl_primitive_attr_set_post_ops(attr, sum) : status;
  }
  dnnl_status_t make(primitive_desc& to, dnnl_engine_t on) const {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(to.out(), on, a, b, nullptr, c, attr);
#else
    dnnl_matmul_desc_t d;
    auto const status = dnnl_matmul_desc_init(&d, a, b, nullptr, c);
    return status != dnnl_success ? status : dnnl_primitive_desc_create(to.out(), &d, attr, on, nullptr);
#endif
  }
};

}  // namespace dovetail::nn::onednn
