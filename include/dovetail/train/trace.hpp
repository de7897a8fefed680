// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <dovetail/core/atomic_file.hpp>
#include <dovetail/core/trace.hpp>

namespace dovetail::train {

/// The trace as JSON for https://ui.perfetto.dev or chrome://tracing: a rank is a process, its threads are rows.
/// Times are microseconds of the wall clock, so that the files of several processes can be laid over each other.
/// Ref.: "Trace Event Format", complete ("X") and metadata ("M") events.
inline std::string trace_json(trace const& t) {
  auto const quoted = [](std::string_view s) {  // names may have been cut within a UTF-8 character
    return nlohmann::json(s).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  auto const origin = std::chrono::duration_cast<std::chrono::nanoseconds>(t.wall_origin().time_since_epoch()).count();
  // By hand: as doubles, microseconds since 1970 would lose their last digits.
  auto const micros = [](std::int64_t ns) {
    std::string const digits = std::to_string(ns % 1000);
    return std::to_string(ns / 1000) + '.' + std::string(3 - digits.size(), '0') + digits;
  };
  auto const events = t.events();
  std::string out =
      "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"dropped\":" + std::to_string(t.dropped()) + "},\"traceEvents\":[";
  char const* separator = "\n";
  std::set<int> ranks;
  for (auto const& e : events)
    if (ranks.insert(e.rank).second) {
      auto const rank = std::to_string(e.rank);
      out += separator +
             ("{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":" + rank + ",\"args\":{\"name\":\"rank " + rank) +
             "\"}}";
      separator = ",\n";
    }
  for (auto const& e : events) {
    out += separator + ("{\"ph\":\"X\",\"name\":" + quoted(e.name_view())) + ",\"cat\":" + quoted(e.category_view()) +
           ",\"pid\":" + std::to_string(e.rank) + ",\"tid\":" + std::to_string(e.thread) +
           ",\"ts\":" + micros(origin + e.begin_ns) + ",\"dur\":" + micros(e.duration_ns);
    if (e.bytes) out += ",\"args\":{\"bytes\":" + std::to_string(e.bytes) + "}";
    out += "}";
    separator = ",\n";
  }
  return out + "\n]}\n";
}

/// Writes trace_json to a file, whole or not at all. Throws input_error with the system's reason.
inline void write_trace(std::filesystem::path const& path, trace const& t) {
  atomic_file<input_error> file(path);
  file.write(trace_json(t));
  file.commit();
}

}  // namespace dovetail::train
