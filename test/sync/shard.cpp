// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules whose state is packed or made of several states, divided among ranks: what the undivided rule does, bit for
// bit.
#include "shard.hpp"

#include <limits>

#include <dovetail/optim/second_order/stochastic_lbfgs.hpp>

namespace sync_shard {

using namespace divided;

namespace {

optim::adamw const adamw{.lr = 0.01f, .weight_decay = 0.02f};

/// A rule that learns nothing from where its part lies, but asks for whole tensors: a rank's arrays of tensors that it
/// has nothing of are fewer.
struct by_shape {
  using kind = optim::tensorwise;
  std::vector<named_shape> arrays(shape const& s) const {
    if (s.size() < 100) return {};
    return {{"first", shape{s[0]}}, {"last", shape{s[s.rank - 1]}}};
  }
  void apply(optim::tensor_update const& t) const {
    for (auto& a : t.arrays)
      for (std::size_t i = 0; i < a.values.size(); ++i) t.update[i] += 0.1f * (a.values[i] += t.update[i]);
  }
};

}  // namespace

TEST_CASE("packed slots") {
  check(optim::low_precision_state{adamw, optim::bf16_slots{.seed = 3}});
  check(optim::low_precision_state{adamw, optim::blockwise_8bit{.seed = 4}},
        // Within b.weight, which begins at 769; ranks without anything.
        {.bounds = {{0, 769 + 256, 769 + 4864, 6049}, {0, 0, 769, 769, 6049, 6049}}});
  check(optim::low_precision_state{optim::chain{optim::clip_by_global_norm{100}, adamw}, optim::bf16_slots{}});
  check(optim::low_precision_state{optim::rprop{}, optim::bf16_slots{}});  // a slot that does not begin at zero
}

TEST_CASE("weights that are kept elsewhere, and their copies") {
  check([](replica& m) {
    return optim::low_precision_state{adamw, optim::fp32_slots{}, optim::master_weights<bf16>{m.halves()}};
  });
  check([](replica& m) {
    return optim::low_precision_state{adamw, optim::blockwise_8bit{}, optim::master_weights<bf16>{m.halves()}};
  });
  check(
      [](replica& m) {
        return optim::low_precision_state{adamw, optim::bf16_slots{}, optim::split_weights{m.halves()}};
      },
      {.in_half = true, .bounds = {{0, 512, 6049}}});
  check(
      [](replica& m) {
        return optim::low_precision_state{adamw, optim::fp32_slots{}, optim::rounded_weights{m.halves(), 9}};
      },
      {.in_half = true});
}

TEST_CASE("packed slots of groups, which are found by the shapes of whole tensors") {
  auto const large = [](auto, shape const& s) { return s.rank == 2 && s[0] > 10; };
  check(optim::low_precision_state{optim::param_groups{adamw, optim::group{large, optim::adamw{.lr = 0.1f}}},
                                   optim::blockwise_8bit{}});
  check(optim::param_groups{adamw, optim::group{large, optim::adamw{.lr = 0.1f}}});
}

TEST_CASE("sums over tensors run over all ranks, in another order") {
  check(optim::low_precision_state{optim::lamb{.lr = 0.01f}, optim::bf16_slots{}}, {.nearness = 1e-6});
  check(optim::low_precision_state{optim::lamb{.lr = 0.01f}, optim::blockwise_8bit{}}, {.nearness = 1e-6});
  check(optim::stochastic_lbfgs{.history = 2, .interval = 2, .signal = 0}, {.nearness = 1e-5});
}

TEST_CASE("tensorwise stages have whole tensors") {
  check(optim::adafactor{});
  check(optim::low_precision_state{optim::chain{optim::centralize{}, adamw}, optim::bf16_slots{}});
  check(optim::chain{by_shape{}, adamw});
}

TEST_CASE("several rules, found by the shapes of whole tensors") {
  auto const large = [](auto, shape const& s) { return s.rank == 2 && s[0] > 10; };
  check(optim::partition{adamw, optim::group{large, optim::adafactor{}},
                         optim::group{optim::name_matches{"a.*"}, optim::frozen{}}});
  check(optim::frozen{});
  // Random words go by a tensor's place in its rule's list.
  check([&](replica& m) {
    auto const all = m.halves();
    optim::master_weights<bf16> const own{{all[3], all[5]}};
    optim::param_groups const groups{adamw, optim::group{optim::name_matches{"a.*"}, optim::adamw{.lr = 0.1f}}};
    return optim::partition{optim::low_precision_state{adamw, optim::blockwise_8bit{}},
                            optim::group{large, optim::low_precision_state{groups, optim::bf16_slots{}, own}}};
  });
}

TEST_CASE("when one of several rules skips its step, the weights of the others are shared") {
  auto const run = [](auto const& rule, replica& m) {
    auto state = rule.init(m.a.parameters());
    fill(m.a.gradients(), 100);
    m.a.parameters()[5].gradient[0] = std::numeric_limits<float>::quiet_NaN();
    CHECK(rule.step(m.a.parameters(), state).skipped);
  };
  optim::partition const rule{adamw,
                              optim::group{optim::name_matches{"b.*"}, optim::chain{optim::skip_non_finite{}, adamw}}};
  replica alone;
  run(rule, alone);
  CHECK(alone.a.weights()[0] != replica().a.weights()[0]);
  comm::threads(3).run([&](auto& c) {
    replica m;
    run(sync::shard(rule, c), m);
    CHECK(same_bits<float>(m.a.weights(), alone.a.weights()));
  });
}

TEST_CASE("parts end where blocks end, as evenly as they allow") {
  comm::threads(4).run([](auto& c) {
    replica m;
    auto const& p = m.a.parameters();
    using bounds = std::vector<std::size_t>;
    CHECK(sync::shard(adamw, c).init(p).bounds == bounds{0, 1513, 3025, 4537, 6049});
    // A quarter is 1512.25; b.weight begins at 769 and c.weight at 5769.
    optim::low_precision_state const packed{adamw, optim::blockwise_8bit{}};
    CHECK(sync::shard(packed, c).init(p).bounds == bounds{0, 769 + 3 * 256, 769 + 9 * 256, 769 + 15 * 256, 6049});
    CHECK(sync::shard(optim::partition{adamw}, c).init(p).bounds == bounds{0, 769, 769, 5769, 6049});
    CHECK(sync::shard(packed, c).init(p).inner.bytes() < packed.init(p).bytes() / 3);

    auto const refused = [&](auto const& rule, std::size_t bound, std::string const& why) {
      auto const init = [&] { sync::shard(rule, c, {0, bound, 6049, 6049, 6049}).init(p); };
      CHECK_THROWS_WITH_AS(init(), why.c_str(), argument_error);
    };
    refused(
        packed, 1000,
        "sync::shard: the bound 1000 divides tensor 'b.weight' of flat indices 769 to 5769, of which this rule needs "
        "each 256 elements from its beginning together: the nearest bounds are 769 and 1025");
    refused(
        packed, 5768,
        "sync::shard: the bound 5768 divides tensor 'b.weight' of flat indices 769 to 5769, of which this rule needs "
        "each 256 elements from its beginning together: the nearest bounds are 5633 and 5769");
    refused(
        optim::partition{adamw}, 1000,
        "sync::shard: the bound 1000 divides tensor 'b.weight' of flat indices 769 to 5769, of which this rule needs "
        "all together: the nearest bounds are 769 and 5769");
    CHECK_NOTHROW(sync::shard(adamw, c, {0, 1000, 6049, 6049, 6049}).init(p));
  });
}

TEST_CASE("a state of other parameters is not cut") {
  comm::threads(2).run([](auto& c) {
    replica m;
    optim::low_precision_state const rule{adamw, optim::blockwise_8bit{}};
    auto const opt = sync::shard(rule, c);
    arena other({{"none", {0}}, {"one", {2}}});
    CHECK_THROWS_WITH_AS(opt.part_of_state(m.a.parameters(), rule.init(other.parameters())),
                         doctest::Contains("optimizer state was made for 2 parameters"), argument_error);
    auto tensors_of = divided::tensors();
    tensors_of[5].shape = {50, 101};
    arena longer(tensors_of);
    CHECK_THROWS_AS(opt.part_of_state(m.a.parameters(), rule.init(longer.parameters())), argument_error);
  });
}

TEST_CASE("a part is refused by another rank, other ranks and other shapes") {
  std::vector<arena::tensor> const tall{{"w", {2, 100}}}, wide{{"w", {100, 2}}};
  arena a(tall), b(wide);
  comm::self alone;
  auto state = sync::shard(adamw, alone).init(a.parameters());
  CHECK_THROWS_WITH_AS(sync::shard(adamw, alone).step(b.parameters(), state),
                       doctest::Contains("'w' had shape {2, 100} at init() and has {100, 2} now"), argument_error);
  comm::threads(2).run([&](auto& c) {
    auto const opt = sync::shard(adamw, c);
    auto own = opt.init(a.parameters());
    auto other = own;
    other.rank = 1 - c.rank();
    CHECK_THROWS_WITH_AS(opt.step(a.parameters(), other), doctest::Contains("is the part of rank"), argument_error);
    other = own;
    other.bounds = state.bounds;  // of one rank
    CHECK_THROWS_WITH_AS(opt.gathered(a.parameters(), other), doctest::Contains("of 1, this is rank"), argument_error);
    auto whole = adamw.init(b.parameters());
    CHECK_THROWS_WITH_AS(opt.part_of_state(a.parameters(), whole), doctest::Contains("'w' had shape {100, 2}"),
                         argument_error);
  });
}

TEST_CASE("ranks may have their weights in one piece or apart") {
  comm::threads(2).run([](auto& c) {
    replica whole, m;
    auto const& p = m.a.parameters();
    std::vector<std::vector<float>> weights, gradients;
    parameter_list apart;
    for (auto const& x : p) {
      weights.emplace_back(x.weight.begin(), x.weight.end());
      gradients.emplace_back(x.gradient.begin(), x.gradient.end());
      apart.add(x.name, weights.back(), gradients.back(), x.shape);
    }
    auto const& own = c.rank() ? apart : p;
    auto const opt = sync::shard(adamw, c);
    auto state = opt.init(own);
    opt.step(own, state);
    auto undivided = adamw.init(whole.a.parameters());
    adamw.step(whole.a.parameters(), undivided);
    for (std::size_t i = 0; i < own.size(); ++i)
      CHECK(std::equal(own[i].weight.begin(), own[i].weight.end(), whole.a.parameters()[i].weight.begin()));
  });
}

TEST_CASE("ranks whose parts differ are told so") {
  CHECK_THROWS_WITH_AS(comm::threads(2).run([](auto& c) {
    replica m;
    auto const opt = sync::shard(adamw, c, {0, c.rank() ? std::size_t{7} : std::size_t{8}, 6049});
    auto state = opt.init(m.a.parameters());
    opt.step(m.a.parameters(), state);
  }),
                       doctest::Contains("make every rank's state with the same bounds"), argument_error);
}

}  // namespace sync_shard
