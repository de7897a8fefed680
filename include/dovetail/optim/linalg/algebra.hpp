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
//   span, const_span              numbers in a row, somewhere; cut by first(n), subspan(at[, n])
//   number                        one number in double precision, which may not have been worked out yet
//   work(n)                       room for n floats until the next call, kept from step to step
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
struct tensor_array {
  std::string name;
  dovetail::shape shape;
  buffer<float> values;
  friend bool operator==(tensor_array const&, tensor_array const&) = default;
};

namespace detail {

inline void scale(std::span<float> x, double factor) {
  auto const f = static_cast<float>(factor);
  map(
      x, [f](simd::pack u) { return f * u; }, x);
}

/// Row `index` of matrices with `columns` columns, in the host's memory.
struct host_row {
  std::size_t index, columns;

  template <class T>
  std::span<T> of(std::span<T> x) const {
    return x.subspan(index * columns, columns);
  }
  static std::span<float const> all(std::span<float const> per_column) { return per_column; }
  float get(std::span<float const> per_row) const { return per_row[index]; }
  void set(std::span<float> per_row, float x) const { per_row[index] = x; }
  static double value(double number) { return number; }

  static double sum(std::span<float const> x) { return detail::sum(x); }
  static double sum_of_squares(std::span<float const> x) { return detail::sum_of_squares(x); }
  static void scale(std::span<float> x, double factor) { detail::scale(x, factor); }
  template <class F, class... In>
  static void map(std::span<float> out, F const& f, In const&... in) {
    detail::map(out, f, in...);
  }
  template <class F, class... In>
  static float largest(F const& f, std::span<float const> first, In const&... in) {
    return largest_of(f, first, in...);
  }
};

}  // namespace detail

/// The algebra of the host's memory: loops over spans.
class host_algebra {
 public:
  using span = std::span<float>;
  using const_span = std::span<float const>;
  using number = double;
  using array = tensor_array;
  using step_number = std::int64_t;

  host_algebra(std::vector<float>& memory, int threads) : memory_(&memory), threads_(threads) {}

  span work(std::size_t n) const {
    if (memory_->size() < n) memory_->resize(n);
    return {memory_->data(), n};
  }
  static void fill(span x, float value) { std::fill(x.begin(), x.end(), value); }
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
  static float value(const_span x, std::size_t i) { return x[i]; }

  template <class F>
  void each_row(std::size_t rows, std::size_t columns, F const& f) const {
    std::size_t const least = (std::size_t{1} << 16) / std::max<std::size_t>(1, columns) + 1;
    parallel_for(threads_, rows, least, [&](range part) {
      for (std::size_t r = part.begin; r < part.end; ++r) f(detail::host_row{r, columns});
    });
  }
  template <class Fold, class F>
  static void fold_columns(std::size_t rows, std::size_t columns, span totals, Fold const& fold, const_span x,
                           const_span per_row, const_span per_column, F const& f) {
    for (std::size_t r = 0; r < rows; ++r) {  // row by row, while it is in the cache
      detail::host_row const row{r, columns};
      float const own = row.get(per_row);
      detail::map(
          totals,
          [&](simd::pack total, simd::pack y, simd::pack c)
              __attribute__((always_inline)) { return fold(total, y, simd::pack(own), c); },
          const_span(totals), row.of(x), per_column);
      f(row);
    }
  }

 private:
  std::vector<float>* memory_;
  int threads_;
};

}  // namespace dovetail::optim
