// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/io/checkpoint.hpp>

#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <data/folder.hpp>
#include <train_io/tensors.hpp>

namespace train_io_hostile {

using namespace dovetail;
using namespace std::string_literals;
using fixture::everything, fixture::thrown;

TEST_CASE("a file truncated at any length, or longer than it should be, is refused and nothing is loaded") {
  fixture::folder f;
  everything saved;
  io::save_checkpoint(f / "whole", saved.tensors(), {{"step", "42"}});
  auto const whole = fixture::read(f / "whole");
  for (std::size_t n = 0; n < whole.size(); ++n) {
    fixture::write(f / "cut", whole.substr(0, n));
    everything into = everything::other();
    CAPTURE(n);
    REQUIRE_THROWS_AS(io::load_checkpoint(f / "cut", into.tensors()), checkpoint_error);
    REQUIRE(into == everything::other());
  }
  fixture::write(f / "cut", whole + '\0');
  everything into = everything::other();
  CHECK_THROWS_AS(io::load_checkpoint(f / "cut", into.tensors()), checkpoint_error);
  CHECK(into == everything::other());
}

TEST_CASE("a flipped bit in any byte of a file is refused and nothing is loaded") {
  fixture::folder f;
  everything saved;
  io::save_checkpoint(f / "whole", saved.tensors(), {{"step", "42"}});
  auto const whole = fixture::read(f / "whole");
  for (std::size_t n = 0; n < whole.size(); ++n)
    for (int bit = 0; bit < 8; ++bit) {
      auto damaged = whole;
      damaged[n] = static_cast<char>(damaged[n] ^ (1 << bit));
      fixture::write(f / "flipped", damaged);
      everything into = everything::other();
      CAPTURE(n);
      CAPTURE(bit);
      REQUIRE_THROWS_AS(io::load_checkpoint(f / "flipped", into.tensors()), checkpoint_error);
      REQUIRE(into == everything::other());
    }
}

TEST_CASE("damage is said with the file, the tensor, the place and both checksums") {
  fixture::folder f;
  std::vector<float> w(4, 1.f);
  io::save_checkpoint(f / "c", {make_named_tensor("w", std::span(w))});
  auto damaged = fixture::read(f / "c");
  damaged[damaged.size() - 8 - 1] ^= 1;  // the last byte of w; the checksums are behind it
  fixture::write(f / "c", damaged);
  auto const what =
      thrown<checkpoint_error>([&] { io::load_checkpoint(f / "c", {make_named_tensor("w", std::span(w))}); });
  for (std::string const& part :
       {(f / "c").string(), "tensor 'w', 16 bytes at offset "s, "has checksum "s, "expected "s})
    CHECK(what.find(part) != std::string::npos);
  CHECK(what.find('\n') == std::string::npos);
}

TEST_CASE("hostile headers are refused for what is wrong with them, without reading or allocating beyond the file") {
  fixture::folder f;
  auto const path = f / "hostile";
  auto const reason = [&](std::string const& header, std::string const& data = "12345678") {
    fixture::write(path, fixture::raw_file(header, data));
    float w[2] = {-1, -1};
    auto const what = thrown<checkpoint_error>(
        [&] { io::load_checkpoint(path, {make_named_tensor("w", std::span<float>(w))}, {.allow_unchecked = true}); });
    CHECK(w[0] == -1);
    CHECK(w[1] == -1);
    return what;
  };
  std::pair<char const*, char const*> const cases[] = {
      // another tensor of zero bytes is no hole; this one is the only good header
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "does not fit its 4 bytes"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,16]}})", "to end within 8"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "claims bytes [8, 0)"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "expected it to begin at 0"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       "the tensors end at byte 4 of the data, the file at 8"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"v":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "tensor 'v' claims bytes [4, 8)"},
      {R"({"w":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]}})", "does not fit its 8 bytes"},
      {R"({"w":{"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]}})", "does not fit its 8 bytes"},
      {R"({"w":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,8]}})", "does not fit its 8 bytes"},
      {R"({"w":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})",
       "the number 18446744073709551615"},
      {R"({"w":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}})",
       "the number 99999999999999999999"},
      {R"({"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "the number -2"},
      {R"({"w":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", "the number 2.0"},
      {R"({"w":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})",
       "an array stands where the format has none (tensor 'w')"},
      {R"({"w":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", "the number 2 stands where"},
      {R"({"w":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}})", "the dtype 'F99'"},
      {R"({"w":{"dtype":7,"shape":[2],"data_offsets":[0,8]}})", "the number 7"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "has 1 data_offsets instead of 2"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}})", "the number 9"},
      {R"({"w":{"dtype":"F32","shape":[2]}})", "lacks its dtype, its shape or its data_offsets"},
      {R"({"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "two fields 'dtype'"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})", "a field 'more'"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "'w' appears twice"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"a":1}})", "the number 1"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"a":"1","a":"2"}})", "two 'a'"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"a":{}}})", "an object"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":"text"})", "the string 'text'"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__crc32__":{"dtype":"I32","shape":[0],"data_offsets":[8,8]}})",
       "'__crc32__' is I32 {0}, expected I32 {2}"},
      {R"({"w":null})", "null stands where"},
      {R"({"w":true})", "a boolean"},
      {"[]", "an array"},
      {"\"w\"", "the string 'w'"},
      {"7", "the number 7"},
      {"", "is not JSON"},
      {"{", "is not JSON"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} x)", "is not JSON"},
      {"{\"\xff\":{}}", "is not JSON"},
      {"\xef\xbb\xbf{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "begins with a byte-order mark"},
  };
  for (auto const& [header, expected] : cases) {
    CAPTURE(header);
    auto const what = reason(header);
    CAPTURE(what);
    CHECK(what.find(expected) != std::string::npos);
  }
  // Behind a byte of zero the parser would see nothing, whatever is there.
  std::string const good = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  for (std::string const& rest : {""s, " "s, "garbage"s, good, std::string(100, '\0')})
    CHECK(reason(good + '\0' + rest).find("has a byte of zero at byte " + std::to_string(good.size() + 8)) !=
          std::string::npos);
  CHECK(reason('\0' + good).find("has a byte of zero at byte 8") != std::string::npos);
  CHECK(reason(R"({"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234").find("missing in the file: 'w'") !=
        std::string::npos);
  // A tower of brackets as high as a file is long: no recursion, no tree.
  CHECK(reason(R"({"w":)" + std::string(1'000'000, '[')).find("an array stands where") != std::string::npos);
}

TEST_CASE("a header longer than the file, or than any header, is refused before it is read") {
  fixture::folder f;
  auto const refused = [&](std::string const& bytes) {
    fixture::write(f / "h", bytes);
    return thrown<checkpoint_error>([&] { io::checkpoint_file::open(f / "h"); });
  };
  CHECK(refused("\xff\xff\xff\xff\xff\xff\xff\xff{}"s).find("its header claims 18446744073709551615 bytes") !=
        std::string::npos);
  CHECK(refused("\x03\x00\x00\x00\x00\x00\x00\x00{}"s).find("after it the file has 2") != std::string::npos);
  CHECK(refused("").find("is truncated: it has 0 bytes") != std::string::npos);
  fixture::write(f / "h", "\x00\x00\x00\x80\x00\x00\x00\x00"s);
  std::filesystem::resize_file(f / "h", std::uintmax_t{3} << 30);  // sparse: takes no room
  CHECK(thrown<checkpoint_error>([&] { io::checkpoint_file::open(f / "h"); }).find("at most 100000000 are read") !=
        std::string::npos);
  CHECK(thrown<checkpoint_error>([&] { io::checkpoint_file::open(f / "nowhere"); }).find("No such file or directory") !=
        std::string::npos);
  CHECK_THROWS_AS(io::checkpoint_file::open(f.path), checkpoint_error);
}

}  // namespace train_io_hostile
