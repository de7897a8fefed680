// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Buckets of more elements than 31 bits can number. Needs 9 to 17 GB and minutes, so it has to be asked for.
#include "suite.hpp"

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include <dovetail/core/buffer.hpp>

namespace compress_large {

using namespace dovetail;

double memory_available() {
  std::ifstream in("/proc/meminfo");
  for (std::string word; in >> word;)
    if (word == "MemAvailable:") {
      double kilobytes = 0;
      in >> kilobytes;
      return 1024 * kilobytes;
    }
  return 0;
}

/// A number for each place, quickly: half of them small.
float value(std::size_t i) {
  std::uint64_t const hash = (i + 1) * 0x9E3779B97F4A7C15ull;
  float const u = static_cast<float>(static_cast<std::int32_t>(hash >> 32)) * 0x1p-31f;
  return i % 2 ? u : 0.01f * u;
}

TEST_CASE("[large] 2^31 + 5 elements are encoded and decoded as few are") {
  if (!std::getenv("DOVETAIL_LARGE")) {
    MESSAGE("skipped: it takes 9 to 17 GB of memory and minutes; set DOVETAIL_LARGE=1 (and DOVETAIL_CODEC=LABEL)");
    return;
  }
  constexpr std::size_t n = (std::size_t{1} << 31) + 5, behind = n - (std::size_t{1} << 20);
  test::each_codec([](test::known_codec const& c) {
    if (c.promised.largest < 100'003) {
      MESSAGE(c.label, ": is slow, left out");
      return;
    }
    if (test::sample const few(test::normal(64, 1)); !c.init(few.bucket())->tensors().empty()) {
      MESSAGE(c.label, ": keeps as much again of every element, left out");
      return;
    }
    compress::bucket_tensor const matrix{0, {static_cast<std::int64_t>(n)}};
    compress::bucket b{{static_cast<float const*>(nullptr), n}, {&matrix, 1}};
    double const needed = 4.0 * n + static_cast<double>(c.wire_size(b));
    if (needed > 0.7 * memory_available()) {
      MESSAGE(c.label, ": needs ", needed / 1e9, " GB, left out");
      return;
    }
    buffer<float> x(n);
    for (std::size_t i = 0; i < n; ++i) x[i] = value(i);
    b.values = x.span();
    auto const state = c.init(b);
    auto const where = compress::context{.step = 1, .seed = 3};
    auto const payload = test::encode(c, *state, b, where);
    double const loss = c.promised.delta ? 1 - c.promised.delta(x.span()) : 1;
    // Memory for the result there is not: what is lost takes the place of the input.
    state->decode_add(payload, x.span(), -1, test::decoding(c, where));
    double norm = 0, lost = 0, norm_behind = 0, lost_behind = 0, last = 0, lost_last = 0;
    for (std::size_t i = 0; i < n; ++i) {
      double const u = static_cast<double>(value(i)), d = static_cast<double>(x[i]);
      norm += u * u;
      lost += d * d;
      if (i < behind) continue;
      norm_behind += u * u;
      lost_behind += d * d;
      if (i + 5 < n) continue;
      last += u * u;
      lost_last += d * d;
    }
    MESSAGE(c.label, ": ", payload.size(), " bytes, |lost|²/|x|² ", lost / norm, ", of the last million ",
            lost_behind / norm_behind, ", of the last five ", lost_last / last);
    if (!c.promised.delta) return;
    CHECK(lost <= loss * norm * 1.001 + 1e-9 * norm);
    CHECK(lost_behind <= loss * norm_behind * 1.1 + 1e-9 * norm_behind);
    if (loss < 0.1) CHECK(lost_last < last);  // others may say little of five elements
  });
}

}  // namespace compress_large
