// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <dovetail/core/error.hpp>
#include <dovetail/core/regular_file.hpp>

namespace dovetail {

/// Replaces a file as a whole or not at all: what is written goes to <path>.tmp in the same folder; commit() syncs it,
/// renames it over `path` and syncs the folder. Whatever happens before (an error, a kill, a power failure), `path`
/// has its old contents. The new file has the mode of the old one. Without a commit the destructor removes the
/// temporary file; one that a killed process left is removed by the next writer, so they do not pile up (on a file
/// system without locks it is refused: it may be another writer's). Both names are regular files or absent: links,
/// FIFOs, folders and devices are refused. Errors are `Error`s with the system's reason. POSIX.
template <class Error = input_error>
class atomic_file {
 public:
  explicit atomic_file(std::filesystem::path path) : path_(std::move(path)) {
    auto const old = regular_or_absent<Error>(path_);
    std::filesystem::path const temporary = path_.native() + ".tmp";
    while (!begin(temporary, old ? ::mode_t{0600} : ::mode_t{0666})) {
    }
    if (old) keep_mode(*old);
  }
  atomic_file(atomic_file const&) = delete;
  atomic_file& operator=(atomic_file const&) = delete;
  ~atomic_file() { discard(); }

  /// Appends. On an error (disk full, quota) the temporary file is removed and the file has its old contents.
  void write(std::span<std::byte const> bytes) {
    require<Error>(file_.is_open(), path_, ": nothing can be written after a commit or an error");
    try {
      file_.write(bytes);
    } catch (...) {
      remove();
      throw;
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  /// Publishes what was written. If it throws before the rename, `path` has its old contents.
  void commit() {
    require<Error>(file_.is_open(), path_, ": committed twice, or after an error");
    if (::fsync(file_.descriptor()) != 0 || (mode_ && ::fchmod(file_.descriptor(), *mode_) != 0) ||
        ::rename(file_.path().c_str(), path_.c_str()) != 0) {
      int const reason = errno;
      discard();
      fail("cannot be put in place", reason);
    }
    file_.close();
    // The new name survives a power failure only when the folder is on the disk as well.
    auto const folder = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
    int const d = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d < 0) fail("is in place, but its folder cannot be synced", errno);
    int const synced = ::fsync(d), reason = errno;
    ::close(d);
    if (synced != 0 && reason != EINVAL) fail("is in place, but its folder cannot be synced", reason);
  }

 private:
  /// Makes the temporary file, of this writer alone. False if another file took its name in between.
  bool begin(std::filesystem::path const& temporary, ::mode_t mode) {
    static constexpr char const* way_out = "it is in the place of a temporary file: move it away";
    if (auto const leftover = regular_or_absent<Error>(temporary, way_out)) {
      // Never written into: it may have another name as well. The lock tells a leftover from another writer's file; if
      // that writer renames the file between our open and our lock, then it is a published result, and not removed.
      require<Error>(leftover->st_nlink <= 1, temporary, " has another name (a hard link): ", way_out);
      try {
        output_file<Error> const file(temporary, 0);
        auto const lock = file.lock();
        if (lock == file_lock::of_another) refuse_second(temporary);
        require<Error>(
            lock == file_lock::ours || !file.is_named(), temporary,
            " was left by a killed writer, or another one is at work, and this file system has no locks that "
            "would tell: remove it if nobody is saving this file");
        if (file.is_named() && ::unlink(temporary.c_str()) != 0 && errno != ENOENT) {
          int const reason = errno;
          throw Error(
              message(temporary, " was left by a killed writer and cannot be removed: ", std::strerror(reason)));
        }
      } catch (Error const&) {
        if (::access(temporary.c_str(), F_OK) == 0) throw;  // otherwise its writer has just finished
      }
    }
    auto made = output_file<Error>::create(temporary, mode);
    if (!made) return false;
    file_ = std::move(*made);
    if (file_.lock() == file_lock::of_another) refuse_second(temporary);
    return file_.is_named();
  }
  [[noreturn]] DOVETAIL_COLD void refuse_second(std::filesystem::path const& temporary) const {
    throw Error(
        message(path_, ": ", temporary, " is locked: another writer is saving this file; give it a path of its own"));
  }
  /// Owner, group and mode of the file that is replaced, as far as the system lets us. Where the group cannot be kept,
  /// the new one gets no more rights than everybody.
  void keep_mode(struct ::stat const& old) {
    ::mode_t mode = old.st_mode & 07777;
    struct ::stat const ours = file_.status();
    if ((ours.st_uid != old.st_uid || ours.st_gid != old.st_gid) &&
        ::fchown(file_.descriptor(), old.st_uid, old.st_gid) != 0 &&
        ::fchown(file_.descriptor(), static_cast<::uid_t>(-1), old.st_gid) != 0)
      mode = (mode & 0707) | (mode & (mode << 3) & 0070);
    // Until it is published its owner may write it: the next writer could not lock what a killed one left otherwise.
    if ((mode & S_IWUSR) == 0) mode_ = mode;
    mode |= S_IWUSR;
    if ((ours.st_mode & 07777) != mode && ::fchmod(file_.descriptor(), mode) != 0) {
      int const reason = errno;
      discard();
      fail("cannot be given the mode of the file that it replaces", reason);
    }
  }
  void remove() noexcept { ::unlink(file_.path().c_str()); }
  void discard() noexcept {
    if (!file_.is_open()) return;
    remove();
    file_.close();
  }
  [[noreturn]] DOVETAIL_COLD void fail(std::string const& what, int reason) const {
    throw Error(message(path_, " ", what, ": ", std::strerror(reason)));
  }

  std::filesystem::path path_;
  output_file<Error> file_;         // the temporary one
  std::optional<::mode_t> mode_{};  // of the file, where that may not be written
};

}  // namespace dovetail
