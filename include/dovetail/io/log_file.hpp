// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include <dovetail/core/error.hpp>
#include <dovetail/core/regular_file.hpp>

namespace dovetail::io::detail {

/// A file that grows by small pieces: they are written together, at the latest by flush() or the destructor. Throws
/// input_error with the system's reason; after that nothing more is written.
class log_file {
 public:
  log_file() = default;
  explicit log_file(output_file<> out) : out_(std::move(out)) {}
  log_file(log_file&&) = default;
  log_file& operator=(log_file&& other) noexcept {
    std::swap(out_, other.out_);
    std::swap(pending_, other.pending_);
    return *this;
  }
  ~log_file() {
    try {
      if (out_.is_open()) flush();
    } catch (error const&) {  // a destructor cannot say so; who wants to know flushes before
    }
  }

  std::filesystem::path const& path() const { return out_.path(); }
  bool is_open() const { return out_.is_open(); }
  void append(std::string_view text) {
    pending_ += text;
    if (pending_.size() >= room) flush();
  }
  void flush() { out_.write(std::exchange(pending_, {})); }

 private:
  static constexpr std::size_t room = 1 << 16;

  output_file<> out_;
  std::string pending_;
};

}  // namespace dovetail::io::detail
