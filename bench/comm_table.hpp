// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

// The table of nccl-tests: GB = 1e9 bytes, algbw = S/t, busbw = algbw × the factor of the operation. In place; the
// owner rewrites its array before every call, or caches would be measured.
namespace bench {

struct row {
  std::string who, op;
  std::size_t bytes = 0;
  double seconds = 0, factor = 1;
  long wrong = 0;
};

inline void print_header() {
  std::printf("%-10s %-15s %12s %12s %6s %6s %12s %8s %8s %7s\n", "#backend", "operation", "size(B)", "count", "type",
              "redop", "time(us)", "algbw", "busbw", "#wrong");
}
inline void print(row const& r) {
  double const algbw = static_cast<double>(r.bytes) / r.seconds / 1e9;
  std::printf("%-10s %-15s %12zu %12zu %6s %6s %12.2f %8.3f %8.3f %7ld\n", r.who.c_str(), r.op.c_str(), r.bytes,
              r.bytes / 4, "float", r.op.find("reduce") != std::string::npos ? "sum" : "none", r.seconds * 1e6, algbw,
              algbw * r.factor, r.wrong);
}
inline void write_json(std::string const& path, std::vector<row> const& rows) {
  std::FILE* const f = std::fopen(path.c_str(), "w");
  if (!f) return;
  std::fprintf(f, "[");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto const& r = rows[i];
    double const algbw = static_cast<double>(r.bytes) / r.seconds / 1e9;
    std::fprintf(f,
                 "%s\n  {\"backend\": \"%s\", \"operation\": \"%s\", \"bytes\": %zu, \"type\": \"float\", \"seconds\": "
                 "%.9g, \"algbw\": %.6g, \"busbw\": %.6g, \"wrong\": %ld}",
                 i ? "," : "", r.who.c_str(), r.op.c_str(), r.bytes, r.seconds, algbw, algbw * r.factor, r.wrong);
  }
  std::fprintf(f, "\n]\n");
  std::fclose(f);
}

inline double median_of(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

/// Times `call(data)` between two meetings of the ranks, on data that was rewritten with rank + k.
template <class Meet, class Call>
double time_once(std::span<float> data, int rank, int k, Meet meet, Call call) {
  std::fill(data.begin(), data.end(), static_cast<float>(rank + k));
  meet();
  auto const start = std::chrono::steady_clock::now();
  call(data);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
inline int repetitions(std::size_t bytes) { return bytes < 65536 ? 1000 : bytes < (4u << 20) ? 60 : 9; }

}  // namespace bench
