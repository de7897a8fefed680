// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include <unistd.h>

#include <dovetail/core/error.hpp>
#include <dovetail/train/crc32.hpp>

namespace dovetail::train {

namespace detail {

/// The few words of protobuf's wire format that an event needs.
struct protobuf {
  std::string bytes;

  void varint(std::uint64_t v) {
    for (; v >= 0x80; v >>= 7) bytes.push_back(static_cast<char>(v | 0x80));
    bytes.push_back(static_cast<char>(v));
  }
  template <class T>
  void little_endian(T v) {
    for (std::size_t i = 0; i < sizeof v; ++i) bytes.push_back(static_cast<char>(v >> (8 * i)));
  }
  void tag(unsigned field, unsigned wire_type) { varint(field << 3 | wire_type); }
  void field(unsigned number, std::int64_t v) { tag(number, 0), varint(static_cast<std::uint64_t>(v)); }
  void field(unsigned number, double v) { tag(number, 1), little_endian(std::bit_cast<std::uint64_t>(v)); }
  void field(unsigned number, float v) { tag(number, 5), little_endian(std::bit_cast<std::uint32_t>(v)); }
  void field(unsigned number, std::string_view v) { tag(number, 2), varint(v.size()), bytes.append(v); }
};

/// TFRecord stores CRCs rotated and offset, so that a CRC of data that holds CRCs stays meaningful.
inline std::uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(std::as_bytes(std::span(bytes))), 15) + 0xa282ead8u;
}

}  // namespace detail

/// Writes scalars where TensorBoard finds them: <folder>/events.out.tfevents.<time>.<host>.<pid>.<number>, TFRecord
/// frames of Event messages (tensorflow/core/util/event.proto). A resumed run writes another file and says where it
/// continues, so that TensorBoard drops the points from `resume_at` on that the interrupted run had left.
/// Throws input_error with the system's reason. Used by one thread.
class tensorboard_log {
 public:
  explicit tensorboard_log(std::filesystem::path const& folder, std::int64_t resume_at = 0) {
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    require<input_error>(!failed, folder, " cannot be created: ", failed.message());
    char host[256] = "localhost";
    if (::gethostname(host, sizeof host - 1) != 0) std::strcpy(host, "localhost");
    auto const seconds = static_cast<std::int64_t>(now());
    // TensorBoard reads the files of a folder in the order of their names; the number tells apart the logs of one
    // second.
    for (int number = 0;; ++number) {
      path_ = folder / message("events.out.tfevents.", std::to_string(seconds), '.', host, '.',
                               std::to_string(::getpid()), '.', number);
      if (!std::filesystem::exists(path_, failed)) break;
    }
    errno = 0;
    out_.open(path_, std::ios::binary);
    detail::protobuf version;
    version.field(1, now());
    version.field(3, std::string_view("brain.Event:2"));
    frame(version.bytes);
    if (resume_at > 0) {
      detail::protobuf session, start;
      session.field(1, std::int64_t{1});  // SessionLog.status = START
      start.field(1, now());
      start.field(2, resume_at);
      start.field(7, std::string_view(session.bytes));
      frame(start.bytes);
    }
    flush();
  }

  /// Adds one point of the curve called `tag`; tags with the same part before a '/' are shown together.
  void write(std::int64_t step, std::string_view tag, double value) {
    detail::protobuf scalar, summary, event;
    scalar.field(1, tag);
    scalar.field(2, static_cast<float>(value));
    summary.field(1, std::string_view(scalar.bytes));
    event.field(1, now());
    event.field(2, step);
    event.field(5, std::string_view(summary.bytes));
    frame(event.bytes);
  }
  void flush() {
    errno = 0;
    out_.flush();
    require<input_error>(out_.good(), path_, " cannot be written: ", std::strerror(errno ? errno : EIO));
  }
  std::filesystem::path const& path() const { return path_; }

 private:
  static double now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  }
  void frame(std::string_view event) {
    detail::protobuf length, crc;
    length.little_endian(static_cast<std::uint64_t>(event.size()));
    crc.little_endian(detail::masked_crc(event));
    auto head = length;
    head.little_endian(detail::masked_crc(length.bytes));
    errno = 0;
    out_ << head.bytes << event << crc.bytes;
    require<input_error>(out_.good(), path_, " cannot be written: ", std::strerror(errno ? errno : EIO));
  }

  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace dovetail::train
