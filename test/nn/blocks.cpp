// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Blocks of layers, and layers that keep something from batch to batch.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <dovetail/nn.hpp>
#include <dovetail/nn/gauss_newton.hpp>
#include <dovetail/optim/sam.hpp>

#include <doctest/doctest.h>

#include "nn/batch_reference.hpp"

namespace nn_blocks {

using namespace dovetail;
using differences::noise;

namespace {

template <nn::shape Input, class... Layers>
using simple = nn::basic_network<nn::plain, Input, Layers...>;

/// A small residual network in the manner of the paper: blocks with and without a projected shortcut, and noise.
template <template <nn::shape, class...> class Net>
using images_of =
    Net<nn::shape{2, 6, 6}, nn::conv<4, 3, 1, 1>, nn::batch_norm<>, nn::relu,
        nn::residual<nn::conv<4, 3, 1, 1>, nn::batch_norm<>, nn::relu, nn::dropout<0.25f>, nn::conv<4, 3, 1, 1>>,
        nn::relu,
        nn::residual<nn::shortcut<nn::conv<6, 1, 2>, nn::batch_norm<>>, nn::conv<6, 3, 2, 1>, nn::relu,
                     nn::dropout<0.25f>, nn::conv<6, 3, 1, 1>, nn::batch_norm<>>,
        nn::relu, nn::flatten, nn::dense<3>>;
using images = images_of<nn::network>;
using plain_images = images_of<simple>;

template <class Network>
auto with_entropy() {
  nn::with_loss m{Network{}, nn::softmax_cross_entropy{}};
  m.network.initialize(5);
  // Weights of ones and biases of zeros would hide what belongs to which channel.
  random_stream const random{3};
  auto const w = m.parameters().flat_weights();
  for (std::size_t i = 0; i < w.size(); ++i) w[i] += 0.2f * random.uniform(i) - 0.1f;
  return m;
}
std::vector<float> copy_of(std::span<float const> s) { return {s.begin(), s.end()}; }

gradient_pass noisy(float scale = 1, bool accumulate = false) {
  gradient_pass pass;
  pass.scale = scale;
  pass.accumulate = accumulate;
  pass.seed = 11;
  pass.step = 4;
  pass.rank = 1;
  return pass;
}

template <class Network>
void check_gradients(std::int64_t samples, gradient_pass const& pass = noisy(), std::int32_t vocabulary = 0) {
  CAPTURE(samples);
  auto m = with_entropy<Network>();
  if (pass.accumulate) m.gradients(noise<Network>(samples + 1, vocabulary, 9), noisy(0.5f));
  auto const d = reference::from_batch_reference(m, noise<Network>(samples, vocabulary), pass);
  CAPTURE(d.tensor);
  CHECK(d.loss < 1e-6);
  CHECK(d.gradient < 2e-5);
}

/// All numbers of a network's buffers.
template <class Network>
std::vector<double> buffers_of(Network& n) {
  std::vector<double> all;
  for (auto const& t : n.buffers())
    for (std::size_t i = 0; i < t.bytes.size() / sizeof(float); ++i) {
      float x = 0;
      std::memcpy(&x, t.bytes.data() + i * sizeof x, sizeof x);
      all.push_back(static_cast<double>(x));
    }
  return all;
}

}  // namespace

static_assert(images::depth == 9);
static_assert(images::shapes[3] == nn::shape{4, 6, 6});
static_assert(images::shapes[4] == nn::shape{4, 6, 6});
static_assert(images::shapes[6] == nn::shape{6, 3, 3});
static_assert(images::output_shape == nn::shape{3});
static_assert(images::parameter_offsets[1] == 2 * 4 * 9 + 4);
static_assert(images::buffer_count == 2 * (4 + 4 + 6 + 6));

TEST_CASE("tensors in blocks are named by the path to their layer, and lie in the order of the list") {
  images n;
  std::string names;
  for (auto const& p : n.parameters()) names += p.name + ' ';
  CHECK(names ==
        "0.weight 0.bias 1.weight 1.bias 3.0.weight 3.0.bias 3.1.weight 3.1.bias 3.4.weight 3.4.bias "
        "5.shortcut.0.weight 5.shortcut.0.bias 5.shortcut.1.weight 5.shortcut.1.bias 5.0.weight 5.0.bias 5.3.weight "
        "5.3.bias 5.4.weight 5.4.bias 8.weight 8.bias ");
  names.clear();
  for (auto const& t : n.buffers()) names += t.name + ' ';
  CHECK(names ==
        "1.running_mean 1.running_var 3.1.running_mean 3.1.running_var 5.shortcut.1.running_mean "
        "5.shortcut.1.running_var 5.4.running_mean 5.4.running_var ");
  CHECK(n.buffers()[3].shape == shape{4});
  nn::network<nn::shape{3}, nn::sequence<nn::dense<3>, nn::residual<nn::residual<nn::tanh, nn::dense<3>>>>> deep;
  CHECK(deep.parameters()[2].name == "0.1.0.1.weight");
}

TEST_CASE("gradients of blocks are those of a reference in double precision, noise and statistics included") {
  for (std::int64_t samples : {2, 3, 5}) check_gradients<images>(samples);
  check_gradients<images>(4, noisy(0.125f));
  check_gradients<images>(4, noisy(0.125f, true));
  check_gradients<plain_images>(3);
  check_gradients<plain_images>(2, noisy(3.f, true));
}

TEST_CASE("blocks stand first, last and in each other") {
  using first = nn::network<nn::shape{4}, nn::residual<nn::dense<4>, nn::tanh>, nn::dense<3>>;
  check_gradients<first>(1);
  check_gradients<first>(3);
  using last = nn::network<nn::shape{4}, nn::dense<3>, nn::residual<nn::tanh, nn::dense<3>>>;
  check_gradients<last>(3);
  using alone = nn::network<nn::shape{3}, nn::residual<nn::dense<3>>>;
  check_gradients<alone>(2);
  // The network's input is read by both paths, and the first of them has no weights.
  using both = nn::network<nn::shape{2, 4, 4}, nn::residual<nn::shortcut<nn::max_pool<2>>, nn::conv<2, 2, 2>>,
                           nn::flatten, nn::dense<3>>;
  check_gradients<both>(3);
  using projected = nn::network<nn::shape{4}, nn::residual<nn::shortcut<nn::dense<3>>, nn::relu, nn::dense<3>>>;
  check_gradients<projected>(3);
  using nested =
      nn::network<nn::shape{5}, nn::dense<4>,
                  nn::residual<nn::dense<4>, nn::residual<nn::sigmoid, nn::dense<4>, nn::residual<nn::tanh>>,
                               nn::residual<nn::shortcut<nn::residual<nn::dense<4>>, nn::dense<6>>, nn::dense<6>>,
                               nn::sequence<nn::relu, nn::sequence<nn::dense<4>>>>,
                  nn::dense<3>>;
  check_gradients<nested>(1);
  check_gradients<nested>(4, noisy(0.5f, true));
  using steps = nn::network<nn::shape{4, 3}, nn::residual<nn::lstm<3>, nn::dropout<0.5f>>, nn::batch_norm<>,
                            nn::residual<nn::shortcut<nn::dense<5>>, nn::gru<5>>, nn::dense<4>>;
  check_gradients<steps>(3);
  using tokens = nn::network<nn::shape{5}, nn::sequence<nn::embedding<7, 4>, nn::residual<nn::lstm<4>>>, nn::dense<7>>;
  static_assert(tokens::input_is_tokens);
  check_gradients<tokens>(2, noisy(), 7);
}

TEST_CASE("a layer that runs in place does not overwrite what the other path reads") {
  // Each of these begins with a layer that could.
  check_gradients<nn::network<nn::shape{4}, nn::dense<4>, nn::residual<nn::relu, nn::dense<4>>, nn::dense<3>>>(3);
  check_gradients<nn::network<nn::shape{4}, nn::dense<4>, nn::residual<nn::dropout<0.5f>, nn::tanh>, nn::dense<3>>>(3);
  check_gradients<
      nn::network<nn::shape{4}, nn::dense<4>, nn::residual<nn::shortcut<nn::dense<4>>, nn::sigmoid>, nn::dense<3>>>(3);
  // The sum may be written over one path's output, unless that one is wanted, and be overwritten itself.
  using sums = nn::network<nn::shape{4}, nn::dense<4>, nn::residual<nn::dense<4>>, nn::relu, nn::residual<nn::tanh>>;
  static_assert(sums::activation_floats == 4 + 4 + 4 + 4);
}

TEST_CASE("a sequence computes what its layers do without it, bit for bit") {
  using flat = nn::network<nn::shape{2, 6, 6}, nn::conv<3, 3>, nn::relu, nn::max_pool<2>, nn::flatten, nn::dense<4>>;
  using grouped = nn::network<nn::shape{2, 6, 6}, nn::sequence<nn::conv<3, 3>, nn::relu>,
                              nn::sequence<nn::sequence<nn::max_pool<2>>, nn::flatten>, nn::dense<4>>;
  static_assert(flat::activation_floats == grouped::activation_floats);
  static_assert(flat::flops_per_sample == grouped::flops_per_sample);
  nn::with_loss a{flat{}, nn::softmax_cross_entropy{}};
  nn::with_loss b{grouped{}, nn::softmax_cross_entropy{}};
  auto const d = noise<flat>(3);
  CHECK(a.gradients(d, {}) == b.gradients(d, {}));
  CHECK(copy_of(a.parameters().flat_gradients()) == copy_of(b.parameters().flat_gradients()));
}

TEST_CASE("layers of one block draw noise of their own") {
  using net = simple<nn::shape{64}, nn::sequence<nn::dropout<0.5f>, nn::dropout<0.5f>>, nn::dense<2>>;
  // Of 64 ones a quarter is left by two masks, and half if both are the same.
  net n;
  std::vector<float> const ones(64, 1.f);
  auto const target = std::vector<std::int32_t>(1);
  auto list = n.parameters();
  for (auto& w : list.flat_weights()) w = 0;
  for (std::size_t i = 0; i < 64; ++i) list[0].weight[i] = 1;
  auto const p = n.forward({.size = 1, .values = ones, .tokens = {}, .targets = target}, noisy(), true);
  auto const left = p.logits[0] / 4;
  CHECK(left > 4);
  CHECK(left < 28);
}

TEST_CASE("ready follows each layer within a block, and what it says is final") {
  auto m = with_entropy<images>();
  auto const d = noise<images>(4);
  auto pass = noisy();
  m.gradients(d, pass);
  auto const expected = copy_of(m.parameters().flat_gradients());
  std::vector<std::size_t> firsts;
  for (auto& g : m.parameters().flat_gradients()) g = NAN;
  bool final = true;
  pass.ready = [&](std::size_t first) {
    firsts.push_back(first);
    auto const now = m.parameters().flat_gradients();
    for (std::size_t i = first; i < now.size(); ++i) final = final && now[i] == expected[i];
  };
  m.gradients(d, pass);
  CHECK(final);
  CHECK(firsts.size() == 11);
  CHECK(std::is_sorted(firsts.rbegin(), firsts.rend()));
  CHECK(firsts.back() == 0);
}

TEST_CASE("statistics for second-order rules name the tensor that they are of, in blocks too") {
  auto m = with_entropy<images>();
  auto const& list = m.parameters();
  auto pass = noisy();
  int seen = 0;
  pass.observe = [&](kfac_statistics const& f) {
    ++seen;
    bool found = false;
    for (std::size_t i = 0; i < list.size(); ++i)
      found = found || (list.offset(i) == f.first && list[i].shape[0] == f.out &&
                        list[i].shape.size() == f.out * f.in && list[i].name.ends_with("weight"));
    CHECK(found);
  };
  m.gradients(noise<images>(3), pass);
  CHECK(seen == 7);
}

TEST_CASE("running statistics move towards those of the batch, and are what evaluation uses") {
  using net = simple<nn::shape{3}, nn::batch_norm<0.25f, 0.5f>, nn::dense<2>>;
  auto m = with_entropy<net>();
  std::vector<float> const x{1, 2, 3, 5, 0, -3, 0, 4, 6, 2, 2, 2};
  std::vector<std::int32_t> const targets(4);
  data::batch const four{.size = 4, .values = x, .tokens = {}, .targets = targets};
  CHECK(buffers_of(m.network) == std::vector<double>{0, 0, 0, 1, 1, 1});
  m.gradients(four, {});
  auto const after = buffers_of(m.network);
  // Means 2, 2, 2; unbiased variances 14/3, 8/3, 42/3.
  std::vector<double> const expected{0.5, 0.5, 0.5, 0.75 + 14. / 12, 0.75 + 8. / 12, 0.75 + 42. / 12};
  for (std::size_t i = 0; i < 6; ++i) CHECK(after[i] == doctest::Approx(expected[i]).epsilon(1e-6));
  reference::values w(m.parameters().flat_weights().begin(), m.parameters().flat_weights().end());
  CHECK(m.evaluate(four).loss ==
        doctest::Approx(reference::batch_loss<net>(w, four, {{}, false, after})).epsilon(1e-6));
  CHECK(m.evaluate(four).loss != doctest::Approx(reference::batch_loss<net>(w, four, {})).epsilon(1e-3));
  CHECK(buffers_of(m.network) == after);  // evaluation changes nothing
  // Neither do a batch without samples, a pass that only looks, and products with the curvature.
  m.gradients({}, {});
  gradient_pass looks;
  looks.updates_buffers = false;
  m.gradients(four, looks);
  nn::gauss_newton product{m, four};
  std::vector<float> v(net::parameter_count, 1.f), out(net::parameter_count);
  product(v, out);
  CHECK(buffers_of(m.network) == after);
  // Sharpness-aware minimization looks twice and takes the batch in once.
  auto same = m;
  m.gradients(four, {});
  optim::sam climbing{same};
  climbing.gradients(four, {});
  CHECK(buffers_of(climbing.model.network) == buffers_of(m.network));
  CHECK(buffers_of(m.network) != after);
}

TEST_CASE("a network evaluates blocks with the statistics that it has seen") {
  auto m = with_entropy<images>();
  for (std::uint64_t i = 0; i < 5; ++i) m.gradients(noise<images>(4, 0, i), noisy());
  auto const d = noise<images>(3, 0, 77);
  reference::values w(m.parameters().flat_weights().begin(), m.parameters().flat_weights().end());
  CHECK(m.evaluate(d).loss ==
        doctest::Approx(reference::batch_loss<images>(w, d, {{}, false, buffers_of(m.network)})).epsilon(1e-6));
}

TEST_CASE("statistics need more than one value per channel") {
  auto m = with_entropy<simple<nn::shape{3}, nn::batch_norm<>, nn::dense<2>>>();
  std::vector<float> const x{1, 2, 3};
  std::vector<std::int32_t> const target(1);
  data::batch const one{.size = 1, .values = x, .tokens = {}, .targets = target};
  auto const before = buffers_of(m.network);
  CHECK_THROWS_WITH_AS(m.gradients(one, {}), doctest::Contains("more than 1 value per channel"), argument_error);
  CHECK(buffers_of(m.network) == before);
  CHECK(m.evaluate(one).count == 1);  // which needs none
  check_gradients<nn::network<nn::shape{2, 3, 3}, nn::batch_norm<>, nn::flatten, nn::dense<3>>>(
      1);  // pixels are values
}

TEST_CASE("a copy has buffers of its own, and an assignment takes over those of the other") {
  auto a = with_entropy<images>();
  auto const d = noise<images>(4);
  a.gradients(d, noisy());
  auto b = a;
  auto const before = buffers_of(a.network);
  CHECK(buffers_of(b.network) == before);
  b.gradients(d, noisy());
  CHECK(buffers_of(a.network) == before);
  CHECK(buffers_of(b.network) != before);
  a = b;
  CHECK(buffers_of(a.network) == buffers_of(b.network));
  CHECK(a.evaluate(d) == b.evaluate(d));
  auto const moved = std::move(b);
  CHECK(moved.network.parameters().size() == a.parameters().size());
  a.network.initialize(1);
  CHECK(buffers_of(a.network)[0] == 0);
  CHECK(buffers_of(a.network)[4] == 1);
}

TEST_CASE("statistics have the same bits on one thread and on two") {
  using net = nn::network<nn::shape{40, 9, 9}, nn::batch_norm<>, nn::flatten, nn::dense<3>>;
  auto a = with_entropy<net>();
  auto b = a;
  auto const d = noise<net>(40);
  gradient_pass two;
  two.threads = 2;
  a.gradients(d, {});
  b.gradients(d, two);
  CHECK(buffers_of(a.network) == buffers_of(b.network));
}

}  // namespace nn_blocks
