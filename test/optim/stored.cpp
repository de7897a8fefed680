// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Slots and weights in other formats than fp32.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <dovetail/core/half.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/low_precision/loss_scale.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/optim/low_precision/storage_codes.hpp>

#include <doctest/doctest.h>

#include "training.hpp"

namespace optim_stored {

using namespace conformance;

namespace {

/// A rule over the tensors of the suite, with gradients of its own choice.
template <class Rule, class Step>
auto after(Rule const& rule, int steps, Step const& step) {
  arena a(tensors());
  fill(a.weights(), 1);
  auto state = rule.init(a.parameters());
  for (int t = 1; t <= steps; ++t) {
    fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
    step(rule, a, state);
  }
  return std::pair(std::vector<float>(a.weights().begin(), a.weights().end()), state);
}
auto plainly = [](auto const& rule, arena& a, auto& state) { CHECK(!rule.step(a.parameters(), state).skipped); };

template <class Half>
struct halves {
  arena shapes{tensors()};
  std::vector<Half> memory = std::vector<Half>(shapes.parameters().flat_size());
  std::vector<std::span<Half>> spans() {
    std::vector<std::span<Half>> s;
    for (std::size_t i = 0; i < shapes.parameters().size(); ++i)
      s.push_back(std::span(memory).subspan(shapes.parameters().offset(i), shapes.parameters()[i].size()));
    return s;
  }
};
parameter_list opaque() {
  parameter_list p;
  for (auto const& t : tensors()) p.add_opaque(t.name, t.shape);
  return p;
}
double distance(std::span<float const> a, std::span<float const> b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, static_cast<double>(std::abs(a[i] - b[i])));
  return worst;
}

}  // namespace

TEST_CASE("8 bits keep an element to an eighth (with signs, too) of itself, and on average exactly") {
  for (bool const negative : {false, true}) {
    CAPTURE(negative);
    std::vector<float> x(256);
    random_stream const r{3};
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = 5 * std::exp2(-(negative ? 13.0f : 28.0f) * r.uniform(i));
      if (negative && i % 3 == 0) x[i] = -x[i];
    }
    x[7] = 0;
    std::vector<double> sum(x.size());
    int const rounds = 4000;
    for (std::uint32_t k = 0; k < rounds; ++k) {
      std::vector<std::uint8_t> codes(x.size());
      std::vector<float> y(x.size());
      float const scale = optim::blockwise_8bit::encode(x, codes.data(), r.word(1000 + k));
      CHECK((scale < 0) == negative);
      optim::blockwise_8bit::decode(codes.data(), scale, y);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (std::abs(y[i] - x[i]) > 0.125f * std::abs(x[i])) FAIL_CHECK(x[i], " became ", y[i]);
        sum[i] += static_cast<double>(y[i]);
      }
    }
    for (std::size_t i = 0; i < x.size(); ++i)  // the mean of 4000 roundings, each off by at most an eighth
      CHECK(std::abs(sum[i] / rounds - static_cast<double>(x[i])) <= 5 * 0.0625 / std::sqrt(rounds) * std::abs(x[i]));
  }
}

TEST_CASE("every processor's loops pack and unpack to the same bits, and so do the codes element by element") {
  auto const& narrow = optim::kernels::at(cpu_level::baseline);
  namespace codes = optim::codes;
  std::vector<optim::kernels::kernel_set> sets{
      {codes::pack_bf16, codes::unpack_bf16, codes::pack_8bit, codes::unpack_8bit}};
  for (auto const level : {cpu_level::avx2, cpu_level::avx512}) {
    if (level > supported_cpu_level())
      MESSAGE("skipped: this processor lacks level ", static_cast<int>(level));
    else
      sets.push_back(optim::kernels::at(level));
  }
  for (auto const& wide : sets) {
    for (std::uint32_t round = 0; round < 50; ++round) {
      std::vector<float> x(256), a(256), b(256);
      fill(x, round, std::exp2(static_cast<float>(round % 40) - 20));
      for (std::size_t i = 0; i < 256; i += 7) x[i] = i % 2 ? 0.0f : x[i] * 1e-9f;
      if (round % 3 == 0)
        for (float& v : x) v = std::abs(v);
      if (round % 4 == 1) x[3] *= 1e-19f, x[200] *= 1e-12f;  // far apart
      if (round % 10 == 9) x[100] = std::numeric_limits<float>::quiet_NaN();
      std::vector<std::uint8_t> p(256), q(256);
      float const s = narrow.pack_8bit(x.data(), round * 99u, p.data()),
                  t = wide.pack_8bit(x.data(), round * 99u, q.data());
      CHECK(p == q);
      CHECK((s == t || (s != s && t != t)));
      narrow.unpack_8bit(p.data(), s, a.data());
      wide.unpack_8bit(p.data(), s, b.data());
      if (s == s) CHECK(same_bits(a, b));
      std::vector<std::uint16_t> h(256), k(256);
      narrow.pack_bf16(x.data(), round, h.data());
      wide.pack_bf16(x.data(), round, k.data());
      CHECK(h == k);
      narrow.unpack_bf16(h.data(), a.data());
      wide.unpack_bf16(h.data(), b.data());
      CHECK(same_bits(a, b));
    }
  }
}

TEST_CASE("8 bits of zeros, of the very small beside the large, of what is not finite") {
  std::vector<std::uint8_t> codes(4);
  std::vector<float> y(4);
  auto const through = [&](std::vector<float> const& x, std::uint32_t word) {
    float const scale = optim::blockwise_8bit::encode(x, codes.data(), word);
    optim::blockwise_8bit::decode(codes.data(), scale, y);
    return y;
  };
  CHECK(through({0, 0, 0, 0}, 1) == std::vector<float>{0, 0, 0, 0});
  CHECK(through({0, -0.0f, 0, 0}, 1) == std::vector<float>{0, 0, 0, 0});
  // Farther apart than 3 bits of mantissa reach: 2 bits reach twice as far, with and without signs.
  for (bool const negative : {false, true})
    for (int octaves = negative ? 16 : 32; octaves <= (negative ? 31 : 63); ++octaves) {
      CAPTURE(octaves);
      float const tiny = 1.125f * std::exp2(-static_cast<float>(octaves)), one = negative ? -1.0f : 1.0f;
      double sum = 0;
      for (std::uint32_t k = 0; k < 400; ++k) {
        auto const z = through({one, tiny, 0, tiny}, k * 77777u);
        CHECK(z[0] == doctest::Approx(one).epsilon(1e-6));
        CHECK(z[2] == 0);
        CHECK((z[1] > 0.8f * tiny && z[1] < 1.25f * tiny));
        sum += static_cast<double>(z[1]);
      }
      CHECK(sum / 400 == doctest::Approx(tiny).epsilon(0.03));
    }
  // Farther than that: squares stay above 0, what they are squares of becomes 0.
  for (float const tiny : {0x1p-64f, 0x1p-100f, 1e-38f, 1e-45f})
    for (std::uint32_t k = 0; k < 20; ++k) {
      auto const squares = through({1, tiny, 0, 0x1p-20f}, k * 77777u);
      CHECK(squares[1] == doctest::Approx(0x1p-63f).epsilon(1e-6));
      CHECK(squares[2] == 0);
      auto const signs = through({1, -tiny, tiny, -0x1p-20f}, k * 77777u);
      CHECK((signs[1] == 0 && signs[2] == 0 && signs[3] != 0));
    }
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    CHECK(std::isnan(through({1, bad, 2, 3}, 5)[0]));  // seen, not lost
  CHECK(through({3e38f, -3e38f, 1e-40f, 0}, 5)[0] == doctest::Approx(3e38f).epsilon(1e-6));
  CHECK(std::isfinite(through({3.40282347e38f, 1e-30f, 1, 0}, 5)[0]));
  // The largest has no inverse in fp32: it stays within an eighth.
  for (std::uint32_t k = 0; k < 100; ++k)
    CHECK(through({1e-39f, 0, 0, 0}, k)[0] == doctest::Approx(1e-39f).epsilon(0.13));
}

TEST_CASE("split weights are fp32 weights: the same bits, in the model's bf16 and the state") {
  optim::adamw const rule{.lr = 0.01f};
  auto const [expected, unused] = after(rule, 8, plainly);
  halves<bf16> model;
  optim::low_precision_state const split{rule, optim::fp32_slots{}, optim::split_weights{model.spans()}};
  auto const list = opaque();
  auto state = split.init(list);
  // Begin with the same fp32 weights: upper halves in the model, lower halves in the state.
  arena a(tensors());
  fill(a.weights(), 1);
  auto* const low = state.low();
  for (std::size_t i = 0; i < a.weights().size(); ++i) {
    auto const u = std::bit_cast<std::uint32_t>(a.weights()[i]);
    model.memory[i].bits = static_cast<std::uint16_t>(u >> 16);
    low[i] = static_cast<std::uint16_t>(u);
  }
  std::vector<bf16> gradient(a.weights().size());
  arena reference(tensors());
  fill(reference.weights(), 1);
  auto reference_state = rule.init(reference.parameters());
  for (int t = 1; t <= 8; ++t) {
    fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
    std::vector<std::span<bf16 const>> spans;
    for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] = bf16(a.gradients()[i]);
    for (std::size_t i = 0; i < list.size(); ++i) spans.emplace_back(gradient.data() + list.offset(i), list[i].size());
    split.step(list, state, optim::gradient::half<bf16>{spans});
    rule.step(reference.parameters(), reference_state, optim::gradient::half<bf16>{spans});
  }
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    auto const u = (static_cast<std::uint32_t>(model.memory[i].bits) << 16) | low[i];
    if (u != std::bit_cast<std::uint32_t>(reference.weights()[i])) FAIL_CHECK("weight ", i, " differs");
  }
}

TEST_CASE("mirrored weights follow fp32 masters, which are those of the rule alone") {
  optim::adamw const rule{.lr = 0.01f};
  auto const [expected, unused] = after(rule, 6, plainly);
  halves<fp16> model;
  optim::low_precision_state const mirrored{rule, optim::fp32_slots{}, optim::master_weights<fp16>{model.spans()}};
  auto const [weights, state] = after(mirrored, 6, plainly);
  CHECK(same_bits(weights, expected));
  for (std::size_t i = 0; i < weights.size(); ++i)
    if (!(model.memory[i] == fp16(weights[i]))) FAIL_CHECK("weight ", i, " differs");
}

TEST_CASE("weights in bf16 alone move on by steps that are smaller than their format's, on average") {
  halves<bf16> model;
  for (auto& w : model.memory) w = bf16(1.0f);
  optim::low_precision_state const rounded{optim::sgd{.lr = 1e-4f}, optim::fp32_slots{},
                                           optim::rounded_weights{model.spans(), 7}};
  auto const list = opaque();
  auto state = rounded.init(list);
  std::vector<bf16> gradient(list.flat_size(), bf16(1.0f));
  std::vector<std::span<bf16 const>> spans;
  for (std::size_t i = 0; i < list.size(); ++i) spans.emplace_back(gradient.data() + list.offset(i), list[i].size());
  for (int t = 0; t < 1000; ++t) rounded.step(list, state, optim::gradient::half<bf16>{spans});
  double sum = 0;  // a step of 1e-4 is a fortieth of bf16's 2^-8 below 1: rounded to nearest, nothing would move
  for (auto const w : model.memory) sum += static_cast<double>(static_cast<float>(w));
  CHECK(sum / static_cast<double>(model.memory.size()) == doctest::Approx(0.9).epsilon(2e-3));
}

TEST_CASE("packed slots: threads, repetitions, saving, groups, sums; the way of fp32 slots, nearly") {
  auto const check = [](auto const& rule, auto const& slots, double nearness) {
    auto const [plain, plain_state] = after(rule, 8, plainly);
    optim::low_precision_state const packed{rule, slots};
    auto const [weights, state] = after(packed, 8, plainly);
    CHECK(distance(weights, plain) < nearness);
    CHECK(!same_bits(weights, plain));
    CHECK(state.bytes() < 0.6 * static_cast<double>(plain_state.bytes()));
    auto const [again, again_state] = after(packed, 8, [](auto const& r, arena& a, auto& s) {
      r.step(a.parameters(), s, optim::step_context{.threads = 3});
    });
    CHECK(same_bits(again, weights));
    CHECK(again_state == state);
    // Saved by name in the middle and loaded into a new state.
    int t = 0;
    auto const [resumed, resumed_state] = after(packed, 8, [&](auto const& r, arena& a, auto& s) {
      if (++t == 5) {
        auto fresh = r.init(a.parameters());
        auto const from = s.tensors("x."), to = fresh.tensors("x.");
        REQUIRE(from.size() == to.size());
        for (std::size_t i = 0; i < from.size(); ++i) {
          REQUIRE(from[i].name == to[i].name);
          REQUIRE(from[i].bytes.size() == to[i].bytes.size());
          std::copy(from[i].bytes.begin(), from[i].bytes.end(), to[i].bytes.begin());
        }
        s = fresh;
      }
      r.step(a.parameters(), s);
    });
    CHECK(same_bits(resumed, weights));
    CHECK(resumed_state == state);
  };
  check(optim::adamw{.lr = 0.01f}, optim::bf16_slots{}, 2e-3);
  check(optim::adamw{.lr = 0.01f}, optim::blockwise_8bit{}, 0.03);
  check(optim::momentum{.lr = 0.01f}, optim::blockwise_8bit{.seed = 5}, 0.03);
  check(optim::lamb{.lr = 0.01f}, optim::bf16_slots{}, 2e-3);
  check(optim::chain{optim::clip_by_global_norm{1}, optim::adamw{.lr = 0.01f}}, optim::bf16_slots{}, 2e-3);
  check(optim::rprop{}, optim::bf16_slots{}, 2e-2);  // a slot that does not begin at zero
  check(optim::param_groups{optim::adamw{.lr = 0.01f},
                            optim::group{optim::name_matches{"*.bias"}, optim::adamw{.lr = 0.02f}}},
        optim::bf16_slots{}, 4e-3);
  check(optim::chain{optim::centralize{}, optim::adamw{.lr = 0.01f}}, optim::bf16_slots{}, 2e-3);  // tensor by tensor
}

TEST_CASE("8-bit AdamW goes down as far as fp32's") {
  auto const descend = [](auto const& rule) {
    arena a({{"w", {300}}});
    fill(a.weights(), 1);
    auto state = rule.init(a.parameters());
    double loss = 0;
    for (int t = 0; t < 800; ++t) {
      loss = 0;
      for (std::size_t i = 0; i < 300; ++i) {
        float const curvature = std::exp2(-static_cast<float>(i % 8)), w = a.weights()[i];
        a.gradients()[i] = curvature * w;
        loss += 0.5 * static_cast<double>(curvature * w * w);
      }
      rule.step(a.parameters(), state);
    }
    return loss;
  };
  optim::adamw const rule{.lr = optim::cosine{.initial = 0.02f, .steps = 800}, .weight_decay = 0};
  double const plain = descend(rule), packed = descend(optim::low_precision_state{rule, optim::blockwise_8bit{}});
  CHECK(plain < 1e-6);
  CHECK(packed < 1e-4);
}

TEST_CASE("a list without fp32 memory is refused by what would need it") {
  auto const list = opaque();
  optim::adamw const rule{};
  auto state = rule.init(list);
  CHECK_THROWS_WITH_AS(rule.step(list, state), doctest::Contains("gradients of this parameter list are elsewhere"),
                       argument_error);
  std::vector<bf16> gradient(list.flat_size());
  std::vector<std::span<bf16 const>> spans;
  for (std::size_t i = 0; i < list.size(); ++i) spans.emplace_back(gradient.data() + list.offset(i), list[i].size());
  CHECK_THROWS_WITH_AS(rule.step(list, state, optim::gradient::half<bf16>{spans}),
                       doctest::Contains("weights of this parameter list are elsewhere"), argument_error);
  CHECK_THROWS_WITH_AS((optim::low_precision_state{rule, optim::fp32_slots{}, optim::split_weights{}}.init(list)),
                       doctest::Contains("pass one per parameter"), argument_error);
}

TEST_CASE("a second moment that overflows takes its 8-bit block with it, unless skip_non_finite is in front") {
  optim::adamw const rule;
  auto const lost = [](auto const& optimizer) {
    arena a({{"w", {1000}}});
    fill(a.weights(), 1);
    auto state = optimizer.init(a.parameters());
    for (std::uint32_t t = 0; t < 3; ++t) {
      fill(a.gradients(), t);
      if (t == 1) a.gradients()[300] = 6e20f;
      optimizer.step(a.parameters(), state);
    }
    return std::count_if(a.weights().begin(), a.weights().end(), [](float x) { return std::isnan(x); });
  };
  CHECK(lost(rule) == 0);
  CHECK(lost(optim::low_precision_state{rule, optim::blockwise_8bit{}}) == 256);
  CHECK(lost(optim::low_precision_state{optim::chain{optim::skip_non_finite{}, rule}, optim::blockwise_8bit{}}) == 0);
}

TEST_CASE("a loss scale falls when steps are skipped, grows when they are not, and is undone in the step") {
  optim::loss_scale scale{{.initial = 1024, .interval = 3}};
  arena a({{"w", {40}}}), b({{"w", {40}}});
  fill(a.weights(), 1);
  fill(b.weights(), 1);
  optim::chain const rule{optim::skip_non_finite{}, optim::adamw{}};
  auto state = rule.init(a.parameters()), other = rule.init(b.parameters());
  for (int t = 0; t < 7; ++t) {
    fill(b.gradients(), static_cast<std::uint32_t>(t));
    for (std::size_t i = 0; i < 40; ++i) a.gradients()[i] = scale.value() * b.gradients()[i];
    bool const overflow = t == 2;
    if (overflow) a.gradients()[3] = std::numeric_limits<float>::infinity();
    auto const r = rule.step(a.parameters(), state, scale.undo());
    CHECK(r.skipped == overflow);
    CHECK(scale.update(r) == (t == 2 || t == 5));
    CHECK(scale.value() == (t < 2 ? 1024 : t < 5 ? 512 : 1024));
    if (!overflow) rule.step(b.parameters(), other);
  }
  CHECK(same_bits(a.weights(), b.weights()));  // powers of two: to the bit
  optim::loss_scale fixed{{.initial = 8, .growth = 1, .backoff = 1}};
  CHECK(!fixed.update({.skipped = true}));
  optim::loss_scale lost{{.initial = 1}};
  CHECK_THROWS_WITH_AS(
      [&] {
        for (int i = 0; i < 200; ++i) lost.update({.skipped = true});
      }(),
      doctest::Contains("gradients themselves are not finite"), numeric_error);
  CHECK_THROWS_AS(optim::loss_scale({.growth = 0.5}), argument_error);
}

TEST_CASE(
    "a loss scale that no float can be multiplied by is refused, made or loaded; more good steps than asked for "
    "count") {
  double const infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (double const bad : {infinity, nan, 0.0, -1.0, 1e-60, 1e300})
    CHECK_THROWS_WITH_AS(optim::loss_scale({.initial = bad}), doctest::Contains("loss_scale: initial is "),
                         argument_error);
  auto const load = [](optim::loss_scale& s, double value, std::int64_t good) {
    auto const t = s.tensors("");
    std::memcpy(t[0].bytes.data(), &value, sizeof value);
    std::memcpy(t[1].bytes.data(), &good, sizeof good);
  };
  for (double const bad : {infinity, nan, 0.0, -1.0, 1e-60}) {
    CAPTURE(bad);
    optim::loss_scale s;
    load(s, bad, 0);
    CHECK_THROWS_AS(static_cast<void>(s.value()), numeric_error);
    CHECK_THROWS_AS(static_cast<void>(s.undo()), numeric_error);
    CHECK_THROWS_WITH_AS(s.update({}), doctest::Contains("not what a loss scale saves"), numeric_error);
  }
  optim::loss_scale shorter{{.initial = 8, .interval = 3}};
  load(shorter, 16, 1999);  // from a run whose interval was 2000
  CHECK(shorter.update({}));
  CHECK(shorter.value() == 32);
  load(shorter, 16, std::numeric_limits<std::int64_t>::min());
  for (int i = 0; i < 3; ++i) CHECK(shorter.update({}) == (i == 2));
  load(shorter, 16, std::numeric_limits<std::int64_t>::max());
  CHECK(shorter.update({}));
}

}  // namespace optim_stored
