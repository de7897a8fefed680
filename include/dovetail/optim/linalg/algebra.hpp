// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/parallel.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/core/simd.hpp>
#include <dovetail/optim/linalg/span_math.hpp>

// Where the numbers of a tensorwise stage are, and all that it may do to them. The same stage runs on the host and on a
// device, because it never looks at a number itself: it asks the algebra of its tensor_update. An algebra has
//
//   real                          the type of its numbers: float, or on the host double
//   span, const_span              numbers in a row, somewhere; cut by first(n), subspan(at[, n])
//   number                        one number in double precision, which may not have been worked out yet
//   work(n)                       room for n numbers until the next call, kept from step to step
//   fill(x, value), copy(from, to)
//   map(out, f, in…)              out[i] <- f(in[i]…), f a function of a number type T (core/simd.hpp)
//   each_four(x, f)               f(b, elements, n) for elements [4 b, 4 b + n), n <= 4
//   sum(x), sum_of_squares(x)     a number, added up in double precision
//   scale(x, f, numbers…)         x <- f(double…) x; a factor of 1 leaves x as it is
//   value(number), value(x, i)    on the host: waits for a device
//   each_row(rows, columns, f)    f(row) for all rows, in any order
//   fold_columns(rows, columns, totals, fold, x, per_row, per_column, f)
//                                 totals[c] <- fold(totals[c], x[r, c], per_row[r], per_column[c]) over all rows; then
//                                 f(row) as before. All see per_row and per_column as they were, but f its own row
//
// where a row is what belongs to one r: `of(x)` its columns of a matrix {rows, columns}, `all(x)` an array of one per
// column, `get(x)` and `set(x, v)` its own number of one per row, `value(number)`, `columns`; and sum, sum_of_squares,
// scale, map over what `of` and `all` give, and largest(f, in…), the largest f(in[i]…), none of which is negative.
// Functions that an algebra calls are named types, DOVETAIL_INLINE or DOVETAIL_HD: they run on the device. Products,
// roots and inverses: optim/matrix/algebra.hpp.

namespace dovetail::optim {

/// One piece of a tensor's state.
template <class T>
struct basic_tensor_array {
  std::string name;
  dovetail::shape shape;
  buffer<T> values;
  friend bool operator==(basic_tensor_array const&, basic_tensor_array const&) = default;
};
using tensor_array = basic_tensor_array<float>;

namespace detail {

template <class T>
void scale(std::span<T> x, double factor) {
  using pack = simd::pack_of<T>;
  auto const f = static_cast<T>(factor);
  map(
      x, [f](pack u) { return f * u; }, x);
}

/// Row `index` of matrices with `columns` columns, in the host's memory.
template <class T>
struct basic_host_row {
  using const_span = std::span<T const>;
  std::size_t index, columns;

  template <class Number>
  std::span<Number> of(std::span<Number> x) const {
    return x.subspan(index * columns, columns);
  }
  static const_span all(const_span per_column) { return per_column; }
  T get(const_span per_row) const { return per_row[index]; }
  void set(std::span<T> per_row, T x) const { per_row[index] = x; }
  static double value(double number) { return number; }

  static double sum(const_span x) { return detail::sum(x); }
  static double sum_of_squares(const_span x) { return detail::sum_of_squares(x); }
  static void scale(std::span<T> x, double factor) { detail::scale(x, factor); }
  template <class F, class... In>
  static void map(std::span<T> out, F const& f, In const&... in) {
    detail::map(out, f, in...);
  }
  template <class F, class... In>
  static T largest(F const& f, const_span first, In const&... in) {
    return largest_of(f, first, in...);
  }
};
using host_row = basic_host_row<float>;

}  // namespace detail

/// The algebra of the host's memory: loops over spans.
template <class T>
class basic_host_algebra {
 public:
  using real = T;
  using span = std::span<T>;
  using const_span = std::span<T const>;
  using number = double;
  using array = basic_tensor_array<T>;
  using step_number = std::int64_t;

  basic_host_algebra(std::vector<T>& memory, int threads) : memory_(&memory), threads_(threads) {}

  span work(std::size_t n) const {
    if (memory_->size() < n) memory_->resize(n);
    return {memory_->data(), n};
  }
  static void fill(span x, T value) { std::fill(x.begin(), x.end(), value); }
  static void copy(const_span from, span to) { std::copy(from.begin(), from.end(), to.begin()); }

  template <class F, class... In>
  static void map(span out, F const& f, In const&... in) {
    detail::map(out, f, const_span(in)...);
  }
  template <class F>
  void each_four(span x, F const& f) const {
    parallel_for(threads_, (x.size() + 3) / 4, 4096, [&](range blocks) {
      for (std::size_t b = blocks.begin; b < blocks.end; ++b)
        f(static_cast<std::uint32_t>(b), x.data() + 4 * b, std::min<std::size_t>(4, x.size() - 4 * b));
    });
  }
  static number sum(const_span x) { return detail::sum(x); }
  static number sum_of_squares(const_span x) { return detail::sum_of_squares(x); }
  template <class F, class... Numbers>
  static void scale(span x, F const& f, Numbers... numbers) {
    if (double const factor = f(numbers...); factor != 1) detail::scale(x, factor);
  }
  static double value(number x) { return x; }
  static T value(const_span x, std::size_t i) { return x[i]; }

  template <class F>
  void each_row(std::size_t rows, std::size_t columns, F const& f) const {
    std::size_t const least = (std::size_t{1} << 16) / std::max<std::size_t>(1, columns) + 1;
    parallel_for(threads_, rows, least, [&](range part) {
      for (std::size_t r = part.begin; r < part.end; ++r) f(detail::basic_host_row<T>{r, columns});
    });
  }
  template <class Fold, class F>
  static void fold_columns(std::size_t rows, std::size_t columns, span totals, Fold const& fold, const_span x,
                           const_span per_row, const_span per_column, F const& f) {
    using pack = simd::pack_of<T>;
    for (std::size_t r = 0; r < rows; ++r) {  // row by row, while it is in the cache
      detail::basic_host_row<T> const row{r, columns};
      T const own = row.get(per_row);
      detail::map(
          totals,
          [&](pack total, pack y, pack c) __attribute__((always_inline)) { return fold(total, y, pack(own), c); },
          const_span(totals), row.of(x), per_column);
      f(row);
    }
  }

 private:
  std::vector<T>* memory_;
  int threads_;
};
using host_algebra = basic_host_algebra<float>;

}  // namespace dovetail::optim
