// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>

#include <dnnl.h>

#include <dovetail/core/buffer.hpp>
#include <dovetail/nn/onednn/computation.hpp>
#include <dovetail/nn/onednn/handles.hpp>
#include <dovetail/nn/vector_math.hpp>

namespace dovetail::nn::onednn {

/// C = A B, or C += A B where `adds`: A is m × k and C m × n, without gaps; B is k × n, stored n × k if `transposed`.
struct product_size {
  std::int64_t m, n, k;
  bool transposed, adds;
  friend bool operator==(product_size const&, product_size const&) = default;
};

/// Products with one B and many A. A gemm puts B into the order of its kernel each time, which takes a third of the
/// time of a product with 25 rows; here it happens once.
class product : computation {
 public:
  explicit product(product_size const& size)
      : computation(message("a product of ", size.m, " x ", size.k, " and ", size.k, " x ", size.n)),
        size_(size),
        plan_{describe({size.m, size.k}, dnnl_ab), describe({size.k, size.n}, dnnl_format_tag_any),
              describe({size.m, size.n}, dnnl_ab), deterministic()} {
    if (size.adds) check(plan_.add());
    primitive_desc d;
    check(plan_.make(d, engine_));
    auto const preferred = dnnl_primitive_desc_query_md(d, dnnl_query_weights_md, 0);
    // Where oneDNN has no kernel that keeps B in its order (before AVX-512), its matmul is a gemm with more around it.
    if (dnnl_memory_desc_equal(preferred, describe({size.k, size.n}, dnnl_ab))) return;
    check(dnnl_primitive_create(run_.out(), d));
    given_ = describe({size.k, size.n}, size.transposed ? dnnl_ba : dnnl_ab);
    packed_ = allocate(preferred);
    reorder_ = make_reorder(given_, preferred);
  }

  /// Whether oneDNN has a format of its own for B. If not, `row_major` and a gemm are fastest.
  bool packs() const { return static_cast<bool>(run_); }
  void pack(float const* b) { execute(reorder_, {{DNNL_ARG_FROM, view(given_, b)}, {DNNL_ARG_TO, packed_}}); }
  void multiply(float const* a, float* c) {
    execute(run_, {{DNNL_ARG_SRC, view(plan_.a, a)}, {DNNL_ARG_WEIGHTS, packed_}, {DNNL_ARG_DST, view(plan_.c, c)}});
  }

  /// B by rows, which a gemm reads faster than by columns.
  float const* row_major(float const* b) {
    if (!size_.transposed) return b;
    if (rows_.empty()) rows_ = buffer<float>(static_cast<std::size_t>(size_.k * size_.n));
    detail::transpose(rows_.data(), b, static_cast<std::size_t>(size_.n), static_cast<std::size_t>(size_.k));
    return rows_.data();
  }

 private:
  product_size size_;
  matmul_plan plan_;
  memory_desc given_;
  primitive run_, reorder_;
  memory packed_;
  buffer<float> rows_;
};

}  // namespace dovetail::nn::onednn
