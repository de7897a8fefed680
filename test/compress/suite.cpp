// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What every codec of the registry goes through by itself. What it goes through among ranks is in exchanges.cpp.
#include "suite.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <dovetail/core/finite.hpp>

#include "../cpu_level.hpp"

namespace compress_suite {

using namespace dovetail;
using test::known_codec, test::known_state, test::sample;

/// Around everything that is done in groups of 8, 16, 32, 64, 256, or of the codec's own block.
std::vector<std::size_t> sizes_of(known_codec const& c) {
  std::set<std::size_t> sizes{0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 1000, 70'003};
  if (auto const b = c.promised.block) sizes.insert({b - 1, b, b + 1, 2 * b - 1, 2 * b, 2 * b + 1});
  sizes.insert(c.promised.largest);
  std::vector<std::size_t> all;
  for (auto const n : sizes)
    if (n <= c.promised.largest) all.push_back(n);
  return all;
}
std::vector<std::size_t> small_sizes_of(known_codec const& c) {
  auto all = sizes_of(c);
  std::erase_if(all, [&](std::size_t n) { return n > 300 && n > 2 * c.promised.block + 1; });
  return all;
}
/// Inputs are made once: they cost more than what is done with them.
sample const& input(std::size_t kind, std::size_t n, std::uint64_t seed) {
  static std::map<std::tuple<std::size_t, std::size_t, std::uint64_t>, std::unique_ptr<sample>> made;
  auto& s = made[{kind, n, seed}];
  if (!s) s = std::make_unique<sample>(test::input_kinds[kind].make(n, seed));
  return *s;
}
sample const& normal(std::size_t n, std::uint64_t seed) { return input(0, n, seed); }
compress::context at_step(std::int64_t step) { return {.step = step, .seed = 42}; }
/// The same bucket on each of a few ranks, drawn in turns: what a rank of another number sends is worth as much.
class ranks_in_turns {
 public:
  ranks_in_turns(known_codec const& c, compress::bucket const& b) : codec_(c), bucket_(b) {
    for (int r = 0; r < count; ++r) states_.push_back(c.init(b, {.seed = 42, .rank = r, .ranks = count}));
  }
  std::vector<float> draw(int i) {
    compress::context const where{.step = i / count, .seed = 42, .rank = i % count, .ranks = count};
    return test::step(codec_, *states_[static_cast<std::size_t>(i % count)], bucket_, where);
  }
  static constexpr int count = 4;

 private:
  known_codec const& codec_;
  compress::bucket bucket_;
  std::vector<std::unique_ptr<known_state>> states_;
};
double squared(std::span<float const> x) {
  double sum = 0;
  for (float const v : x) sum += static_cast<double>(v) * static_cast<double>(v);
  return sum;
}
double squared_error(std::span<float const> a, std::span<float const> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double const d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += d * d;
  }
  return sum;
}
bool all_finite(std::span<float const> x) {
  return std::all_of(x.begin(), x.end(), [](float v) { return is_finite(v); });
}
/// But for what a NaN carries, which is the processor's choice where two of them meet.
bool same_but_nan(std::span<float const> a, std::span<float const> b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]) && !(is_nan(a[i]) && is_nan(b[i])))
      return false;
  return a.size() == b.size();
}

TEST_CASE("a payload has the bytes that wire_size says, each of them is written, and none behind it") {
  test::each_codec_and_feedback([](known_codec const& c) {
    for (auto const n : sizes_of(c)) {
      CAPTURE(n);
      auto const b = normal(n, n + 1).bucket();
      if (c.promised.bytes) REQUIRE(c.wire_size(b, c.rounds - 1) == c.promised.bytes(n));
      auto state = c.init(b), again = state->copy();
      state->begin();
      again->begin();
      for (int round = 0; round < c.rounds; ++round) {
        std::size_t const most = c.wire_size(b, round);
        std::vector<std::byte> zeros(most + 8, std::byte{0}), ones(most + 8, std::byte{0xff});
        auto where = at_step(3);
        where.round = round;
        std::size_t const bytes = state->encode(b, std::span(zeros).first(most), where);
        REQUIRE((c.fixed_size ? bytes == most : bytes <= most));
        REQUIRE(again->encode(b, std::span(ones).first(most), where) == bytes);
        REQUIRE(std::equal(zeros.begin(), zeros.begin() + static_cast<std::ptrdiff_t>(bytes), ones.begin()));
        REQUIRE(std::all_of(zeros.end() - 8, zeros.end(), [](std::byte v) { return v == std::byte{0}; }));
        REQUIRE(std::all_of(ones.end() - 8, ones.end(), [](std::byte v) { return v == std::byte{0xff}; }));
        if (round + 1 < c.rounds) {
          state->absorb(std::span(zeros).first(bytes), where);
          again->absorb(std::span(ones).first(bytes), where);
        }
      }
      state->commit();
      again->commit();
      REQUIRE(test::bytes_of(*state) == test::bytes_of(*again));
    }
  });
}

TEST_CASE("too small a buffer is refused before anything has changed") {
  test::each_codec_and_feedback([](known_codec const& c) {
    for (auto const n : small_sizes_of(c)) {
      CAPTURE(n);
      sample const &x = normal(n, n + 1), &y = normal(n, n + 2);
      auto state = c.init(x.bucket());
      test::step(c, *state, x.bucket(), at_step(0));
      auto untouched = state->copy();
      auto const before = test::bytes_of(*state);
      std::size_t const most = c.wire_size(y.bucket());
      for (std::size_t const room : {most - 1, most / 2, std::size_t{0}}) {
        if (room >= most) continue;
        std::vector<std::byte> small(room, std::byte{0x5a});
        state->begin();
        REQUIRE_THROWS_AS(state->encode(y.bucket(), small, at_step(1)), argument_error);
        REQUIRE(std::all_of(small.begin(), small.end(), [](std::byte v) { return v == std::byte{0x5a}; }));
        REQUIRE(test::bytes_of(*state) == before);
        state->rollback();
      }
      REQUIRE(test::same_bits(test::step(c, *state, y.bucket(), at_step(1)),
                              test::step(c, *untouched, y.bucket(), at_step(1))));
    }
  });
}

/// Mean and standard error of what comes one by one.
struct moments {
  double sum = 0, squares = 0;
  std::size_t count = 0;
  void add(double v) {
    sum += v;
    squares += v * v;
    ++count;
  }
  double mean() const { return sum / static_cast<double>(count); }
  double error() const {
    auto const n = static_cast<double>(count);
    return std::sqrt(std::max(0.0, squares / n - mean() * mean()) / n);
  }
};

TEST_CASE("over 10,000 draws the mean of an unbiased codec is the input, and its error is what it says") {
  constexpr int draws = 10'000;
  test::each_codec([](known_codec const& c) {
    REQUIRE(c.unbiased == (c.promised.omega != nullptr));
    if (!c.unbiased) return;
    for (std::size_t kind = 0; kind < test::input_kinds.size(); ++kind) {
      INFO("input: ", test::input_kinds[kind].name);
      std::size_t const n = std::min<std::size_t>(67, c.promised.largest);
      sample const& x = input(kind, n, 5);
      ranks_in_turns ranks(c, x.bucket());
      // Along the input's own signs and itself, too: there, what each element hides adds up, and what a codec takes
      // from one element to give it to another does not.
      std::vector<moments> elements(n);
      moments along_signs, along_ones, along_input, errors;
      double farthest = 0, largest = 0, signs = 0;
      for (float const v : x.values) largest = std::max(largest, std::fabs(static_cast<double>(v)));
      for (float const v : x.values) signs += std::fabs(static_cast<double>(v));
      for (int draw = 0; draw < draws; ++draw) {
        auto const y = ranks.draw(draw);
        double by_sign = 0, by_one = 0, by_input = 0, error = 0;
        for (std::size_t i = 0; i < n; ++i) {
          double const u = static_cast<double>(x.values[i]), d = static_cast<double>(y[i]) - u;
          elements[i].add(d);
          farthest = std::max(farthest, std::fabs(d));
          by_sign += u > 0 ? d : u < 0 ? -d : 0;
          by_one += d;
          by_input += d * u;
          error += d * d;
        }
        along_signs.add(by_sign);
        along_ones.add(by_one);
        along_input.add(by_input);
        errors.add(error);
      }
      // 25 / draws: what happens less often than that may not have happened, and no standard error shows it.
      double const rounding = 1e-6 * largest, rare = 25.0 / draws * farthest;
      for (std::size_t i = 0; i < n; ++i) {
        CAPTURE(i);
        REQUIRE(std::fabs(elements[i].mean()) <= 5 * elements[i].error() + rare + rounding);
      }
      auto const all = static_cast<double>(n);
      CHECK(std::fabs(along_signs.mean()) <= 5 * along_signs.error() + all * rounding);
      CHECK(std::fabs(along_ones.mean()) <= 5 * along_ones.error() + all * rounding);
      CHECK(std::fabs(along_input.mean()) <= 5 * along_input.error() + signs * rounding);
      CHECK(errors.mean() <=
            c.promised.omega(x.values) * squared(x.values) + 5 * errors.error() + all * rounding * rounding);
    }
  });
}

TEST_CASE("a contraction loses no more than it says") {
  test::each_codec([](known_codec const& c) {
    REQUIRE(c.contraction == (c.promised.delta != nullptr));
    if (!c.contraction) return;
    for (std::size_t kind = 0; kind < test::input_kinds.size(); ++kind)
      for (std::size_t const n : {std::size_t{1}, std::size_t{33}, std::size_t{257}, std::size_t{5000}}) {
        if (n > c.promised.largest) continue;
        INFO("input: ", test::input_kinds[kind].name);
        CAPTURE(n);
        sample const& x = input(kind, n, n);
        double const delta = c.promised.delta(x.values), norm = squared(x.values);
        REQUIRE(delta >= 0);
        auto const other = c.init(x.bucket());
        bool const random =
            test::encode(c, *other, x.bucket(), at_step(1)) != test::encode(c, *other, x.bucket(), at_step(2));
        moments errors;
        ranks_in_turns ranks(c, x.bucket());
        for (int draw = 0; draw < (random ? 1000 : ranks.count); ++draw)
          errors.add(squared_error(ranks.draw(draw), x.values));
        CHECK(errors.mean() <= (1 - delta) * norm * (1 + 1e-5) + 1e-11 * norm + 5 * errors.error());
      }
  });
}

TEST_CASE("with error feedback nothing is lost: decoded + residual is input + old residual") {
  test::each_codec([](known_codec const& entry) {
    if (!entry.feedback) return;
    auto const& c = *entry.feedback;
    for (std::size_t kind = 0; kind < test::input_kinds.size(); ++kind)
      for (std::size_t const n :
           {std::size_t{0}, std::size_t{1}, std::size_t{9}, std::size_t{1000}, std::size_t{20'011}}) {
        if (n > c.promised.largest) continue;
        INFO("input: ", test::input_kinds[kind].name);
        CAPTURE(n);
        auto state = c.init(sample(std::vector<float>(n)).bucket());
        for (std::int64_t step = 0; step < 10; ++step) {
          sample const& g = input(kind, n, static_cast<std::uint64_t>(step) + n);
          auto before = test::residual_of(*state);
          auto const sent = test::step(c, *state, g.bucket(), at_step(step));
          auto const after = test::residual_of(*state);
          std::vector<float> both(n);
          std::size_t different = 0;
          for (std::size_t i = 0; i < n; ++i) {
            before[i] += g.values[i];
            both[i] = sent[i] + after[i];
            different += !(std::fabs(both[i] - before[i]) <= 4e-7f * (std::fabs(sent[i]) + std::fabs(after[i])));
          }
          REQUIRE((c.promised.conserves ? test::same_bits(both, before) : different == 0));
        }
      }
  });
}

TEST_CASE("what error feedback keeps stays within the bound of its contraction") {
  test::each_codec([](known_codec const& entry) {
    if (!entry.feedback) return;
    auto const& c = *entry.feedback;
    std::size_t const n = std::min<std::size_t>(500, c.promised.largest);
    auto state = c.init(sample(std::vector<float>(n)).bucket());
    double gradient = 0, delta = 1, kept = 0;
    for (std::int64_t step = 0; step < 200; ++step) {
      sample const& g = normal(n, static_cast<std::uint64_t>(step));
      auto sum = test::residual_of(*state);
      for (std::size_t i = 0; i < n; ++i) sum[i] += g.values[i];
      delta = std::min(delta, entry.promised.delta(sum));
      gradient = std::max(gradient, squared(g.values));
      test::step(c, *state, g.bucket(), at_step(step));
      kept = std::max(kept, squared(test::residual_of(*state)));
    }
    // Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019, lemma 3; half more, because it is of expectations.
    CHECK(kept <= 1.5 * 4 * (1 - delta) / (delta * delta) * gradient);
  });
}

TEST_CASE("at the ends of the range of floats nothing becomes NaN, and zeros stay zeros") {
  test::each_codec_and_feedback([](known_codec const& c) {
    for (auto const n : small_sizes_of(c))
      for (auto const& [name, values] : test::extremes(n)) {
        CAPTURE(n);
        CAPTURE(name);
        sample const x(values);
        auto state = c.init(x.bucket());
        auto const y = test::step(c, *state, x.bucket(), at_step(1));
        bool const all_zero = std::all_of(values.begin(), values.end(), [](float v) { return v == 0; });
        if (!c.promised.overflows) REQUIRE(all_finite(y));
        std::size_t not_zero = 0;
        for (std::size_t i = 0; i < n; ++i)
          not_zero += (all_zero || (c.promised.keeps_zeros && values[i] == 0)) && y[i] != 0;
        REQUIRE(not_zero == 0);
        if (c.has_feedback) REQUIRE(all_finite(test::residual_of(*state)));
        // What was sent does not spoil what comes.
        sample const& next = normal(n, 3);
        auto again = c.init(x.bucket());
        again->begin();
        static_cast<void>(test::encode(c, *again, x.bucket(), at_step(1)));
        again->rollback();
        auto fresh = c.init(x.bucket());
        auto const after = test::step(c, *again, next.bucket(), at_step(2));
        REQUIRE(all_finite(after));
        if (!c.has_feedback)  // a residual that overflowed begins again at 0, also when the step is taken back
          REQUIRE(test::same_bits(after, test::step(c, *fresh, next.bucket(), at_step(2))));
      }
  });
}

TEST_CASE("an element that is not finite is seen in what is decoded, and taken back with its step") {
  test::each_codec_and_feedback([](known_codec const& c) {
    for (float const bad : {test::infinity, -test::infinity, test::not_a_number, -test::not_a_number})
      for (std::size_t const n : {std::size_t{1}, std::size_t{9}, std::size_t{257}, std::size_t{9001}})
        for (std::size_t const at : {std::size_t{0}, n / 2, n - 1})
          for (std::int64_t const step : {std::int64_t{1}, std::int64_t{7}}) {
            if (n > c.promised.largest) continue;
            CAPTURE(n);
            CAPTURE(at);
            CAPTURE(bad);
            sample x = normal(n, n);
            auto state = c.init(x.bucket());
            test::step(c, *state, x.bucket(), at_step(step - 1));
            auto never = state->copy();
            auto const before = test::bytes_of(*state);
            x.values[at] = bad;
            state->begin();
            auto const y =
                test::decode(c, *state, test::encode(c, *state, x.bucket(), at_step(step)), n, at_step(step));
            REQUIRE_FALSE((c.promised.seen_in_place ? is_finite(y[at]) : all_finite(y)));
            state->rollback();
            REQUIRE(test::bytes_of(*state) == before);
            sample const& next = normal(n, n + 1);
            auto const on = test::step(c, *state, next.bucket(), at_step(step + 1));
            REQUIRE(all_finite(on));
            REQUIRE(test::same_bits(on, test::step(c, *never, next.bucket(), at_step(step + 1))));
          }
  });
}

TEST_CASE("the same is sent in every run, on every vector level, and decoding adds with a weight") {
  struct outcome {
    std::vector<std::byte> payload;
    std::vector<float> decoded;
    std::vector<std::byte> state;
  };
  std::map<std::size_t, sample> any_bits;
  auto const steps_of = [&](known_codec const& c, std::size_t n) {
    std::vector<outcome> all;
    sample const* const xs[] = {
        &normal(n, n),   &normal(n, n + 1), &any_bits.try_emplace(n, test::any_bits(n, n)).first->second,
        &input(2, n, n), &input(1, n, n),   &normal(n, n + 2)};
    auto state = c.init(xs[0]->bucket());
    for (std::int64_t step = 0; step < 6; ++step) {
      sample const& x = *xs[step];
      state->begin();
      auto payload = test::encode(c, *state, x.bucket(), at_step(step));
      auto decoded = test::decode(c, *state, payload, n, at_step(step));
      if (step == 2 && n > 0)
        state->rollback();  // as the step that is not finite would be
      else
        state->commit();
      all.push_back({std::move(payload), std::move(decoded), test::bytes_of(*state)});
    }
    return all;
  };
  auto const levels = test::cpu_levels();
  MESSAGE(levels.size(), " vector levels");
  test::each_codec_and_feedback([&](known_codec const& c) {
    for (auto const n : sizes_of(c)) {
      CAPTURE(n);
      auto const first = steps_of(c, n);
      for (auto const level : levels) {
        CAPTURE(static_cast<int>(level));
        test::at_cpu_level const as(level);
        auto const again = steps_of(c, n);
        for (std::size_t s = 0; s < first.size(); ++s) {
          CAPTURE(s);
          REQUIRE(again[s].payload == first[s].payload);
          REQUIRE(same_but_nan(again[s].decoded, first[s].decoded));
          REQUIRE(again[s].state == first[s].state);
        }
      }
      // −2 does not round: with it, nothing but the sum does.
      sample const& x = normal(n, n);
      auto state = c.init(x.bucket()), other = state->copy();
      state->begin();
      other->begin();
      auto const payload = test::encode(c, *state, x.bucket(), at_step(1));
      REQUIRE(test::encode(c, *other, x.bucket(), at_step(1)) == payload);
      auto const once = test::decode(c, *state, payload, n, at_step(1));
      std::vector<float> out(n, 1.0f);
      other->decode_add(payload, out, -2.0f, test::decoding(c, at_step(1)));
      std::size_t different = 0;
      // What comes of several rounds is a sum of products, which are added one by one.
      for (std::size_t i = 0; i < n; ++i)
        different += c.rounds == 1
                         ? out[i] != 1.0f + -2.0f * once[i]
                         : !(std::fabs(out[i] - (1.0f + -2.0f * once[i])) <= 1e-5f * (1 + std::fabs(once[i])));
      REQUIRE(different == 0);
    }
  });
}

TEST_CASE("a step that is taken back leaves a state as it was, to the bit; one that is committed stays") {
  test::each_codec_and_feedback([](known_codec const& c) {
    for (auto const n : small_sizes_of(c)) {
      CAPTURE(n);
      auto state = c.init(sample(std::vector<float>(n)).bucket());
      for (std::int64_t step = 0; step < 5; ++step)
        test::step(c, *state, normal(n, static_cast<std::uint64_t>(step)).bucket(), at_step(step));
      auto never = state->copy();
      auto const before = test::bytes_of(*state);
      sample const &x = input(2, n, 17), &y = normal(n, 18);
      for (bool const decoded : {true, false}) {  // or abandoned between the two
        state->begin();
        auto const payload = test::encode(c, *state, x.bucket(), at_step(5));
        if (decoded) static_cast<void>(test::decode(c, *state, payload, n, at_step(5)));
        state->rollback();
        REQUIRE(test::bytes_of(*state) == before);
        state->rollback();  // there is nothing more to take back
        REQUIRE(test::bytes_of(*state) == before);
      }
      auto const on = test::step(c, *state, y.bucket(), at_step(6));
      REQUIRE(test::same_bits(on, test::step(c, *never, y.bucket(), at_step(6))));
      auto const after = test::bytes_of(*state);
      REQUIRE(after == test::bytes_of(*never));
      state->rollback();
      REQUIRE(test::bytes_of(*state) == after);
    }
  });
}

TEST_CASE("a damaged payload throws and leaves everything as it was, or is added within bounds") {
  test::each_codec([](known_codec const& c) {
    random_stream const random{77};
    std::uint64_t draw = 0;
    for (int repeat = 0; repeat < 200; ++repeat) {
      std::size_t const n = std::min<std::size_t>(random.word(draw++) % 700, c.promised.largest);
      CAPTURE(n);
      CAPTURE(repeat);
      sample const& x = normal(n, n);
      auto state = c.init(x.bucket());
      auto const where = at_step(random.word(draw++) % 8);
      state->begin();
      auto const payload = test::encode(c, *state, x.bucket(), where);
      // Memory of exactly the right sizes: the address sanitizer sees every step out of bounds.
      auto const attempt = [&](std::vector<std::byte> bytes, bool must_throw) {
        bytes.shrink_to_fit();
        auto const receiver = state->copy();
        auto const before = test::bytes_of(*receiver);
        std::vector<float> const& were = normal(n, 1).values;
        std::vector<float> out = were;
        bool threw = false;
        try {
          receiver->decode_add(bytes, out, 0.5f, test::decoding(c, where));
        } catch (input_error const&) {
          threw = true;
          REQUIRE(test::same_bits(out, were));
          REQUIRE(test::bytes_of(*receiver) == before);
        }
        if (must_throw) REQUIRE(threw);
      };
      auto longer = payload;
      longer.push_back(std::byte{1});
      attempt(longer, true);
      longer.resize(2 * payload.size() + 9, std::byte{0});
      attempt(longer, c.fixed_size);
      auto noise = payload;
      for (auto& v : noise) v = static_cast<std::byte>(random.word(draw++));
      attempt(noise, false);
      for (auto& v : noise) v = std::byte{0xff};
      attempt(noise, false);
      if (payload.empty()) continue;
      auto shorter = payload;
      shorter.resize(random.word(draw++) % payload.size());
      attempt(shorter, c.fixed_size);
      shorter = payload;
      shorter.pop_back();
      attempt(shorter, c.fixed_size);
      for (int flips = 0; flips < 8; ++flips) {
        auto flipped = payload;
        std::size_t const bit = random.word(draw++) % (8 * payload.size());
        flipped[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
        attempt(flipped, false);
      }
    }
  });
}

}  // namespace compress_suite
