// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rules that precondition matrices beside AdamW: steps and seconds until a network has learned a task, how long a step
// of the rule takes, and which share of that is spent in BLAS and LAPACK. The linker puts a clock around their
// functions
// (-Wl,--wrap, bench/optim.cmake).
//
// The task: 256 features whose variances fall from 1 to 1/1000, labeled by a teacher network with some labels wrong;
// the student is a perceptron of three layers. Each rule's rate was taken from {1, 2, 5} x powers of ten, for the
// fewest steps to the target; everything else is its default, but for what is named in the list below.
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <dovetail/nn.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/matrix.hpp>

#include "claims.hpp"

using namespace dovetail;

namespace {

using clock_type = std::chrono::steady_clock;
double library_seconds = 0;

struct in_library {
  clock_type::time_point begin = clock_type::now();
  ~in_library() { library_seconds += std::chrono::duration<double>(clock_type::now() - begin).count(); }
};

}  // namespace

#define DOVETAIL_TIMED(name, parameters, arguments) \
  extern "C" void __real_##name parameters;         \
  extern "C" void __wrap_##name parameters {        \
    in_library const timed;                         \
    __real_##name arguments;                        \
  }
DOVETAIL_TIMED(sgemm_,
               (char const* ta, char const* tb, int const* m, int const* n, int const* k, float const* alpha,
                float const* a, int const* lda, float const* b, int const* ldb, float const* beta, float* c,
                int const* ldc, std::size_t x, std::size_t y),
               (ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, x, y))
DOVETAIL_TIMED(ssyrk_,
               (char const* u, char const* t, int const* n, int const* k, float const* alpha, float const* a,
                int const* lda, float const* beta, float* c, int const* ldc, std::size_t x, std::size_t y),
               (u, t, n, k, alpha, a, lda, beta, c, ldc, x, y))
DOVETAIL_TIMED(dsyevd_,
               (char const* j, char const* u, int const* n, double* a, int const* lda, double* w, double* work,
                int const* lwork, int* iwork, int const* liwork, int* info, std::size_t x, std::size_t y),
               (j, u, n, a, lda, w, work, lwork, iwork, liwork, info, x, y))
DOVETAIL_TIMED(dgeqrf_,
               (int const* m, int const* n, double* a, int const* lda, double* tau, double* work, int const* lwork,
                int* info),
               (m, n, a, lda, tau, work, lwork, info))
DOVETAIL_TIMED(dorgqr_,
               (int const* m, int const* n, int const* k, double* a, int const* lda, double const* tau, double* work,
                int const* lwork, int* info),
               (m, n, k, a, lda, tau, work, lwork, info))
DOVETAIL_TIMED(dpotrf_, (char const* u, int const* n, double* a, int const* lda, int* info, std::size_t x),
               (u, n, a, lda, info, x))
DOVETAIL_TIMED(dpotri_, (char const* u, int const* n, double* a, int const* lda, int* info, std::size_t x),
               (u, n, a, lda, info, x))

namespace {

constexpr std::int64_t features = 256, classes = 10, batch_size = 256, trained = 32768, judged = 4096;
constexpr std::int64_t most_steps = 2000;
constexpr double target = 1.0;  // nats; guessing is 2.3, the wrong labels alone cost about 0.6

using student =
    nn::network<nn::shape{features}, nn::dense<256>, nn::relu, nn::dense<128>, nn::relu, nn::dense<classes>>;
using student_model = nn::with_loss<student, nn::softmax_cross_entropy>;

/// Samples and their labels.
struct samples {
  std::vector<float> values;
  std::vector<std::int32_t> targets;

  samples(std::int64_t count, std::uint32_t seed) {
    std::normal_distribution<float> n;
    std::mt19937 g(7), random(seed);
    std::size_t const hidden = 8;
    std::vector<float> first(hidden * features), second(classes * hidden), scale(features);
    for (auto& w : first) w = n(g) / 16;
    for (auto& w : second) w = n(g);
    for (std::size_t i = 0; i < features; ++i)
      scale[i] = std::pow(1000.0f, -static_cast<float>(i) / (2 * static_cast<float>(features)));
    for (std::int64_t s = 0; s < count; ++s) {
      std::vector<float> h(hidden);
      for (std::size_t i = 0; i < features; ++i) {
        float const z = n(random);  // the teacher sees all features at equal strength, the student does not
        values.push_back(scale[i] * z);
        for (std::size_t k = 0; k < hidden; ++k) h[k] += first[k * features + i] * z;
      }
      std::int32_t best = 0;
      float most = -1e30f;
      for (std::int32_t c = 0; c < classes; ++c) {
        float sum = 0;
        for (std::size_t k = 0; k < hidden; ++k)
          sum += second[static_cast<std::size_t>(c) * hidden + k] * std::tanh(2 * h[k]);
        if (sum > most) most = sum, best = c;
      }
      targets.push_back(random() % 10 == 0 ? static_cast<std::int32_t>(random() % classes) : best);
    }
  }
  data::batch view(std::int64_t from, std::int64_t n) const {
    auto const f = static_cast<std::size_t>(from), c = static_cast<std::size_t>(n);
    return {n, std::span(values).subspan(f * features, c * features), {}, std::span(targets).subspan(f, c)};
  }
};

struct outcome {
  std::int64_t steps = 0;
  double seconds = 0, in_rule = 0, in_library = 0;
  bool reached = false;
};

template <class Rule>
outcome learn(Rule const& rule, std::uint32_t seed) {
  student_model m;
  m.network.initialize(seed);
  static samples const training(trained, 1);
  auto const held = training.view(0, judged);  // how fast it is learned is asked, not how well it generalizes
  auto state = rule.init(m.parameters());
  outcome o;
  library_seconds = 0;
  while (o.steps < most_steps && !o.reached) {
    auto const b = training.view(o.steps * batch_size % trained, batch_size);
    auto const begin = clock_type::now();
    gradient_pass pass{.scale = 1.0f / batch_size};
    double const before_backward = library_seconds;
    if constexpr (optim::optimizer_traits<Rule>::needs.layers)
      pass.observe = [&](kfac_statistics const& f) { rule.observe(m.parameters(), state, f); };
    m.gradients(b, pass);
    double const observed = library_seconds - before_backward;
    auto const stepping = clock_type::now();
    rule.step(m.parameters(), state);
    auto const end = clock_type::now();
    o.in_rule += std::chrono::duration<double>(end - stepping).count() + observed;
    o.seconds += std::chrono::duration<double>(end - begin).count();
    ++o.steps;
    if (o.steps % 10 == 0) o.reached = m.evaluate(held).mean() <= target;
  }
  o.in_library = library_seconds;
  return o;
}

template <class Rule>
void add(char const* name, Rule rule) {
  benchmark::RegisterBenchmark(name,
                               [rule](benchmark::State& state) {
                                 std::uint32_t seed = 0;
                                 double steps = 0, in_rule = 0, in_library = 0, runs = 0;
                                 for (auto _ : state) {
                                   auto const o = learn(rule, seed++);
                                   if (!o.reached) state.SkipWithError("the target was not reached");
                                   state.SetIterationTime(o.seconds);
                                   steps += static_cast<double>(o.steps);
                                   in_rule += o.in_rule;
                                   in_library += o.in_library;
                                   ++runs;
                                 }
                                 state.counters["steps"] = steps / runs;
                                 state.counters["rule_ms_per_step"] = 1e3 * in_rule / steps;
                                 state.counters["library_share"] = in_library / in_rule;
                               })
      ->Iterations(3)  // seeds
      ->Unit(benchmark::kMillisecond)
      ->UseManualTime();
}

/// AdamW for vectors and the last layer, as Muon's authors advise.
template <class Rule>
auto hidden_matrices(Rule rule, float lr) {
  return optim::partition{
      optim::adamw{.lr = lr},
      optim::group{[](std::string_view name, shape const& s) { return s.rank == 2 && name != "4.weight"; }, rule}};
}

}  // namespace

int main(int argc, char** argv) {
  auto const rate = [&](float otherwise) {  // RATE=… for the search
    auto const* r = std::getenv("RATE");
    return r ? std::strtof(r, nullptr) : otherwise;
  };
  add("adamw", optim::adamw{.lr = rate(5e-3f)});
  add("momentum", optim::momentum{.lr = rate(0.2f)});
  add("muon", hidden_matrices(optim::muon{.lr = rate(0.05f)}, 5e-3f));
  add("shampoo", optim::shampoo{.lr = rate(5e-4f), .beta2 = 0.95f, .grafting = optim::graft::rmsprop});
  add("soap", optim::soap{.lr = rate(1e-2f)});
  add("kfac", optim::kfac{.lr = rate(0.01f), .damping = 0.01f});
  add("ekfac", optim::ekfac{.lr = rate(0.01f), .damping = 0.01f});
  return bench::run(argc, argv, {});
}
