// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Training steps of a character model: embedding, two LSTM layers of 256 units and a dense layer, 50 steps, 25
// sequences a rank, one core a rank, AdamW. One rank alone, and two ranks as threads that exchange gradients while they
// compute. PyTorch (of the python that DOVETAIL_PEER_PYTHON names, or one that is found) does the same in between: one
// process, and two under DistributedDataParallel. The gemm benchmark is the limit: the network's multiplications at the
// speed of one large product.
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <dovetail/comm/self.hpp>
#include <dovetail/comm/threads.hpp>
#include <dovetail/nn.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync/all_reduce.hpp>

#include "claims.hpp"
#include "peer_process.hpp"

namespace {

using namespace dovetail;
constexpr int steps = 50, vocabulary = 96, sequences = 25;
using reader =
    nn::network<nn::shape{steps}, nn::embedding<vocabulary, 64>, nn::lstm<256>, nn::lstm<256>, nn::dense<vocabulary>>;
using trained = nn::with_loss<reader, nn::softmax_cross_entropy>;

template <communicator Communicator>
struct rank {
  trained model{};
  std::vector<std::int32_t> tokens = std::vector<std::int32_t>(steps * sequences), targets = tokens;
  sync::all_reduce<> policy{.bucket_bytes = 1 << 20};
  decltype(policy.join(model.parameters(), optim::adamw{}, std::declval<Communicator&>())) session;
  std::int64_t ranks;

  explicit rank(Communicator& c)
      : session(policy.join(model.parameters(), optim::adamw{.lr = 1e-3f}, c)), ranks(c.size()) {
    model.network.initialize(1);
    random_stream const random{1, static_cast<std::uint32_t>(c.rank())};
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<std::int32_t>(random.word(2 * i) % vocabulary);
      targets[i] = static_cast<std::int32_t>(random.word(2 * i + 1) % vocabulary);
    }
  }
  void step() {
    session.begin();
    gradient_pass pass;
    pass.scale = session.gradient_scale(steps * sequences, steps * sequences * ranks);
    pass.ready = [this](std::size_t first) { session.ready(first); };
    benchmark::DoNotOptimize(model.gradients({sequences, {}, tokens, targets}, pass));
    benchmark::DoNotOptimize(session.step());
  }
};

void rate(benchmark::State& state, int ranks) {
  state.counters["sequences/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * ranks * sequences), benchmark::Counter::kIsRate);
}

void one_rank(benchmark::State& state) {
  comm::self alone;
  rank r(alone);
  r.step();
  for (auto _ : state) r.step();
  rate(state, 1);
}
BENCHMARK(one_rank)->Name("char_lstm/one_rank")->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.5);

void two_ranks(benchmark::State& state) {
  comm::threads{2}.run([&](auto& c) {
    rank r(c);
    r.step();
    int more = 1;
    auto const another = [&] { c.broadcast(std::span(&more, 1), 0); };
    if (c.rank() == 0) {
      for (auto _ : state) {
        another();
        r.step();
      }
      more = 0;
      another();
    } else {
      for (another(); more; another()) r.step();
    }
  });
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

void pytorch(benchmark::State& state, bench::peer_process& peer, int ranks) {
  peer.seconds(2);  // as warm as ours
  for (auto _ : state) {
    double const seconds = peer.seconds(1);
    if (seconds < 0) return state.SkipWithError("the PyTorch process has died");
    state.SetIterationTime(seconds);
  }
  rate(state, ranks);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  std::vector<std::unique_ptr<bench::peer_process>> peers;
  if (auto const python = bench::python_with_torch(); !python.empty()) {
    for (int ranks : {1, 2}) {
      auto& peer = *peers.emplace_back(std::make_unique<bench::peer_process>(
          std::vector<std::string>{python, DOVETAIL_BENCH_SOURCE "/nn_char_lstm.py", std::to_string(ranks)}));
      if (peer.version.empty()) continue;
      benchmark::RegisterBenchmark(ranks == 1 ? "char_lstm/pytorch_one_process" : "char_lstm/pytorch_two_processes",
                                   [&peer, ranks](benchmark::State& state) { pytorch(state, peer, ranks); })
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond)
          ->MinTime(0.5);
      benchmark::AddCustomContext("pytorch", peer.version);
    }
  }
  return bench::run(argc, argv,
                    {{"a training step takes at most a quarter more than its multiplications", "char_lstm/one_rank",
                      "char_lstm/gemm_limit", 1.25},
                     {"two ranks in two threads lose at most a third of a core each", "char_lstm/two_ranks",
                      "char_lstm/one_rank", 1.5},
                     {"one rank takes at most a fifth more than one process of PyTorch 2.15", "char_lstm/one_rank",
                      "char_lstm/pytorch_one_process", 1.2},
                     {"two ranks are at least as fast as two processes of PyTorch under DistributedDataParallel",
                      "char_lstm/two_ranks", "char_lstm/pytorch_two_processes", 1.0}});
}
