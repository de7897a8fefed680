// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decode, average and step in one pass: the same bits as one after the other.
#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync/all_reduce.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include <doctest/doctest.h>

#include "gradients.hpp"

namespace sync_fused {

using namespace dovetail;
namespace exchange = sync::exchange;

namespace {

struct outcome {
  std::vector<float> weights, norms;
  std::vector<std::byte> kept;  // by optimizer and codecs
  std::uint64_t bytes = 0;
  int skipped = 0;
  friend bool operator==(outcome const&, outcome const&) = default;
};

/// Tensors of an odd arena one by one, each in memory of its own.
struct scattered {
  std::vector<std::vector<float>> memory;
  parameter_list list;
  explicit scattered(parameter_list const& like) {
    memory.reserve(2 * like.size());
    for (std::size_t i = 0; i < like.size(); ++i) {
      auto& w = memory.emplace_back(like[i].size());
      auto& g = memory.emplace_back(like[i].size());
      list.add(like[i].name, w, g, like[i].shape);
    }
  }
};

/// What rank 0 has after eight steps, of which one has a gradient that is not finite.
template <class Exchange, class Codec, class Rule>
outcome train(Codec const& codec, Rule const& rule, int ranks, bool apart) {
  outcome result;
  comm::threads(ranks).run([&](auto& c) {
    auto a = test::odd_arena();
    scattered s(a.parameters());
    auto& list = apart ? s.list : a.parameters();
    for (std::size_t i = 0, at = 0; i < list.size(); ++i)
      for (float& w : list[i].weight) w = 0.01f * static_cast<float>(at++ % 17) - 0.05f;
    sync::all_reduce<Codec, Exchange> const policy{.codec = codec, .bucket_bytes = 800, .seed = 3};
    auto session = policy.join(list, rule, c);
    auto const before = c.traffic();
    int skipped = 0;
    std::vector<float> norms;
    for (std::uint64_t t = 0; t < 8; ++t) {
      session.begin();
      test::fill(a.gradients(), c.rank(), t);
      if (t == 4 && c.rank() == ranks - 1) a.gradients()[1000] = std::numeric_limits<float>::quiet_NaN();
      for (std::size_t i = 0; apart && i < list.size(); ++i)
        std::copy(a.parameters()[i].gradient.begin(), a.parameters()[i].gradient.end(), list[i].gradient.begin());
      session.ready(0);
      auto const r = session.step({.gradient_factor = 1.0f / static_cast<float>(ranks)});
      skipped += r.skipped;
      norms.push_back(static_cast<float>(r.gradient_norm));
    }
    auto const moved = c.traffic() - before;
    if (c.rank() != 0) return;
    result.bytes = moved.bytes_sent;
    result.skipped = skipped;
    result.norms = norms;
    for (std::size_t i = 0; i < list.size(); ++i)
      result.weights.insert(result.weights.end(), list[i].weight.begin(), list[i].weight.end());
    for (auto part : {session.replicated(""), session.own("")})
      for (auto const& t : part) result.kept.insert(result.kept.end(), t.bytes.begin(), t.bytes.end());
  });
  return result;
}

template <class Wish, class Codec, class Rule>
void check(Codec const& codec, Rule const& rule) {
  for (int const ranks : {1, 2, 3, 5})
    for (bool const apart : {false, true}) {
      CAPTURE(ranks);
      CAPTURE(apart);
      auto const fused = train<exchange::fused<Wish>>(codec, rule, ranks, apart);
      CHECK(fused == train<Wish>(codec, rule, ranks, apart));
      CHECK(fused.skipped == 1);
      for (float const w : fused.weights) REQUIRE(std::isfinite(w));
    }
}

}  // namespace

TEST_CASE("a fused exchange gives the weights, norms, states and bytes of decoding first, bit for bit") {
  using exchange::all_gather, exchange::automatic, exchange::reduce_scatter_all_gather;
  check<automatic>(compress::fp16{}, optim::adamw{});  // one sum, of all ranks
  check<all_gather>(compress::fp16{.scale = 0.25f}, optim::lamb{});
  check<automatic>(compress::stochastic_bf16{}, optim::adamw{});
  check<all_gather>(compress::int8{.block = 96}, optim::adamw{});
  check<reduce_scatter_all_gather>(compress::int8{}, optim::lamb{});
  check<all_gather>(compress::error_feedback{compress::int4{.block = 33}}, optim::adamw{});
  check<automatic>(compress::error_feedback{compress::sign{.block = 64}}, optim::adamw{});
  check<reduce_scatter_all_gather>(compress::error_feedback{compress::sign{}}, optim::lion{});
  check<all_gather>(compress::error_feedback{compress::top_k{.ratio = 0.05f}}, optim::adamw{});
  check<reduce_scatter_all_gather>(compress::error_feedback{compress::top_k{.ratio = 0.3f}}, optim::lamb{});
  check<exchange::merge_tree>(compress::error_feedback{compress::top_k{.ratio = 0.1f}}, optim::adamw{});
  check<automatic>(compress::qsgd{.levels = 3, .block = 50}, optim::adamw{});
  check<all_gather>(compress::terngrad{.packing = compress::packing::base3}, optim::adamw{});
}

TEST_CASE("a source of encoded gradients is read from anywhere, and says where it does not fit") {
  std::size_t const n = 10000, split = 4567;
  std::vector<float> x(n), expected(n);
  test::fill(x, 0, 0);
  compress::int8 const codec{.block = 100};
  std::vector<std::vector<std::byte>> payloads;
  std::vector<range> of;
  for (int rank = 0; rank < 2; ++rank)
    for (range const part : {range{0, split}, range{split, n}}) {
      test::fill(x, rank, 0);
      auto& p = payloads.emplace_back(codec.wire_size(part.size()));
      auto state = compress::no_state{};
      codec.encode(compress::bucket{std::span(x).subspan(part.begin, part.size()), {}}, state, p);
      codec.decode_add(p, std::span(expected).subspan(part.begin, part.size()));
      of.push_back(part);
    }
  using reader = decltype(codec.reader(payloads[0], split));
  std::vector<optim::gradient::encoded_part<reader>> parts;
  for (std::size_t const i : {0u, 2u, 1u, 3u}) parts.push_back({of[i].begin, codec.reader(payloads[i], of[i].size())});
  optim::gradient::decoded<reader> const source{parts};
  std::vector<float> room(79 + 4096);
  for (std::size_t const first : {0u, 1u, 79u, 80u, 81u, 4500u, 4567u, 4568u, 9999u})
    for (std::size_t const wanted : {1u, 7u, 100u, 4096u}) {
      std::size_t const count = std::min(wanted, n - first);
      CAPTURE(first);
      CAPTURE(count);
      float const* const read = source.read(first, count, room);
      REQUIRE(std::memcmp(read, expected.data() + first, 4 * count) == 0);
    }
  CHECK(source.bytes() == doctest::Approx(2 * (1 + 0.04)).epsilon(0.01));

  arena a({{"w", {10000}}}), longer({{"w", {10001}}});
  CHECK_NOTHROW(source.check(a.parameters()));
  CHECK_THROWS_WITH_AS(source.check(longer.parameters()),
                       "gradient::decoded: parts of 10000 elements for a list of 10001", argument_error);
  auto gap = parts;
  gap.erase(gap.begin() + 2, gap.end());
  CHECK_THROWS_AS((optim::gradient::decoded<reader>{gap}.check(a.parameters())), argument_error);
  auto order = parts;
  std::swap(order[1], order[2]);
  CHECK_THROWS_WITH_AS((optim::gradient::decoded<reader>{order}.check(a.parameters())),
                       "gradient::decoded: a part of the elements 0 to 4567 stands behind one of 4567 to 10000: parts "
                       "follow each other without a gap, in the order of their elements",
                       argument_error);
  CHECK_THROWS_AS(
      (optim::gradient::decoded<reader>{parts, std::numeric_limits<float>::infinity()}.check(a.parameters())),
      argument_error);

  // A step reads it as it reads a list's own gradients, with any number of threads, in one pass and in two.
  auto const step = [&](auto const& rule, int threads, auto const&... from) {
    arena b({{"u", {3}}, {"v", {100, 99}}, {"w", {97}}});
    std::copy(expected.begin(), expected.end(), b.gradients().begin());
    for (std::size_t i = 0; i < n; ++i) b.weights()[i] = 0.001f * static_cast<float>(i % 100);
    auto state = rule.init(b.parameters());
    for (int t = 0; t < 3; ++t) rule.step(b.parameters(), state, from..., optim::step_context{.threads = threads});
    return std::vector<float>(b.weights().begin(), b.weights().end());
  };
  optim::gradient::decoded<reader> const half{parts, 0.5f};
  for (int const threads : {1, 2}) {
    CHECK(step(optim::adamw{}, threads, half) == step(optim::adamw{}, 1, optim::gradient::scaled{0.5f}));
    CHECK(step(optim::lamb{}, threads, half) == step(optim::lamb{}, 1, optim::gradient::scaled{0.5f}));
    CHECK(step(optim::adafactor{}, threads, half) == step(optim::adafactor{}, 1, optim::gradient::scaled{0.5f}));
    optim::chain const careful{optim::scale_by_adafactor{}, optim::cautious{},
                               optim::scale_by_learning_rate{}};  // reads gradients in its second pass too
    CHECK(step(careful, threads, half) == step(careful, 1, optim::gradient::scaled{0.5f}));
    CHECK(step(optim::adamw{}, threads, source) == step(optim::adamw{}, 1));
  }
}

TEST_CASE("a damaged payload is refused before anything is read of it") {
  compress::top_k const codec{.ratio = 0.5f};
  std::vector<std::byte> payload(8 * 4);
  std::uint32_t const index[4] = {0, 3, 3, 5};
  for (int i = 0; i < 4; ++i) std::memcpy(payload.data() + 8 * i, &index[i], 4);
  CHECK_THROWS_AS(codec.reader(payload, 8), input_error);
  CHECK_THROWS_AS(compress::int8{}.reader(payload, 8), input_error);
  CHECK_THROWS_AS(compress::fp16{}.reader(payload, 8), input_error);
  CHECK_THROWS_AS(compress::sign{}.reader(payload, 8), input_error);
}

}  // namespace sync_fused
