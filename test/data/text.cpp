// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/data.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <data/folder.hpp>

namespace data_text {

using namespace dovetail;
using namespace std::string_literals;
using fixture::thrown;

static_assert(data::dataset<data::text_corpus>);

namespace {

bool contains(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

std::string window(data::text_corpus const& c, std::int64_t i) {
  data::batch_buffer b;
  c.load(std::vector<std::int64_t>{i}, b);
  return c.decode(b.tokens) + "|" + c.decode(b.targets);
}

}  // namespace

TEST_CASE("windows of a text follow each other, and each target is the byte after its token") {
  auto const c = data::text_corpus::from_string("abcdefghij", {.window = 3});
  CHECK(c.size() == 3);  // the last needs a fourth byte for its target
  CHECK(c.predictions_per_sample() == 3);
  CHECK(window(c, 0) == "abc|bcd");
  CHECK(window(c, 1) == "def|efg");
  CHECK(window(c, 2) == "ghi|hij");
  auto const strided = data::text_corpus::from_string("abcdefghij", {.window = 3, .stride = 2});
  CHECK(strided.size() == 4);
  CHECK(window(strided, 3) == "ghi|hij");
  CHECK(data::text_corpus::from_string("abcd", {.window = 3}).size() == 1);
  data::batch_buffer b;
  CHECK_THROWS_AS(c.load(std::vector<std::int64_t>{3}, b), argument_error);
}

TEST_CASE("a vocabulary is the sorted bytes that occur") {
  auto const c = data::text_corpus::from_string("banana\xff\n", {.window = 2});
  auto const& v = c.vocabulary();
  CHECK(v.size() == 5);
  CHECK(v.unknown() == -1);
  CHECK(v.encode("\nabn\xff") == std::vector<std::int32_t>{0, 1, 2, 3, 4});
  CHECK(v.decode(std::vector<std::int32_t>{2, 1, 3}) == "ban");
  CHECK_THROWS_AS(v.encode("x"), argument_error);
  CHECK_THROWS_AS(v.decode(5), argument_error);
  CHECK_THROWS_AS(v.decode(-1), argument_error);
}

TEST_CASE("beyond the cap the most frequent bytes keep a token and the others share the unknown one") {
  std::string const text = "aaaabbbccd";
  auto const exact = data::text_corpus::from_string(text, {.window = 2, .vocabulary = 4});
  CHECK(exact.vocabulary().size() == 4);
  CHECK(exact.vocabulary().unknown() == -1);
  auto const capped = data::text_corpus::from_string(text, {.window = 2, .vocabulary = 3});
  CHECK(capped.vocabulary().size() == 3);
  CHECK(capped.vocabulary().unknown() == 2);
  CHECK(capped.vocabulary().encode("abcdz") == std::vector<std::int32_t>{0, 1, 2, 2, 2});
  CHECK(capped.decode(2) == '?');
  auto const rare = data::text_corpus::from_string(text, {.window = 2, .rare = 2});
  CHECK(rare.vocabulary().size() == 4);  // a, b, c, unknown
  CHECK(rare.vocabulary().encode("d") == std::vector<std::int32_t>{3});
  auto const rare_and_capped = data::text_corpus::from_string(text, {.window = 2, .vocabulary = 3, .rare = 2});
  CHECK(rare_and_capped.vocabulary().size() == 3);
  std::string all(512, ' ');
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<char>(i % 256);
  CHECK(data::text_corpus::from_string(all).vocabulary().size() == 256);
  CHECK(data::text_corpus::from_string(all, {.vocabulary = 255}).vocabulary().size() == 255);
}

TEST_CASE("a folder is read recursively in sorted order, by extension and up to a number of bytes") {
  fixture::folder f;
  fixture::write(f / "b.h", "bbbb");
  fixture::write(f / "a" / "z.h", "aaaa");
  fixture::write(f / "c.txt", "cccc");
  fixture::write(f / "empty.h", "");
  CHECK(data::text_corpus(f.path, {.window = 2}).decode(std::vector<std::int32_t>{0, 1, 2}) == "abc");
  auto const headers = data::text_corpus(f.path, {.window = 7, .extensions = {".h"}});
  CHECK(window(headers, 0) == "aaaabbb|aaabbbb");
  CHECK(data::text_corpus(f.path, {.window = 2, .max_bytes = 6}).tokens().size() == 6);
  CHECK(data::text_corpus(f / "c.txt", {.window = 2}).tokens().size() == 4);
  CHECK(contains(thrown<input_error>([&] { data::text_corpus(f.path, {.extensions = {".md"}}); }),
                 "holds no file with one of the given extensions, the first being .md"));
}

TEST_CASE("both parts of a split share one memory and one vocabulary, and no window crosses the cut") {
  std::string text;
  for (int i = 0; i < 100; ++i) text += static_cast<char>('0' + i % 10);
  auto const all = data::text_corpus::from_string(text, {.window = 4});
  auto const [train, test] = all.split(0.25);
  CHECK(train.shares_text_with(test));
  CHECK(train.tokens().size() == 75);
  CHECK(test.tokens().size() == 25);
  CHECK(test.tokens().data() == train.tokens().data() + 75);
  CHECK(train.size() == 18);
  CHECK(window(train, 17) == "8901|9012");  // ends at byte 72; a nineteenth window would need byte 76
  CHECK(window(test, 0) == "5678|6789");
  CHECK(test.size() == 6);
  CHECK_THROWS_AS(all.split(0.0), argument_error);
  CHECK_THROWS_AS(all.split(1.0), argument_error);
  CHECK(contains(thrown<input_error>([&] { all.split(0.02); }), "leaves the held-out part 2 bytes, a window needs 5"));
  CHECK(contains(thrown<input_error>([&] { all.split(0.98); }), "leaves the training part 2 bytes"));
}

TEST_CASE("a split between files cuts at the nearest beginning of one") {
  fixture::folder f;
  fixture::write(f / "1", std::string(50, 'a'));
  fixture::write(f / "2", std::string(30, 'b'));
  fixture::write(f / "3", std::string(20, 'c'));
  auto const [train, test] = data::text_corpus(f.path, {.window = 4}).split(0.1, data::cut::between_files);
  CHECK(train.tokens().size() == 80);
  CHECK(window(test, 0) == "cccc|cccc");
  CHECK_THROWS_AS(data::text_corpus(f / "1", {.window = 4}).split(0.1, data::cut::between_files), input_error);
}

TEST_CASE("a corpus that is missing, empty or shorter than a window is refused with a way out") {
  fixture::folder f;
  CHECK(
      contains(thrown<input_error>([&] { data::text_corpus(f / "nowhere"); }), "does not exist: give a text file or"));
  CHECK(contains(thrown<input_error>([&] { data::text_corpus(f.path); }), "holds no file"));
  fixture::write(f / "empty", "");
  CHECK(contains(thrown<input_error>([&] { data::text_corpus(f.path); }), "is empty"));
  CHECK(thrown<input_error>([&] { data::text_corpus::from_string("abcd", {.window = 4}); }) ==
        "text_corpus: 'the given string' has 4 bytes, a window of 4 needs 5: use a shorter window or more text");
  CHECK_THROWS_AS(data::text_corpus::from_string("abc", {.window = 0}), argument_error);
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  CHECK(contains(thrown<argument_error>([&] { data::text_corpus::from_string("abc", {.window = most}); }),
                 "window is 9223372036854775807: it must be"));
  CHECK(contains(thrown<input_error>([&] { data::text_corpus::from_string("abc", {.window = most - 1}); }),
                 "a window of 9223372036854775806 needs 9223372036854775807"));
  CHECK_THROWS_AS(data::text_corpus::from_string("abc", {.window = std::numeric_limits<std::int64_t>::min()}),
                  argument_error);
  CHECK(data::text_corpus::from_string("abc", {.window = 1, .stride = most}).size() == 1);
  CHECK_THROWS_AS(data::text_corpus::from_string("abc", {.window = 1, .stride = -1}), argument_error);
  CHECK_THROWS_AS(data::text_corpus::from_string("abc", {.window = 1, .vocabulary = 1}), argument_error);
  CHECK_THROWS_AS(data::text_corpus::from_string("abc", {.window = 1, .vocabulary = 257}), argument_error);
  CHECK(contains(thrown<argument_error>([&] { data::text_corpus(f.path, {.max_bytes = 0}); }), "max_bytes is 0"));
}

TEST_CASE("the bigram yardstick is the smoothed model's cross-entropy in bits") {
  // Train "abab", test "ab": n(a,b) = 2, n(a) = 2, V = 2, k = 1: p(b | a) = 3/4.
  auto const parts = data::text_corpus::from_string("ababab", {.window = 1}).split(1.0 / 3);
  CHECK(data::bigram_bits_per_character(parts.first, parts.second, 1.0) == doctest::Approx(-std::log2(0.75)));
  std::string uniform;  // independent bytes: no model of pairs can do better than their entropy
  random_stream const r{3};
  for (std::uint64_t i = 0; i < 40000; ++i) uniform += static_cast<char>('a' + r.word(i) % 4);
  auto const coin = data::text_corpus::from_string(uniform, {.window = 8}).split(0.25);
  CHECK(data::bigram_bits_per_character(coin.first, coin.second) == doctest::Approx(2.0).epsilon(0.005));
  CHECK_THROWS_AS(data::bigram_bits_per_character(parts.first, coin.second), argument_error);
  for (double const k : {0.0, 1e308, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})
    CHECK_THROWS_AS(data::bigram_bits_per_character(parts.first, parts.second, k), argument_error);
}

TEST_CASE("a corpus is known by its text and by how it is cut") {
  std::string const text = "one rank writes, another one reads; and so on, until the text is long enough to be cut.";
  auto const corpus = data::text_corpus::from_string(text, {.window = 5});
  CHECK(corpus.identity() == data::text_corpus::from_string(text, {.window = 5}).identity());
  CHECK(corpus.identity() != data::text_corpus::from_string(text, {.window = 6}).identity());
  CHECK(corpus.identity() != data::text_corpus::from_string(text, {.window = 5, .stride = 2}).identity());
  CHECK(corpus.identity() != data::text_corpus::from_string(text + "x", {.window = 5}).identity());
  auto const [train, test] = corpus.split(0.5);
  CHECK(train.identity() != test.identity());
  CHECK(train.identity() != corpus.identity());
  CHECK(train.identity() == corpus.split(0.5).first.identity());
}

}  // namespace data_text
