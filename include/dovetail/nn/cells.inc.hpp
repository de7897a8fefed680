// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// No #pragma once: cells.hpp includes this file once per cpu_level, in a namespace and a target region of its own.
// No lambdas: GCC would compile a generic one for the program's own processor.
#if defined(DOVETAIL_NN_CELLS)

/// The lanes [0, m) of what is at p; `m` is a constant, `lanes`, everywhere but at the end of a row.
DOVETAIL_INLINE pack read(float const* p, std::size_t m) { return m == lanes ? load(p) : load_part(p, m); }
DOVETAIL_INLINE void write(float* p, pack v, std::size_t m) { m == lanes ? store(p, v) : store_part(p, m, v); }

DOVETAIL_INLINE void lstm_units(float* gates, float const* bias, float const* c_before, float* c, float* h,
                                std::size_t n, std::size_t j, std::size_t m) {
  pack const i = sigmoid(read(gates + j, m) + read(bias + j, m));
  pack const f = sigmoid(read(gates + n + j, m) + read(bias + n + j, m));
  pack const g = tanh(read(gates + 2 * n + j, m) + read(bias + 2 * n + j, m));
  pack const o = sigmoid(read(gates + 3 * n + j, m) + read(bias + 3 * n + j, m));
  pack const cell = (c_before ? f * read(c_before + j, m) : pack{}) + i * g;
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

DOVETAIL_INLINE void lstm_units_backward(float* gates, float const* c_before, float const* c, float const* dh,
                                         float* dc, std::size_t n, std::size_t j, std::size_t m) {
  pack const i = read(gates + j, m), f = read(gates + n + j, m);
  pack const g = read(gates + 2 * n + j, m), o = read(gates + 3 * n + j, m);
  pack const th = tanh(read(c + j, m)), d = read(dh + j, m);
  pack const dcell = read(dc + j, m) + d * o * (1.f - th * th);
  pack const before = c_before ? read(c_before + j, m) : pack{};
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

DOVETAIL_INLINE void gru_units(float* gx, float* gh, bool first, float const* b, float const* b2, float const* h_before,
                               float* h, std::size_t n, std::size_t j, std::size_t m) {
  pack const ur = (first ? pack{} : read(gh + j, m)) + read(b2 + j, m);
  pack const uz = (first ? pack{} : read(gh + n + j, m)) + read(b2 + n + j, m);
  pack const un = (first ? pack{} : read(gh + 2 * n + j, m)) + read(b2 + 2 * n + j, m);
  pack const r = sigmoid(read(gx + j, m) + read(b + j, m) + ur);
  pack const z = sigmoid(read(gx + n + j, m) + read(b + n + j, m) + uz);
  pack const c = tanh(read(gx + 2 * n + j, m) + read(b + 2 * n + j, m) + r * un);
  write(gx + j, r, m);
  write(gx + n + j, z, m);
  write(gx + 2 * n + j, c, m);
  write(gh + 2 * n + j, un, m);
  write(h + j, c + z * ((first ? pack{} : read(h_before + j, m)) - c), m);
}
DOVETAIL_NOINLINE inline void gru_cell(float* gx, float* gh, bool first, float const* b, float const* b2,
                                       float const* h_before, float* h, std::size_t n) {
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes) gru_units(gx, gh, first, b, b2, h_before, h, n, j, lanes);
  if (j < n) gru_units(gx, gh, first, b, b2, h_before, h, n, j, n - j);
}

DOVETAIL_INLINE void gru_units_backward(float* gx, float* gh, float const* h_before, float const* dy, float* carried,
                                        std::size_t n, std::size_t j, std::size_t m) {
  pack const r = read(gx + j, m), z = read(gx + n + j, m), c = read(gx + 2 * n + j, m), un = read(gh + 2 * n + j, m);
  pack const before = h_before ? read(h_before + j, m) : pack{};
  pack const d = read(dy + j, m) + read(carried + j, m);
  pack const dn = d * (1.f - z) * (1.f - c * c);
  pack const dr = dn * un * (r * (1.f - r));
  pack const dz = d * (before - c) * (z * (1.f - z));
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

inline constexpr cell_kernels cells{lstm_cell, lstm_cell_backward, gru_cell, gru_cell_backward, tanh_all, sigmoid_all};

#endif
