// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <locale>
#include <set>
#include <sstream>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <dovetail/core/atomic_file.hpp>
#include <dovetail/core/trace.hpp>

namespace dovetail::io {

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
    auto const rest = ns % 1000;
    return std::to_string(ns / 1000) + (rest < 10 ? ".00" : rest < 100 ? ".0" : ".") + std::to_string(rest);
  };
  auto const events = t.events();
  std::ostringstream out;
  out.imbue(std::locale::classic());  // a program's locale may group digits, JSON does not
  auto const add = [&](auto const&... parts) { (out << ... << parts); };
  add(R"({"displayTimeUnit":"ms","otherData":{"dropped":)", t.dropped(), R"(},"traceEvents":[)");
  char const* separator = "\n";
  std::set<int> ranks;
  for (auto const& e : events)
    if (ranks.insert(e.rank).second) {
      add(separator, R"({"ph":"M","name":"process_name","pid":)", e.rank, R"(,"args":{"name":"rank )", e.rank,
          R"("}})");
      separator = ",\n";
    }
  for (auto const& e : events) {
    add(separator, R"({"ph":"X","name":)", quoted(e.name_view()), R"(,"cat":)", quoted(e.category_view()), R"(,"pid":)",
        e.rank, R"(,"tid":)", e.thread, R"(,"ts":)", micros(origin + e.begin_ns), R"(,"dur":)", micros(e.duration_ns));
    if (e.bytes) add(R"(,"args":{"bytes":)", e.bytes, '}');
    add('}');
    separator = ",\n";
  }
  add("\n]}\n");
  return out.str();
}

/// Writes trace_json to a file, whole or not at all. Throws input_error with the system's reason.
inline void write_trace(std::filesystem::path const& path, trace const& t) {
  atomic_file<input_error> file(path);
  file.write(trace_json(t));
  file.commit();
}

}  // namespace dovetail::io
