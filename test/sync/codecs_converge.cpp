// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What codecs cost in loss: a small network, three seeds each, beside the same trainings without a codec.
#include <dovetail/compress.hpp>

#include "small_network.hpp"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace sync_codecs_converge {

using namespace dovetail;
using compress::error_feedback;

constexpr std::int64_t steps = 400;
constexpr std::uint64_t seeds[] = {1, 2, 3};

struct summary {
  double mean = 0, low = 1e9, high = 0;
  std::uint64_t bytes = 0;
};
template <class Model = test::small_network, class Sync, class Optimizer>
summary run(Sync const& sync, Optimizer const& opt, std::int64_t count = steps) {
  summary s;
  for (auto const seed : seeds) {
    auto const t = test::train<Model>(sync, opt, seed, count);
    CHECK(t.equal);
    s.mean += t.loss / 3;
    s.low = std::min(s.low, t.loss);
    s.high = std::max(s.high, t.loss);
    s.bytes = t.bytes_sent;
  }
  return s;
}
/// Within the spread of the seeds of dense training, and a fortieth of what there is to learn (ln of so many classes at
/// the beginning).
void as_good(std::string const& name, summary const& s, summary const& dense, double classes, double more = 0) {
  CAPTURE(name);
  MESSAGE(name, ": loss ", s.mean, " in [", s.low, ", ", s.high, "] (dense ", dense.mean, " in [", dense.low, ", ",
          dense.high, "]), bytes 1/", static_cast<double>(dense.bytes) / static_cast<double>(s.bytes));
  CHECK(s.mean <= dense.mean + more + std::max(dense.high - dense.low, std::log(classes) / 40));
}
void fewer_bytes(summary const& s, summary const& dense, double times) {
  CHECK(static_cast<double>(s.bytes) * times <= static_cast<double>(dense.bytes));
}
optim::sgd const plain{.lr = 0.2f};

summary const& dense() {
  static summary const s = run(sync::all_reduce{}, plain);
  return s;
}
template <class Codec>
void as_good_as_dense(std::string const& name, Codec const& codec, double times, double more = 0) {
  auto const s = run(sync::all_reduce{codec}, plain);
  as_good(name, s, dense(), 8, more);
  fewer_bytes(s, dense(), times);
}

TEST_CASE("the network learns") {
  CHECK(dense().mean < 0.75);
  CHECK(dense().mean > 0.2);
}
TEST_CASE("with error feedback the loss is that of dense gradients") {
  as_good_as_dense("top-k 1 %", error_feedback{compress::top_k{.ratio = 0.01f}}, 20);
  as_good_as_dense("top-k 10 %, or 1 % where gradients are the same",
                   compress::adaptive_ratio{error_feedback{compress::top_k{.ratio = 0.01f}}, 0.1f, 100, 0.5f}, 4);
  as_good_as_dense("scaled sign", error_feedback{compress::sign{}}, 20);
  as_good_as_dense("1-bit", error_feedback{compress::one_bit{}}, 10);
  as_good_as_dense("int4", error_feedback{compress::int4{}}, 5);
  as_good_as_dense("3LC", error_feedback{compress::three_lc{}}, 10);
}
TEST_CASE("low rank") { as_good_as_dense("PowerSGD of rank 4", compress::powersgd{.rank = 4, .min_rate = 1}, 3); }
TEST_CASE("codecs of a byte and more need none") {
  as_good_as_dense("int8", compress::int8{}, 3.5);
  as_good_as_dense("fp8", compress::fp8_e4m3{}, 3.5);
  as_good_as_dense("dynamic8", compress::dynamic8{}, 3.5);
  as_good_as_dense("bf16", compress::bf16{}, 1.9);
  as_good_as_dense("stochastic bf16", compress::stochastic_bf16{}, 1.9);
}
TEST_CASE("unbiased codecs neither") {
  as_good_as_dense("QSGD 4 bit", compress::qsgd{.levels = 7, .norm = compress::norm::max}, 5);
  as_good_as_dense("natural", compress::natural{}, 3);
  as_good_as_dense("natural dithering", compress::natural_dithering{}, 5);
  // 1.6 times the gradient's square in noise: it costs.
  as_good_as_dense("TernGrad", compress::terngrad{.block = 64}, 6, 0.1);
}
TEST_CASE("sparsifiers that keep their own residual, and unbiased ones") {
  optim::sgd const slower{.lr = 0.1f};
  auto const d = run(sync::all_reduce{}, optim::momentum{.lr = 0.1f, .momentum = 0.5f});
  auto const s = run(sync::all_reduce{compress::dgc{.ratio = 0.01f, .momentum = 0.5f}}, slower);
  as_good("DGC of 1 %, beside momentum", s, d, 8);
  as_good_as_dense("random-k of 10 %", error_feedback{compress::random_k{.ratio = 0.1f}}, 9);
  as_good_as_dense("unbiased sparsification to 20 %", compress::wangni{.ratio = 0.2f}, 3, 0.1);
}
TEST_CASE("EF21 with momentum; without it, the noise of single batches stays in what ranks know of each other") {
  optim::sgd const slower{.lr = 0.1f};  // its largest rate is smaller
  auto const d = run(sync::all_reduce{}, slower);
  auto const s = run(sync::all_reduce{compress::ef21{compress::top_k{.ratio = 0.05f}, 0.8f}}, slower);
  auto const noisy = run(sync::all_reduce{compress::ef21{compress::top_k{.ratio = 0.05f}}}, slower);
  as_good("EF21-SGDM", s, d, 8);
  MESSAGE("without momentum ", noisy.mean);
  CHECK(!(noisy.mean < d.mean + 0.1));
}
TEST_CASE("Signum by majority vote learns, with a rate of its own") {
  auto const s = run(sync::all_reduce{compress::majority_vote{.momentum = 0.9f}}, optim::sgd{.lr = 1e-3f});
  MESSAGE("majority vote: loss ", s.mean);
  CHECK(s.mean < dense().mean + 0.15);
}

/// Dense gradients in the warmup, then one bit an element.
auto signs_after(std::int64_t warmup) {
  return sync::all_reduce{compress::after{warmup, compress::identity{}, error_feedback{compress::sign{}}}};
}
TEST_CASE("1-bit Adam, behind a warmup of a quarter of the steps") {
  auto const d = run(sync::all_reduce{}, optim::adam{.lr = 0.01f, .beta2 = 0.99f});
  auto const s =
      run(signs_after(steps / 4), sync::one_bit_adam{.lr = 0.01f, .beta2 = 0.99f, .warmup_steps = steps / 4});
  as_good("1-bit Adam, beside Adam", s, d, 8);
  fewer_bytes(s, d, 3);
}
TEST_CASE("1-bit LAMB, the same") {
  optim::schedule const rate = optim::cosine{.initial = 0.03f, .steps = steps};
  auto const d = run(sync::all_reduce{}, optim::lamb{.lr = rate, .beta2 = 0.99f});
  auto const s = run(signs_after(steps / 4), sync::one_bit_lamb{.lr = rate, .beta2 = 0.99f, .warmup_steps = steps / 4});
  as_good("1-bit LAMB, beside LAMB", s, d, 8);
  fewer_bytes(s, d, 3);
}

// The characters: gradients of an LSTM, an embedding and a dense layer, of different sizes, in one bucket. Rates fall
// to 0: what error feedback holds back comes late, and is worth less the smaller the steps are.
constexpr std::int64_t text_steps = 500;
optim::schedule falling(float rate) { return optim::cosine{.initial = rate, .steps = text_steps}; }

template <class Sync, class Optimizer>
summary read_text(Sync const& sync, Optimizer const& opt) {
  return run<test::char_model>(sync, opt, text_steps);
}
summary const& dense_text() {
  static summary const s = read_text(sync::all_reduce{}, optim::sgd{.lr = falling(4)});
  return s;
}
template <class Codec>
void reads_as_well(std::string const& name, Codec const& codec, double times) {
  auto const s = read_text(sync::all_reduce{codec}, optim::sgd{.lr = falling(4)});
  as_good(name, s, dense_text(), test::char_model::letters);
  fewer_bytes(s, dense_text(), times);
}
TEST_CASE("an LSTM learns words") {
  CHECK(dense_text().mean < 0.55);  // ln 16 = 2.77 at the beginning
  CHECK(dense_text().mean > 0.3);
}
TEST_CASE("and does with codecs") {
  reads_as_well("characters, top-k 1 %", error_feedback{compress::top_k{.ratio = 0.01f}}, 40);
  reads_as_well("characters, scaled sign", error_feedback{compress::sign{}}, 20);
  reads_as_well("characters, PowerSGD of rank 4", compress::powersgd{.rank = 4, .min_rate = 1}, 3);
  reads_as_well("characters, int8", compress::int8{}, 3.5);
}
TEST_CASE("and with momentum in the codec") {
  auto const d = read_text(sync::all_reduce{}, optim::momentum{.lr = falling(0.4f), .momentum = 0.9f});
  auto const s =
      read_text(sync::all_reduce{compress::dgc{.ratio = 0.01f, .momentum = 0.9f}}, optim::sgd{.lr = falling(0.4f)});
  as_good("characters, DGC of 1 %, beside momentum", s, d, test::char_model::letters);
  fewer_bytes(s, d, 8);
}
// H, what ranks know of a gradient, is stepped along in every step, and brought up to date in one of 1 / ratio: at this
// rate that must be few steps, and the momentum short. What is sparse needs a smaller rate, and more steps.
TEST_CASE("and with EF21 of a codec that brings all elements up to date") {
  optim::sgd const slower{.lr = falling(2)};
  auto const d = read_text(sync::all_reduce{}, slower);
  auto const s = read_text(sync::all_reduce{compress::ef21{compress::int4{}, 0.5f}}, slower);
  auto const sparse = read_text(sync::all_reduce{compress::ef21{compress::top_k{.ratio = 0.05f}, 0.5f}}, slower);
  as_good("characters, EF21-SGDM of int4", s, d, test::char_model::letters);
  fewer_bytes(s, d, 5);
  MESSAGE("of top-k 5 % ", sparse.mean);
  CHECK(!(sparse.mean < d.mean + 0.05));
}
TEST_CASE("and with 1-bit Adam") {
  auto const d = read_text(sync::all_reduce{}, optim::adam{.lr = falling(0.01f), .beta2 = 0.99f});
  auto const s = read_text(signs_after(text_steps / 4),
                           sync::one_bit_adam{.lr = falling(0.01f), .beta2 = 0.99f, .warmup_steps = text_steps / 4});
  as_good("characters, 1-bit Adam, beside Adam", s, d, test::char_model::letters);
  fewer_bytes(s, d, 3);
}

// f(x, y) = e |x + y| + |x - y| with e < 1: all signs of its gradients are (1, -1) or (-1, 1), so that x + y stays as
// it is when steps are scaled signs (Karimireddy et al., ICML 2019, section 3).
TEST_CASE("where signs alone fail, error feedback does not") {
  auto const sum_after = [](auto const& codec, int n) {
    double sum = 0;
    comm::threads{1}.run([&](auto& c) {
      std::vector<float> x{1.0f, 0.9f}, g(2);
      parameter_list list;
      list.add("x", std::span<float>(x), std::span<float>(g));
      auto session = sync::all_reduce{codec}.join(list, optim::sgd{.lr = 0.01f}, c);
      for (int s = 0; s < n; ++s) {
        session.begin();
        float const e = 0.3f * (x[0] + x[1] < 0 ? -1.0f : 1.0f), d = x[0] - x[1] < 0 ? -1.0f : 1.0f;
        g = {e + d, e - d};
        session.ready(0);
        session.step();
      }
      sum = static_cast<double>(x[0] + x[1]);
    });
    return sum;
  };
  CHECK(sum_after(compress::without_feedback{compress::sign{}}, 2000) == doctest::Approx(1.9));
  CHECK(std::fabs(sum_after(error_feedback{compress::sign{}}, 2000)) < 0.1);
}

}  // namespace sync_codecs_converge
