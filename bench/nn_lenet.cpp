// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Images per second of the network of the introduction, batches of 128, on one core: loss and gradients, and the
// outputs alone.
#include <cstdint>
#include <vector>

#include <dovetail/nn.hpp>

#include "claims.hpp"

namespace {

using namespace dovetail;
using lenet = nn::network<nn::shape{1, 28, 28}, nn::conv<32, 3>, nn::relu, nn::max_pool<2>, nn::flatten, nn::dense<128>,
                          nn::relu, nn::dense<10>>;
constexpr std::int64_t images = 128;

struct data {
  std::vector<float> values = std::vector<float>(images * lenet::input_shape.size());
  std::vector<std::int32_t> targets = std::vector<std::int32_t>(images);
  data() {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = random_stream{1}.uniform(i);
    for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = static_cast<std::int32_t>(i % 10);
  }
  operator dovetail::data::batch() const { return {images, values, {}, targets}; }
};

void rate(benchmark::State& state) {
  state.counters["images/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * images), benchmark::Counter::kIsRate);
}

void gradients(benchmark::State& state) {
  nn::with_loss model{lenet{}, nn::softmax_cross_entropy{}};
  data const d;
  gradient_pass pass;
  pass.scale = 1.f / images;
  model.gradients(d, pass);
  for (auto _ : state) benchmark::DoNotOptimize(model.gradients(d, pass));
  rate(state);
}
BENCHMARK(gradients)->Name("lenet/gradients")->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);

void predict(benchmark::State& state) {
  lenet network;
  data const d;
  network.predict(d);
  for (auto _ : state) benchmark::DoNotOptimize(network.predict(d).data());
  rate(state);
}
BENCHMARK(predict)->Name("lenet/predict")->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);

}  // namespace

int main(int argc, char** argv) {
  return bench::run(
      argc, argv, {{"outputs alone take at most half the time of gradients", "lenet/predict", "lenet/gradients", 0.5}});
}
