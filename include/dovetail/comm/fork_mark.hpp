// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>

#include <dovetail/core/error.hpp>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace dovetail::comm::detail {

/// Knows whether this process is a fork of the one that made the mark: there the other ranks' threads do not exist,
/// and MPI must not be called. A page that the system empties at the fork; asking costs a load.
class fork_mark {
 public:
  fork_mark() {
#if defined(__linux__) && defined(MADV_WIPEONFORK)
    void* const page = mmap(nullptr, size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return;
    if (madvise(page, size(), MADV_WIPEONFORK) != 0) {
      munmap(page, size());
      return;
    }
    page_ = static_cast<unsigned char*>(page);
    *page_ = 1;
#endif
  }
  fork_mark(fork_mark const&) = delete;
  fork_mark& operator=(fork_mark const&) = delete;
  ~fork_mark() {
#if defined(__linux__) && defined(MADV_WIPEONFORK)
    if (page_) munmap(page_, size());
#endif
  }

  bool forked() const { return page_ && *static_cast<unsigned char const volatile*>(page_) == 0; }
  template <class Where>
  void check(Where const& where) const {
    if (forked()) [[unlikely]]
      throw comm_error(message(where,
                               ": this process is a fork of the one in which the ranks were started, and no rank: "
                               "communicate in the parent, or start ranks after the fork"),
                       -1);
  }

 private:
#if defined(__linux__) && defined(MADV_WIPEONFORK)
  static std::size_t size() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }
#endif
  unsigned char* page_ = nullptr;
};

}  // namespace dovetail::comm::detail
