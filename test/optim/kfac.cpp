// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// K-FAC and EKFAC: what layers show, and what is made of it, against dense algebra in double precision.
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include <dovetail/comm.hpp>
#include <dovetail/nn/activation.hpp>
#include <dovetail/nn/conv.hpp>
#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/flatten.hpp>
#include <dovetail/nn/plain.hpp>
#include <dovetail/nn/softmax_cross_entropy.hpp>
#include <dovetail/nn/with_loss.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/low_precision/low_precision_state.hpp>
#include <dovetail/optim/matrix/kfac.hpp>
#include <dovetail/sync.hpp>

#include <doctest/doctest.h>

#include "training.hpp"

namespace optim_kfac {

using namespace conformance;

namespace {

using numbers = std::vector<double>;

/// x of M x = b, by elimination with pivots.
numbers solve(numbers m, numbers b) {
  std::size_t const n = b.size();
  for (std::size_t k = 0; k < n; ++k) {
    std::size_t best = k;
    for (std::size_t i = k; i < n; ++i)
      if (std::abs(m[i * n + k]) > std::abs(m[best * n + k])) best = i;
    for (std::size_t j = 0; j < n; ++j) std::swap(m[k * n + j], m[best * n + j]);
    std::swap(b[k], b[best]);
    for (std::size_t i = k + 1; i < n; ++i) {
      double const f = m[i * n + k] / m[k * n + k];
      for (std::size_t j = k; j < n; ++j) m[i * n + j] -= f * m[k * n + j];
      b[i] -= f * b[k];
    }
  }
  for (std::size_t k = n; k-- > 0;) {
    for (std::size_t j = k + 1; j < n; ++j) b[k] -= m[k * n + j] * b[j];
    b[k] /= m[k * n + k];
  }
  return b;
}

/// A layer of 4 inputs and 3 outputs with a bias, and what backward shows of it in step t.
struct layer_of_numbers {
  static constexpr std::size_t in = 4, out = 3, n = in + 1, rows = 24;
  static constexpr float scale = 1.0f / rows;
  arena a{{{"0.weight", {out, in}}, {"0.bias", {out}}}};
  std::vector<float> x = std::vector<float>(rows * in), g = std::vector<float>(rows * out);

  void show(auto const& rule, optim::state& s, std::uint32_t t) {
    fill(x, 10 + t);
    fill(g, 50 + t, scale);
    fill(a.gradients(), 90 + t);
    rule.observe(
        a.parameters(), s,
        kfac_statistics{
            .rows = rows, .in = in, .out = out, .inputs = x.data(), .output_gradients = g.data(), .scale = scale});
  }
  double input(std::size_t r, std::size_t i) const { return i == in ? 1.0 : static_cast<double>(x[r * in + i]); }
  double gradient_of_output(std::size_t r, std::size_t o) const { return static_cast<double>(g[r * out + o]) / scale; }
  numbers inputs() const {
    numbers m(n * n);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = 0; j < n; ++j) m[i * n + j] += input(r, i) * input(r, j) / rows;
    return m;
  }
  numbers outputs() const {
    numbers m(out * out);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t i = 0; i < out; ++i)
        for (std::size_t j = 0; j < out; ++j)
          m[i * out + j] += gradient_of_output(r, i) * gradient_of_output(r, j) / rows;
    return m;
  }
  /// Gradient (or change of the weights) as one matrix {out, n}.
  static numbers joined(std::span<float const> flat) {
    numbers m(out * n);
    for (std::size_t o = 0; o < out; ++o)
      for (std::size_t i = 0; i < n; ++i)
        m[o * n + i] = static_cast<double>(i == in ? flat[out * in + o] : flat[o * in + i]);
    return m;
  }
};

/// (S + s I) (x) (A + a I) + rest I, which maps a matrix {out, n} row by row.
numbers kronecker(numbers s_matrix, double s, numbers a_matrix, double a, double rest) {
  std::size_t const m = layer_of_numbers::out, n = layer_of_numbers::n;
  for (std::size_t i = 0; i < m; ++i) s_matrix[i * m + i] += s;
  for (std::size_t i = 0; i < n; ++i) a_matrix[i * n + i] += a;
  numbers k(m * n * m * n);
  for (std::size_t o = 0; o < m; ++o)
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t p = 0; p < m; ++p)
        for (std::size_t j = 0; j < n; ++j)
          k[(o * n + i) * m * n + p * n + j] =
              s_matrix[o * m + p] * a_matrix[i * n + j] + (o == p && i == j ? rest : 0.0);
  return k;
}
double trace_of(numbers const& m, std::size_t n) {
  double t = 0;
  for (std::size_t i = 0; i < n; ++i) t += m[i * n + i];
  return t;
}
void check_near(numbers const& a, numbers const& b, double tolerance) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == doctest::Approx(b[i]).epsilon(tolerance));
}
template <class Stage>
auto only(Stage stage) {
  return optim::chain{stage, optim::scale{-1},
                      optim::scale_by_learning_rate{1}};  // weights begin at 0: they become the update
}

using little_network = nn::basic_network<nn::plain, nn::shape{2, 6, 6}, nn::conv<3, 3, 2, 1>, nn::relu, nn::flatten,
                                         nn::dense<8>, nn::relu, nn::dense<4>>;
using little_model = nn::with_loss<little_network, nn::softmax_cross_entropy>;

/// Images whose class is the quarter with the most light, roughly.
struct quarters {
  std::vector<float> values;
  std::vector<std::int32_t> targets;
  explicit quarters(std::int64_t n, std::uint32_t stream) : values(static_cast<std::size_t>(n * 72)) {
    fill(values, stream);
    for (std::size_t s = 0; s < static_cast<std::size_t>(n); ++s) {
      auto const target = static_cast<std::int32_t>((s * 7 + stream) % 4);
      for (std::size_t y = 0; y < 3; ++y)
        for (std::size_t x = 0; x < 3; ++x)
          values[s * 72 + (y + (target & 2 ? 3u : 0u)) * 6 + x + (target & 1 ? 3u : 0u)] += 0.8f;
      targets.push_back(target);
    }
  }
  data::batch view() const { return {static_cast<std::int64_t>(targets.size()), values, {}, targets}; }
};

}  // namespace

TEST_CASE("what layers show makes up their gradients") {
  little_model m;
  quarters const data(5, 3);
  std::vector<float> expected(m.parameters().flat_size());
  std::size_t layers = 0;
  gradient_pass pass{.scale = 0.2f};
  pass.observe = [&](kfac_statistics const& f) {
    ++layers;
    CHECK(f.scale == 0.2f);
    CHECK(f.rows == 5 * f.positions);
    for (std::int64_t r = 0; r < f.rows; ++r)
      for (std::int64_t o = 0; o < f.out; ++o) {
        float const g = f.output_gradients[r * f.out + o];
        for (std::int64_t i = 0; i < f.in; ++i)
          expected[f.first + static_cast<std::size_t>(o * f.in + i)] += g * f.inputs[r * f.in + i];
        expected[f.first + static_cast<std::size_t>(f.out * f.in + o)] += g;
      }
  };
  m.gradients(data.view(), pass);
  CHECK(layers == 3);
  auto const g = m.parameters().flat_gradients();
  for (std::size_t i = 0; i < g.size(); ++i) CHECK(g[i] == doctest::Approx(expected[i]).epsilon(1e-4));
}

TEST_CASE("K-FAC solves the damped Kronecker system, with averages of the steps so far") {
  layer_of_numbers l;
  float const damping = 0.01f;
  auto const rule = only(optim::scale_by_kfac{.decay = 0.9f, .damping = damping, .interval = 1});
  auto s = rule.init(l.a.parameters());
  numbers a(l.n * l.n), o(l.out * l.out);
  for (std::uint32_t t = 1; t <= 3; ++t) {
    CAPTURE(t);
    l.show(rule, s, t);
    double const kept = std::min(1 - 1.0 / t, 0.9);
    auto const fresh_a = l.inputs(), fresh_o = l.outputs();
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = kept * a[i] + (1 - kept) * fresh_a[i];
    for (std::size_t i = 0; i < o.size(); ++i) o[i] = kept * o[i] + (1 - kept) * fresh_o[i];
    double const pi = std::sqrt(trace_of(a, l.n) / l.n / (trace_of(o, l.out) / l.out)),
                 root = std::sqrt(double{damping});
    std::fill(l.a.weights().begin(), l.a.weights().end(), 0.0f);
    auto const gradient = l.joined(l.a.gradients());
    rule.step(l.a.parameters(), s);
    check_near(l.joined(l.a.weights()), solve(kronecker(o, root / pi, a, pi * root, 0), gradient), 1e-4);
  }
}

TEST_CASE("K-FAC solves a least squares problem in one step") {
  // Outputs' gradients that are orthonormal on average stand for the curvature of squares.
  layer_of_numbers l;
  fill(l.x, 7);
  std::vector<float> const solution{1, -2, 3, 0.5f, 0.25f, 1, 1, -1, 2, 0, 0, 1, 3, -3, 0.125f};
  auto const target = [&](std::size_t r, std::size_t o) {
    double y = 0;
    for (std::size_t i = 0; i < l.n; ++i) y += l.input(r, i) * static_cast<double>(solution[o * l.n + i]);
    return y;
  };
  std::vector<float> unit(l.rows * l.out);
  for (std::size_t r = 0; r < l.rows; ++r) unit[r * l.out + r % l.out] = std::sqrt(static_cast<float>(l.out)) * l.scale;
  for (std::size_t r = 0; r < l.rows; ++r)
    for (std::size_t o = 0; o < l.out; ++o) {
      double const e = -target(r, o) / l.rows;
      for (std::size_t i = 0; i < l.in; ++i) l.a.gradients()[o * l.in + i] += static_cast<float>(e * l.input(r, i));
      l.a.gradients()[l.out * l.in + o] += static_cast<float>(e);
    }
  optim::kfac const rule{.lr = 1, .momentum = 0, .damping = 1e-12f};
  auto s = rule.init(l.a.parameters());
  rule.observe(l.a.parameters(), s,
               kfac_statistics{.rows = l.rows,
                               .in = l.in,
                               .out = l.out,
                               .inputs = l.x.data(),
                               .output_gradients = unit.data(),
                               .scale = l.scale});
  rule.step(l.a.parameters(), s);
  check_near(l.joined(l.a.weights()), numbers(solution.begin(), solution.end()), 1e-3);
}

TEST_CASE("EKFAC begins as the damped Kronecker product, then scales by what gradients were in its bases") {
  layer_of_numbers l;
  float const damping = 0.01f, decay = 0.75f;
  auto const rule = only(optim::scale_by_ekfac{.decay = decay, .damping = damping, .interval = 100});
  auto s = rule.init(l.a.parameters());
  l.show(rule, s, 1);
  auto const first_a = l.inputs(), first_o = l.outputs();
  auto const gradient = l.joined(l.a.gradients());
  rule.step(l.a.parameters(), s);
  check_near(l.joined(l.a.weights()), solve(kronecker(first_o, 0, first_a, 0, damping), gradient), 1e-4);

  // The second step, from the eigenvectors of the first one's averages.
  l.show(rule, s, 2);
  auto const eigen = [](numbers const& m, std::size_t n) {
    return optim::lapack::eigen(std::vector<float>(m.begin(), m.end()), n);
  };
  auto const q = eigen(first_a, l.n), p = eigen(first_o, l.out);
  auto const rotated = [&](auto const& value, std::size_t i, std::size_t j) {
    double sum = 0;
    for (std::size_t o = 0; o < l.out; ++o)
      for (std::size_t k = 0; k < l.n; ++k) sum += p.vectors[i * l.out + o] * value(o, k) * q.vectors[j * l.n + k];
    return sum;
  };
  auto const now = l.joined(l.a.gradients());
  numbers scaled(l.out * l.n);
  for (std::size_t i = 0; i < l.out; ++i)
    for (std::size_t j = 0; j < l.n; ++j) {
      double moment = 0;
      for (std::size_t r = 0; r < l.rows; ++r)
        moment +=
            std::pow(
                rotated([&](std::size_t o, std::size_t k) { return l.gradient_of_output(r, o) * l.input(r, k); }, i, j),
                2) /
            l.rows;
      double const second = double{decay} * p.values[i] * q.values[j] + (1 - double{decay}) * moment;
      scaled[i * l.n + j] =
          rotated([&](std::size_t o, std::size_t k) { return now[o * l.n + k]; }, i, j) / (second + double{damping});
    }
  numbers expected(l.out * l.n);
  for (std::size_t o = 0; o < l.out; ++o)
    for (std::size_t k = 0; k < l.n; ++k)
      for (std::size_t i = 0; i < l.out; ++i)
        for (std::size_t j = 0; j < l.n; ++j)
          expected[o * l.n + k] += p.vectors[i * l.out + o] * scaled[i * l.n + j] * q.vectors[j * l.n + k];
  std::fill(l.a.weights().begin(), l.a.weights().end(), 0.0f);
  rule.step(l.a.parameters(), s);
  check_near(l.joined(l.a.weights()), expected, 1e-3);
}

TEST_CASE("ranks observe together: as many samples on more ranks give the same training") {
  auto const train = [](auto const& rule, int ranks, int steps) {
    std::vector<std::vector<float>> weights(static_cast<std::size_t>(ranks));
    double loss = 0;
    comm::threads(ranks).run([&](auto& c) {
      little_model m;
      auto session = sync::all_reduce{}.join(m.parameters(), rule, c);
      for (int t = 0; t < steps; ++t) {
        session.begin();
        quarters const all(48, static_cast<std::uint32_t>(100 + t % 8));
        auto const part = dovetail::shard(48, ranks, c.rank());
        auto const whole = all.view();
        data::batch const own{static_cast<std::int64_t>(part.size()),
                              whole.values.subspan(part.begin * 72, part.size() * 72),
                              {},
                              whole.targets.subspan(part.begin, part.size())};
        gradient_pass pass{.scale = session.gradient_scale(own.size, 48)};
        pass.observe = session.observer();
        pass.ready = [&](std::size_t first) { session.ready(first); };
        m.gradients(own, pass);
        CHECK(!session.step().skipped);
      }
      auto const w = m.parameters().flat_weights();
      weights[static_cast<std::size_t>(c.rank())].assign(w.begin(), w.end());
      if (c.rank() == 0) loss = m.evaluate(quarters(64, 1).view()).mean();
    });
    for (auto const& w : weights) CHECK(w == weights[0]);
    return std::pair(weights[0], loss);
  };
  optim::kfac const kfac{.lr = 0.02f, .damping = 0.1f, .interval = 3};
  auto const alone = train(kfac, 1, 12), three = train(kfac, 3, 12);
  double worst = 0;
  for (std::size_t i = 0; i < alone.first.size(); ++i)
    worst = std::max(worst, static_cast<double>(std::abs(alone.first[i] - three.first[i])));
  CHECK(worst < 1e-3);  // sums in another order, through inverses
  double const before = little_model{}.evaluate(quarters(64, 1).view()).mean();
  CHECK(train(kfac, 1, 40).second < 0.1 * before);
  CHECK(train(optim::ekfac{.lr = 0.02f, .damping = 0.1f, .interval = 3}, 2, 40).second < 0.1 * before);
  // In one rule with others: layers' weights by K-FAC, the rest by AdamW.
  auto const both = optim::partition{optim::adamw{}, optim::group{optim::name_matches{"*.weight"}, kfac}};
  CHECK(train(both, 2, 40).second < 0.1 * before);
  {  // Without a layer it refuses a step, and then the rest takes none either.
    little_model m;
    auto state = both.init(m.parameters());
    auto const unchanged = state;
    CHECK_THROWS_WITH_AS(both.step(m.parameters(), state), doctest::Contains("none was observed"), argument_error);
    CHECK(state == unchanged);
  }
  // Its slots in halves: what layers show goes through.
  CHECK(train(optim::low_precision_state{kfac, optim::bf16_slots{}}, 2, 40).second < 0.1 * before);
}

TEST_CASE("ranks that train apart learn from their own layers alone, and forget those of a step that is skipped") {
  optim::kfac const rule{.lr = 0.02f, .damping = 0.1f, .interval = 2};
  constexpr int steps = 6, bad = 3;
  auto const samples = [](int rank, int t) { return quarters(16, static_cast<std::uint32_t>(100 + 20 * rank + t)); };
  comm::threads(2).run([&](auto& c) {
    little_model alone, member;
    auto state = rule.init(alone.parameters());
    auto session = sync::local_sgd{}.join(member.parameters(), rule, c);
    for (int t = 0; t < steps; ++t) {
      auto const own = samples(c.rank(), t);
      session.begin();
      gradient_pass pass{.scale = session.gradient_scale(16, 32)};
      pass.observe = session.observer();
      member.gradients(own.view(), pass);
      if (t == bad) member.parameters()[0].gradient[0] = NAN;
      CHECK(session.step().skipped == (t == bad));
      if (t == bad) continue;
      pass = {.scale = 1.f / 16};
      pass.observe = [&](kfac_statistics const& f) { rule.observe(alone.parameters(), state, f); };
      alone.gradients(own.view(), pass);
      rule.step(alone.parameters(), state);
    }
    auto const a = alone.parameters().flat_weights(), b = member.parameters().flat_weights();
    CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  });
}

TEST_CASE("what layers showed is forgotten with a step whose loss is not finite") {
  optim::chain const rule{optim::scale_by_kfac{}, optim::scale_by_polyak{}, optim::scale_by_learning_rate{0.1f}};
  auto const check = [&](auto const& sync) {
    comm::threads(2).run([&](auto& c) {
      std::array<std::vector<float>, 2> ways;
      for (bool const lost : {false, true}) {
        arena a({{"0.weight", {2, 3}}, {"0.bias", {2}}});
        fill(a.weights(), 1);
        auto session = sync.join(a.parameters(), rule, c);
        for (int t = lost ? 0 : 1; t <= 3; ++t) {
          std::vector<float> x(12), g(8);
          fill(x, static_cast<std::uint32_t>(10 + t));
          fill(g, static_cast<std::uint32_t>(20 + t));
          session.begin();
          session.observer()(kfac_statistics{.first = 0,
                                             .rows = 4,
                                             .in = 3,
                                             .out = 2,
                                             .inputs = x.data(),
                                             .output_gradients = g.data(),
                                             .scale = 0.25f});
          fill(a.gradients(), static_cast<std::uint32_t>(30 + t));
          double const loss = t == 0 ? std::numeric_limits<double>::quiet_NaN() : 1;
          CHECK(session.step({.loss = loss}).skipped == (t == 0));
        }
        ways[lost ? 1 : 0].assign(a.weights().begin(), a.weights().end());
      }
      CHECK(ways[0] == ways[1]);
    });
  };
  check(sync::all_reduce{});
  check(sync::local_sgd{});
}

TEST_CASE("a rule that learns from layers says so when it is shown none, and when it is shown another's") {
  layer_of_numbers l;
  optim::kfac const rule{};
  auto s = rule.init(l.a.parameters());
  CHECK_THROWS_WITH_AS(rule.step(l.a.parameters(), s), doctest::Contains("none was observed"), argument_error);
  CHECK_THROWS_WITH_AS(rule.observe(l.a.parameters(), s, kfac_statistics{.first = 3, .rows = 1, .in = 4, .out = 3}),
                       doctest::Contains("observed at flat index 3"), argument_error);
  // As many weights, but inputs and outputs the other way round: memory is sized by each of them.
  arena a({{"w", {2, 6}}});
  auto state = rule.init(a.parameters());
  std::vector<float> const numbers(64, 1.0f);
  auto const turned = kfac_statistics{
      .first = 0, .rows = 8, .in = 2, .out = 6, .inputs = numbers.data(), .output_gradients = numbers.data()};
  CHECK_THROWS_WITH_AS(rule.observe(a.parameters(), state, turned),
                       doctest::Contains("2 inputs and 6 outputs was observed at flat index 0, where a tensor of shape "
                                         "{2, 6} begins"),
                       argument_error);
  // A state of another list: statistics are as large as its layers.
  arena larger({{"w", {20, 60}}});
  CHECK_THROWS_WITH_AS(rule.observe(larger.parameters(), state,
                                    kfac_statistics{.first = 0,
                                                    .rows = 1,
                                                    .in = 60,
                                                    .out = 20,
                                                    .inputs = numbers.data(),
                                                    .output_gradients = numbers.data()}),
                       doctest::Contains("'w' had shape {2, 6} at init() and has {20, 60} now"), argument_error);
  CHECK_THROWS_WITH_AS((void)rule.unreduced_statistics(larger.parameters(), state), doctest::Contains("{2, 6}"),
                       argument_error);
}

TEST_CASE("defaults: layers") {
  optim::kfac const k;  // Martens & Grosse, 2015, section 5: averages that keep 0.95
  CHECK((k.decay == 0.95f && k.damping == 1e-3f && k.momentum == 0.9f && k.interval == 10));
  CHECK((optim::ekfac{}.decay == 0.95f));
}

}  // namespace optim_kfac
