// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <dovetail/core/cuda.hpp>
#include <dovetail/core/cuda_launch.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/optim/cuda/algebra_kernels.cuh>
#include <dovetail/optim/linalg/remote_span.hpp>
#include <dovetail/optim/tensorwise.hpp>

// optim/linalg/algebra.hpp in a device's memory: everything is queued on the state's stream, and nothing waits but
// `value`.

namespace dovetail::optim::cuda {

/// One piece of a tensor's state in device memory.
struct device_array {
  std::string name;
  dovetail::shape shape;
  dovetail::cuda::device_buffer<float> values;
};

/// Memory that an algebra keeps from call to call, and what cuda/matrix.cuh keeps. No part of a state's value: a copy
/// begins with none.
struct algebra_memory {
  static constexpr std::size_t room = 64;  ///< numbers of one call of a stage

  dovetail::cuda::device_buffer<float> work;
  dovetail::cuda::device_buffer<double> partials, numbers;
  std::size_t used = 0;
  std::shared_ptr<void> matrices;

  algebra_memory() = default;
  algebra_memory(algebra_memory const&) {}
  algebra_memory(algebra_memory&&) = default;
  algebra_memory& operator=(algebra_memory other) noexcept {
    work = std::move(other.work);
    partials = std::move(other.partials);
    numbers = std::move(other.numbers);
    used = other.used;
    matrices = std::move(other.matrices);
    return *this;
  }
};

/// The number of a step, which a captured graph must not know: each of its replays is another step.
struct step_number {
  std::int64_t step = 1;
  bool captured = false;
  operator std::int64_t() const {
    require(!captured,
            "optim::cuda: this rule asks for the number of the step on the host, which a graph's replays would not "
            "change: step without a graph");
    return step;
  }
};

namespace detail {
/// A buffer of at least n elements, whatever it held before.
template <class T>
T* grown(dovetail::cuda::device_buffer<T>& b, std::size_t n, dovetail::cuda::device const& d) {
  if (b.size() < n) {
    require(!d.capturing(),
            "optim::cuda: this step needs memory, which cannot be allocated while a graph is captured: do one step "
            "before");
    b = dovetail::cuda::device_buffer<T>(n, d);
  }
  return b.data();
}
}  // namespace detail

/// The algebra of a device's memory.
class algebra {
 public:
  using real = float;
  using span = remote_span<float>;
  using const_span = remote_span<float const>;
  using number = detail::device_number;
  using array = device_array;
  using step_number = cuda::step_number;

  algebra(dovetail::cuda::device const& d, algebra_memory& m) : device_(&d), memory_(&m) { m.used = 0; }

  dovetail::cuda::device const& device() const { return *device_; }
  algebra_memory& memory() const { return *memory_; }

  span work(std::size_t n) const { return {detail::grown(memory_->work, n, *device_), n}; }

  void fill(span x, float value) const { map(x, detail::constant{value}); }
  void copy(const_span from, span to) const {
    require(from.size() == to.size(), "optim::cuda: a copy of ", from.size(), " numbers to ", to.size());
    if (from.empty()) return;
    auto const here = device_->use();
    dovetail::cuda::check(cudaMemcpyAsync(to.address(), from.address(), from.size() * sizeof(float),
                                          cudaMemcpyDeviceToDevice, device_->stream),
                          "a copy of an optimizer's arrays");
  }
  template <class F, class... In>
  void map(span out, F const& f, In const&... in) const {
    if (out.empty()) return;
    queue_map(f, out, const_span(in).address()...);
  }
  template <class F>
  void each_four(span x, F const& f) const {
    if (x.empty()) return;
    launch("a map of an optimizer's update", detail::blocks_of((x.size() + 3) / 4), detail::map_fours<F>, f, x.size(),
           x.address());
  }
  number sum(const_span x) const { return add_up<false>(x); }
  number sum_of_squares(const_span x) const { return add_up<true>(x); }
  template <class F, class... Numbers>
  void scale(span x, F const& f, Numbers... numbers) const {
    if (x.empty()) return;
    launch("the scaling of an optimizer's update", detail::blocks_of(x.size()), detail::scale_elements<F, Numbers...>,
           f, x.size(), x.address(), numbers...);
  }
  double value(number x) const { return read(x.at); }
  float value(const_span x, std::size_t i) const { return read(x.subspan(i, 1).address()); }

  template <class F>
  void each_row(std::size_t rows, std::size_t columns, F const& f) const {
    if (rows == 0) return;
    launch("rows of an optimizer's update", detail::grid(rows), detail::map_rows<F>, f, rows, columns);
  }
  template <class Fold, class F>
  void fold_columns(std::size_t rows, std::size_t columns, span totals, Fold const& fold, const_span x,
                    const_span per_row, const_span per_column, F const& f) const {
    if (rows == 0 || columns == 0) return;
    dim3 const block(detail::fold_width, detail::fold_height);
    dovetail::cuda::launch("columns of an optimizer's update", *device_,
                           detail::grid((columns + detail::fold_width - 1) / detail::fold_width), block,
                           detail::fold_tall<Fold>, fold, rows, columns, totals.address(), x.address(),
                           per_row.address(), per_column.address());
    each_row(rows, columns, f);
  }

  /// Queues a kernel whose blocks have detail::threads threads.
  template <class Kernel, class... Arguments>
  void launch(char const* what, unsigned blocks, Kernel* kernel, Arguments const&... arguments) const {
    dovetail::cuda::launch(what, *device_, blocks, detail::threads, kernel, arguments...);
  }

  /// Room for one more number, until the next call of a stage.
  double* next_number() const {
    require(memory_->used < algebra_memory::room, "optim::cuda: a stage has more than ", algebra_memory::room,
            " numbers at once");
    return detail::grown(memory_->numbers, algebra_memory::room, *device_) + memory_->used++;
  }

 private:
  template <class F, class... In>
  void queue_map(F const& f, span out, In const*... in) const {
    launch("a map of an optimizer's arrays", detail::blocks_of(out.size()), detail::map_elements<F, In...>, f,
           out.size(), out.address(), in...);
  }
  template <bool Squares>
  number add_up(const_span x) const {
    std::size_t const pieces = (x.size() + detail::sum_piece - 1) / detail::sum_piece;
    double* const partials = detail::grown(memory_->partials, std::max<std::size_t>(1, pieces), *device_);
    double* const to = next_number();
    char const* const what = "a sum over an optimizer's update";
    if (pieces)
      launch(what, detail::grid(pieces), detail::sum_pieces<Squares>, x.address(), x.size(), pieces, partials);
    launch(what, 1, detail::sum_partials<double>, partials, pieces, std::size_t{1}, to);
    return {to};
  }
  template <class T>
  T read(T const* from) const {
    require(!device_->capturing(),
            "optim::cuda: this rule decides on the host what a step does, which a graph's replays would not: step "
            "without a graph");
    auto const here = device_->use();
    std::remove_const_t<T> x{};
    dovetail::cuda::check(cudaMemcpyAsync(&x, from, sizeof x, cudaMemcpyDeviceToHost, device_->stream), "a download");
    device_->wait();
    return x;
  }

  dovetail::cuda::device const* device_;
  algebra_memory* memory_;
};

/// What a stage that multiplies matrices finds where cuda/matrix.cuh is not included; with it, that one fits better.
template <class Algebra>
auto matrices_of(Algebra const&) {
  static_assert(sizeof(Algebra) == 0,
                "optim::cuda: this rule multiplies or decomposes matrices: include <dovetail/optim/cuda/matrix.cuh> "
                "and link dovetail::cuda_matrix");
}

}  // namespace dovetail::optim::cuda
