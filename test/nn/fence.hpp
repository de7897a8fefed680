// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Memory that ends where the machine stops a write. Code that a library generates while it runs is seen by no
// sanitizer; a page without access behind every block sees it at full speed, whatever instructions it uses.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <mutex>

#include <sys/mman.h>
#include <unistd.h>

namespace fence {

inline constexpr unsigned char untouched = 0xa5;

/// One block: whole pages, the block at their end, then a page that must not be touched.
struct block {
  unsigned char *pages = nullptr, *begin = nullptr;
  std::size_t mapped = 0, size = 0, slack = 0;
};

inline block make(std::size_t alignment, std::size_t size) {
  auto const page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::size_t const rounded = (size + alignment - 1) / alignment * alignment;
  std::size_t const mapped = (rounded + page - 1) / page * page + page;
  void* const at = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return {};
  auto* const pages = static_cast<unsigned char*>(at);
  ::mprotect(pages + mapped - page, page, PROT_NONE);
  block const b{pages, pages + (mapped - page - rounded) / alignment * alignment, mapped, size, rounded - size};
  std::memset(b.begin + size, untouched, b.slack);
  return b;
}
/// What alignment leaves between the block's end and the page was not written.
inline bool intact(block const& b) {
  return std::all_of(b.begin + b.size, b.begin + b.size + b.slack, [](unsigned char c) { return c == untouched; });
}

/// n floats that end where a page without access begins.
class floats {
 public:
  explicit floats(std::size_t n) : block_(make(alignof(float), n * sizeof(float))), n_(n) {}
  ~floats() { ::munmap(block_.pages, block_.mapped); }
  floats(floats const&) = delete;
  float* data() const { return reinterpret_cast<float*>(block_.begin); }
  float* begin() const { return data(); }
  float* end() const { return data() + n_; }
  std::size_t size() const { return n_; }
  float& operator[](std::size_t i) const { return data()[i]; }

 private:
  block block_;
  std::size_t n_;
};

/// The blocks that were taken, and how many were written behind their ends. Its own memory is fixed: an allocator may
/// not allocate.
class registry {
 public:
  void* take(std::size_t alignment, std::size_t size) {
    std::lock_guard const lock(mutex_);
    auto* const place = std::find_if(blocks_.begin(), blocks_.end(), [](block const& b) { return !b.pages; });
    if (place == blocks_.end()) return nullptr;
    *place = make(alignment, size);
    used_ = std::max(used_, static_cast<std::size_t>(place - blocks_.begin()) + 1);
    ++made;
    return place->begin;
  }
  /// False for memory that was not taken here.
  bool give_back(void* p) {
    std::lock_guard const lock(mutex_);
    for (std::size_t i = 0; i < used_; ++i)
      if (auto& b = blocks_[i]; b.begin == p) {
        spoiled += !intact(b);
        ::munmap(b.pages, b.mapped);
        b = {};
        return true;
      }
    return false;
  }
  std::size_t made = 0, spoiled = 0;

 private:
  std::mutex mutex_;
  std::array<block, 4096> blocks_{};
  std::size_t used_ = 0;
};
inline constinit registry all;

}  // namespace fence
