// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: demo_kernels.hpp includes this file once per cpu_level, in a namespace and a target region of its
// own. Products are rounded before they are added, and each sum is made in order: the same bits at every level.
#if defined(DOVETAIL_KERNEL_LANES)

// out = a b, each with rows of 64 floats: `rows` rows of out (a multiple of 4), sums of `depth` products.
inline void multiply(float const* a, float const* b, std::size_t rows, std::size_t depth, float* out) {
  for (std::size_t i = 0; i < rows; i += 4)
    for (std::size_t j = 0; j < 64; j += lanes) {
      f32s sum0{}, sum1{}, sum2{}, sum3{};
      for (std::size_t k = 0; k < depth; ++k) {
        f32s const v = load(b + 64 * k + j);
        float const* const factor = a + 64 * i + k;
        sum0 += hidden(factor[0] * v);
        sum1 += hidden(factor[64] * v);
        sum2 += hidden(factor[128] * v);
        sum3 += hidden(factor[192] * v);
      }
      store(out + 64 * i + j, sum0);
      store(out + 64 * (i + 1) + j, sum1);
      store(out + 64 * (i + 2) + j, sum2);
      store(out + 64 * (i + 3) + j, sum3);
    }
}

// out = beta · momentum + gradient.
inline void accumulate(float const* gradient, float const* momentum, float beta, std::size_t n, float* out) {
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) store(out + i, hidden(beta * load(momentum + i)) + load(gradient + i));
  if (i < n) store_part(out + i, n - i, hidden(beta * load_part(momentum + i, n - i)) + load_part(gradient + i, n - i));
}

#endif
