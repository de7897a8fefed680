// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Codecs of one scale a block and one small code an element: their formulas, and the same bits at every cpu_level. What
// every codec goes through is in suite.cpp.
#include "tools.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include <doctest/doctest.h>

namespace compress_quantizers {

using namespace dovetail;
namespace quantize = compress::quantize;
using compress::norm;
using compress::packing;

std::vector<cpu_level> levels() {
  std::vector<cpu_level> all;
  for (auto const level : {cpu_level::baseline, cpu_level::avx2, cpu_level::avx512})
    if (level <= supported_cpu_level()) all.push_back(level);
  return all;
}
template <class Codec>
std::vector<std::byte> encoded(Codec const& codec, std::vector<float> const& x, quantize::kernel_set const& kernel,
                               compress::context const& where = {}) {
  std::vector<std::byte> payload(codec.wire_size(x.size()));
  if constexpr (requires { codec.encode({x, {}}, payload, where, kernel); })
    payload.resize(codec.encode({x, {}}, payload, where, kernel));
  else
    payload.resize(codec.encode({x, {}}, payload, kernel));
  return payload;
}
template <class Codec>
std::vector<float> there_and_back(Codec const& codec, std::vector<float> const& x,
                                  compress::context const& where = {}) {
  std::vector<float> y(x.size());
  codec.decode_add(encoded(codec, x, quantize::best(), where), y);
  return y;
}
float scale_of(std::vector<std::byte> const& payload, std::size_t block = 0) {
  float s;
  std::memcpy(&s, payload.data() + 4 * block, 4);
  return s;
}
bool same(std::vector<float> const& a, std::vector<float> const& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]) &&
        !(std::isnan(a[i]) && std::isnan(b[i])))
      return false;
  return true;
}

TEST_CASE_TEMPLATE("every cpu_level gives the same bytes, and adds the same bits", Codec, compress::int8,
                   compress::int4, compress::integers<1>, compress::qsgd, compress::terngrad, compress::natural,
                   compress::fp8_e4m3, compress::fp8_e5m2, compress::natural_dithering, compress::three_lc) {
  std::vector<Codec> codecs{Codec{}};
  if constexpr (requires(Codec c) { c.block; }) {
    codecs.push_back(Codec{});
    codecs.back().block = 24;
    codecs.push_back(Codec{});
    codecs.back().block = 0;
  }
  if constexpr (requires(Codec c) { c.norm; })
    for (norm const of : {norm::max, norm::l2, norm::l1}) {
      codecs.push_back(Codec{});
      codecs.back().norm = of;
    }
  if constexpr (requires(Codec c) { c.packing; }) {
    codecs.push_back(Codec{});
    codecs.back().packing = packing::base3;
  }
  for (auto const& codec : codecs)
    for (std::size_t const n :
         {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 511, 512, 513, 1279, 1280, 1281, 9001})
      for (int const input : {0, 1, 2}) {
        auto const x = input == 0 ? test::normal(n, n) : input == 1 ? test::any_bits(n, n) : std::vector<float>(n);
        compress::context const where{.step = 3, .seed = 11, .rank = 2, .offset = 12345};
        auto const payload = encoded(codec, x, quantize::at(cpu_level::baseline), where);
        std::vector<float> sum(n, 0.25f);
        codec.decode_add(payload, sum, 0.3f, quantize::at(cpu_level::baseline));
        for (cpu_level const level : levels()) {
          REQUIRE(encoded(codec, x, quantize::at(level), where) == payload);
          std::vector<float> other(n, 0.25f);
          codec.decode_add(payload, other, 0.3f, quantize::at(level));
          REQUIRE(same(sum, other));
        }
      }
}

TEST_CASE("codes of any width lie behind each other as bit_writer would write them") {
  random_stream const random{5};
  for (int width = 1; width <= 8; ++width)
    for (std::size_t n = 0; n <= 140; ++n) {
      std::vector<std::uint8_t> codes(n + 64);
      for (std::size_t i = 0; i < n; ++i) codes[i] = static_cast<std::uint8_t>(random.word(i) & ((1u << width) - 1));
      std::vector<std::byte> expected(compress::bytes_of_bits(n, width));
      compress::bit_writer writer(expected);
      for (std::size_t i = 0; i < n; ++i) writer.put(codes[i], width);
      for (cpu_level const level : levels()) {
        std::vector<std::byte> packed(expected.size() + 1, std::byte{0x5a});
        quantize::at(level).pack_bits(codes.data(), n, width, packed.data());
        REQUIRE(packed.back() == std::byte{0x5a});
        packed.pop_back();
        REQUIRE(packed == expected);
        std::vector<std::uint8_t> back(n + 1, 0x5a);
        quantize::at(level).unpack_bits(packed.data(), n, width, back.data());
        REQUIRE(back[n] == 0x5a);
        REQUIRE(std::equal(back.begin(), back.end() - 1, codes.begin()));
      }
    }
}

TEST_CASE("five digits of base 3 a byte: all bytes that are some, and no other") {
  compress::detail::code_packing const pack{0};
  for (unsigned b = 0; b < 243; ++b) {
    std::byte const byte{static_cast<unsigned char>(b)};
    std::uint8_t digits[5];
    pack.unpack(&byte, 5, digits, quantize::best());
    unsigned value = 0;
    for (int i = 5; i-- > 0;) value = 3 * value + digits[i];
    REQUIRE(value == b);
    std::byte again{};
    pack.pack(digits, 5, &again, quantize::best());
    REQUIRE(again == byte);
  }
  compress::terngrad const codec{.packing = packing::base3};
  std::vector<float> const x{1, -1, 0, 1, 0, -1, 1};
  auto payload = encoded(codec, x, quantize::best());
  REQUIRE(payload.size() == 4 + 2);
  std::vector<float> y(7, 5.0f);
  auto bad = payload;
  bad[4] = std::byte{243};
  CHECK_THROWS_AS(codec.decode_add(bad, y), input_error);
  bad = payload;
  bad[5] = std::byte{9};  // a third digit where there are two
  CHECK_THROWS_AS(codec.decode_add(bad, y), input_error);
  CHECK(y == std::vector<float>(7, 5.0f));
  codec.decode_add(payload, y, -1);
  for (std::size_t i = 0; i < 7; ++i) CHECK(y[i] == 5.0f - x[i]);
}

TEST_CASE("int8 and int4: numbers of steps are exact, none is off by more than half a unit") {
  std::vector<float> const x{-127, 3, 0, 126.4f, -0.6f, 0.4f, 64.5f, 2};
  CHECK(there_and_back(compress::int8{}, x) == std::vector<float>{-127, 3, 0, 126, -1, 0, 65, 2});
  std::vector<float> const y{-7, 7, 3.4f, -3.6f, 0, -0.49f};
  CHECK(there_and_back(compress::int4{}, y) == std::vector<float>{-7, 7, 3, -4, 0, 0});
  CHECK(compress::int8{}.wire_size(513) == 513 + 8);
  CHECK(compress::int4{}.wire_size(513) == 257 + 8);
  CHECK(compress::int8{.block = 0}.wire_size(513) == 513 + 4);
  auto const normal = test::normal(5000, 1);
  auto const back = there_and_back(compress::int8{}, normal);
  for (std::size_t i = 0; i < normal.size(); ++i) {
    std::size_t const begin = i / 512 * 512, end = std::min<std::size_t>(5000, begin + 512);
    float most = 0;
    for (std::size_t j = begin; j < end; ++j) most = std::max(most, std::fabs(normal[j]));
    REQUIRE(std::fabs(back[i] - normal[i]) <= most / 127 * 0.5001f);
  }
  // Truncation instead of rounding, or a maximum that begins above the smallest number, would shift all.
  double bias = 0;
  for (std::size_t i = 0; i < normal.size(); ++i) bias += static_cast<double>(back[i] - normal[i]);
  CHECK(std::fabs(bias) / 5000 < 1e-3);
  CHECK(there_and_back(compress::int8{}, {-3, -2, -1}) != std::vector<float>{0, 0, 0});
}

TEST_CASE("relative squared errors are those of the literature") {
  auto const x = test::normal(1 << 18, 7);
  auto const error = [&](auto const& codec) {
    auto const y = there_and_back(codec, x, {.seed = 4});
    double e = 0, n = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      e += static_cast<double>(y[i] - x[i]) * static_cast<double>(y[i] - x[i]);
      n += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    return e / n;
  };
  // Normal numbers, nearest: of blocks of 32, 128, 512 and 4096.
  CHECK(error(compress::int8{.block = 32}) == doctest::Approx(2.8e-5).epsilon(0.05));
  CHECK(error(compress::int8{.block = 128}) == doctest::Approx(4.2e-5).epsilon(0.05));
  CHECK(error(compress::int8{.block = 512}) == doctest::Approx(5.4e-5).epsilon(0.05));
  CHECK(error(compress::int8{.block = 4096}) == doctest::Approx(7.6e-5).epsilon(0.05));
  CHECK(error(compress::int4{.block = 32}) == doctest::Approx(.93e-2).epsilon(0.05));
  CHECK(error(compress::int4{.block = 4096}) == doctest::Approx(2.3e-2).epsilon(0.06));
  // At random twice that.
  compress::qsgd const stochastic{.levels = 127, .block = 512, .norm = norm::max};
  CHECK(error(stochastic) == doctest::Approx(2 * 5.4e-5).epsilon(0.05));
  CHECK(error(compress::fp8_e4m3{}) == doctest::Approx(6.6e-4).epsilon(0.08));
  CHECK(error(compress::fp8_e5m2{}) == doctest::Approx(2.6e-3).epsilon(0.08));
  CHECK(error(compress::natural{}) == doctest::Approx(.082).epsilon(0.03));
  // Unscaled by the block's length, QSGD's bound: 1.3 to 6 times what is seen.
  compress::qsgd const q{.levels = 4, .block = 512};
  double const bound = std::min(512.0 / 16, std::sqrt(512.0) / 4);
  CHECK(error(q) < bound);
  CHECK(error(q) > bound / 6);
}

TEST_CASE("QSGD's widths, TernGrad's packings and norms are as stated") {
  for (auto const& [s, width] : std::vector<std::pair<int, std::size_t>>{
           {1, 2}, {2, 3}, {3, 3}, {4, 4}, {7, 4}, {8, 5}, {15, 5}, {31, 6}, {63, 7}, {64, 8}, {127, 8}})
    CHECK(compress::qsgd{.levels = s, .block = 0}.wire_size(8000) == 4 + 1000 * width);
  CHECK(compress::terngrad{.block = 0}.wire_size(8000) == 4 + 2000);
  CHECK(compress::terngrad{.block = 0, .packing = packing::base3}.wire_size(8000) == 4 + 1600);
  CHECK(compress::natural{}.wire_size(8000) == 9000);
  std::vector<float> const x{3, -4, 0, 0, 12, 0, 0, 0};
  auto const norms = [&](norm of) { return scale_of(encoded(compress::qsgd{.norm = of}, x, quantize::best())); };
  CHECK(norms(norm::max) == 12);
  CHECK(norms(norm::l2) == 13);
  CHECK(norms(norm::l1) == 19);
  // TernGrad sends the largest as it is, and nothing but -m, 0, m.
  auto const t = there_and_back(compress::terngrad{}, x, {.seed = 3});
  CHECK(t[4] == 12);
  for (float const v : t) CHECK((v == 0 || std::fabs(v) == 12));
  for (int const levels : {0, 128, -1}) {
    compress::qsgd const wrong{.levels = levels};
    CHECK_THROWS_AS(wrong.init({x, {}}), argument_error);
  }
}

TEST_CASE("random numbers are an element's own: of its place, rank and step, not of how buckets are cut") {
  auto const x = test::normal(3000, 3);
  auto const draw = [&](std::size_t begin, std::size_t end, compress::context where) {
    where.offset += begin;
    std::vector<float> const part(x.begin() + static_cast<std::ptrdiff_t>(begin),
                                  x.begin() + static_cast<std::ptrdiff_t>(end));
    return there_and_back(compress::natural{}, part, where);
  };
  compress::context const where{.step = 5, .seed = 9, .rank = 1, .offset = 777};
  auto const whole = draw(0, 3000, where);
  for (std::size_t const cut : {1, 333, 1280, 2999}) {
    auto both = draw(0, cut, where);
    auto const rest = draw(cut, 3000, where);
    both.insert(both.end(), rest.begin(), rest.end());
    CHECK(test::same_bits(both, whole));
  }
  auto other = where;
  other.rank = 0;
  CHECK_FALSE(test::same_bits(draw(0, 3000, other), whole));
  other = where;
  other.step = 6;
  CHECK_FALSE(test::same_bits(draw(0, 3000, other), whole));
  // Errors of ranks and steps are independent: the variance of a mean of 64 is 1/64 of one's.
  double one = 0, mean = 0;
  std::vector<double> sum(x.size());
  for (int r = 0; r < 64; ++r) {
    other = where;
    other.rank = r % 8;
    other.step = r / 8;
    auto const y = draw(0, 3000, other);
    for (std::size_t i = 0; i < x.size(); ++i) {
      double const e = static_cast<double>(y[i] - x[i]);
      one += e * e / 64;
      sum[i] += e / 64;
    }
  }
  for (double const s : sum) mean += s * s;
  CHECK(mean * 64 / one == doctest::Approx(1).epsilon(0.1));
}

TEST_CASE("natural compression gives one of the two powers of two around a number") {
  auto x = test::normal(2000, 5);
  x.insert(x.end(), {1.0f, -2.0f, 0.0f, -0.0f, 0x1p-126f, 0x1p-127f, -0x1p-149f, 0x1p127f, 0x1.8p127f});
  auto const y = there_and_back(compress::natural{}, x, {.seed = 8});
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::fabs(x[i]) < 0x1p-126f) {
      CHECK((y[i] == 0 || std::fabs(y[i]) == 0x1p-126f));
      continue;
    }
    float const down = std::exp2(std::floor(std::log2(std::fabs(x[i]))));
    REQUIRE((std::fabs(y[i]) == down || (std::fabs(y[i]) == 2 * down && down < 0x1p127f)));
    REQUIRE(std::signbit(x[i]) == std::signbit(y[i]));
  }
  CHECK(y[2000] == 1);
  CHECK(y[2001] == -2);
  // Others make 262144 of these.
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number})
    CHECK_FALSE(std::isfinite(there_and_back(compress::natural{}, {1, bad, 1})[1]));
  CHECK(there_and_back(compress::natural{}, {1e9f})[0] >= 0x1p29f);
}

TEST_CASE("8-bit floats: every number of the formats comes back, and rounding is to nearest even") {
  auto const check = [](auto const& codec, int bits, int bias, float most) {
    std::vector<float> all{most};
    for (int code = 0; code < 128; ++code) {
      int const e = code >> bits, m = code & ((1 << bits) - 1);
      float const v = e == 0 ? std::ldexp(static_cast<float>(m), 1 - bias - bits)
                             : std::ldexp(static_cast<float>((1 << bits) + m), e - bias - bits);
      if (v <= most) all.push_back(v), all.push_back(-v);
    }
    CHECK(there_and_back(codec, all) == all);
    std::vector<float> numbers(all);
    std::sort(numbers.begin(), numbers.end());
    std::vector<float> x{most};
    for (std::size_t i = 0; i + 1 < numbers.size(); ++i)
      for (float const share : {0.25f, 0.5f, 0.75f}) x.push_back(numbers[i] + share * (numbers[i + 1] - numbers[i]));
    auto const y = there_and_back(codec, x);
    for (std::size_t i = 1; i < x.size(); ++i) {
      float nearest = numbers[0];
      for (float const v : numbers)
        if (std::fabs(v - x[i]) < std::fabs(nearest - x[i])) nearest = v;
      REQUIRE(std::fabs(y[i] - x[i]) <= std::fabs(nearest - x[i]));
    }
    // Ties: to the even mantissa.
    float const one = 1, next = one + std::ldexp(one, -bits), after = next + std::ldexp(one, -bits);
    auto const ties = there_and_back(codec, {most, (one + next) / 2, (next + after) / 2});
    CHECK(ties[1] == one);
    CHECK(ties[2] == after);
  };
  check(compress::fp8_e4m3{}, 3, 7, 448);
  check(compress::fp8_e5m2{}, 2, 15, 57344);
  // The scale is a power of two: multiplying all by one changes nothing but that.
  auto const x = test::normal(1000, 2);
  auto scaled = x;
  for (float& v : scaled) v *= 0x1p-60f;
  auto y = there_and_back(compress::fp8_e4m3{}, x);
  for (float& v : y) v *= 0x1p-60f;
  CHECK(test::same_bits(there_and_back(compress::fp8_e4m3{}, scaled), y));
}

TEST_CASE("dynamic8 takes the nearest of its magnitudes, and small ones survive beside large ones") {
  compress::dynamic8 const codec;
  std::vector<float> tree;
  for (int k = 0; k < 128; ++k) {
    tree.push_back(compress::dynamic8::magnitude(k));
    if (k) CHECK(tree[static_cast<std::size_t>(k)] > tree[static_cast<std::size_t>(k) - 1]);
  }
  auto state = codec.init({});
  auto x = test::normal(4000, 9);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] *= std::pow(10.0f, -static_cast<float>(i % 8));
  auto const payload = test::encode(codec, x, state);
  CHECK(payload.size() == 4000 + 4 * 8);
  auto const y = test::decode(codec, payload, x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    float const most = scale_of(payload, i / 512), v = std::fabs(x[i]) / most;
    float best = 0;
    for (float const t : tree)
      if (std::fabs(t - v) < std::fabs(best - v)) best = t;
    REQUIRE(std::fabs(y[i]) == doctest::Approx(best * most).epsilon(1e-6));
  }
  CHECK(test::decode(codec, test::encode(codec, std::vector<float>{1, 1e-5f, -1e-6f}, state), 3)[1] ==
        doctest::Approx(1e-5).epsilon(0.1));
}

TEST_CASE("1-bit SGD: the two means of the block, which no other two numbers beat") {
  compress::one_bit const codec;
  std::vector<float> const x{1, 3, -2, 0, 8, -4};
  CHECK(test::decode(codec, test::encode(codec, x), 6) == std::vector<float>{3, 3, -3, 3, 3, -3});
  CHECK(codec.wire_size(1025) == 3 * 8 + 129);
  auto shifted = test::normal(512, 4);
  for (float& v : shifted) v += 1;
  auto const lost = [&](auto const& c) {
    auto const y = test::decode(c, test::encode(c, shifted), shifted.size());
    double e = 0;
    for (std::size_t i = 0; i < y.size(); ++i) e += std::pow(static_cast<double>(y[i] - shifted[i]), 2);
    return e;
  };
  CHECK(lost(codec) < 0.9 * lost(compress::sign{}));
  CHECK(test::decode(codec, test::encode(codec, std::vector<float>(9)), 9) == std::vector<float>(9));
  for (float const bad : {test::infinity, -test::infinity, test::not_a_number, -test::not_a_number}) {
    std::vector<float> y(40, 1.0f);
    y[17] = bad;
    CHECK_FALSE(std::isfinite(test::decode(codec, test::encode(codec, y), 40)[17]));
  }
  compress::one_bit const odd{.block = 12};
  CHECK_THROWS_AS(odd.init({}), argument_error);
}

TEST_CASE("1-bit SGD: a block with an element that is not finite is NaN, all of it") {
  for (float const bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> x(48, 1.0f), out(48);
    for (std::size_t i = 0; i < x.size(); i += 2) x[i] = -2;
    x[20] = bad;
    compress::one_bit const codec{.block = 16};
    compress::no_state none;
    std::vector<std::byte> payload(codec.wire_size(48));
    codec.encode({x, {}}, none, payload);
    codec.decode_add(payload, out);
    for (std::size_t i = 0; i < 48; ++i) REQUIRE(std::isnan(out[i]) == (i / 16 == 1));
  }
}

TEST_CASE("3LC: nearest of three, runs of zeros shortened, and nothing but what was encoded is read") {
  compress::three_lc const codec;
  std::vector<float> const x{1, -0.51f, 0.49f, 0, -1, 0.2f};
  auto payload = encoded(codec, x, quantize::best());
  CHECK(there_and_back(codec, x) == std::vector<float>{1, -1, 0, 0, -1, 0});
  CHECK(payload.size() == 4 + 2);
  // Zeros: a byte for 70 of them.
  std::vector<float> sparse(700);
  sparse[0] = 1;
  CHECK(encoded(codec, sparse, quantize::best()).size() == 4 + 1 + 10);
  CHECK(test::same_bits(there_and_back(codec, sparse), sparse));
  CHECK(encoded(codec, std::vector<float>(700), quantize::best()).size() == 4 + 10);
  // A hundred thousand normal numbers: 2 % of them are not 0.
  auto const normal = test::normal(100'000, 6);
  auto const y = there_and_back(codec, normal);
  auto const sent = std::count_if(y.begin(), y.end(), [](float v) { return v != 0; });
  CHECK(static_cast<double>(sent) / 1e5 == doctest::Approx(0.022).epsilon(0.3));
  for (float const s : {1.0f, 1.5f, 1.75f}) {
    auto const z = there_and_back(compress::three_lc{.sparsity = s}, normal);
    float most = 0, off = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
      most = std::max(most, std::fabs(normal[i]));
      off = std::max(off, std::fabs(z[i] - normal[i]));
    }
    CHECK(off / most <= s / 2 * 1.0001f);
    CHECK(off / most > s / 2 * 0.9f);
  }
  for (auto const change : {0, 1, 2}) {
    auto bad = encoded(codec, sparse, quantize::best());
    if (change == 0) bad.pop_back();
    if (change == 1) bad.push_back(std::byte{121});
    if (change == 2) bad.back() = std::byte{255};
    std::vector<float> out(700, 3.0f);
    CHECK_THROWS_AS(codec.decode_add(bad, out), input_error);
    CHECK(out == std::vector<float>(700, 3.0f));
  }
}

}  // namespace compress_quantizers
