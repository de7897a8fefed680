// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stochastic L-BFGS as an optimizer among others: what every rule promises, and what it is for.
#include <dovetail/optim/second_order/stochastic_lbfgs.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/nn.hpp>
#include <dovetail/optim/rules.hpp>
#include <dovetail/sync.hpp>
#include <dovetail/train.hpp>

#include <doctest/doctest.h>

#include "functions.hpp"
#include "reference.hpp"

namespace optim_stochastic_lbfgs {

using namespace dovetail;

static_assert(optimizer<optim::stochastic_lbfgs>);
static_assert(listable_state<optim::stochastic_lbfgs::state_type>);

namespace {

optim::stochastic_lbfgs const rule{.lr = 0.05f, .history = 3, .interval = 2, .signal = 0, .weight_decay = 0.02f};

std::vector<arena::tensor> tensors() {
  return {{"a", {1}}, {"b", {31}}, {"none", {0}}, {"c", {3, 11}}, {"d", {140'001}}, {"e", {2}}};
}
std::vector<float> weights_of(arena& a) { return {a.weights().begin(), a.weights().end()}; }

struct training {
  arena a{tensors()};
  optim::stochastic_lbfgs::state_type state;

  training() {
    test::fill(a.weights(), 1);
    state = rule.init(a.parameters());
  }
  void run(int from, int to, optim::step_context const& options = {}) {
    for (int t = from; t <= to; ++t) {
      test::make_gradients(a, static_cast<std::uint32_t>(t));
      rule.step(a.parameters(), state, options);
    }
  }
};

}  // namespace

TEST_CASE("a loss multiplied by a power of two, and the curvatures with it, takes the same steps") {
  auto const run = [](float scale) {
    arena a({{"x", {6}}});
    auto& p = a.parameters();
    optim::stochastic_lbfgs const rule{
        .lr = 0.2f, .interval = 2, .smallest_curvature = 0.1f * scale, .first_curvature = scale};
    auto state = rule.init(p);
    for (int t = 0; t < 40; ++t) {
      for (std::size_t i = 0; i < 6; ++i)
        a.gradients()[i] = scale * (0.25f + static_cast<float>(i)) * (a.weights()[i] - 1);
      rule.step(p, state);
    }
    CHECK(state.pairs() > 3);
    return std::vector<float>(a.weights().begin(), a.weights().end());
  };
  auto const one = run(1);
  for (float w : one) CHECK(std::abs(w - 1) < 0.2f);
  for (float scale : {0x1p-90f, 0x1p-40f, 0x1p40f, 0x1p90f}) {
    CAPTURE(scale);
    CHECK(run(scale) == one);
  }
  arena a({{"x", {1}}});
  CHECK_THROWS_AS((optim::stochastic_lbfgs{.first_curvature = 0}.init(a.parameters())), argument_error);
}

TEST_CASE("the same bits on more cores, for tensors that lie apart, and after a state was saved and loaded by name") {
  training whole;
  whole.run(1, 11);
  CHECK(all_finite(whole.a.weights()));
  CHECK(whole.state.steps() == 11);
  CHECK(whole.state.pairs() == 3);

  training cores;
  cores.run(1, 11, {.threads = 3});
  CHECK(weights_of(cores.a) == weights_of(whole.a));
  CHECK(cores.state == whole.state);

  training origin;
  std::vector<arena> memory;
  parameter_list apart;
  for (auto const& t : tensors()) memory.emplace_back(std::vector{t});
  for (std::size_t i = 0; i < memory.size(); ++i) {
    auto const& p = origin.a.parameters()[i];
    std::copy(p.weight.begin(), p.weight.end(), memory[i].weights().begin());
    apart.add(p.name, memory[i].weights(), memory[i].gradients(), p.shape);
  }
  auto state = rule.init(apart);
  for (std::uint32_t t = 1; t <= 11; ++t) {
    for (std::size_t i = 0; i < apart.size(); ++i)
      std::copy(apart[i].weight.begin(), apart[i].weight.end(), origin.a.parameters()[i].weight.begin());
    test::make_gradients(origin.a, t);
    for (std::size_t i = 0; i < apart.size(); ++i)
      std::copy_n(origin.a.parameters()[i].gradient.begin(), apart[i].size(), apart[i].gradient.begin());
    rule.step(apart, state);
  }
  CHECK(state == whole.state);

  for (int stop : {3, 4, 7, 10}) {  // within an interval, and between two
    training first, second;
    first.run(1, stop);
    auto const saved = first.state.tensors("opt."), loaded = second.state.tensors("opt.");
    REQUIRE(saved.size() == loaded.size());
    std::vector<std::string> names;
    for (std::size_t i = 0; i < saved.size(); ++i) {
      REQUIRE(saved[i].name == loaded[i].name);
      REQUIRE(saved[i].bytes.size() == loaded[i].bytes.size());
      names.push_back(saved[i].name);
      if (!saved[i].bytes.empty()) std::memcpy(loaded[i].bytes.data(), saved[i].bytes.data(), saved[i].bytes.size());
    }
    std::sort(names.begin(), names.end());
    CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
    CHECK(std::find(names.begin(), names.end(), "opt.c.y2") != names.end());
    std::copy(first.a.weights().begin(), first.a.weights().end(), second.a.weights().begin());
    CHECK(second.state == first.state);
    auto copy = second.state;
    second.state = std::move(copy);
    auto& self = second.state;
    second.state = self;
    second.run(stop + 1, 11);
    CHECK(weights_of(second.a) == weights_of(whole.a));
    CHECK(second.state == whole.state);
  }
}

TEST_CASE("a step is that of the formulas in double precision") {
  // Two tensors as one vector, damped pairs of means over two steps, weight decay.
  optim::stochastic_lbfgs const opt{.lr = 0.1f,
                                    .history = 2,
                                    .interval = 2,
                                    .smallest_curvature = 0.3f,
                                    .signal = 1.2f,
                                    .max_growth = 0.2f,
                                    .weight_decay = 0.05f};
  arena a({{"a", {5}}, {"b", {2, 2}}});
  test::fill(a.weights(), 3);
  auto state = opt.init(a.parameters());
  std::size_t const n = 9;
  test::vec w(a.weights().begin(), a.weights().end()), mw(n), mg(n), old_w(n), old_g(n);
  std::vector<test::vec> s, y;
  double gamma = 1;
  int damped = 0, capped = 0, refused = 0;
  double squares = 0, old_variance = 0;
  auto const dot = [](test::vec const& p, test::vec const& q) {
    double sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] * q[i];
    return sum;
  };
  for (int t = 1; t <= 24; ++t) {
    test::fill(a.gradients(), static_cast<std::uint32_t>(40 + t), 0.4f);
    for (std::size_t i = 0; i < n; ++i)
      a.gradients()[i] += static_cast<float>(i < 4 ? -0.2 : 0.4 * static_cast<double>(i)) * a.weights()[i];
    test::vec g(a.gradients().begin(), a.gradients().end());
    opt.step(a.parameters(), state);
    for (std::size_t i = 0; i < n; ++i) {
      g[i] += static_cast<double>(0.05f) * w[i];
      mw[i] = (t % 2 ? 0 : mw[i]) + 0.5 * w[i];
      mg[i] = (t % 2 ? 0 : mg[i]) + 0.5 * g[i];
    }
    squares = (t % 2 ? 0 : squares) + dot(g, g);
    if (t % 2 == 0) {
      double const variance = squares / 2 - dot(mg, mg);  // over interval - 1, which is 1
      test::vec ds(n), dy(n);
      for (std::size_t i = 0; i < n; ++i) ds[i] = mw[i] - old_w[i], dy[i] = mg[i] - old_g[i];
      if (t > 2) {
        double const sy = dot(ds, dy), ss = dot(ds, ds), delta = static_cast<double>(0.3f);
        if (double const f = static_cast<double>(1.2f); dot(dy, dy) < f * f * (variance + old_variance)) {
          ++refused;
        } else {
          gamma = sy > 0 ? std::max(dot(dy, dy) / sy, delta) : delta;
          if (sy < 0.25 * gamma * ss) {
            double const theta = 0.75 * gamma * ss / (gamma * ss - sy);
            for (std::size_t i = 0; i < n; ++i) dy[i] = theta * dy[i] + (1 - theta) * gamma * ds[i];
            ++damped;
          }
          s.push_back(ds), y.push_back(dy);
          if (s.size() > 2) s.erase(s.begin()), y.erase(y.begin());
        }
      }
      old_variance = variance;
      old_w = mw, old_g = mg;
    }
    test::vec d = g;
    std::vector<double> alpha(s.size());
    for (std::size_t k = s.size(); k-- > 0;) {
      alpha[k] = dot(s[k], d) / dot(s[k], y[k]);
      for (std::size_t i = 0; i < n; ++i) d[i] -= alpha[k] * y[k][i];
    }
    if (!s.empty())
      for (double& v : d) v /= gamma;
    for (std::size_t k = 0; k < s.size(); ++k) {
      double const beta = dot(y[k], d) / dot(s[k], y[k]);
      for (std::size_t i = 0; i < n; ++i) d[i] += (alpha[k] - beta) * s[k][i];
    }
    double const limit = static_cast<double>(0.2f) * std::sqrt(dot(g, g)), length = std::sqrt(dot(d, d));
    bool const cap = !s.empty() && length > limit;
    capped += cap;
    for (std::size_t i = 0; i < n; ++i) {
      w[i] -= static_cast<double>(0.1f) * (cap ? limit / length : 1) * d[i];
      REQUIRE(static_cast<double>(a.weights()[i]) == doctest::Approx(w[i]).epsilon(1e-3));
      w[i] = static_cast<double>(a.weights()[i]);  // one step at a time: noise makes trajectories part
    }
  }
  CHECK(damped > 0);
  CHECK(refused > 0);
  CHECK(damped + refused < 11);
  CHECK(capped > 0);
  CHECK(capped < 20);
  CHECK(state.pairs() == 2);
}

TEST_CASE("what is not finite is skipped, zeros and extremes do no harm, other parameters are refused") {
  training t;
  t.run(1, 5);
  auto const before = weights_of(t.a);
  auto const state = t.state;
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    test::make_gradients(t.a, 6);
    t.a.gradients()[40] = bad;
    auto const r = rule.step(t.a.parameters(), t.state);
    CHECK(r.skipped);
    CHECK(r.step == 5);
    CHECK(weights_of(t.a) == before);
    CHECK(t.state == state);
  }
  t.run(6, 8);
  CHECK(t.state.steps() == 8);
  for (float scale : {0.0f, 1e-30f, 1e-10f, 1e10f, 1e15f}) {
    CAPTURE(scale);
    training extreme;
    for (std::uint32_t k = 1; k <= 12; ++k) {
      test::fill(extreme.a.gradients(), k, scale);
      CHECK(!rule.step(extreme.a.parameters(), extreme.state).skipped);
      REQUIRE(all_finite(extreme.a.weights()));
    }
  }
  arena other({{"a", {4}}});
  CHECK_THROWS_WITH_AS(rule.step(other.parameters(), t.state), doctest::Contains("call init() again"), argument_error);
  parameter_list elsewhere;
  elsewhere.add_opaque("w", {4});
  std::vector<fp16> const halves(4, fp16(1.0f));
  std::vector<std::span<fp16 const>> const gradients{halves};
  auto not_here = rule.init(elsewhere);
  CHECK_THROWS_WITH_AS(rule.step(elsewhere, not_here, optim::gradient::half<fp16>{gradients}),
                       doctest::Contains("are elsewhere"), argument_error);
  auto longer = rule;
  longer.history = 4;
  CHECK_THROWS_AS(longer.step(t.a.parameters(), t.state), argument_error);
  auto wild = rule;
  wild.lr = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(wild.step(t.a.parameters(), t.state), argument_error);
  wild = rule;
  wild.interval = 0;
  CHECK_THROWS_AS(wild.init(t.a.parameters()), argument_error);
  CHECK_THROWS_WITH_AS(wild.step(t.a.parameters(), t.state), doctest::Contains("stochastic_lbfgs: interval is 0"),
                       argument_error);
  CHECK_THROWS_AS(optim::stochastic_lbfgs{.history = 0}.init(t.a.parameters()), argument_error);
  CHECK_THROWS_AS(optim::stochastic_lbfgs{.history = std::size_t{1} << 63}.init(t.a.parameters()), argument_error);
}

TEST_CASE("other sources of gradients, and parts of the parameters on 1 to 4 ranks") {
  training dense, scaled;
  for (std::uint32_t k = 1; k <= 8; ++k) {
    test::make_gradients(dense.a, k);
    std::copy(dense.a.gradients().begin(), dense.a.gradients().end(), scaled.a.gradients().begin());
    for (float& g : scaled.a.gradients()) g *= 4;
    rule.step(dense.a.parameters(), dense.state);
    rule.step(scaled.a.parameters(), scaled.state, optim::gradient::scaled{0.25f});
  }
  CHECK(weights_of(dense.a) == weights_of(scaled.a));
  for (int ranks = 1; ranks <= 4; ++ranks) {
    CAPTURE(ranks);
    comm::threads(ranks).run([&](auto& c) {
      arena a(tensors());
      test::fill(a.weights(), 1);
      auto const opt = sync::shard(rule, c);
      auto state = opt.init(a.parameters());
      for (std::uint32_t k = 1; k <= 8; ++k) {
        test::make_gradients(a, k);
        opt.step(a.parameters(), state);
      }
      double worst = 0;
      for (std::size_t i = 0; i < a.weights().size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(a.weights()[i] - dense.a.weights()[i])));
      CHECK(worst < 1e-5);
    });
  }
}

TEST_CASE("under sync::all_reduce every rank has the same bits, and a bad gradient of one is skipped by all") {
  for (int ranks : {2, 3}) {
    std::vector<std::vector<float>> weights(static_cast<std::size_t>(ranks));
    comm::threads(ranks).run([&](auto& c) {
      arena a({{"a", {31}}, {"b", {3, 11}}});
      test::fill(a.weights(), 1);
      auto session = sync::all_reduce{}.join(a.parameters(), rule, c);
      for (int t = 1; t <= 12; ++t) {
        session.begin();
        test::make_gradients(a, static_cast<std::uint32_t>(10 * t + c.rank()));
        bool const bad = t == 7;
        if (bad && c.rank() == 1) a.gradients()[3] = std::numeric_limits<float>::quiet_NaN();
        auto const r = session.step();
        CHECK(r.skipped == bad);
        CHECK(r.step == (t < 7 ? t : t - 1));
      }
      weights[static_cast<std::size_t>(c.rank())] = weights_of(a);
    });
    CHECK(all_finite(weights[0]));
    for (auto const& w : weights) CHECK(w == weights[0]);
  }
}

namespace {

using net = nn::basic_network<nn::plain, nn::shape{12}, nn::dense<10>, nn::tanh, nn::dense<4>>;

/// Four overlapping clouds whose features differ in scale by a factor of ten.
struct clouds {
  std::vector<float> values;
  std::vector<std::int32_t> targets;
};
clouds draw_clouds(int samples) {
  clouds all;
  for (int s = 0; s < samples; ++s) {
    random_stream const random{31, static_cast<std::uint32_t>(s)};
    std::int32_t const kind = s % 4;
    for (std::uint32_t j = 0; j < 12; ++j) {
      float const center = random_stream{7, static_cast<std::uint32_t>(kind)}.uniform(j) - 0.5f;
      float const noise = random.uniform(2 * j) + random.uniform(2 * j + 1) - 1;
      all.values.push_back((center + 1.2f * noise) * (j < 6 ? 2.0f : 0.2f));
    }
    all.targets.push_back(kind);
  }
  return all;
}

}  // namespace

TEST_CASE("trains a network on two ranks as on one, below SGD at the same rate, and goes on from a saved state") {
  auto const drawn = draw_clouds(400);
  data::in_memory const samples(drawn.values, drawn.targets, 12);
  nn::with_loss model{net{}, nn::softmax_cross_entropy{}};
  model.network.initialize(5);
  struct outcome {
    double loss;
    std::vector<float> weights;
  };
  auto const train = [&](auto const& opt, int ranks, std::int64_t batch, std::int64_t interrupted_at = 0) {
    comm::threads world(ranks);
    train::trainer first{model, opt, sync::all_reduce{}, world};
    train::trainer second{model, opt, sync::all_reduce{}, world};
    if (interrupted_at) {
      first.fit(samples, {.batch = batch, .steps = interrupted_at});
      second.restore(first.state());
    }
    second.fit(samples, {.batch = batch, .steps = 300});
    auto const w = second.model().parameters().flat_weights();
    return outcome{second.evaluate(samples).mean(), {w.begin(), w.end()}};
  };
  auto const falling = [](float rate) { return optim::cosine{.initial = rate, .steps = 300}; };
  optim::stochastic_lbfgs const opt{.lr = falling(0.1f)};
  auto const two = train(opt, 2, 50), one = train(opt, 1, 100);
  auto const sgd = train(optim::sgd{.lr = falling(0.1f)}, 1, 100);
  double const before = model.evaluate({400, drawn.values, {}, drawn.targets}).mean();
  CHECK(two.loss < 0.5 * before);
  CHECK(two.loss < 0.85 * sgd.loss);
  CHECK(two.loss == doctest::Approx(one.loss).epsilon(0.2));
  CHECK(train(opt, 2, 50, 137).weights == two.weights);
}

}  // namespace optim_stochastic_lbfgs
