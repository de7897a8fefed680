// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <unistd.h>

#include <dovetail/core/error.hpp>
#include <dovetail/core/regular_file.hpp>
#include <dovetail/io/crc32.hpp>
#include <dovetail/io/log_file.hpp>
#include <dovetail/io/printable.hpp>

namespace dovetail::io {

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

/// Writes scalars where TensorBoard finds them: <folder>/events.out.tfevents.<time>.<host>.<pid>, TFRecord frames of
/// Event messages (tensorflow/core/util/event.proto). A resumed run writes another file and says where it continues, so
/// that TensorBoard drops the points from `resume_at` on that the interrupted run had left.
/// Throws input_error with the system's reason. Used by one thread.
class tensorboard_log {
 public:
  explicit tensorboard_log(std::filesystem::path const& folder, std::int64_t resume_at = 0) {
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    require<input_error>(!failed, folder, " cannot be created: ", failed.message());
    char host[256] = "localhost";
    if (::gethostname(host, sizeof host - 1) != 0) std::strcpy(host, "localhost");
    for (char& c : host)
      if (c == '/' || (c && static_cast<unsigned char>(c) <= ' ')) c = '_';
    auto const suffix = message('.', host, '.', std::to_string(::getpid()));
    // TensorBoard reads the files of a folder in the order of their names, and a resumed run's must come after those of
    // before, also if it begins in the same second, or after a clock that was set back.
    for (auto seconds = std::max(static_cast<std::int64_t>(now()), newest(folder) + 1); !out_.is_open(); ++seconds)
      if (auto made = output_file<>::create(folder / message(file_prefix, std::to_string(seconds), suffix)))
        out_ = detail::log_file(std::move(*made));
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
    scalar.field(1, std::string_view(detail::printable(tag)));  // protobuf refuses what is not UTF-8
    scalar.field(2, static_cast<float>(value));
    summary.field(1, std::string_view(scalar.bytes));
    event.field(1, now());
    event.field(2, step);
    event.field(5, std::string_view(summary.bytes));
    frame(event.bytes);
  }
  void flush() { out_.flush(); }
  std::filesystem::path const& path() const { return out_.path(); }

 private:
  static constexpr std::string_view file_prefix = "events.out.tfevents.";

  static double now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  }
  /// The time in the name of the last event file in `folder`; 0 without one.
  static std::int64_t newest(std::filesystem::path const& folder) {
    std::int64_t last = 0;
    std::error_code failed;
    for (std::filesystem::directory_iterator it(folder, failed), end; !failed && it != end; it.increment(failed)) {
      std::string const name = it->path().filename().string();
      if (!name.starts_with(file_prefix)) continue;
      // Ten digits, until the year 2286: numbers of as many digits are ordered as their text is.
      std::int64_t seconds = 0;
      auto const* const begin = name.data() + file_prefix.size();
      auto const [end_of_number, wrong] = std::from_chars(begin, name.data() + name.size(), seconds);
      if (wrong == std::errc() && end_of_number - begin == 10) last = std::max(last, seconds);
    }
    require<input_error>(!failed, folder, " cannot be read: ", failed.message());
    return last;
  }
  void frame(std::string_view event) {
    detail::protobuf length, crc;
    length.little_endian(std::uint64_t{event.size()});
    crc.little_endian(detail::masked_crc(event));
    auto record = length;
    record.little_endian(detail::masked_crc(length.bytes));
    record.bytes.append(event).append(crc.bytes);
    out_.append(record.bytes);
  }

  detail::log_file out_;
};

}  // namespace dovetail::io
