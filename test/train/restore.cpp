// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A saved state is taken up whole or refused, with the name of every piece that does not fit.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/compress.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train/trainer.hpp>

#include <doctest/doctest.h>

namespace train_restore {

using namespace dovetail;

namespace {

using tensors = std::vector<named_shape>;
tensors const two_layers{{"0.weight", {3, 2}}, {"0.bias", {3}}};
tensors const three_layers{{"0.weight", {3, 2}}, {"0.bias", {3}}, {"2.weight", {2, 3}}, {"2.bias", {2}}};

/// Pulls every weight towards the sample's value.
struct pulled {
  arena memory;
  explicit pulled(tensors const& l) : memory(l) {}
  parameter_list& parameters() { return memory.parameters(); }
  loss_sums gradients(data::batch const& b, gradient_pass const& pass) {
    if (!pass.accumulate) std::fill(memory.gradients().begin(), memory.gradients().end(), 0.f);
    for (float const x : b.values)
      for (std::size_t i = 0; i < memory.gradients().size(); ++i)
        memory.gradients()[i] += pass.scale * (memory.weights()[i] - x * static_cast<float>(i + 1));
    return {1, b.size, 0};
  }
};

data::in_memory numbers() {
  std::vector<float> values;
  for (int i = 0; i < 24; ++i) values.push_back(static_cast<float>(i % 7) - 2.5f);
  return {values, std::vector<std::int32_t>(24), 1};
}

template <class Optimizer = optim::sgd, class Sync = sync::all_reduce<>>
auto trainer_of(tensors const& l, Optimizer const& rule = {}, Sync const& sync = {}, int ranks = 2) {
  return train::trainer{pulled(l), rule, sync, comm::threads{ranks}};
}
template <class... Args>
io::saved_state state_of(Args const&... args) {
  auto t = trainer_of(args...);
  t.fit(numbers(), {.batch = 2, .steps = 3});
  return t.state();
}

/// What restore or the next fit says; the weights are then what they were.
template <class Trainer>
std::string refusal(Trainer t, io::saved_state const& s, train::fit_options const& o = {.batch = 2, .steps = 5}) {
  auto& weights = t.model().memory;
  std::vector<float> const before(weights.weights().begin(), weights.weights().end());
  bool restored = false;
  try {
    t.restore(s);
    restored = true;
    t.fit(numbers(), o);
  } catch (checkpoint_error const& e) {
    if (!restored) CHECK(std::equal(before.begin(), before.end(), t.model().memory.weights().begin()));
    CHECK(t.steps() == (restored ? 3 : 0));
    return e.what();
  }
  return "";
}
void check_says(std::string const& what, std::vector<std::string> const& expected) {
  CAPTURE(what);
  CHECK(!what.empty());
  for (auto const& e : expected) {
    CAPTURE(e);
    CHECK(what.find(e) != std::string::npos);
  }
}

/// A codec that keeps what it lost, a number of its own and one that all ranks share: only the first counts as a sum.
struct halves {
  static constexpr bool summable = true, fixed_size = true, unbiased = false, wants_error_feedback = false;
  using wire_type = float;
  struct state {
    std::vector<float> lost, shared;
    std::uint64_t calls = 0;
    std::vector<named_tensor> tensors(std::string const& prefix) {
      auto residual = make_named_tensor(prefix + "lost", std::span<float>(lost));
      residual.kind = state_kind::summed;
      return {residual, make_named_tensor(prefix + "shared", std::span<float>(shared)),
              make_named_tensor(prefix + "calls", calls)};
    }
  };
  std::size_t wire_size(std::size_t n) const { return n * sizeof(float); }
  state init(compress::bucket const& b) const { return {std::vector<float>(b.size()), {3.25f, -1}, 0}; }
  std::size_t encode(compress::bucket const& b, state& s, std::span<std::byte> out) const {
    ++s.calls;
    for (std::size_t i = 0; i < b.size(); ++i) {
      float const x = b.values[i] + s.lost[i], sent = x / 2;
      s.lost[i] = x - sent;
      std::memcpy(out.data() + i * sizeof sent, &sent, sizeof sent);
    }
    return wire_size(b.size());
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight = 1) const {
    for (std::size_t i = 0; i < out.size(); ++i) {
      float x = 0;
      std::memcpy(&x, payload.data() + i * sizeof x, sizeof x);
      out[i] += weight * x;
    }
  }
};
static_assert(codec<halves>);

}  // namespace

TEST_CASE(
    "another architecture: surplus and missing layers, other shapes, another order, each named by restore itself") {
  auto const saved = state_of(three_layers);
  auto smaller = trainer_of(two_layers);
  CHECK_THROWS_WITH_AS(smaller.restore(saved),
                       "saved state: nobody takes up '2.bias', '2.weight': it belongs to another model",
                       checkpoint_error);
  check_says(refusal(trainer_of(three_layers), state_of(two_layers)), {"there is no '2.weight', '2.bias'"});
  tensors other = three_layers;
  other[0].shape = {2, 3};
  other[3].shape = {2, 1};
  check_says(refusal(trainer_of(other), saved),
             {"'0.weight' is f32 {3, 2}, here f32 {2, 3}", "'2.bias' is f32 {2}, here f32 {2, 1}"});
  other = three_layers;
  std::swap(other[1], other[2]);
  check_says(refusal(trainer_of(other), saved), {"in another order"});
  tensors names = three_layers;
  names[1].name = "1.bias";
  check_says(refusal(trainer_of(names), saved), {"there is no '1.bias'", "nobody takes up '0.bias'"});
  CHECK(refusal(trainer_of(three_layers), saved).empty());
}

TEST_CASE("another optimizer's moments, another codec's residuals, another synchronizer: every piece is named") {
  auto const moments = state_of(two_layers, optim::adam{});
  check_says(refusal(trainer_of(two_layers, optim::momentum{}), moments),
             {"'optimizer.0.weight.", "'optimizer.0.bias.", "there is no", "nobody takes up"});
  // SGD keeps nothing but its step: what it would have dropped without a word.
  check_says(refusal(trainer_of(two_layers, optim::sgd{}), moments), {"nobody takes up 'optimizer.0.bias."});
  check_says(refusal(trainer_of(two_layers, optim::adam{}), state_of(two_layers, optim::sgd{})),
             {"there is no 'optimizer.0.weight."});

  sync::all_reduce const sparse{.codec = compress::error_feedback{compress::top_k{.ratio = 0.5f}},
                                .plan = sync::exchange::all_gather{}};
  auto const residuals = state_of(two_layers, optim::sgd{}, sparse);
  check_says(refusal(trainer_of(two_layers), residuals),
             {"nobody takes up 'rank0.bucket0.residual', 'rank1.bucket0.residual'"});
  check_says(refusal(trainer_of(two_layers, optim::sgd{}, sparse), state_of(two_layers)),
             {"there is no 'rank", "bucket0.residual'"});
  check_says(refusal(trainer_of(two_layers, optim::sgd{}, sync::all_reduce{.codec = halves{}}), residuals),
             {"bucket0.lost'", "nobody takes up"});
  auto cut = sparse;
  cut.bucket_bytes = 4;
  check_says(refusal(trainer_of(two_layers, optim::sgd{}, cut), residuals), {"bucket1.residual'"});
  check_says(refusal(trainer_of(two_layers, optim::sgd{}, sparse, 3), state_of(two_layers, optim::sgd{}, cut)),
             {"of 'bucket0.residual' there are 6 elements of 2 ranks, not 9 of each"});
  check_says(refusal(trainer_of(two_layers, optim::sgd{}, sync::local_sgd{}), state_of(two_layers)),
             {"rank", "weights.0.bias"});
  check_says(refusal(trainer_of(two_layers), state_of(two_layers, optim::sgd{}, sync::local_sgd{})),
             {"nobody takes up 'rank0.optimizer.step'", "'rank1.weights.0.weight'"});
  auto more = state_of(two_layers);
  more.add("rank7.bucket0.residual", {dtype::f32, {1}, std::vector<std::byte>(4)});
  more.add("something else", {dtype::u8, {1}, std::vector<std::byte>(1)});
  auto t = trainer_of(two_layers);
  check_says(refusal(trainer_of(two_layers), more), {"'rank7.bucket0.residual', 'something else'"});
}

TEST_CASE("positions that cannot be are refused, by restore itself") {
  auto const good = state_of(two_layers);
  auto const with = [&](auto const& change, std::int64_t steps = 0) {
    auto p = train::position::of(good);
    change(p);
    io::saved_state s;
    for (auto const& [name, piece] : good.pieces())
      if (name != train::position::name) s.add(name, piece);
    s.add({p.tensor()});
    auto t = trainer_of(two_layers);
    t.restore(s);
    if (steps) t.fit(numbers(), {.batch = 2, .steps = steps});
  };
  auto const refused = [&](auto const& change, char const* what) {
    CHECK_THROWS_WITH_AS(with(change), doctest::Contains(what), checkpoint_error);
  };
  CHECK_NOTHROW(with([](auto&) {}));
  auto const huge = std::numeric_limits<std::int64_t>::max();
  refused([](auto& p) { p.ranks = 0; }, "its position has ranks 0, at least 1");
  refused([](auto& p) { p.ranks = -2; }, "ranks -2");
  refused([&](auto& p) { p.ranks = huge; }, "which cannot be");
  refused([](auto& p) { p.batch = 0; }, "batch 0, at least 1");
  refused([](auto& p) { p.accumulate = 0; }, "accumulate 0");
  refused([](auto& p) { p.samples = 0; }, "samples 0");
  refused([](auto& p) { p.samples = -24; }, "samples -24");
  refused([](auto& p) { p.step = -1; }, "step -1");
  refused([&](auto& p) { p.step = huge; }, "which cannot be");
  refused([&](auto& p) { p.batches = huge; }, "which cannot be");
  refused([](auto& p) { p.batches = -1; }, "batches -1");
  refused([](auto& p) { p.skipped = 4; }, "of which 4 were skipped");
  refused([](auto& p) { p.epoch = -1; }, "epoch -1");
  refused([&](auto& p) { p.epoch = huge; }, "which cannot be");
  refused([&](auto& p) { p.epoch = huge / p.samples; }, "which cannot be");
  refused([](auto& p) { p.offset = p.samples; }, "sample 24 of 24");
  refused([](auto& p) { p.offset = -1; }, "offset -1");
  refused([](auto& p) { p.parameters += 1; }, "another order");
  // More ranks than there can be pieces of: nothing is looked up a billion times.
  sync::all_reduce const own{.codec = halves{}};
  auto p = train::position::of(good);
  p.ranks = 1 << 30;
  io::saved_state many;
  auto const with_own = state_of(two_layers, optim::sgd{}, own);
  for (auto const& [name, piece] : with_own.pieces())
    if (name != train::position::name) many.add(name, piece);
  many.add({p.tensor()});
  check_says(refusal(trainer_of(two_layers, optim::sgd{}, own), many), {"its position says 1073741824 ranks"});
  auto const begin = std::chrono::steady_clock::now();
  with([](auto& found) { found.ranks = 1 << 30; }, 4);  // nor where ranks have nothing of their own
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(3));

  io::saved_state old;
  for (auto const& [name, piece] : good.pieces())
    if (name != train::position::name) old.add(name, piece);
  auto t = trainer_of(two_layers);
  CHECK_THROWS_WITH_AS(t.restore(old), doctest::Contains("there is no 'train.position'"), checkpoint_error);
  old.add(train::position::name, {dtype::i64, {7}, std::vector<std::byte>(56)});
  CHECK_THROWS_WITH_AS(t.restore(old), doctest::Contains("has shape {7}, expected {13}"), checkpoint_error);
  CHECK_THROWS_AS(t.restore({}), checkpoint_error);
}

TEST_CASE("on another number of ranks residuals keep their sum, and nothing else is added up") {
  auto const floats = [](io::saved_state const& s, std::string const& name) {
    auto const* p = s.find(name);
    REQUIRE(p);
    std::vector<float> values(p->bytes.size() / 4);
    std::memcpy(values.data(), p->bytes.data(), p->bytes.size());
    return values;
  };
  for (int before : {1, 2, 3})
    for (int after : {1, 2, 4}) {
      auto const saved = state_of(two_layers, optim::sgd{.lr = 0.01f}, sync::all_reduce{.codec = halves{}}, before);
      auto t = trainer_of(two_layers, optim::sgd{.lr = 0.01f}, sync::all_reduce{.codec = halves{}}, after);
      t.restore(saved);
      t.fit(numbers(), {.batch = 2, .steps = 3});  // no step is left: the state is taken over as it is
      std::vector<double> was(9), is(9);
      for (int r = 0; r < before; ++r)
        for (std::size_t i = 0; i < 9; ++i)
          was[i] += static_cast<double>(floats(saved, message("rank", r, ".bucket0.lost"))[i]);
      for (int r = 0; r < after; ++r) {
        for (std::size_t i = 0; i < 9; ++i)
          is[i] += static_cast<double>(floats(t.state(), message("rank", r, ".bucket0.lost"))[i]);
        CHECK(floats(t.state(), message("rank", r, ".bucket0.shared")) == std::vector<float>{3.25f, -1});
        CHECK(t.state().find(message("rank", r, ".bucket0.calls"))->bytes == saved.find("rank0.bucket0.calls")->bytes);
      }
      for (std::size_t i = 0; i < 9; ++i) {
        CHECK(std::abs(was[i]) > 0.01);
        CHECK(is[i] == doctest::Approx(was[i]).epsilon(1e-6));
      }
    }
}

}  // namespace train_restore
