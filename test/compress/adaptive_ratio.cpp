// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <dovetail/comm.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

namespace compress_adaptive_ratio {

using namespace dovetail;
using compress::adaptive_ratio;
using compress::error_feedback;
using compress::top_k;

constexpr std::size_t n = 1000;
constexpr int length = 60;  // of a window, in steps
adaptive_ratio const codec{error_feedback{top_k{.ratio = 0.05f}}, 0.2f, length, 0.5f};
constexpr std::size_t gentle = 8 * 200, strong = 8 * 50;

using state = decltype(codec)::state;
/// One step of one rank alone; what was sent.
std::size_t step(state& s, std::vector<float> const& x, float rate = 1, bool made = true) {
  std::vector<std::byte> payload(codec.wire_size(compress::bucket{x, {}}));
  compress::context const where{.rate = rate};
  payload.resize(codec.encode({x, {}}, s, payload, where));
  std::vector<float> out(n);
  codec.decode_add(payload, out, 1, s, where);
  made ? codec.commit(s) : codec.rollback(s);
  return payload.size();
}
std::vector<float> gradients(float size, std::uint64_t seed = 1) {
  auto x = test::normal(n, seed);
  for (float& v : x) v *= size;
  return x;
}
std::vector<std::size_t> window(state& s, float size, float rate = 1) {
  std::vector<std::size_t> sent;
  for (int i = 0; i < length; ++i) sent.push_back(step(s, gradients(size), rate));
  return sent;
}
std::vector<std::size_t> all(std::size_t bytes) { return std::vector<std::size_t>(length, bytes); }

TEST_CASE("more is sent in a window behind one in which gradients changed") {
  auto const x = gradients(1);
  auto s = codec.init({x, {}});
  CHECK(codec.wire_size(compress::bucket{x, {}}) == gentle);
  CHECK(window(s, 1) == all(gentle));  // nothing to compare with
  CHECK(window(s, 1) == all(gentle));
  CHECK(window(s, 1) == all(strong));
  CHECK(window(s, 1) == all(strong));
  CHECK(window(s, 4) == all(strong));  // it is seen at its end
  CHECK(window(s, 4) == all(gentle));
  while (window(s, 4) == all(gentle)) continue;  // what had waited is sent late
  CHECK(window(s, 4) == all(strong));
  window(s, 0.1f);
  CHECK(window(s, 0.1f) == all(gentle));  // and if they fall
}

TEST_CASE("and behind one in which the learning rate fell") {
  auto const x = gradients(1);
  auto s = codec.init({x, {}});
  for (int i = 0; i < 3; ++i) window(s, 1, 0.5f);
  CHECK(window(s, 1, 0.4f) == all(strong));
  CHECK(window(s, 1, 0.1f) == all(strong));
  CHECK(window(s, 1, 0.1f) == all(gentle));
  CHECK(window(s, 1, 0.1f) == all(strong));
  CHECK(window(s, 1, 1) == all(strong));  // not if it rises
  CHECK(window(s, 1, 1) == all(strong));
}

TEST_CASE("a step that is skipped counts for nothing") {
  auto const x = gradients(1);
  auto s = codec.init({x, {}}), never = s;
  float const infinity = std::numeric_limits<float>::infinity();
  for (int i = 0; i < 4 * length; ++i) {
    auto bad = gradients(100, 7);
    if (i % 2) bad[5] = infinity;
    if (i % 7 == 0) step(s, bad, 1, false);
    step(s, x);
    step(never, x);
    REQUIRE(s == never);
  }
  // All that is compared is saved.
  step(s, x);
  CHECK(s.strong == 1);
  auto restored = codec.init({x, {}});
  CHECK_FALSE(restored == s);
  auto const from = s.tensors(""), to = restored.tensors("");
  REQUIRE(from.size() == to.size());
  for (std::size_t i = 0; i < from.size(); ++i) std::ranges::copy(from[i].bytes, to[i].bytes.begin());
  CHECK(restored == s);
}

TEST_CASE("what is not finite, and was kept, makes the next window gentle, and is forgotten") {
  auto const x = gradients(1);
  auto s = codec.init({x, {}});
  for (int i = 0; i < 3; ++i) window(s, 1);
  auto bad = x;
  bad[3] = std::numeric_limits<float>::quiet_NaN();
  step(s, bad);
  for (int i = 0; i < length - 1; ++i) step(s, x);
  CHECK(window(s, 1) == all(gentle));
  CHECK(window(s, 1) == all(gentle));
  CHECK(window(s, 1) == all(strong));
}

TEST_CASE("ranks with gradients of their own decide alike, and a run that goes on decides as it would have") {
  constexpr int ranks = 3, steps = 64, saved = 45;
  sync::all_reduce const sync{adaptive_ratio{error_feedback{top_k{.ratio = 0.02f}}, 0.2f, 8, 0.3f}};
  std::vector<std::vector<float>> whole(ranks), resumed(ranks);
  comm::threads(ranks).run([&](auto& c) {
    arena a({{"w", {500}}, {"v", {20, 20}}}), b = a;
    auto first = sync.join(a.parameters(), optim::sgd{.lr = 0.05f}, c);
    auto second = sync.join(b.parameters(), optim::sgd{.lr = 0.05f}, c);
    std::uint64_t smallest = std::numeric_limits<std::uint64_t>::max(), largest = 0;
    auto const make = [&](auto& session, arena& of, int s) {
      session.begin();
      auto const g = test::normal(900, static_cast<std::uint64_t>(10 * (s % 8) + c.rank()));
      for (std::size_t i = 0; i < 900; ++i) of.gradients()[i] = g[i] * (s / 16 % 2 ? 5.0f : 1.0f);
      auto const before = c.traffic();
      session.step();
      return (c.traffic() - before).bytes_sent;
    };
    auto const copy = [](auto const& from, auto const& to) {
      REQUIRE(from.size() == to.size());
      for (std::size_t i = 0; i < from.size(); ++i) std::ranges::copy(from[i].bytes, to[i].bytes.begin());
    };
    for (int s = 0; s < steps; ++s) {
      if (s == saved) {
        copy(first.replicated(""), second.replicated(""));
        copy(first.own(""), second.own(""));
        std::ranges::copy(a.weights(), b.weights().begin());
      }
      auto const sent = make(first, a, s);
      smallest = std::min(smallest, sent);
      largest = std::max(largest, sent);
      CHECK(sent <= sync.predict(a.parameters(), c.size(), c.rank(), s).bytes_sent);
    }
    CHECK(largest == sync.predict(a.parameters(), c.size(), c.rank()).bytes_sent);
    CHECK(5 * smallest < largest);
    for (int s = saved; s < steps; ++s) make(second, b, s);
    whole[static_cast<std::size_t>(c.rank())].assign(a.weights().begin(), a.weights().end());
    resumed[static_cast<std::size_t>(c.rank())].assign(b.weights().begin(), b.weights().end());
  });
  CHECK(whole == resumed);
  for (auto const& w : whole) CHECK(w == whole[0]);
}

TEST_CASE("other sparsifiers, and what is refused") {
  auto const x = gradients(1);
  adaptive_ratio const summed{error_feedback{compress::random_k{.ratio = 0.01f}}, 0.1f, 2, 0.5f};
  static_assert(decltype(summed)::summable && !decltype(summed)::fixed_size);
  static_assert(!compress::codec_traits<adaptive_ratio<compress::dgc>>::wants_error_feedback);
  static_assert(compress::codec_traits<adaptive_ratio<top_k>>::wants_error_feedback);
  CHECK(summed.wire_size(n) == 400);
  CHECK_THROWS_WITH_AS(static_cast<void>(adaptive_ratio{top_k{.ratio = 0.3f}}.init({x, {}})),
                       doctest::Contains("gentle ratio is 0.1, below that of top-k, which is 0.3"), argument_error);
  auto s = codec.init({x, {}});
  std::vector<float> longer(n + 1);
  std::vector<std::byte> payload(gentle + 8);
  CHECK_THROWS_AS(static_cast<void>(codec.encode({longer, {}}, s, payload, {})), argument_error);
  CHECK_THROWS_AS(codec.decode_add(std::span(payload).first(strong), longer, 1, s, {}), argument_error);
  longer.pop_back();
  CHECK_THROWS_AS(codec.decode_add(std::span(payload).first(strong), longer, 1, s, {}), input_error);  // gentle now
}

}  // namespace compress_adaptive_ratio
