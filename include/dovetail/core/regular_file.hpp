// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <dovetail/core/error.hpp>

// Files that the library writes are regular files under the name that was given, and nothing else: a write through a
// symbolic link changes a file that nobody named, one into a device cannot be undone, and opening a FIFO waits for
// ever.
namespace dovetail {

namespace detail {

/// What a name stands for that is no regular file's.
DOVETAIL_COLD inline std::string kind_of_file(std::filesystem::path const& path, ::mode_t mode) {
  std::error_code unread;
  if (S_ISLNK(mode)) return "a symbolic link to " + std::filesystem::read_symlink(path, unread).string();
  return S_ISDIR(mode) ? "a folder" : S_ISFIFO(mode) ? "a FIFO" : S_ISSOCK(mode) ? "a socket" : "a device";
}

/// Throws `Error` for a path that no file can have.
template <class Error>
void require_file_name(std::filesystem::path const& path) {
  require<Error>(path.has_filename(), path, " names no file");
  // The system would read it up to there, and open another file.
  require<Error>(path.native().find('\0') == std::string::npos, "a file's name has a byte of zero after '",
                 path.c_str(), "': no file can have it");
}

}  // namespace detail

/// The status of the regular file that `path` names, links not followed, or nothing if there is no such file. Throws
/// `Error` for whatever else it names.
template <class Error = input_error>
std::optional<struct ::stat> regular_or_absent(std::filesystem::path const& path,
                                               char const* way_out = "give the path of a regular file") {
  detail::require_file_name<Error>(path);
  struct ::stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    int const reason = errno;
    require<Error>(reason == ENOENT, path, " cannot be opened: ", std::strerror(reason));
    return {};
  }
  require<Error>(S_ISREG(status.st_mode), path, " is ", detail::kind_of_file(path, status.st_mode), ": ", way_out);
  return status;
}

/// Throws `Error` unless `path` names a regular file, itself or by links: reading from a FIFO would wait for a writer.
template <class Error = input_error>
void require_regular_to_read(std::filesystem::path const& path) {
  detail::require_file_name<Error>(path);
  struct ::stat status {};
  if (::stat(path.c_str(), &status) != 0) throw Error(message(path, " cannot be opened: ", std::strerror(errno)));
  require<Error>(S_ISREG(status.st_mode), path, " is ", detail::kind_of_file(path, status.st_mode),
                 ": give the path of a regular file");
}

/// What came of locking a file. `of_another`: another process, or another object of this one, has it. `unknown`: its
/// file system has no locks (Lustre mounted without `flock`, some NFS), and nobody can tell.
enum class file_lock { ours, of_another, unknown };

/// A regular file that is open for writing. Errors are `Error`s with the system's reason; after one, nothing more is
/// written. POSIX.
template <class Error = input_error>
class output_file {
 public:
  output_file() = default;
  /// Opens without following a link and without waiting. `flags` are open()'s: O_CREAT, O_EXCL, O_APPEND …
  output_file(std::filesystem::path path, int flags, ::mode_t mode = 0666) : path_(std::move(path)) {
    regular_or_absent<Error>(path_);  // before open(), which some devices answer by doing something
    fd_ = ::open(path_.c_str(), flags | O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
    if (fd_ < 0) fail("cannot be opened", errno);
    struct ::stat opened {};
    if (::fstat(fd_, &opened) != 0) {
      int const reason = errno;
      close();
      fail("cannot be examined", reason);
    }
    if (!S_ISREG(opened.st_mode)) {  // it was replaced a moment ago
      close();
      throw Error(
          message(path_, " is ", detail::kind_of_file(path_, opened.st_mode), ": give the path of a regular file"));
    }
  }
  /// A new file; nothing if the name is taken, by whatever it is.
  static std::optional<output_file> create(std::filesystem::path path, ::mode_t mode = 0666) {
    detail::require_file_name<Error>(path);
    output_file made;
    made.path_ = std::move(path);
    made.fd_ = ::open(made.path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (made.fd_ < 0 && errno == EEXIST) return {};
    if (made.fd_ < 0) made.fail("cannot be created", errno);
    return made;
  }
  output_file(output_file&& other) noexcept { *this = std::move(other); }
  output_file& operator=(output_file&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(fd_, other.fd_);
    std::swap(written_, other.written_);
    return *this;
  }
  ~output_file() { close(); }

  std::filesystem::path const& path() const { return path_; }
  bool is_open() const { return fd_ >= 0; }
  int descriptor() const { return fd_; }

  struct ::stat status() const {
    struct ::stat s {};
    if (::fstat(fd_, &s) != 0) fail("cannot be examined", errno);
    return s;
  }
  /// Takes the file for this process. It is given back when this object, or the process, ends, however it ends.
  file_lock lock() const {
    while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return file_lock::of_another;
      if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK) return file_lock::unknown;
      if (errno != EINTR) fail("cannot be locked", errno);
    }
    return file_lock::ours;
  }
  /// Whether the file still has the name under which it was opened.
  bool is_named() const {
    struct ::stat const ours = status();
    struct ::stat named {};
    return ::lstat(path_.c_str(), &named) == 0 && ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
  }

  void write(std::span<std::byte const> bytes) {
    require<Error>(fd_ >= 0, path_, ": nothing can be written after the end or an error");
    while (!bytes.empty()) {
      // The system moves less than 2 GiB in one call.
      auto const n = ::write(fd_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        int const reason = n < 0 ? errno : ENOSPC;
        close();
        fail(message("cannot be written past byte ", written_), reason);
      }
      written_ += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  void truncate(std::uint64_t size) {
    if (::ftruncate(fd_, static_cast<::off_t>(size)) != 0) fail(message("cannot be cut to ", size, " bytes"), errno);
  }
  void close() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  [[noreturn]] DOVETAIL_COLD void fail(std::string const& what, int reason) const {
    throw Error(message(path_, " ", what, ": ", std::strerror(reason)));
  }

  std::filesystem::path path_;
  int fd_ = -1;
  std::uint64_t written_ = 0;
};

}  // namespace dovetail
