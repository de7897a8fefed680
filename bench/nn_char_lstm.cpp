// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sequences per second of a character model: embedding, two LSTM layers of 256 units and a dense layer, 50 steps, 25
// sequences a rank, one core a rank. One rank alone, and two replicas in two threads. bench/nn_char_lstm.py does the
// same with PyTorch. The gemm benchmark is the limit: the network's multiplications at the speed of one large product.
#include <barrier>
#include <cstdint>
#include <thread>
#include <vector>

#include <dovetail/nn.hpp>

#include "claims.hpp"

namespace {

using namespace dovetail;
constexpr int steps = 50, vocabulary = 100, sequences = 25;
using reader =
    nn::network<nn::shape{steps}, nn::embedding<vocabulary, 64>, nn::lstm<256>, nn::lstm<256>, nn::dense<vocabulary>>;
using trained = nn::with_loss<reader, nn::softmax_cross_entropy>;

struct rank {
  trained model{};
  std::vector<std::int32_t> tokens = std::vector<std::int32_t>(steps * sequences), targets = tokens;
  explicit rank(std::uint32_t number) {
    random_stream const random{1, number};
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<std::int32_t>(random.word(2 * i) % vocabulary);
      targets[i] = static_cast<std::int32_t>(random.word(2 * i + 1) % vocabulary);
    }
  }
  void step() {
    gradient_pass pass;
    pass.scale = 1.f / (steps * sequences);
    benchmark::DoNotOptimize(model.gradients({sequences, {}, tokens, targets}, pass));
  }
};

void rate(benchmark::State& state, int ranks) {
  state.counters["sequences/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * ranks * sequences), benchmark::Counter::kIsRate);
}

void one_rank(benchmark::State& state) {
  rank r(0);
  r.step();
  for (auto _ : state) r.step();
  rate(state, 1);
}
BENCHMARK(one_rank)->Name("char_lstm/one_rank")->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.5);

void two_ranks(benchmark::State& state) {
  bool done = false;
  std::barrier start(2), stop(2);
  std::thread other([&] {
    rank r(1);
    r.step();
    while (start.arrive_and_wait(), !done) {
      r.step();
      stop.arrive_and_wait();
    }
  });
  rank r(0);
  r.step();
  for (auto _ : state) {
    start.arrive_and_wait();
    r.step();
    stop.arrive_and_wait();
  }
  done = true;
  start.arrive_and_wait();
  other.join();
  rate(state, 2);
}
BENCHMARK(two_ranks)->Name("char_lstm/two_ranks")->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.5);

void limit(benchmark::State& state) {
  nn::host backend;
  auto const threads = backend.use(1);
  constexpr std::int64_t n = 768;
  std::vector<float> a(n * n, 1.f), b(n * n, 1.f), c(n * n);
  double const products = 3.0 * sequences * static_cast<double>(reader::flops_per_sample) / (2.0 * n * n * n);
  for (auto _ : state) {
    auto const begin = std::chrono::steady_clock::now();
    backend.gemm(false, false, n, n, n, a.data(), b.data(), 0.f, c.data());
    state.SetIterationTime(products * std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
}
BENCHMARK(limit)->Name("char_lstm/gemm_limit")->UseManualTime()->Unit(benchmark::kMillisecond)->MinTime(0.5);

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv,
                    {{"a training step takes at most twice the time of its multiplications", "char_lstm/one_rank",
                      "char_lstm/gemm_limit", 2.0},
                     {"two ranks in two threads lose at most a third of a core each", "char_lstm/two_ranks",
                      "char_lstm/one_rank", 1.5}});
}
