// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>
#include <type_traits>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::optim {

/// Numbers in a row in memory that the host cannot read: what a std::span is to an algebra of its own memory
/// (optim/linalg/algebra.hpp). It is cut like one, within its bounds; there is no way to an element but the algebra's.
template <class T>
class remote_span {
 public:
  using element_type = T;

  remote_span() = default;
  DOVETAIL_HD constexpr remote_span(T* address, std::size_t n) : address_(address), size_(n) {}
  constexpr explicit remote_span(std::span<T> s) : remote_span(s.data(), s.size()) {}
  template <class U>
  requires std::is_same_v<U const, T> DOVETAIL_HD constexpr remote_span(remote_span<U> s)
      : remote_span(s.address(), s.size()) {}

  DOVETAIL_HD constexpr std::size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  remote_span first(std::size_t n) const { return subspan(0, n); }
  remote_span subspan(std::size_t at) const {
    require(at <= size_, "remote_span of ", size_, " numbers: there is none at ", at);
    return {address_ + at, size_ - at};
  }
  remote_span subspan(std::size_t at, std::size_t n) const {
    require(at <= size_ && n <= size_ - at, "remote_span of ", size_, " numbers: there are not ", n, " at ", at);
    return {address_ + at, n};
  }
  /// For an algebra.
  DOVETAIL_HD constexpr T* address() const { return address_; }

 private:
  T* address_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace dovetail::optim
