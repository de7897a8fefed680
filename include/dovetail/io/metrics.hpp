// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>

#include <nlohmann/json.hpp>

#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/regular_file.hpp>
#include <dovetail/io/log_file.hpp>

namespace dovetail::io {

/// One named number of a step: {"loss", 0.31}.
struct metric {
  std::string name;
  double value = 0;

  friend bool operator==(metric const&, metric const&) = default;
};

/// One line of a log.
struct metrics_record {
  std::int64_t step = 0;
  std::int64_t epoch = 0;
  double wall_time = 0;  ///< seconds since 1970
  std::vector<metric> values;
  std::map<std::string, std::string> notes = {};  ///< words, such as train::trainer's trained_with()
};

/// Where a log goes on, and how much of it a crash may lose.
struct metrics_options {
  std::int64_t resume_at = 0;                   ///< first step to come: records of this step and later ones are dropped
  std::chrono::milliseconds flush_every{1000};  ///< a crash loses at most this much; 0: every record reaches the file
};

namespace detail {

/// What every record that metrics_log writes begins with.
inline constexpr std::string_view record_begin = R"({"step":)";

/// The record of a line, or nothing if the line is none.
inline std::optional<metrics_record> parse_record(std::string const& line) {
  if (!line.starts_with('{') || line.find('\0') != std::string::npos) return {};  // the parser ends at a byte of zero
  auto const j = nlohmann::ordered_json::parse(line, nullptr, false);
  if (!j.is_object()) return {};
  metrics_record r;
  bool has_step = false;
  for (auto const& [name, value] : j.items()) {
    if (name == "notes" && value.is_object()) {
      for (auto const& [key, word] : value.items()) {
        if (!word.is_string()) return {};
        r.notes[key] = word.get<std::string>();
      }
      continue;
    }
    if (!value.is_number() && !value.is_null()) return {};
    // A step or an epoch that would wrap around was not written by a log.
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if ((name == "step" || name == "epoch") && value.is_number_unsigned() && value.get<std::uint64_t>() > most)
      return {};
    double const v = value.is_null() ? not_a_number<double>() : value.get<double>();
    if (name == "step" && value.is_number_integer())
      r.step = value.get<std::int64_t>(), has_step = true;
    else if (name == "epoch" && value.is_number_integer())
      r.epoch = value.get<std::int64_t>();
    else if (name == "wall_time")
      r.wall_time = v;
    else
      r.values.push_back({name, v});
  }
  if (!has_step) return {};
  return r;
}

/// Calls f(record, offset of its line) for each whole line; returns the offset after the last whole line.
/// Throws input_error for a line that is no record. A last line without its end, or zeros, is what a crash left.
template <class F>
std::uintmax_t each_record(std::filesystem::path const& path, F&& f) {
  require_regular_to_read(path);
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  require<input_error>(in.is_open(), path, " cannot be opened: ", std::strerror(errno ? errno : EIO));
  std::uintmax_t at = 0;
  std::size_t number = 1;
  for (std::string line; std::getline(in, line); ++number) {
    auto const record = parse_record(line);
    bool const cut = in.eof(),
               may_be_left = line.substr(0, record_begin.size()) == record_begin.substr(0, line.size()) ||
                             line.find_first_not_of('\0') == std::string::npos;
    require<input_error>(cut ? may_be_left : record.has_value(), path, " line ", number,
                         " is no record of a metrics log: give the log a path of its own");
    if (cut || !f(*record, at)) return at;
    at += line.size() + 1;
  }
  return at;
}

}  // namespace detail

/// Reads a log back; a line that a crash cut off at the end is left out. Throws input_error.
inline std::vector<metrics_record> read_metrics(std::filesystem::path const& path) {
  std::vector<metrics_record> records;
  detail::each_record(path, [&](metrics_record const& r, std::uintmax_t) {
    records.push_back(r);
    return true;
  });
  return records;
}

/// A log of JSON lines, one object per record: {"step":10,"epoch":0,"wall_time":…,"loss":0.31}. Records come in the
/// order of their steps. A value that is not finite is written as null, since JSON knows no other word for it.
/// A resumed run gives its first step as `resume_at` and goes on as if it had never been interrupted; 0 starts anew, in
/// the place of an old log. Throws input_error with the system's reason when the file cannot be read or written, is no
/// log, is another one's, or is a link, a FIFO or a device. Used by one thread.
class metrics_log {
 public:
  using clock = std::chrono::steady_clock;

  explicit metrics_log(std::filesystem::path const& path, metrics_options options = {}) : options_(options) {
    bool const is_there = regular_or_absent(path).has_value();
    output_file<> file(path, O_CREAT | O_APPEND);
    require<input_error>(file.lock() != file_lock::of_another, path,
                         " is being written by another log: give this one a path of its own");
    std::uintmax_t keep = 0;
    if (is_there)  // one look at a file that will be emptied: it is a log, not somebody's text
      keep = detail::each_record(path,
                                 [&](metrics_record const& r, std::uintmax_t) { return r.step < options.resume_at; });
    file.truncate(keep);
    out_ = detail::log_file(std::move(file));
  }

  /// Appends a record of the current time.
  void write(std::int64_t step, std::int64_t epoch, std::vector<metric> const& values,
             std::map<std::string, std::string> const& notes = {}) {
    write({step, epoch, std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(),
           values, notes});
  }
  void write(metrics_record const& r) {
    nlohmann::ordered_json j{{"step", r.step}, {"epoch", r.epoch}, {"wall_time", r.wall_time}};
    for (auto const& [name, value] : r.values) {
      require(!j.contains(name), "metrics_log: '", name, "' is given twice for step ", r.step);
      j[name] = value;
    }
    if (!r.notes.empty()) j["notes"] = r.notes;
    out_.append(j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n');
    if (auto const now = clock::now(); now - flushed_ >= options_.flush_every) {
      out_.flush();
      flushed_ = now;
    }
  }
  void flush() { out_.flush(); }

 private:
  metrics_options options_;
  detail::log_file out_;
  clock::time_point flushed_ = clock::now();
};

}  // namespace dovetail::io
