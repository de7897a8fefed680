// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include <dnnl.h>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/nn/onednn/handles.hpp>
#include <dovetail/nn/onednn/threads.hpp>

namespace dovetail::nn::onednn {

/// What every computation by primitives of oneDNN needs: an engine, a stream, and errors that say what failed.
class computation {
 protected:
  /// `what` begins the errors: "a product of …".
  explicit computation(std::string what) : what_(std::move(what)) {
    check(dnnl_engine_create(engine_.out(), dnnl_cpu, 0));
    check(dnnl_stream_create(stream_.out(), engine_, dnnl_stream_default_flags));
  }

  void check(dnnl_status_t status) const {
    if (status != dnnl_success) fail(status);
  }
  memory_desc describe(std::initializer_list<dnnl_dim_t> extents, dnnl_format_tag_t format) const {
    memory_desc d;
    check(d.make(extents, format));
    return d;
  }
  primitive_attr deterministic() const {
    primitive_attr attr;
    check(dnnl_primitive_attr_create(attr.out()));
    check(make_deterministic<dnnl_primitive_attr_t>(attr));
    return attr;
  }
  primitive make_reorder(memory_desc::view from, memory_desc::view to) const {
    primitive_desc d;
    primitive p;
    check(dnnl_reorder_primitive_desc_create(d.out(), from, engine_, to, engine_, nullptr));
    check(dnnl_primitive_create(p.out(), d));
    return p;
  }
  memory make_memory(memory_desc::view desc, void* at) const {
    memory m;
    check(dnnl_memory_create(m.out(), desc, engine_, at));
    return m;
  }
  memory allocate(memory_desc::view desc) const { return make_memory(desc, DNNL_MEMORY_ALLOCATE); }
  memory view(memory_desc::view desc, float const* p) const {
    return make_memory(desc, const_cast<float*>(p));  // oneDNN has no view of const memory
  }
  void execute(primitive const& p, std::initializer_list<dnnl_exec_arg_t> arguments) const {
    check(dnnl_primitive_execute(p, stream_, static_cast<int>(arguments.size()), arguments.begin()));
    check(dnnl_stream_wait(stream_));
  }

  engine engine_;
  stream stream_;

 private:
  [[noreturn]] DOVETAIL_COLD void fail(dnnl_status_t status) const {
    throw error(message("oneDNN: ", what_, " failed with status ", static_cast<int>(status), " (dnnl_types.h)"));
  }
  std::string what_;
};

/// Computations by size and number of threads: oneDNN cuts the work when a primitive is made, so one that was made for
/// two threads must not run on one. Batches of a few sizes come again and again; when all places are taken, the oldest
/// goes.
template <class Size, class Computation>
class computation_cache {
 public:
  Computation& find(Size const& size) {
    int const threads = omp_get_max_threads();
    for (auto& e : entries_)
      if (e.made && e.size == size && e.threads == threads) return *e.made;
    auto& oldest = entries_[count_++ % entries_.size()];
    oldest = {size, threads, std::make_unique<Computation>(size)};
    return *oldest.made;
  }

 private:
  struct entry {
    Size size{};
    int threads = 0;
    std::unique_ptr<Computation> made;
  };
  std::array<entry, 256> entries_;
  std::size_t count_ = 0;
};

}  // namespace dovetail::nn::onednn
