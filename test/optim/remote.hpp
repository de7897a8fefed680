// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// An algebra whose numbers nobody else can reach, for the test that tensorwise stages leave all work on numbers to
// theirs: spans are tagged addresses, which no machine can read; only the algebra takes the tag away, after it has
// looked up that the numbers belong to it. Its work is the host's, so results must be the same bit by bit. Numbers in
// double precision are places in a list; room for work comes full of NaN.
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/optim/linalg/remote_span.hpp>
#include <dovetail/optim/matrix/algebra.hpp>

namespace remote {

using namespace dovetail;

using span = optim::remote_span<float>;
using const_span = optim::remote_span<float const>;

/// All memory that was given out, by its address.
class memory {
 public:
  static constexpr std::uintptr_t tag = std::uintptr_t{0x5a00} << 48;  // no address of any machine that runs this

  static float* give(float* p, std::size_t n) {
    blocks()[reinterpret_cast<std::uintptr_t>(p)] = n;
    return reinterpret_cast<float*>(reinterpret_cast<std::uintptr_t>(p) + tag);
  }
  static void take_back(float const* p) { blocks().erase(reinterpret_cast<std::uintptr_t>(p)); }

  /// The numbers themselves.
  template <class T>
  static std::span<T> read(optim::remote_span<T> s) {
    if (s.empty()) return {};
    auto const at = reinterpret_cast<std::uintptr_t>(s.address()) - tag;
    auto const next = blocks().upper_bound(at);
    require(next != blocks().begin(), "the address is not remote");
    auto const& [begin, size] = *std::prev(next);
    require(at + sizeof(float) * s.size() <= begin + sizeof(float) * size,
            "the address is not remote, or beyond its end");
    return {reinterpret_cast<T*>(at), s.size()};
  }

 private:
  static std::map<std::uintptr_t, std::size_t>& blocks() {
    static std::map<std::uintptr_t, std::size_t> all;
    return all;
  }
};

/// Numbers in remote memory.
class values {
 public:
  values() = default;
  explicit values(std::size_t n) : own_(n), address_(memory::give(own_.data(), n)) {}
  explicit values(std::span<float const> from) : values(from.size()) {
    std::copy(from.begin(), from.end(), own_.begin());
  }
  values(values&& other) noexcept : own_(std::move(other.own_)), address_(std::exchange(other.address_, nullptr)) {}
  values& operator=(values other) noexcept {
    std::swap(own_, other.own_);
    std::swap(address_, other.address_);
    return *this;
  }
  ~values() {
    if (address_) memory::take_back(own_.data());
  }
  remote::span get() const { return remote::span(span()); }
  /// As a state's arrays have it: addresses only.
  std::span<float> span() const { return {address_, own_.size()}; }
  std::span<float> here() { return own_.span(); }
  std::size_t size() const { return own_.size(); }

 private:
  buffer<float> own_;
  float* address_ = nullptr;
};

struct array {
  std::string name;
  dovetail::shape shape;
  remote::values values;
};

/// One number of a list.
struct number {
  std::size_t place = std::numeric_limits<std::size_t>::max();
};

/// A step's number, as a device's engine gives it.
struct step_number {
  std::int64_t step;
  operator std::int64_t() const { return step; }
};

/// A row in this memory; what it gives to a row function only its own functions take.
struct row {
  optim::detail::host_row own;
  std::vector<double> const* numbers;
  std::size_t columns;

  remote::span of(remote::span x) const { return x.subspan(own.index * columns, columns); }
  const_span of(const_span x) const { return x.subspan(own.index * columns, columns); }
  static const_span all(const_span per_column) { return per_column; }
  float get(const_span per_row) const { return own.get(memory::read(per_row)); }
  void set(span per_row, float x) const { own.set(memory::read(per_row), x); }
  double value(number x) const { return numbers->at(x.place); }
  double sum(const_span x) const { return own.sum(memory::read(x)); }
  double sum_of_squares(const_span x) const { return own.sum_of_squares(memory::read(x)); }
  void scale(span x, double factor) const { own.scale(memory::read(x), factor); }
  template <class F, class... In>
  void map(span out, F const& f, In const&... in) const {
    own.map(memory::read(out), f, memory::read(const_span(in))...);
  }
  template <class F, class... In>
  float largest(F const& f, In const&... in) const {
    return own.largest(f, memory::read(const_span(in))...);
  }
};

class algebra {
 public:
  using real = float;
  using span = remote::span;
  using const_span = remote::const_span;
  using number = remote::number;
  using array = remote::array;
  using step_number = remote::step_number;

  /// What outlives a call: room for work, and the numbers of this step.
  struct resources {
    values room;
    std::vector<double> numbers;
    std::vector<float> unused;
  };

  explicit algebra(resources& r) : r_(&r) {}

  span work(std::size_t n) const {
    if (r_->room.size() < n) r_->room = values(n);
    auto const all = r_->room.here();
    std::fill(all.begin(), all.end(), std::numeric_limits<float>::quiet_NaN());
    return r_->room.get().first(n);
  }
  void fill(span x, float value) const { host().fill(memory::read(x), value); }
  void copy(const_span from, span to) const { host().copy(memory::read(from), memory::read(to)); }
  template <class F, class... In>
  void map(span out, F const& f, In const&... in) const {
    host().map(memory::read(out), f, memory::read(const_span(in))...);
  }
  template <class F>
  void each_four(span x, F const& f) const {
    host().each_four(memory::read(x), f);
  }
  number sum(const_span x) const { return keep(host().sum(memory::read(x))); }
  number sum_of_squares(const_span x) const { return keep(host().sum_of_squares(memory::read(x))); }
  template <class F, class... Numbers>
  void scale(span x, F const& f, Numbers... numbers) const {
    host().scale(memory::read(x), f, value(numbers)...);
  }
  double value(number x) const { return r_->numbers.at(x.place); }
  float value(const_span x, std::size_t i) const { return memory::read(x.subspan(i, 1))[0]; }
  template <class F>
  void each_row(std::size_t rows, std::size_t columns, F const& f) const {
    for (std::size_t r = rows; r-- > 0;) f(row_at(r, columns));  // in another order than the host's
  }
  /// As a device does it: all columns first, then the rows.
  template <class Fold, class F>
  void fold_columns(std::size_t rows, std::size_t columns, span totals, Fold const& fold, const_span x,
                    const_span per_row, const_span per_column, F const& f) const {
    std::vector<float> const factors(memory::read(per_column).begin(), memory::read(per_column).end());
    host().fold_columns(rows, columns, memory::read(totals), fold, memory::read(x), memory::read(per_row), factors,
                        [](auto const&) {});
    each_row(rows, columns, f);
  }
  number keep(double x) const {
    r_->numbers.push_back(x);
    return {r_->numbers.size() - 1};
  }
  optim::host_algebra host() const { return {r_->unused, 1}; }

 private:
  row row_at(std::size_t r, std::size_t columns) const { return {{r, columns}, &r_->numbers, columns}; }
  resources* r_;
};

/// Matrices in this memory.
struct matrices {
  using host = optim::host_matrices;
  using as = optim::lapack::as;
  algebra const* all;

  void multiply(as op_a, as op_b, std::size_t m, std::size_t n, std::size_t k, float alpha, const_span a,
                std::size_t stride_a, const_span b, std::size_t stride_b, float beta, span c,
                std::size_t stride_c) const {
    auto const read = [](const_span x, std::size_t rows, std::size_t columns, std::size_t stride) {
      return memory::read(x.first(rows && columns ? (rows - 1) * stride + columns : 0));
    };
    bool const ta = op_a == as::transposed, tb = op_b == as::transposed;
    auto const from_a = read(a, ta ? k : m, ta ? m : k, stride_a), from_b = read(b, tb ? n : k, tb ? k : n, stride_b);
    auto const to = memory::read(c.first((m - 1) * stride_c + n));
    host::multiply(op_a, op_b, m, n, k, alpha, from_a, stride_a, from_b, stride_b, beta, to, stride_c);
  }
  void gram(as op, std::size_t n, std::size_t k, float alpha, const_span a, std::size_t stride, float beta,
            span c) const {
    if (n == 0) return;
    std::size_t const rows = op == as::it_is ? n : k, columns = op == as::it_is ? k : n;
    host::gram(op, n, k, alpha, memory::read(a.first((rows - 1) * stride + columns)), stride, beta,
               memory::read(c.first(n * n)));
  }
  void power(const_span a, std::size_t n, double exponent, double ridge, span out) const {
    host::power(memory::read(a), n, exponent, ridge, memory::read(out));
  }
  void inverse(const_span a, std::size_t n, double ridge, span out) const {
    host::inverse(memory::read(a), n, ridge, memory::read(out));
  }
  void eigen(const_span a, std::size_t n, span vectors, span values) const {
    host::eigen(memory::read(a), n, memory::read(vectors), memory::read(values));
  }
  void eigenbasis(const_span a, std::size_t n, span basis) const {
    host::eigenbasis(memory::read(a), n, memory::read(basis));
  }
  void orthogonal_factor(const_span a, std::size_t n, span q) const {
    host::orthogonal_factor(memory::read(a), n, memory::read(q));
  }
  void copy(std::size_t rows, std::size_t columns, const_span from, std::size_t from_stride, span to,
            std::size_t to_stride) const {
    if (rows == 0) return;
    host::copy(rows, columns, memory::read(from.first((rows - 1) * from_stride + columns)), from_stride,
               memory::read(to.first((rows - 1) * to_stride + columns)), to_stride);
  }
  void fill(std::size_t rows, std::size_t columns, float value, span to, std::size_t stride) const {
    if (rows == 0) return;
    host::fill(rows, columns, value, memory::read(to.first((rows - 1) * stride + columns)), stride);
  }
  number trace(const_span a, std::size_t n) const { return all->keep(host::trace(memory::read(a.first(n * n)), n)); }
};

inline matrices matrices_of(algebra const& a) { return {&a}; }

}  // namespace remote
