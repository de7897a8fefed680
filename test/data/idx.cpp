// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/data.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <data/folder.hpp>

using namespace dovetail;
using namespace std::string_literals;
using fixture::thrown;

static_assert(data::dataset<data::idx_images>);
static_assert(data::dataset<data::in_memory>);

namespace {

void write_split(fixture::folder const& f, std::string const& prefix, char separator = '-') {
  fixture::write(f / (prefix + "-images" + separator + "idx3-ubyte"),
                 fixture::idx({3, 2, 2}, "\x00\xff\x33\x66"s + "\x01\x02\x03\x04"s + "\x05\x06\x07\x08"s));
  fixture::write(f / (prefix + "-labels" + separator + "idx1-ubyte"), fixture::idx({3}, "\x07\x00\x02"s));
}

/// 24 images of 5 × 5.
std::string images_file() {
  std::string pixels;
  for (int i = 0; i < 24 * 25; ++i) pixels.push_back(static_cast<char>(i % 3 ? i * i / 7 % 61 : 0));
  return fixture::idx({24, 5, 5}, pixels);
}
/// The same as zlib compresses it: codes of its own; and in two members, 40 bytes as they are, the rest in the fixed
/// code behind a header with everything in it.
std::string const with_own_codes =
    "\037\213\010\010\000\000\000\000\000\003\164\162\141\151\156\055\151\155\141\147\145\163\055\151\144\170"
    "\063\055\165\142\171\164\145\000\065\221\333\216\242\100\000\104\217\020\230\006\021\344\042\042\301\221"
    "\353\144\020\320\330\142\253\300\377\177\327\272\311\356\303\171\254\124\352\024\010\035\110\076\030\377"
    "\100\323\371\262\160\175\222\214\272\345\376\106\270\144\025\367\031\057\241\173\340\354\031\336\104\071"
    "\223\315\317\110\124\141\354\170\130\164\120\053\116\222\343\215\243\044\127\064\013\203\340\025\042\012"
    "\022\311\131\240\175\163\120\334\043\302\033\062\142\377\144\076\321\330\370\343\047\314\065\246\132\223"
    "\352\204\023\336\223\215\302\175\021\054\044\046\305\226\076\143\352\330\054\344\041\252\305\067\350\013"
    "\034\215\276\302\267\120\127\212\024\127\060\053\206\226\362\304\141\117\030\260\365\360\074\374\200\335"
    "\236\354\323\325\162\123\350\202\050\345\367\312\312\042\255\170\150\304\005\117\203\143\213\031\162\131"
    "\310\072\234\214\145\213\064\071\057\064\057\112\105\371\244\236\150\165\156\153\346\230\165\115\072\322"
    "\333\350\047\322\047\343\377\121\261\142\372\246\022\170\222\271\240\017\311\005\361\202\247\260\045\342"
    "\206\045\161\024\001\244\026\315\016\371\021\070\222\330\014\071\342\115\271\107\173\120\044\230\063\135"
    "\305\316\105\173\163\151\311\063\042\237\265\205\241\263\372\173\024\053\015\343\213\265\113\224\220\327"
    "\134\356\150\202\135\106\167\307\364\050\072\064\207\162\100\104\014\023\311\017\106\204\064\150\036\244"
    "\035\101\215\163\302\072\042\216\330\071\136\103\074\220\277\350\077\002\023\274\063\225\306\164\040\276"
    "\043\103\102\311\270\047\235\321\033\172\237\024\326\127\346\212\133\112\033\122\173\224\033\112\227\046"
    "\340\234\040\013\226\036\147\042\333\160\311\061\025\107\377\017\231\210\106\207\150\002\000\000"s;
std::string const in_two_members =
    "\037\213\010\000\000\000\000\000\000\003\001\050\000\327\377\000\000\010\003\000\000\000\030\000\000\000"
    "\005\000\000\000\005\000\000\000\000\002\003\000\007\011\000\016\021\000\030\034\000\044\051\000\063\071"
    "\000\010\016\072\065\233\247\050\000\000\000\037\213\010\026\000\000\000\000\000\003\003\000\170\171\172"
    "\141\040\143\157\155\155\145\156\164\000\275\061\143\220\121\146\060\266\146\340\227\140\320\066\145\340"
    "\021\147\320\265\144\020\121\140\260\342\142\120\063\141\020\121\146\140\025\145\060\345\144\320\146\140"
    "\120\061\143\220\067\142\220\065\144\220\065\142\120\060\143\120\265\141\320\345\140\260\020\146\340\120"
    "\144\220\060\142\320\342\140\140\222\143\220\064\143\060\026\141\020\066\144\060\022\141\020\067\147\260"
    "\226\147\120\345\142\020\064\001\152\146\320\027\143\120\346\146\220\142\146\020\266\142\340\067\147\340"
    "\065\143\340\263\140\020\262\141\220\140\143\120\024\140\320\221\141\260\322\146\340\265\141\120\020\146"
    "\060\323\144\020\144\145\320\121\144\340\141\142\320\121\146\020\344\144\060\323\147\120\224\142\340\343"
    "\140\260\066\143\320\325\144\120\222\147\220\024\147\020\026\142\020\340\147\340\347\147\020\024\142\020"
    "\025\147\220\001\332\245\311\140\150\306\300\314\301\040\042\305\240\241\317\300\310\311\040\245\314\140"
    "\312\304\040\246\310\140\316\312\040\253\311\300\046\314\240\147\303\040\243\315\300\043\303\140\043\300"
    "\140\304\306\240\145\303\240\152\301\240\144\306\240\144\316\240\142\305\240\311\314\140\310\315\140\055"
    "\306\300\255\302\040\145\302\240\303\305\300\054\317\040\145\316\140\002\363\224\230\031\203\225\034\203"
    "\062\007\003\277\021\203\265\042\203\216\060\203\002\007\203\230\015\003\277\031\003\227\021\003\207\041"
    "\003\247\021\003\217\031\203\020\003\203\024\047\203\252\050\203\021\060\000\115\030\044\270\030\164\025"
    "\030\070\054\031\224\304\031\230\114\031\024\045\030\330\254\031\264\225\031\104\371\030\230\054\031\364"
    "\064\031\024\144\030\104\004\031\270\071\031\130\231\031\030\031\100\200\221\211\201\225\235\201\233\217"
    "\101\104\202\101\101\205\101\317\230\201\211\203\101\124\206\101\333\230\201\215\237\101\121\233\201\211"
    "\207\101\111\227\201\103\204\101\327\212\101\102\215\201\125\204\301\210\225\101\325\224\101\112\233\101"
    "\110\205\201\107\236\201\123\226\201\103\226\201\113\201\201\137\225\101\114\227\101\301\202\101\007\030"
    "\200\022\014\374\132\014\312\114\014\126\222\014\142\306\014\106\302\014\302\106\014\046\342\014\122\326"
    "\014\314\252\014\072\202\014\122\014\014\334\372\014\326\312\014\206\122\014\232\302\014\052\374\014\112"
    "\274\014\112\174\014\252\102\014\132\022\014\106\212\014\066\072\014\074\126\014\062\274\014\172\012\014"
    "\154\146\014\262\202\000\157\131\171\322\100\002\000\000"s;
constexpr std::size_t first_member = 63;
std::vector<std::uint8_t> bytes_of(std::string const& s) { return {s.begin(), s.end()}; }

bool contains(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("images of an IDX folder come in the asked order, pixels in [0, 1], with their labels") {
  fixture::folder f;
  write_split(f, "train");
  data::idx_images const images{f.path};
  CHECK(images.size() == 3);
  CHECK(images.predictions_per_sample() == 1);
  CHECK(images.image_shape() == shape{1, 2, 2});
  CHECK(images.classes() == 8);
  data::batch_buffer b;
  images.load(std::vector<std::int64_t>{2, 0}, b);
  CHECK(b.size == 2);
  CHECK(b.tokens.empty());
  CHECK(b.values == std::vector<float>{5 / 255.f, 6 / 255.f, 7 / 255.f, 8 / 255.f, 0, 1, 0x33 / 255.f, 0x66 / 255.f});
  CHECK(b.targets == std::vector<std::int32_t>{2, 7});
  CHECK(b.view().values.data() == b.values.data());
  auto const* const memory = b.values.data();
  images.load(std::vector<std::int64_t>{1}, b);
  CHECK(b.view().values.size() == 4);
  CHECK(b.values.data() == memory);  // a smaller batch uses the same memory
  CHECK_THROWS_AS(images.load(std::vector<std::int64_t>{3}, b), argument_error);
  CHECK_THROWS_AS(images.load(std::vector<std::int64_t>{-1}, b), argument_error);
}

TEST_CASE("the split, the dotted names, mean and scale are options") {
  fixture::folder f;
  write_split(f, "t10k", '.');
  data::idx_images const images{f.path, {.split = "test", .mean = 0.5f, .scale = 4}};
  data::batch_buffer b;
  images.load(std::vector<std::int64_t>{0}, b);
  CHECK(b.values[0] == -2);
  CHECK(b.values[1] == 2);
  CHECK(data::idx_images{f / "t10k-images.idx3-ubyte", f / "t10k-labels.idx1-ubyte"}.size() == 3);
}

TEST_CASE("colour images have four extents") {
  fixture::folder f;
  fixture::write(f / "images", fixture::idx({1, 3, 1, 2}, "abcdef"));
  fixture::write(f / "labels", fixture::idx({1}, "\x01"));
  CHECK(data::idx_images{f / "images", f / "labels"}.image_shape() == shape{3, 1, 2});
}

TEST_CASE(
    "an IDX file that is missing, of another kind, truncated or at odds with its labels is refused with a way out") {
  fixture::folder f;
  auto const open = [&] { data::idx_images{f.path}; };
  CHECK(contains(thrown<input_error>(open), message("there is no 'train-images-idx3-ubyte' in ", f.path)));
  fixture::write(f / "train-images-idx3-ubyte.gz", "\x1f\x8b");
  fixture::write(f / "train-labels-idx1-ubyte.gz", "\x1f\x8b");
  CHECK(contains(thrown<input_error>(open), "cannot be unpacked: it ends in the middle: download it again"));
  write_split(f, "train");
  auto const images = f / "train-images-idx3-ubyte", labels = f / "train-labels-idx1-ubyte";

  fixture::write(images, fixture::idx({3}, "abc"));
  CHECK(contains(thrown<input_error>(open), "its magic number is 2049, expected 2051: is it the right file?"));
  fixture::write(images, "\x00\x00"s);
  CHECK(contains(thrown<input_error>(open), "is truncated: it has 2 bytes"));
  fixture::write(images, "");
  CHECK(contains(thrown<input_error>(open), "is truncated: it has 0 bytes"));
  fixture::write(images, fixture::idx({2, 2, 2}, "").substr(0, 15));
  CHECK(contains(thrown<input_error>(open), "its header alone needs 16"));
  fixture::write(images, fixture::idx({3, 2, 2}, "elevenbytes"));
  CHECK(contains(thrown<input_error>(open), "is truncated: its header announces more images than its 11 bytes"));
  fixture::write(images, fixture::idx({3, 2, 2}, "thirteenbytes"));
  CHECK(contains(thrown<input_error>(open), "has 13 bytes of data, its header announces 12"));
  fixture::write(images, fixture::idx({0, 2, 2}, ""));
  CHECK(contains(thrown<input_error>(open), "holds no images"));
  fixture::write(images, fixture::idx({0x80000000, 0x80000000, 4}, "their product is 0 in 64 bits"));
  CHECK(contains(thrown<input_error>(open), "announces more images"));
  fixture::write(images, fixture::idx({2, 2, 2}, "12345678"));
  auto const counts = thrown<input_error>(open);
  CHECK(contains(counts, "holds 2 images"));
  CHECK(contains(counts, "3 labels: are they of the same split?"));
  fixture::write(labels, fixture::idx({2}, "\x00\x01"s));
  CHECK(data::idx_images{f.path}.size() == 2);

  CHECK(contains(thrown<input_error>([&] { data::idx_images{f / "nowhere", labels}; }), "No such file or directory"));
  CHECK(contains(thrown<input_error>([&] { data::idx_images{f.path, labels}; }), "is a folder"));
}

TEST_CASE("samples made by the program are checked for their sizes") {
  data::in_memory const m({1, 2, 3, 4}, {0, 1}, 2);
  data::batch_buffer b;
  m.load(std::vector<std::int64_t>{1, 1, 0}, b);
  CHECK(b.values == std::vector<float>{3, 4, 3, 4, 1, 2});
  CHECK(b.targets == std::vector<std::int32_t>{1, 1, 0});
  CHECK_THROWS_WITH_AS(data::in_memory({1, 2, 3}, {0, 1}, 2),
                       "in_memory: 2 targets × 2 elements per sample need 4 values, but there are 3", argument_error);
  CHECK_THROWS_AS(data::in_memory({}, {}, 0), argument_error);
}

TEST_CASE("compressed files are read as they are") {
  for (auto const& packed : {with_own_codes, in_two_members})
    CHECK(data::gunzip(bytes_of(packed), "x") == bytes_of(images_file()));
  fixture::folder f;
  fixture::write(f / "train-images-idx3-ubyte.gz", with_own_codes);
  fixture::write(f / "train-labels-idx1-ubyte", fixture::idx({24}, std::string(24, '\x03')));
  data::idx_images const packed{f.path};
  fixture::write(f / "plain", images_file());
  data::idx_images const plain{f / "plain", f / "train-labels-idx1-ubyte"};
  data::batch_buffer a, b;
  packed.load(std::vector<std::int64_t>{23, 4}, a);
  plain.load(std::vector<std::int64_t>{23, 4}, b);
  CHECK(a.values == b.values);
  // A file under its plain name goes before; what is compressed is seen from its first bytes, not from its name.
  fixture::write(f / "train-images-idx3-ubyte", in_two_members);
  fixture::write(f / "train-images-idx3-ubyte.gz", "no images");
  CHECK(data::idx_images{f.path}.size() == 24);
}

TEST_CASE("a compressed file that is damaged is refused, wherever it is") {
  auto const expected = bytes_of(images_file());
  for (auto const& packed : {with_own_codes, in_two_members}) {
    for (std::size_t n = 0; n < packed.size(); ++n)
      if (packed != in_two_members || n != first_member)  // which is whole
        CHECK_THROWS_AS(data::gunzip(bytes_of(packed.substr(0, n)), "x"), input_error);
    std::size_t harmless = 0;
    for (std::size_t bit = 0; bit < 8 * packed.size(); ++bit) {
      auto bytes = bytes_of(packed);
      bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] ^ 1 << bit % 8);
      try {
        auto const got = data::gunzip(bytes, "x");
        CHECK(got == expected);
        ++harmless;
      } catch (input_error const&) {
      }
    }
    CHECK(harmless > 0);  // times, names and comments may be any
    CHECK(harmless < 8 * 48);
  }
  std::uint32_t noise = 1;
  for (int i = 0; i < 500; ++i) {
    auto bytes = bytes_of(with_own_codes.substr(0, 34));
    for (int k = 0; k < 300; ++k) {
      noise = noise * 1664525u + 1013904223u;
      bytes.push_back(static_cast<std::uint8_t>(noise >> 24));
    }
    CHECK_THROWS_AS(data::gunzip(bytes, "x"), input_error);
  }
  CHECK(data::gunzip(bytes_of(with_own_codes), "x", 20).size() < 300);  // no more than is asked for, and a copied word
  CHECK_THROWS_WITH_AS(data::gunzip(bytes_of("\x1f\x8b"s), "x.gz"),
                       "\"x.gz\" cannot be unpacked: it ends in the middle: download it again", input_error);
}
