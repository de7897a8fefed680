// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <dovetail/io/checkpoint.hpp>
#include <dovetail/optim/rules/adam.hpp>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <data/folder.hpp>
#include <train_io/tensors.hpp>

namespace train_io_checkpoint {

using namespace dovetail;
using namespace std::string_literals;
using fixture::everything, fixture::thrown;

namespace {

bool contains(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("CRC-32 and CRC-32C give the published check values, in pieces too") {
  std::string const digits = "123456789";
  auto const bytes = std::as_bytes(std::span(digits));
  CHECK(io::crc32(bytes) == 0xCBF43926u);
  CHECK(io::crc32c(bytes) == 0xE3069283u);
  CHECK(io::crc32({}) == 0);
  std::string text;
  for (int i = 0; i < 100; ++i) text += static_cast<char>(i * 37);
  auto const all = std::as_bytes(std::span(text));
  for (std::size_t cut = 0; cut <= all.size(); ++cut)
    REQUIRE(io::crc32(all.subspan(cut), io::crc32(all.first(cut))) == io::crc32(all));
}

TEST_CASE("what was saved is loaded, of every width, and the metadata with it") {
  fixture::folder f;
  everything saved, loaded = everything::other();
  io::save_checkpoint(f / "c.safetensors", saved.tensors(), {{"step", "42"}, {"note", "größer \"quoted\"\n"}});
  auto const metadata = io::load_checkpoint(f / "c.safetensors", loaded.tensors());
  CHECK(loaded == saved);
  CHECK(metadata == io::checkpoint_metadata{{"step", "42"}, {"note", "größer \"quoted\"\n"}});
  CHECK(!std::filesystem::exists(f / "c.safetensors.tmp"));
  io::save_checkpoint(f / "empty.safetensors", {});
  CHECK(io::load_checkpoint(f / "empty.safetensors", {}).empty());
}

TEST_CASE("weights and state of doubles are saved as doubles, and a training goes on from them to the bit") {
  fixture::folder f;
  optim::adamw const rule{.lr = 0.01f};
  auto const steps = [&](auto& a, auto& s, int from, int to) {
    for (int t = from; t < to; ++t) {
      for (std::size_t i = 0; i < a.weights().size(); ++i) {
        auto const x = 1.0 / (3.0 + static_cast<double>(i) + t) + 0.1 * static_cast<double>(a.weights()[i]);
        a.gradients()[i] = static_cast<std::remove_reference_t<decltype(a.gradients()[i])>>(x);
      }
      rule.step(a.parameters(), s);
    }
  };
  auto const all = [](auto& a, auto& s) {
    auto list = s.tensors("optimizer.");
    for (auto& p : a.parameters()) list.push_back(make_named_tensor(p.name, p.weight, p.shape));
    return list;
  };
  std::vector<named_shape> const layout{{"w", {3, 5}}, {"b", {5}}};
  basic_arena<double> whole(layout), half(layout), rest(layout);
  auto a = rule.init(whole.parameters()), b = rule.init(half.parameters()), c = rule.init(rest.parameters());
  steps(whole, a, 0, 20);
  steps(half, b, 0, 10);
  io::save_checkpoint(f / "doubles.safetensors", all(half, b));
  io::load_checkpoint(f / "doubles.safetensors", all(rest, c));
  CHECK(c == b);
  steps(rest, c, 10, 20);
  CHECK(c == a);
  CHECK(std::equal(rest.weights().begin(), rest.weights().end(), whole.weights().begin()));
  arena floats(layout);
  auto s = rule.init(floats.parameters());
  auto const error = thrown<checkpoint_error>([&] { io::load_checkpoint(f / "doubles.safetensors", all(floats, s)); });
  CHECK(contains(error, "is F64"));
  CHECK(contains(error, "expected F32"));
}

TEST_CASE("the file is laid out as the format demands: aligned, without holes, names and dtypes in JSON") {
  fixture::folder f;
  everything saved;
  io::save_checkpoint(f / "c", saved.tensors(), {{"k", "v"}});
  auto const file = fixture::read(f / "c");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  REQUIRE(length < file.size());
  CHECK((8 + length) % 8 == 0);
  auto const j = nlohmann::json::parse(file.substr(8, length));
  CHECK(j["__metadata__"]["k"] == "v");
  CHECK(j["0.weight"]["dtype"] == "F32");
  CHECK(j["0.weight"]["shape"] == std::vector<int>{2, 3});
  CHECK(j["half"]["dtype"] == "BF16");
  CHECK(j["step"]["dtype"] == "U64");
  CHECK(j["step"]["shape"].empty());
  std::uint64_t const begin = j["0.weight"]["data_offsets"][0];
  float third;
  std::memcpy(&third, file.data() + 8 + length + begin + 8, 4);
  CHECK(third == 3);
  for (auto const& [name, t] : j.items())
    if (name != "__metadata__") {
      auto const width = t["dtype"] == "U8" ? 1u : t["dtype"] == "BF16" ? 2u : t["dtype"] == "U64" ? 8u : 4u;
      CHECK(t["data_offsets"][0].get<std::uint64_t>() % width == 0);
    }
}

TEST_CASE("a file can be looked into and its tensors read one by one") {
  fixture::folder f;
  everything saved;
  io::save_checkpoint(f / "c", saved.tensors(), {{"k", "v"}});
  auto file = io::checkpoint_file::open(f / "c");
  CHECK(file.has_checksums());
  CHECK(file.metadata().at("k") == "v");
  CHECK(file.entries().size() == 5);
  REQUIRE(file.find("0.weight"));
  CHECK(file.find("0.weight")->shape == std::vector<std::int64_t>{2, 3});
  CHECK(file.find("0.weight")->type == dtype::f32);
  CHECK(!file.find("__crc32__"));
  CHECK(file.read("bytes") == std::vector<std::byte>{std::byte{7}, std::byte{8}, std::byte{9}});
  CHECK(file.read("none").empty());
  CHECK(contains(thrown<checkpoint_error>([&] { file.read("1.weight"); }), "there is no tensor '1.weight'"));
}

TEST_CASE("names, dtypes and shapes must agree, and what differs is named before anything is written") {
  fixture::folder f;
  everything saved;
  auto const path = f / "c";
  io::save_checkpoint(path, saved.tensors());
  std::vector<float> w(6, -1), extra(2, -1);
  auto const refused = [&](std::vector<named_tensor> into) {
    auto const what = thrown<checkpoint_error>([&] { io::load_checkpoint(path, into); });
    CHECK(w == std::vector<float>(6, -1));
    CHECK(extra == std::vector<float>(2, -1));
    return what;
  };
  auto const names =
      refused({make_named_tensor("0.weight", std::span(w), {2, 3}), make_named_tensor("1.weight", std::span(extra)),
               make_named_tensor("2.bias", std::span(extra))});
  CHECK(contains(names, "missing in the file: '1.weight', '2.bias'"));
  CHECK(contains(names, "not expected: 'step', 'none', 'half', 'bytes'"));
  CHECK(contains(refused({make_named_tensor("0.weight", std::span(w), {3, 2})}),
                 "tensor '0.weight' is F32 {2, 3} in the file, expected F32 {3, 2}"));
  CHECK(contains(refused({make_named_tensor("0.weight", std::span(w), {6})}), "expected F32 {6}"));
  std::vector<std::int32_t> integers(6);
  CHECK(contains(refused({make_named_tensor("0.weight", std::span(integers), {2, 3})}), "expected I32 {2, 3}"));
  CHECK(contains(refused({make_named_tensor("0.weight", std::span(w), {2, 3}),
                          make_named_tensor("0.weight", std::span(w), {2, 3})}),
                 "two tensors to be loaded are called '0.weight'"));
  CHECK(contains(refused({{"0.weight", dtype::f32, {2, 3}, std::as_writable_bytes(std::span(w).first(5))}}),
                 "20 bytes of memory"));

  io::load_checkpoint(path, {make_named_tensor("0.weight", std::span(w), {2, 3})}, {.ignore_unexpected = true});
  CHECK(w == saved.weight);
}

TEST_CASE("saving refuses repeated, reserved and unspeakable names and leaves the old file") {
  fixture::folder f;
  std::vector<float> w(2);
  auto const path = f / "c";
  io::save_checkpoint(path, {make_named_tensor("w", std::span(w))});
  auto const before = fixture::read(path);
  auto const refused = [&](std::vector<named_tensor> const& t, io::checkpoint_metadata const& m = {}) {
    auto const what = thrown<checkpoint_error>([&] { io::save_checkpoint(path, t, m); });
    CHECK(fixture::read(path) == before);
    CHECK(!std::filesystem::exists(path.string() + ".tmp"));
    return what;
  };
  auto const named = [&](std::string name) { return make_named_tensor(std::move(name), std::span(w)); };
  CHECK(contains(refused({named("w"), named("w")}), "two tensors are called 'w'"));
  CHECK(contains(refused({named("__crc32__")}), "reserved"));
  CHECK(contains(refused({named("__metadata__")}), "reserved"));
  CHECK(contains(refused({named("\xff")}), "not valid UTF-8"));
  CHECK(contains(refused({named("w")}, {{"k", "\xc3"}}), "not valid UTF-8"));
  CHECK(contains(refused({{"w", dtype::f32, {3}, std::as_writable_bytes(std::span(w))}}), "has 8 bytes of memory"));
  // Products that come out right, of extents that no file has.
  std::int64_t const huge = std::int64_t{1} << 62;
  for (shape const& s : {shape{-1, -2}, shape{huge, 8, 2}})
    CHECK(contains(refused({{"w", dtype::f32, s, std::as_writable_bytes(std::span(w))}}), "has 8 bytes of memory"));
  CHECK(contains(refused({{"w", dtype::f32, {huge, 4}, {}}}), "has 0 bytes of memory"));
}

TEST_CASE("another program's file has no checksums and is loaded only when that is allowed") {
  fixture::folder f;
  auto const path = f / "foreign";
  fixture::write(path, fixture::raw_file(
                           R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                           "\x00\x00\x80\x3f"s));
  float w = 0;
  std::vector const into{make_named_tensor("w", w)};
  CHECK(contains(thrown<checkpoint_error>([&] { io::load_checkpoint(path, into); }), "load it with .allow_unchecked"));
  CHECK(contains(thrown<checkpoint_error>([&] { io::load_checkpoint(path, into, {.allow_unchecked = true}); }),
                 "is F32 {1} in the file, expected F32 {}"));
  CHECK(w == 0);
  io::load_checkpoint(path, {make_named_tensor("w", std::span(&w, 1))}, {.allow_unchecked = true});
  CHECK(w == 1);
}

TEST_CASE("a tensor of a type that is not known does not make the others unreadable") {
  fixture::folder f;
  auto const path = f / "foreign";
  fixture::write(path, fixture::raw_file(R"({"q":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]},)"
                                         R"("w":{"dtype":"F32","shape":[1],"data_offsets":[3,7]},)"
                                         R"("b":{"dtype":"","shape":[],"data_offsets":[7,7]}})",
                                         "abc\x00\x00\x80\x3f"s));
  auto file = io::checkpoint_file::open(path);
  REQUIRE(file.find("q"));
  CHECK(!file.find("q")->type);
  CHECK(file.find("q")->type_name() == "F8_E4M3");
  CHECK(file.read("q") == std::vector<std::byte>{std::byte{'a'}, std::byte{'b'}, std::byte{'c'}});
  float w = 0;
  io::load_checkpoint(path, {make_named_tensor("w", std::span(&w, 1))},
                      {.ignore_unexpected = true, .allow_unchecked = true});
  CHECK(w == 1);
  std::vector<std::uint8_t> q(3);
  CHECK(contains(thrown<checkpoint_error>([&] {
                   io::load_checkpoint(path, {make_named_tensor("q", std::span(q))},
                                       {.ignore_unexpected = true, .allow_unchecked = true});
                 }),
                 "tensor 'q' has the dtype 'F8_E4M3', which is not known here: convert it to U8"));
  // Where it lies is checked all the same.
  fixture::write(path, fixture::raw_file(R"({"q":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,9]}})", "12345678"));
  CHECK(contains(thrown<checkpoint_error>([&] { io::checkpoint_file::open(path); }), "to end within 8"));
}

TEST_CASE("a hundred thousand tensors are saved and loaded in a time that grows as their number does") {
  fixture::folder f;
  std::vector<float> w(100'000, 1.f);
  std::vector<named_tensor> all;
  for (std::size_t i = 0; i < w.size(); ++i)
    all.push_back(make_named_tensor("layers." + std::to_string(i) + ".weight", w[i]));
  // Before, the second took a hundred times the first's time and more; ten is what is expected.
  auto const seconds = [&](std::size_t n) {
    double best = 1e9;
    std::vector<named_tensor> const some(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n));
    for (int repetition = 0; repetition < (n < w.size() ? 3 : 1); ++repetition) {
      auto const begin = std::chrono::steady_clock::now();
      io::save_checkpoint(f / "c", some);
      io::load_checkpoint(f / "c", some);
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return best;
  };
  double const few = seconds(10'000), many = seconds(100'000);
  CAPTURE(few);
  CHECK(many < 40 * few);
}

}  // namespace train_io_checkpoint
