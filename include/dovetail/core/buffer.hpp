// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

namespace dovetail {

/// A value that owns `size` trivially copyable elements, 64-byte aligned and zero-initialized.
template <class T>
class buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  static constexpr std::align_val_t alignment{64};

  buffer() = default;
  explicit buffer(std::size_t n) : data_(allocate(n)), size_(n) {
    if (n) std::memset(static_cast<void*>(data_), 0, n * sizeof(T));
  }
  buffer(buffer const& other) : data_(allocate(other.size_)), size_(other.size_) {
    if (size_) std::memcpy(static_cast<void*>(data_), other.data_, size_ * sizeof(T));
  }
  buffer(buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  buffer& operator=(buffer other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~buffer() {
    if (data_) ::operator delete(static_cast<void*>(data_), alignment);
  }

  T* data() { return data_; }
  T const* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](std::size_t i) { return data_[i]; }
  T const& operator[](std::size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  T const* begin() const { return data_; }
  T const* end() const { return data_ + size_; }
  std::span<T> span() { return {data_, size_}; }
  std::span<T const> span() const { return {data_, size_}; }
  friend bool operator==(buffer const& a, buffer const& b) {
    return a.size_ == b.size_ && std::equal(a.begin(), a.end(), b.begin());
  }

 private:
  static T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();  // n * sizeof(T) wraps around
    return n ? static_cast<T*>(::operator new(n * sizeof(T), alignment)) : nullptr;
  }
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace dovetail
