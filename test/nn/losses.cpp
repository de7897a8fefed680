// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Losses against their formulas in double precision, with weights, lengths and ignored targets.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include <dovetail/nn.hpp>
#include <dovetail/nn/gauss_newton.hpp>

#include <doctest/doctest.h>

namespace nn_losses {

using namespace dovetail;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
using doubles = std::vector<double>;
std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Predictions that own their memory.
struct memory {
  std::int64_t samples = 4, positions = 3, classes = 5;
  std::vector<float> logits, gradients, target_values, weights;
  std::vector<std::int32_t> targets, lengths;

  explicit memory(std::int64_t positions_, std::uint64_t seed = 1) : positions(positions_) {
    random_stream const random{seed};
    auto const n = at(samples * positions * classes);
    for (std::size_t i = 0; i < n; ++i) {
      logits.push_back(6 * random.uniform(i) - 3);
      target_values.push_back(random.uniform(n + i));
    }
    for (std::size_t i = 0; i < at(samples * positions); ++i)
      targets.push_back(static_cast<std::int32_t>(random.word(3 * n + i) % 5));
    gradients.assign(n, NAN);
  }
  nn::predictions view() {
    return {logits.data(), gradients.data(), targets, samples, positions, classes, target_values, weights, lengths};
  }
  /// Position in the caller's order, and in the logits'.
  template <class F>
  void each_row(F const& f) const {
    for (std::int64_t s = 0; s < samples; ++s)
      for (std::int64_t p = 0; p < positions; ++p) {
        bool const here = lengths.empty() || p < lengths[at(s)];
        f(at(s * positions + p), at(p * samples + s) * at(classes), here);
      }
  }
};

struct expected {
  double loss = 0;
  std::int64_t count = 0;
};
using formula = std::function<expected(memory const&, doubles const&)>;

/// Textbook, without any care for overflow.
formula cross_entropy(double smoothing = 0, std::int32_t ignored = -1) {
  return [=](memory const& m, doubles const& x) {
    expected e;
    m.each_row([&](std::size_t i, std::size_t row, bool here) {
      if (!here || m.targets[i] == ignored) return;
      double const w = m.weights.empty() ? 1 : static_cast<double>(m.weights[i]);
      double z = 0;
      for (std::size_t k = 0; k < at(m.classes); ++k) z += std::exp(x[row + k]);
      for (std::size_t k = 0; k < at(m.classes); ++k) {
        double const q = (k == at(m.targets[i]) ? 1 - smoothing : 0) + smoothing / static_cast<double>(m.classes);
        if (w != 0) e.loss -= w * q * (x[row + k] - std::log(z));
      }
      e.count += w != 0;
    });
    return e;
  };
}
formula of_outputs(std::function<double(double, double)> const& f) {
  return [=](memory const& m, doubles const& x) {
    expected e;
    m.each_row([&](std::size_t i, std::size_t row, bool here) {
      for (std::size_t k = 0; k < at(m.classes) && here; ++k) {
        auto const j = i * at(m.classes) + k;
        double const w = m.weights.empty() ? 1 : static_cast<double>(m.weights[j]);
        if (w != 0) e.loss += w * f(x[row + k], static_cast<double>(m.target_values[j]));
        e.count += w != 0;
      }
    });
    return e;
  };
}
formula const squares = of_outputs([](double x, double y) { return (x - y) * (x - y); });
formula const binary = of_outputs([](double x, double y) {
  double const s = 1 / (1 + std::exp(-x));
  return -y * std::log(s) - (1 - y) * std::log(1 - s);
});
formula huber_of(double d) {
  return of_outputs([d](double x, double y) {
    double const e = std::abs(x - y);
    return e <= d ? e * e / 2 : d * (e - d / 2);
  });
}

template <class Loss>
void check(Loss const& loss, formula const& f, memory m) {
  static_assert(nn::detail::must_be_a_loss<Loss>::holds);
  constexpr float scale = 0.25f;
  auto const sums = loss(m.view(), scale);
  doubles x(m.logits.begin(), m.logits.end());
  auto const e = f(m, x);
  CHECK(sums.loss == doctest::Approx(e.loss).epsilon(1e-6));
  CHECK(sums.count == e.count);
  CHECK(sums.correct <= sums.count);
  constexpr double h = 1e-5;
  for (std::size_t i = 0; i < x.size(); ++i) {
    double const was = x[i];
    x[i] = was + h;
    double const up = f(m, x).loss;
    x[i] = was - h;
    double const down = f(m, x).loss;
    x[i] = was;
    double const slope = static_cast<double>(scale) * (up - down) / (2 * h);
    CHECK(std::abs(static_cast<double>(m.gradients[i]) - slope) < 1e-6);
  }
  // Without room for gradients the losses are the same.
  auto p = m.view();
  p.gradients = nullptr;
  CHECK(loss(p, 1) == sums);
}

/// As it is, with weights, with lengths, and with both.
template <class Loss>
void check_masked(Loss const& loss, formula const& f) {
  for (std::int64_t positions : {1, 3}) {
    CAPTURE(positions);
    memory m(positions);
    check(loss, f, m);
    auto const n = nn::loss_traits<Loss>::takes_values ? m.logits.size() : m.targets.size();
    for (std::size_t i = 0; i < n; ++i) m.weights.push_back(i % 3 == 1 ? 0.f : 0.5f * static_cast<float>(i % 4 + 1));
    check(loss, f, m);
    m.lengths = {static_cast<std::int32_t>(positions), 0, 1, static_cast<std::int32_t>(positions) - 1};
    check(loss, f, m);
    m.weights.clear();
    check(loss, f, m);
  }
}

/// Nothing counts: whatever logits and targets are.
template <class Loss>
void check_nothing(Loss const& loss) {
  for (bool const by_length : {true, false}) {
    memory m(3);
    std::fill(m.logits.begin(), m.logits.end(), NAN);
    std::fill(m.target_values.begin(), m.target_values.end(), NAN);
    std::fill(m.targets.begin(), m.targets.end(), 1234);
    if (by_length)
      m.lengths.assign(4, 0);
    else
      m.weights.assign(m.logits.size(), 0.f);
    auto const sums = loss(m.view(), 1);
    CHECK(sums == loss_sums{});
    CHECK(sums.mean() == 0);
    CHECK(m.gradients == std::vector<float>(m.gradients.size()));
  }
}

/// Logits that are no numbers are seen in the loss; large ones are numbers still.
template <class Loss>
void check_extremes(Loss const& loss) {
  for (float const bad : {static_cast<float>(NAN), infinity, -infinity}) {
    memory m(1);
    m.targets[2] = 2;
    m.logits[12] = bad;
    auto const sums = loss(m.view(), 1);
    CHECK_FALSE(std::isfinite(sums.loss));
  }
  memory m(1);
  for (std::size_t i = 0; i < m.logits.size(); ++i) {
    m.logits[i] = i % 2 ? 1e4f : -1e4f;
    m.target_values[i] = i % 3 ? 1.f : 0.f;
  }
  CHECK(std::isfinite(loss(m.view(), 1).loss));
  for (float const g : m.gradients) CHECK(std::isfinite(g));
}

/// scale × weight × H v, against differences of gradients.
template <class Loss>
void check_curvature(Loss const& loss, memory m) {
  static_assert(nn::curved_loss<Loss>);
  std::vector<float> v(m.logits.size()), out(v.size(), NAN);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i % 7) / 4 - 0.6f;
  loss.curvature(m.view(), 0.5f, v.data(), out.data());
  auto const before = m.logits;
  constexpr float h = 1e-2f;
  auto const gradients = [&](float way) {
    for (std::size_t i = 0; i < v.size(); ++i) m.logits[i] = before[i] + way * h * v[i];
    static_cast<void>(loss(m.view(), 0.5f));
    return m.gradients;
  };
  auto const up = gradients(1), down = gradients(-1);
  for (std::size_t i = 0; i < v.size(); ++i) CHECK(std::abs(out[i] - (up[i] - down[i]) / (2 * h)) < 5e-4f);
}
template <class Loss>
void check_curvatures(Loss const& loss) {
  memory m(3);
  check_curvature(loss, m);
  for (std::size_t i = 0; i < m.logits.size(); ++i) m.weights.push_back(static_cast<float>(i % 3));
  m.lengths = {3, 0, 1, 2};
  check_curvature(loss, m);
}

}  // namespace

TEST_CASE("losses and gradients are those of the formulas in double precision, with weights and lengths") {
  check_masked(nn::softmax_cross_entropy{}, cross_entropy());
  for (float const smoothing : {0.1f, 0.5f, 1.f}) {
    check_masked(nn::softmax_cross_entropy{.label_smoothing = smoothing},
                 cross_entropy(static_cast<double>(smoothing)));
    check_masked(nn::softmax_cross_entropy{.label_smoothing = smoothing, .ignore_index = 3},
                 cross_entropy(static_cast<double>(smoothing), 3));
  }
  check_masked(nn::softmax_cross_entropy{.ignore_index = 0}, cross_entropy(0, 0));
  check_masked(nn::mean_squared_error{}, squares);
  check_masked(nn::binary_cross_entropy{}, binary);
  check_masked(nn::huber{}, huber_of(1));
  check_masked(nn::huber{.delta = 0.25f}, huber_of(0.25));
}

TEST_CASE("closed forms") {
  memory m(1);
  m.samples = 1, m.classes = 2;
  m.logits = {1, -2}, m.target_values = {3, 1}, m.targets = {0}, m.gradients = {0, 0};
  CHECK(nn::mean_squared_error{}(m.view(), 1).loss == 4 + 9);
  CHECK(m.gradients == std::vector<float>{-4, -6});
  CHECK(nn::huber{.delta = 2.5f}(m.view(), 1).loss == 2 + 2.5 * (3 - 1.25));
  CHECK(m.gradients == std::vector<float>{-2, -2.5f});
  m.target_values = {1, 0};
  auto const b = nn::binary_cross_entropy{}(m.view(), 1);
  CHECK(b.loss == doctest::Approx(std::log1p(std::exp(-1.)) + std::log1p(std::exp(-2.))).epsilon(1e-12));
  CHECK(b.correct == 2);
  CHECK(b.count == 2);
  m.target_values = {0, 0};
  CHECK(nn::binary_cross_entropy{}(m.view(), 1).correct == 1);
  // All of the target's weight spread evenly: the mean of -log softmax.
  auto const s = nn::softmax_cross_entropy{.label_smoothing = 1}(m.view(), 1);
  CHECK(s.loss == doctest::Approx(std::log(std::exp(1.) + std::exp(-2.)) + 0.5).epsilon(1e-6));
}

TEST_CASE("where no prediction counts, losses and gradients are 0") {
  check_nothing(nn::softmax_cross_entropy{});
  check_nothing(nn::softmax_cross_entropy{.label_smoothing = 0.1f, .ignore_index = 7});
  check_nothing(nn::mean_squared_error{});
  check_nothing(nn::binary_cross_entropy{});
  check_nothing(nn::huber{});
  memory m(3);
  std::fill(m.targets.begin(), m.targets.end(), -100);
  CHECK(nn::softmax_cross_entropy{.ignore_index = -100}(m.view(), 1) == loss_sums{});
  CHECK(m.gradients == std::vector<float>(m.gradients.size()));
  std::vector<float> out(m.logits.size(), NAN);
  nn::softmax_cross_entropy{.ignore_index = -100}.curvature(m.view(), 1, m.logits.data(), out.data());
  CHECK(out == std::vector<float>(out.size()));
}

TEST_CASE("logits that are no numbers are seen, and large ones do not overflow") {
  check_extremes(nn::softmax_cross_entropy{});
  check_extremes(nn::softmax_cross_entropy{.label_smoothing = 0.1f});
  check_extremes(nn::mean_squared_error{});
  check_extremes(nn::binary_cross_entropy{});
  check_extremes(nn::huber{});
}

TEST_CASE("curvatures are the derivatives of gradients, and only that of a negative log-likelihood says so") {
  check_curvatures(nn::softmax_cross_entropy{});
  check_curvatures(nn::softmax_cross_entropy{.label_smoothing = 0.3f, .ignore_index = 2});
  check_curvatures(nn::mean_squared_error{});
  check_curvatures(nn::binary_cross_entropy{});
  check_curvatures(nn::huber{.delta = 1000});
  check_curvatures(nn::huber{.delta = 1e-4f});
  static_assert(nn::loss_traits<nn::softmax_cross_entropy>::is_log_likelihood);
  static_assert(nn::loss_traits<nn::mean_squared_error>::is_log_likelihood);
  static_assert(nn::loss_traits<nn::binary_cross_entropy>::is_log_likelihood);
  static_assert(!nn::loss_traits<nn::huber>::is_log_likelihood);
}

TEST_CASE("the Hessian of a likelihood is the covariance of its gradients under its own targets") {
  memory m(1);
  m.samples = 1, m.classes = 1;
  m.logits = {0.7f}, m.gradients = {0};
  std::vector<float> const one{1};
  std::vector<float> h{0};
  nn::binary_cross_entropy const b;
  b.curvature(m.view(), 1, one.data(), h.data());
  double const p = 1 / (1 + std::exp(-0.7));
  double covariance = 0;
  for (float const y : {0.f, 1.f}) {
    m.target_values = {y};
    static_cast<void>(b(m.view(), 1));
    double const g = static_cast<double>(m.gradients[0]);
    covariance += (y > 0 ? p : 1 - p) * g * g;
  }
  CHECK(static_cast<double>(h[0]) == doctest::Approx(covariance).epsilon(1e-6));
  // A normal distribution around x of variance 1/2: E[(2 (x - y))²] = 4 / 2.
  nn::mean_squared_error{}.curvature(m.view(), 1, one.data(), h.data());
  CHECK(h[0] == 2);
}

TEST_CASE("a loss refuses targets and hyperparameters that cannot be meant") {
  memory m(1);
  m.targets[1] = 5;
  CHECK_THROWS_WITH_AS(nn::softmax_cross_entropy{}(m.view(), 1), doctest::Contains("target 5 of sample 1"),
                       input_error);
  m.weights = {1, 0, 1, 1};  // of no prediction nobody asks for the target
  CHECK(nn::softmax_cross_entropy{}(m.view(), 1).count == 3);
  CHECK_THROWS_AS(nn::softmax_cross_entropy{.label_smoothing = 1.5f}(m.view(), 1), argument_error);
  m.weights.clear();
  m.target_values[0] = 1.5f;
  CHECK_THROWS_AS(nn::binary_cross_entropy{}(m.view(), 1), input_error);
  CHECK_THROWS_AS(nn::huber{.delta = 0}(m.view(), 1), argument_error);
}

TEST_CASE("a model knows how many predictions of a batch count, and what a batch lacks") {
  using net = nn::basic_network<nn::plain, nn::shape{3, 2}, nn::dense<4>>;
  std::vector<float> const x(12, 0.5f), y(24, 0.25f);
  std::vector<std::int32_t> const targets{0, 1, 2, 3, 0, 0}, lengths{2, 1};
  data::batch b{.size = 2, .values = x, .tokens = {}, .targets = targets, .target_values = y};
  nn::with_loss classes{net{}, nn::softmax_cross_entropy{}};
  nn::with_loss ignoring{net{}, nn::softmax_cross_entropy{.ignore_index = 0}};
  nn::with_loss numbers{net{}, nn::mean_squared_error{}};
  auto const counted = [&](auto& m) {
    auto const n = m.predictions(b);
    CHECK(m.evaluate(b).count == n);
    CHECK(m.gradients(b, {}).count == n);
    return n;
  };
  CHECK(counted(classes) == 6);
  CHECK(counted(ignoring) == 3);
  CHECK(counted(numbers) == 24);
  CHECK_FALSE(classes.masks());
  CHECK(ignoring.masks());
  b.lengths = lengths;
  CHECK(counted(classes) == 3);
  CHECK(counted(ignoring) == 2);
  CHECK(counted(numbers) == 12);
  std::vector<float> weights(24, 2.f);
  for (std::size_t i = 0; i < 24; i += 3) weights[i] = 0;
  b.weights = weights;
  CHECK(counted(numbers) == 7);
  CHECK_THROWS_WITH_AS(classes.gradients(b, {}), doctest::Contains("has 24 weights and 6 predictions"), argument_error);
  b.weights = std::span<float const>(weights).first(6);
  CHECK(counted(classes) == 1);
  CHECK_THROWS_AS(numbers.gradients(b, {}), argument_error);
  b.weights = {};
  std::vector<std::int32_t> const wrong{3, 4};
  b.lengths = wrong;
  CHECK_THROWS_WITH_AS(classes.evaluate(b), doctest::Contains("length 4, of 3 positions"), input_error);
  b.lengths = {};
  b.target_values = {};
  CHECK_THROWS_WITH_AS(numbers.gradients(b, {}), doctest::Contains("needs 24 target_values, it has 0"), argument_error);
}

TEST_CASE("Gauss-Newton products of a regression leave out what is masked") {
  // Linear in its weights: G = 2 Σ w x xᵀ of each output.
  using net = nn::basic_network<nn::plain, nn::shape{1}, nn::dense<1>>;
  nn::with_loss m{net{}, nn::mean_squared_error{}};
  std::vector<float> const x{1, 2, 4}, y{0, 0, 0}, weights{1, 0, 0.5f}, v{1, 0};
  nn::gauss_newton product{
      m, {.size = 3, .values = x, .tokens = {}, .targets = {}, .target_values = y, .weights = weights}};
  std::vector<float> out(2);
  product(v, out);
  CHECK(out[0] == doctest::Approx(2 * (1 + 8)).epsilon(1e-3));
  CHECK(out[1] == doctest::Approx(2 * (1 + 2)).epsilon(1e-3));
}

TEST_CASE("what looks at curvature asks for what it reads, and leaves running statistics alone") {
  using counted = nn::basic_network<nn::plain, nn::shape{3}, nn::dense<4>, nn::batch_norm<>, nn::dense<5>>;
  nn::with_loss model{counted{}, nn::softmax_cross_entropy{}};
  std::vector<float> const x{1, 2, 3, 4, 5, 7, 1, 0, 2, 5, 5, 1};
  std::vector<float> const weights(4, 2.f);
  std::vector<std::int32_t> const lengths(4, 1);
  auto const buffers_of = [&] {
    std::vector<std::byte> all;
    for (auto const& b : model.buffers()) all.insert(all.end(), b.bytes.begin(), b.bytes.end());
    return all;
  };
  auto const before = buffers_of();
  data::batch b{.size = 4, .values = x, .tokens = {}, .targets = {}};
  int shown = 0;
  gradient_pass pass;
  pass.observe = [&](kfac_statistics const&) { ++shown; };
  nn::sampled_gradients(model, b, pass, {1, 2});  // targets are drawn: none are needed
  CHECK(buffers_of() == before);
  CHECK(shown == 2);
  b.weights = weights;
  CHECK_THROWS_WITH_AS(nn::sampled_gradients(model, b, pass, {1, 2}), doctest::Contains("without weights"),
                       argument_error);
  b.weights = {};
  model.loss.label_smoothing = 0.1f;
  CHECK_THROWS_WITH_AS(nn::sampled_gradients(model, b, pass, {1, 2}), doctest::Contains("label_smoothing"),
                       argument_error);
  model.loss.label_smoothing = 0;
  model.loss.ignore_index = 0;
  CHECK_THROWS_WITH_AS(nn::sampled_gradients(model, b, pass, {1, 2}), doctest::Contains("needs 4 targets"),
                       argument_error);
  model.loss.ignore_index.reset();
  b.lengths = std::span(lengths).first(3);
  CHECK_THROWS_AS(nn::gauss_newton(model, b, pass), argument_error);
}

}  // namespace nn_losses
