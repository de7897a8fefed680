// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <dovetail/core/error.hpp>

namespace dovetail {

/// Replaces a file as a whole or not at all: what is written goes to <path>.tmp in the same folder; commit() syncs it,
/// renames it over `path` and syncs the folder. Whatever happens before (an error, a kill, a power failure), `path`
/// has its old contents. Without a commit the destructor removes the temporary file; one that a killed process left is
/// used again by the next writer, so they do not pile up. Errors are `Error`s with the system's reason. POSIX.
template <class Error = input_error>
class atomic_file {
 public:
  explicit atomic_file(std::filesystem::path path) : path_(std::move(path)), temporary_(path_.string() + ".tmp") {
    // The lock tells a leftover from another writer's file; when that writer renames the file between our open and our
    // lock, we hold a lock on its published result and must start anew.
    for (;;) {
      fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
      if (fd_ < 0) fail("cannot be created", errno);
      if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        ::close(std::exchange(fd_, -1));
        throw Error(message(path_, ": ", temporary_,
                            " is locked: another writer is saving this file; give it a path of "
                            "its own"));
      }
      struct stat ours {
      }, named{};
      if (::fstat(fd_, &ours) == 0 && ::stat(temporary_.c_str(), &named) == 0 && ours.st_ino == named.st_ino &&
          ours.st_dev == named.st_dev)
        break;
      ::close(std::exchange(fd_, -1));
    }
    if (::ftruncate(fd_, 0) != 0) {
      int const reason = errno;
      discard();
      fail("cannot be emptied", reason);
    }
  }
  atomic_file(atomic_file const&) = delete;
  atomic_file& operator=(atomic_file const&) = delete;
  ~atomic_file() { discard(); }

  /// Appends. On an error (disk full, quota) the temporary file is removed and the file has its old contents.
  void write(std::span<std::byte const> bytes) {
    require<Error>(fd_ >= 0, path_, ": nothing can be written after a commit or an error");
    while (!bytes.empty()) {
      // The system moves less than 2 GiB in one call.
      auto const n = ::write(fd_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        int const reason = n < 0 ? errno : ENOSPC;
        discard();
        fail(message("cannot be written past byte ", written_), reason);
      }
      written_ += static_cast<std::size_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  /// Publishes what was written. If it throws before the rename, `path` has its old contents.
  void commit() {
    require<Error>(fd_ >= 0, path_, ": committed twice, or after an error");
    if (::fsync(fd_) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
      int const reason = errno;
      discard();
      fail("cannot be put in place", reason);
    }
    ::close(std::exchange(fd_, -1));
    // The new name survives a power failure only when the folder is on the disk as well.
    auto const folder = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
    int const d = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d < 0) fail("is in place, but its folder cannot be synced", errno);
    int const synced = ::fsync(d), reason = errno;
    ::close(d);
    if (synced != 0 && reason != EINVAL) fail("is in place, but its folder cannot be synced", reason);
  }

 private:
  void discard() noexcept {
    if (fd_ < 0) return;
    ::unlink(temporary_.c_str());
    ::close(std::exchange(fd_, -1));
  }
  [[noreturn]] void fail(std::string const& what, int reason) const {
    throw Error(message(path_, " ", what, ": ", std::strerror(reason)));
  }

  std::filesystem::path path_;
  std::string temporary_;
  int fd_ = -1;
  std::size_t written_ = 0;
};

}  // namespace dovetail
