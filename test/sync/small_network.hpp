// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Two models on which codecs differ, small enough for three seeds of each in seconds: a network by hand, of two layers,
// with data that a teacher of the same form has labelled with some noise; and a recurrent one that reads characters.
#include <dovetail/comm.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/philox.hpp>
#include <dovetail/nn.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace test {

class small_network {
 public:
  static constexpr std::size_t inputs = 32, hidden = 64, classes = 8;

  explicit small_network(std::uint64_t seed) : weights_(size), gradients_(size) {
    dovetail::random_stream const random{seed, 1};
    for (std::size_t i = 0; i < size; ++i) weights_[i] = normal(random, i) * (i < first ? 0.15f : 0.1f);
    std::fill(weights_.begin() + first, weights_.begin() + first + hidden, 0.0f);
    std::fill(weights_.end() - classes, weights_.end(), 0.0f);
    auto const part = [](std::vector<float>& x, std::size_t at, std::size_t n) { return std::span(x).subspan(at, n); };
    auto const add = [&](char const* name, std::size_t at, std::size_t rows, std::size_t columns) {
      dovetail::shape const s =
          rows == 1 ? dovetail::shape{static_cast<std::int64_t>(columns)}
                    : dovetail::shape{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)};
      list.add(name, part(weights_, at, rows * columns), part(gradients_, at, rows * columns), s);
    };
    add("w1", 0, hidden, inputs);
    add("b1", first, 1, hidden);
    add("w2", first + hidden, classes, hidden);
    add("b2", size - classes, 1, classes);
  }
  small_network(small_network const&) = delete;
  small_network& operator=(small_network const&) = delete;

  /// The sum of the losses of the samples first … first + count - 1 of a task; adds scale times its gradient.
  double losses(std::uint64_t task, std::uint64_t from, std::size_t count, float scale) {
    std::fill(gradients_.begin(), gradients_.end(), 0.0f);
    double total = 0;
    std::vector<float> x(inputs), h(hidden), back(hidden);
    float const *w1 = weights_.data(), *b1 = w1 + first, *w2 = b1 + hidden, *b2 = w2 + classes * hidden;
    float *g1 = gradients_.data(), *gb1 = g1 + first, *g2 = gb1 + hidden, *gb2 = g2 + classes * hidden;
    for (std::uint64_t n = from; n < from + count; ++n) {
      std::size_t const label = sample(task, n, x);
      for (std::size_t j = 0; j < hidden; ++j) {
        float sum = b1[j];
        for (std::size_t i = 0; i < inputs; ++i) sum += w1[j * inputs + i] * x[i];
        h[j] = std::max(sum, 0.0f);
      }
      float out[classes], most = -1e30f, sum = 0;
      for (std::size_t k = 0; k < classes; ++k) {
        out[k] = b2[k];
        for (std::size_t j = 0; j < hidden; ++j) out[k] += w2[k * hidden + j] * h[j];
        most = std::max(most, out[k]);
      }
      for (float& o : out) sum += o = std::exp(o - most);
      total -= std::log(static_cast<double>(out[label] / sum));
      std::fill(back.begin(), back.end(), 0.0f);
      for (std::size_t k = 0; k < classes; ++k) {
        float const d = scale * (out[k] / sum - (k == label ? 1.0f : 0.0f));
        gb2[k] += d;
        for (std::size_t j = 0; j < hidden; ++j) {
          g2[k * hidden + j] += d * h[j];
          back[j] += d * w2[k * hidden + j];
        }
      }
      for (std::size_t j = 0; j < hidden; ++j) {
        if (!(h[j] > 0)) continue;
        gb1[j] += back[j];
        for (std::size_t i = 0; i < inputs; ++i) g1[j * inputs + i] += back[j] * x[i];
      }
    }
    return total;
  }
  std::vector<float> weights() const { return weights_; }
  dovetail::parameter_list& parameters() { return list; }

 private:
  dovetail::parameter_list list;
  static constexpr std::size_t first = hidden * inputs, size = first + hidden + classes * hidden + classes;

  static float normal(dovetail::random_stream const& random, std::uint64_t i) {
    float const u = 1 - random.uniform(2 * i), v = random.uniform(2 * i + 1);
    return std::sqrt(-2 * std::log(u)) * std::cos(6.2831853f * v);
  }
  /// A label by the largest of `classes` random linear functions of x, and in one case of twenty by chance.
  static std::size_t sample(std::uint64_t task, std::uint64_t n, std::vector<float>& x) {
    dovetail::random_stream const of_sample{task, 2, n}, of_task{task, 3};
    for (std::size_t i = 0; i < inputs; ++i) x[i] = normal(of_sample, i);
    if (of_sample.uniform(1000) < 0.05f) return of_sample.word(1001) % classes;
    std::size_t label = 0;
    float most = -1e30f;
    for (std::size_t k = 0; k < classes; ++k) {
      float sum = 0;
      for (std::size_t i = 0; i < inputs; ++i) sum += x[i] * (2 * of_task.uniform(k * inputs + i) - 1);
      if (sum > most) most = sum, label = k;
    }
    return label;
  }

  std::vector<float> weights_, gradients_;
};

/// A character model: an embedding, an LSTM and a dense layer, as in examples/char_rnn.cpp. Its text is made of words
/// in a language of the task, in which each word is followed by one of four: so many letters are certain behind their
/// first ones, and the entropy of a letter is about a quarter of a nat.
class char_model {
 public:
  static constexpr std::int64_t window = 12;
  static constexpr int letters = 16;

  explicit char_model(std::uint64_t seed) { model_.network.initialize(seed); }
  char_model(char_model const&) = delete;
  char_model& operator=(char_model const&) = delete;

  /// As of small_network; a sample's loss is the mean over its letters.
  double losses(std::uint64_t task, std::uint64_t from, std::size_t count, float scale) {
    tokens_.clear();
    targets_.clear();
    for (std::uint64_t n = from; n < from + count; ++n) sample(task, n);
    dovetail::gradient_pass pass;
    pass.scale = scale / static_cast<float>(window);
    auto const sums = model_.gradients({static_cast<std::int64_t>(count), {}, tokens_, targets_}, pass);
    return sums.loss / static_cast<double>(window);
  }
  std::vector<float> weights() const {
    auto const flat = model_.parameters().flat_weights();
    return {flat.begin(), flat.end()};
  }
  dovetail::parameter_list& parameters() { return model_.parameters(); }

 private:
  static constexpr std::uint64_t words = 24, followers = 4;

  /// Letter 0 is the space; a word has two to five others.
  void sample(std::uint64_t task, std::uint64_t n) {
    dovetail::random_stream const of_sample{task, 2, n}, of_task{task, 3};
    std::vector<std::int32_t> text;
    std::uint64_t word = of_sample.word(0) % words;
    std::size_t const skipped = of_sample.word(1) % 6;
    for (std::uint64_t k = 2; text.size() <= skipped + window; ++k) {
      for (std::uint64_t at = 0; at < 2 + of_task.word(8 * word) % 4; ++at)
        text.push_back(1 + static_cast<std::int32_t>(of_task.word(8 * word + 1 + at) % (letters - 1)));
      text.push_back(0);
      word = of_task.word(1000 + followers * word + of_sample.word(k) % followers) % words;
    }
    auto const begin = text.begin() + static_cast<std::ptrdiff_t>(skipped);
    tokens_.insert(tokens_.end(), begin, begin + window);
    targets_.insert(targets_.end(), begin + 1, begin + 1 + window);
  }

  using network = dovetail::nn::basic_network<dovetail::nn::plain, dovetail::nn::shape{window},
                                              dovetail::nn::embedding<letters, 12>, dovetail::nn::lstm<32>,
                                              dovetail::nn::dense<letters>>;
  dovetail::nn::with_loss<network, dovetail::nn::softmax_cross_entropy> model_;
  std::vector<std::int32_t> tokens_, targets_;
};

/// The end of a training on ranks as threads.
struct trained {
  double loss = 0;               ///< mean of the last tenth of the steps
  std::uint64_t bytes_sent = 0;  ///< by rank 0
  bool equal = true;             ///< all ranks have the same weights, bit for bit
};
template <class Model, class Sync, class Optimizer>
trained train(Sync const& sync, Optimizer const& opt, std::uint64_t seed, std::int64_t steps, int ranks = 4,
              std::size_t batch = 32) {
  trained result;
  std::vector<std::vector<float>> weights(static_cast<std::size_t>(ranks));
  dovetail::comm::threads{ranks}.run([&](auto& c) {
    Model net(seed);
    auto session = sync.join(net.parameters(), opt, c);
    auto const per = batch / static_cast<std::size_t>(ranks);
    double sum = 0;
    auto const before = c.traffic();
    for (std::int64_t s = 0; s < steps; ++s) {
      session.begin();
      auto const from = static_cast<std::uint64_t>(s) * batch + static_cast<std::uint64_t>(c.rank()) * per;
      double const loss = net.losses(seed, from, per, 1 / static_cast<float>(batch));
      session.ready(0);
      session.step();
      if (s >= steps - steps / 10) sum += loss;
    }
    auto const sent = (c.traffic() - before).bytes_sent;
    c.all_reduce(std::span<double>(&sum, 1), dovetail::comm::reduction::sum);
    if (c.rank() == 0) {
      result.loss = sum / static_cast<double>(steps / 10) / static_cast<double>(batch);
      result.bytes_sent = sent;
    }
    weights[static_cast<std::size_t>(c.rank())] = net.weights();
  });
  for (auto const& w : weights) result.equal = result.equal && w == weights[0];
  return result;
}

}  // namespace test
