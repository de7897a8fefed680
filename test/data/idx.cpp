// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/data.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <data/folder.hpp>

namespace data_idx {

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
  float const infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (auto const& [mean, scale] :
       {std::pair{nan, 1.0f}, {infinity, 1.0f}, {0.0f, nan}, {0.0f, infinity}, {0.0f, 0.0f}})
    CHECK(contains(thrown<argument_error>([&, m = mean, s = scale] {
                     data::idx_images{f.path, {.split = "test", .mean = m, .scale = s}};
                   }),
                   "both must be finite, and scale not 0"));
}

TEST_CASE("color images have four extents") {
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
  CHECK(contains(thrown<input_error>(open), "is compressed with gzip: unpack it, or include <dovetail/data/gzip.hpp>"));
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
                       "in_memory: 2 targets × 2 elements per sample are not the 3 values that there are",
                       argument_error);
  // A product that a size cannot hold, and is 0 there.
  CHECK_THROWS_AS(data::in_memory({}, {0, 1, 2, 3}, std::int64_t{1} << 62), argument_error);
  CHECK_THROWS_AS(data::in_memory({}, {}, 0), argument_error);
}

}  // namespace data_idx
