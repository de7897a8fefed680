// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/io/tensorboard.hpp>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include <doctest/doctest.h>
#include <data/folder.hpp>

namespace train_io_tensorboard {

using namespace dovetail;

namespace {

template <class T>
T take(std::string_view& s) {
  T v;
  REQUIRE(s.size() >= sizeof v);
  std::memcpy(&v, s.data(), sizeof v);
  s.remove_prefix(sizeof v);
  return v;
}

/// TensorFlow's unmasking, written the other way round than the code under test.
std::uint32_t unmask(std::uint32_t m) {
  std::uint32_t const r = m - 0xa282ead8u;
  return (r >> 17) | (r << 15);
}

std::uint32_t crc_of(std::string_view s) { return io::crc32c(std::as_bytes(std::span(s))); }

std::vector<std::string> records(std::filesystem::path const& path) {
  auto const file = fixture::read(path);
  std::string_view rest = file;
  std::vector<std::string> all;
  while (!rest.empty()) {
    auto const head = rest.substr(0, 8);
    auto const length = take<std::uint64_t>(rest);
    REQUIRE(unmask(take<std::uint32_t>(rest)) == crc_of(head));
    REQUIRE(rest.size() >= length + 4);
    all.emplace_back(rest.substr(0, length));
    rest.remove_prefix(length);
    REQUIRE(unmask(take<std::uint32_t>(rest)) == crc_of(all.back()));
  }
  return all;
}

using field = std::variant<std::uint64_t, double, float, std::string>;

std::uint64_t varint(std::string_view& s) {
  std::uint64_t v = 0;
  for (int shift = 0;; shift += 7) {
    auto const b = take<std::uint8_t>(s);
    v |= std::uint64_t{b & 0x7fu} << shift;
    if (b < 0x80) return v;
  }
}

std::map<std::uint64_t, field> parse(std::string_view s) {
  std::map<std::uint64_t, field> fields;
  while (!s.empty()) {
    auto const tag = varint(s);
    switch (tag & 7) {
      case 0:
        fields[tag >> 3] = varint(s);
        break;
      case 1:
        fields[tag >> 3] = take<double>(s);
        break;
      case 5:
        fields[tag >> 3] = take<float>(s);
        break;
      case 2: {
        auto const n = varint(s);
        REQUIRE(s.size() >= n);
        fields[tag >> 3] = std::string(s.substr(0, n));
        s.remove_prefix(n);
        break;
      }
      default:
        FAIL("unknown wire type");
    }
  }
  return fields;
}

}  // namespace

TEST_CASE("masked checksums are those of TensorFlow") {
  // TensorFlow writes an empty event's length, eight zero bytes, with this masked CRC: 29 03 98 07 in its files.
  CHECK(io::detail::masked_crc(std::string_view("\0\0\0\0\0\0\0\0", 8)) == 0x07980329u);
}

TEST_CASE("scalars are framed Event messages in a file that TensorBoard finds") {
  fixture::folder f;
  io::tensorboard_log log(f / "runs" / "a");
  log.write(3, "train/loss", 0.25);
  log.write(std::int64_t{1} << 40, "train/loss", -2);
  log.flush();
  auto const name = log.path().filename().string();
  CHECK(name.starts_with("events.out.tfevents."));
  auto const all = records(log.path());
  REQUIRE(all.size() == 3);
  auto const version = parse(all[0]);
  CHECK(std::get<std::string>(version.at(3)) == "brain.Event:2");
  CHECK(std::get<double>(version.at(1)) > 1.6e9);
  auto const event = parse(all[1]);
  CHECK(std::get<std::uint64_t>(event.at(2)) == 3);
  auto const value = parse(std::get<std::string>(parse(std::get<std::string>(event.at(5))).at(1)));
  CHECK(std::get<std::string>(value.at(1)) == "train/loss");
  CHECK(std::get<float>(value.at(2)) == 0.25f);
  CHECK(std::get<std::uint64_t>(parse(all[2]).at(2)) == std::uint64_t{1} << 40);
}

TEST_CASE("a resumed run writes another file and says from which step older points are void") {
  fixture::folder f;
  io::tensorboard_log first(f.path), second(f.path, 100);
  CHECK(first.path() != second.path());
  auto const all = records(second.path());
  REQUIRE(all.size() == 2);
  auto const start = parse(all[1]);
  CHECK(std::get<std::uint64_t>(start.at(2)) == 100);
  CHECK(std::get<std::uint64_t>(parse(std::get<std::string>(start.at(7))).at(1)) == 1);
  fixture::write(f / "file", "");
  CHECK_THROWS_AS(io::tensorboard_log(f / "file" / "runs"), input_error);
}

TEST_CASE("event files are ordered by name as they were made: in one second, by any process, after a clock set back") {
  fixture::folder f;
  std::vector<std::string> made;
  auto const add = [&] { made.push_back(io::tensorboard_log(f.path).path().filename().string()); };
  for (int i = 0; i < 12; ++i) add();
  // A process whose number sorts before this one's, and a file from an hour that is still to come.
  for (std::string const& later : {made.back().substr(0, made.back().rfind('.')) + ".0",
                                   std::string("events.out.tfevents.") +
                                       std::to_string(std::stoll(made.back().substr(20)) + 3600) + ".zebra.99999"}) {
    if (later > made.back()) made.push_back(later);
    fixture::write(f / later, "");
    add();
    add();
  }
  fixture::write(f / "events.out.tfevents.tomorrow", "");
  add();
  CHECK(std::is_sorted(made.begin(), made.end()));
  CHECK(std::adjacent_find(made.begin(), made.end()) == made.end());
}

TEST_CASE("tags and names of any bytes leave an event file that protobuf reads") {
  fixture::folder f;
  io::tensorboard_log log(f.path);
  log.write(1, "lo\xffss\n\xc3\xa9\xe2\x82", 1);
  log.flush();
  auto const all = records(log.path());
  auto const value = parse(std::get<std::string>(parse(std::get<std::string>(parse(all.at(1)).at(5))).at(1)));
  CHECK(std::get<std::string>(value.at(1)) == "lo\xef\xbf\xbdss \xc3\xa9\xef\xbf\xbd\xef\xbf\xbd");
}

}  // namespace train_io_tensorboard
