// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdarg>
#include <cstdio>
#include <string>

#include <dovetail/core/error.hpp>

namespace bench {

/// Figures as JSON, whole after each of them: a run that is cut short leaves what it measured.
class figures_file {
 public:
  /// Without a path, nothing is written. `context`: an object.
  figures_file(std::string const& path, std::string const& context) : path_(path) {
    if (path.empty()) return;
    file_ = std::fopen(path.c_str(), "w");
    if (!file_) throw dovetail::input_error(path + " cannot be written");
    std::fprintf(file_, "{\"context\": %s,\n \"benchmarks\": [", context.c_str());
    finish();
  }
  figures_file(figures_file const&) = delete;
  ~figures_file() {
    if (file_) std::fclose(file_);
  }

  /// One figure's object, by printf's rules.
  [[gnu::format(printf, 2, 3)]] void add(char const* format, ...) {
    if (!file_) return;
    if (std::fseek(file_, -static_cast<long>(sizeof end - 1), SEEK_CUR) != 0)
      throw dovetail::input_error(path_ + " cannot be written twice in one place: give a regular file");
    std::fputs(first_ ? "\n  " : ",\n  ", file_);
    first_ = false;
    std::va_list arguments;
    va_start(arguments, format);
    std::vfprintf(file_, format, arguments);
    va_end(arguments);
    finish();
  }

 private:
  static constexpr char end[] = "\n]}\n";
  void finish() {
    std::fputs(end, file_);
    if (std::fflush(file_) != 0) throw dovetail::input_error(path_ + " was not written completely");
  }
  std::string path_;
  std::FILE* file_ = nullptr;
  bool first_ = true;
};

}  // namespace bench
