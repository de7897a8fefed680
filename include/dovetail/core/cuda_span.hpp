// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <span>
#include <type_traits>

#include <dovetail/core/cuda.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/memory.hpp>
#include <dovetail/core/parameters.hpp>

namespace dovetail::cuda {

/// Consecutive elements in a device's memory: a std::span that no host code can follow by mistake. Of a device_buffer
/// it is made without a word; that other addresses are a device's, the caller says: device_span{pointer, n}.
template <class T>
class device_span {
 public:
  using element_type = T;
  using value_type = std::remove_const_t<T>;

  constexpr device_span() = default;
  constexpr device_span(T* data, std::size_t size) : data_(data), size_(size) {}
  device_span(device_buffer<value_type>& b) : device_span(b.data(), b.size()) {}
  device_span(device_buffer<value_type> const& b) requires std::is_const_v<T> : device_span(b.data(), b.size()) {}
  template <class U>
  requires(std::is_same_v<U const, T> && !std::is_same_v<U, T>) constexpr device_span(device_span<U> s)
      : device_span(s.data(), s.size()) {}

  constexpr T* data() const { return data_; }
  constexpr std::size_t size() const { return size_; }
  constexpr std::size_t size_bytes() const { return size_ * sizeof(T); }
  constexpr bool empty() const { return size_ == 0; }
  device_span subspan(std::size_t at, std::size_t n) const {
    require(at <= size_ && n <= size_ - at, "cuda::device_span of ", size_, ": there are no ", n, " elements at ", at);
    return {data_ + at, n};
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};
template <class T>
device_span(device_buffer<T>&) -> device_span<T>;
template <class T>
device_span(device_buffer<T> const&) -> device_span<T const>;

/// All gradients, or weights, of a list in a device's memory, where they lie there as in the flat index space.
template <class T>
device_span<T> flat_gradients(basic_parameter_list<T, cuda_memory> const& p) {
  auto const all = p.flat_gradients();
  require(all.size() == p.flat_size(), "cuda::flat_gradients: the list's gradients do not lie one behind another");
  return {all.data(), all.size()};
}
template <class T>
device_span<T> flat_weights(basic_parameter_list<T, cuda_memory> const& p) {
  auto const all = p.flat_weights();
  require(all.size() == p.flat_size(), "cuda::flat_weights: the list's weights do not lie one behind another");
  return {all.data(), all.size()};
}

}  // namespace dovetail::cuda
