// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: cells.hpp includes this file once per cpu_level, in a namespace and a target region of its own.
// No lambdas: GCC would compile a generic one for the program's own processor.
#if defined(DOVETAIL_NN_CELLS)

/// The lanes [0, m) of what is at p; `m` is a constant, `lanes`, everywhere but at the end of a row.
DOVETAIL_HOST_INLINE f32s read(float const* p, std::size_t m) { return m == lanes ? load(p) : load_part(p, m); }
DOVETAIL_HOST_INLINE void write(float* p, f32s v, std::size_t m) { m == lanes ? store(p, v) : store_part(p, m, v); }

DOVETAIL_HOST_INLINE void lstm_units(float* gates, float const* bias, float const* c_before, float* c, float* h,
                                     std::size_t n, std::size_t j, std::size_t m) {
  f32s const i = sigmoid(read(gates + j, m) + read(bias + j, m));
  f32s const f = sigmoid(read(gates + n + j, m) + read(bias + n + j, m));
  f32s const g = tanh(read(gates + 2 * n + j, m) + read(bias + 2 * n + j, m));
  f32s const o = sigmoid(read(gates + 3 * n + j, m) + read(bias + 3 * n + j, m));
  f32s const cell = (c_before ? f * read(c_before + j, m) : f32s{}) + i * g;
  write(gates + j, i, m);
  write(gates + n + j, f, m);
  write(gates + 2 * n + j, g, m);
  write(gates + 3 * n + j, o, m);
  write(c + j, cell, m);
  write(h + j, o * tanh(cell), m);
}
DOVETAIL_NOINLINE inline void lstm_cell(float* gates, float const* bias, float const* c_before, float* c, float* h,
                                        std::size_t n) {
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes) lstm_units(gates, bias, c_before, c, h, n, j, lanes);
  if (j < n) lstm_units(gates, bias, c_before, c, h, n, j, n - j);
}

DOVETAIL_HOST_INLINE void lstm_units_backward(float* gates, float const* c_before, float const* c, float const* dh,
                                              float* dc, std::size_t n, std::size_t j, std::size_t m) {
  f32s const i = read(gates + j, m), f = read(gates + n + j, m);
  f32s const g = read(gates + 2 * n + j, m), o = read(gates + 3 * n + j, m);
  f32s const th = tanh(read(c + j, m)), d = read(dh + j, m);
  f32s const dcell = read(dc + j, m) + d * o * (1.f - th * th);
  f32s const before = c_before ? read(c_before + j, m) : f32s{};
  write(gates + j, dcell * g * (i * (1.f - i)), m);
  write(gates + n + j, dcell * before * (f * (1.f - f)), m);
  write(gates + 2 * n + j, dcell * i * (1.f - g * g), m);
  write(gates + 3 * n + j, d * th * (o * (1.f - o)), m);
  write(dc + j, dcell * f, m);
}
DOVETAIL_NOINLINE inline void lstm_cell_backward(float* gates, float const* c_before, float const* c, float const* dh,
                                                 float* dc, std::size_t n) {
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes) lstm_units_backward(gates, c_before, c, dh, dc, n, j, lanes);
  if (j < n) lstm_units_backward(gates, c_before, c, dh, dc, n, j, n - j);
}

DOVETAIL_HOST_INLINE void gru_units(float* gx, float* gh, bool first, float const* b, float const* b2,
                                    float const* h_before, float* h, std::size_t n, std::size_t j, std::size_t m) {
  f32s const ur = (first ? f32s{} : read(gh + j, m)) + read(b2 + j, m);
  f32s const uz = (first ? f32s{} : read(gh + n + j, m)) + read(b2 + n + j, m);
  f32s const un = (first ? f32s{} : read(gh + 2 * n + j, m)) + read(b2 + 2 * n + j, m);
  f32s const r = sigmoid(read(gx + j, m) + read(b + j, m) + ur);
  f32s const z = sigmoid(read(gx + n + j, m) + read(b + n + j, m) + uz);
  f32s const c = tanh(read(gx + 2 * n + j, m) + read(b + 2 * n + j, m) + r * un);
  write(gx + j, r, m);
  write(gx + n + j, z, m);
  write(gx + 2 * n + j, c, m);
  write(gh + 2 * n + j, un, m);
  write(h + j, c + z * ((first ? f32s{} : read(h_before + j, m)) - c), m);
}
DOVETAIL_NOINLINE inline void gru_cell(float* gx, float* gh, bool first, float const* b, float const* b2,
                                       float const* h_before, float* h, std::size_t n) {
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes) gru_units(gx, gh, first, b, b2, h_before, h, n, j, lanes);
  if (j < n) gru_units(gx, gh, first, b, b2, h_before, h, n, j, n - j);
}

DOVETAIL_HOST_INLINE void gru_units_backward(float* gx, float* gh, float const* h_before, float const* dy,
                                             float* carried, std::size_t n, std::size_t j, std::size_t m) {
  f32s const r = read(gx + j, m), z = read(gx + n + j, m), c = read(gx + 2 * n + j, m), un = read(gh + 2 * n + j, m);
  f32s const before = h_before ? read(h_before + j, m) : f32s{};
  f32s const d = read(dy + j, m) + read(carried + j, m);
  f32s const dn = d * (1.f - z) * (1.f - c * c);
  f32s const dr = dn * un * (r * (1.f - r));
  f32s const dz = d * (before - c) * (z * (1.f - z));
  write(gx + j, dr, m);
  write(gx + n + j, dz, m);
  write(gx + 2 * n + j, dn, m);
  write(gh + j, dr, m);
  write(gh + n + j, dz, m);
  write(gh + 2 * n + j, dn * r, m);
  write(carried + j, d * z, m);
}
DOVETAIL_NOINLINE inline void gru_cell_backward(float* gx, float* gh, float const* h_before, float const* dy,
                                                float* carried, std::size_t n) {
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes) gru_units_backward(gx, gh, h_before, dy, carried, n, j, lanes);
  if (j < n) gru_units_backward(gx, gh, h_before, dy, carried, n, j, n - j);
}

DOVETAIL_NOINLINE inline void tanh_all(float* y, float const* x, std::size_t n) {
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes) store(y + j, tanh(load(x + j)));
  if (j < n) store_part(y + j, n - j, tanh(load_part(x + j, n - j)));
}
DOVETAIL_NOINLINE inline void sigmoid_all(float* y, float const* x, std::size_t n) {
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes) store(y + j, sigmoid(load(x + j)));
  if (j < n) store_part(y + j, n - j, sigmoid(load_part(x + j, n - j)));
}

inline constexpr detail::cell_kernels cells{lstm_cell,         lstm_cell_backward, gru_cell,
                                            gru_cell_backward, tanh_all,           sigmoid_all};

#endif
