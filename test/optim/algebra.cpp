// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include <dovetail/core/philox.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/engine/tensorwise_calls.hpp>
#include <dovetail/optim/matrix.hpp>

#include "optim/remote.hpp"

#include <doctest/doctest.h>

namespace optim_algebra {

using namespace dovetail;

namespace {

constexpr int steps = 7;
constexpr float rate = 0.25f;  // a power of two: products with it are exact, however they are evaluated

std::vector<arena::tensor> tensors() {
  return {{"0.weight", {9, 5}},   {"0.bias", {9}},         {"none", {0}},
          {"1.weight", {5, 17}},  {"no_rows", {0, 3}},     {"2.weight", {6, 3, 2, 2}},
          {"2.bias", {6}},        {"3.weight", {64, 300}}, {"one", {1}},
          {"4.weight", {33, 33}}, {"4.bias", {33}},        {"5.weight", {1, 40}}};
}
void fill(std::span<float> x, std::uint32_t stream) {
  random_stream const r{5, stream};
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = i % 53 == 0 ? 0.0f : 2 * r.uniform(i) - 1;
}
bool same_bits(std::span<float const> a, std::span<float const> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

/// What a layer of tensor p shows in step t; every tensor is left out in some of the steps.
struct shown {
  std::vector<float> inputs, gradients;
  kfac_statistics factors;

  shown(parameter const& p, std::size_t first, int t)
      : inputs(static_cast<std::size_t>(20 * p.shape.size() / p.shape[0])),
        gradients(static_cast<std::size_t>(20 * p.shape[0])) {
    fill(inputs, static_cast<std::uint32_t>(1000 + t));
    fill(gradients, static_cast<std::uint32_t>(2000 + t));
    factors = {.first = first,
               .rows = 20,
               .in = p.shape.size() / p.shape[0],
               .out = p.shape[0],
               .inputs = inputs.data(),
               .output_gradients = gradients.data(),
               .scale = 0.25f};
  }
  static bool at(parameter const& p, std::size_t i, int t) {
    return p.shape.rank >= 2 && p.size() && (static_cast<std::size_t>(t) + i) % 4 != 0;
  }
};

/// A stage alone, in remote memory, as a device's engine calls it: weights and arrays after some steps.
template <class Stage>
struct remote_run {
  remote::algebra::resources resources;
  std::vector<remote::values> weight, update;
  std::vector<std::vector<remote::array>> arrays;

  explicit remote_run(Stage const& stage) {
    arena a(tensors());
    fill(a.weights(), 1);
    auto const& list = a.parameters();
    for (auto const& p : list) {
      weight.emplace_back(p.weight);
      update.emplace_back(p.size());
      arrays.emplace_back();
      if constexpr (requires { stage.arrays(p.shape); })
        for (auto const& x : stage.arrays(p.shape))
          arrays.back().push_back({x.name, x.shape, remote::values(static_cast<std::size_t>(x.shape.size()))});
    }
    for (int t = 1; t <= steps; ++t) {
      auto const view = [&](std::size_t i) {
        optim::basic_tensor_update<remote::algebra> u{.name = list[i].name,
                                                      .shape = list[i].shape,
                                                      .step = {t},
                                                      .weight = weight[i].get(),
                                                      .update = update[i].get(),
                                                      .arrays = arrays[i],
                                                      .algebra = remote::algebra(resources)};
        if (i + 1 < list.size()) {
          u.next_name = &list[i + 1].name;
          u.next_update = update[i + 1].get();
        }
        return u;
      };
      using tensor = decltype(view(0));
      static_assert(optim::detail::written_for<Stage, tensor>);
      fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
      for (std::size_t i = 0; i < list.size(); ++i) {
        std::copy(list[i].gradient.begin(), list[i].gradient.end(), update[i].here().begin());
        if constexpr (optim::stage_traits<Stage>::collects)
          if (shown::at(list[i], i, t)) {
            shown s(list[i], list.offset(i), t);
            remote::values const inputs(s.inputs), gradients(s.gradients);
            s.factors.inputs = inputs.get().address();
            s.factors.output_gradients = gradients.get().address();
            stage.collect(view(i), s.factors);
          }
      }
      auto const one = [&](std::size_t) -> Stage const& { return stage; };
      optim::detail::map_tensors(one, list, view,
                                 [&](auto const& of) { optim::detail::solve_all(of, list, view, view(0).step); });
      for (std::size_t i = 0; i < list.size(); ++i)
        for (std::size_t k = 0; k < list[i].size(); ++k) weight[i].here()[k] -= rate * update[i].here()[k];
    }
  }
};

/// The same by the host's engine, on the host's memory.
template <class Stage>
void compare(std::string const& name, Stage const& stage) {
  CAPTURE(name);
  optim::chain const rule{stage, optim::scale_by_learning_rate{rate}};
  arena a(tensors());
  fill(a.weights(), 1);
  auto const& list = a.parameters();
  auto state = rule.init(list);
  for (int t = 1; t <= steps; ++t) {
    fill(a.gradients(), static_cast<std::uint32_t>(100 + t));
    if constexpr (optim::stage_traits<Stage>::collects)
      for (std::size_t i = 0; i < list.size(); ++i)
        if (shown::at(list[i], i, t)) rule.observe(list, state, shown(list[i], list.offset(i), t).factors);
    rule.step(list, state);
  }
  remote_run<Stage> far(stage);
  for (std::size_t i = 0; i < list.size(); ++i) {
    CAPTURE(list[i].name);
    CHECK(same_bits(far.weight[i].here(), list[i].weight));
    REQUIRE(far.arrays[i].size() == state.arrays(0, i).size());
    for (std::size_t k = 0; k < far.arrays[i].size(); ++k) {
      CAPTURE(far.arrays[i][k].name);
      CHECK(same_bits(far.arrays[i][k].values.here(), state.arrays(0, i)[k].values.span()));
    }
  }
}

}  // namespace

TEST_CASE("row by row, and with factored moments, a stage leaves all work on numbers to its algebra") {
  compare("clip_adaptively", optim::clip_adaptively{.clipping = 0.5f});
  compare("centralize", optim::centralize{});
  compare("scale_by_row_wise_adagrad", optim::scale_by_row_wise_adagrad{});
  compare("add_noise", optim::add_noise{.eta = 0.1f, .seed = 3});
  compare("scale_by_adafactor", optim::scale_by_adafactor{});
  compare("scale_by_sm3", optim::scale_by_sm3{});
}

TEST_CASE("and so does a stage that works on matrices") {
  compare("orthogonalize", optim::orthogonalize{});
  for (auto const grafting : {optim::graft::none, optim::graft::sgd, optim::graft::adagrad, optim::graft::rmsprop}) {
    compare("scale_by_shampoo", optim::scale_by_shampoo{.epsilon = 1e-3f, .interval = 3, .grafting = grafting});
    compare("scale_by_shampoo in blocks",
            optim::scale_by_shampoo{.beta2 = 0.9f, .epsilon = 1e-3f, .interval = 2, .block = 4, .grafting = grafting});
  }
  for (std::int64_t const largest : {0, 6, 40, 1000})
    compare("scale_by_soap", optim::scale_by_soap{.interval = 2, .largest = largest});
  compare("scale_by_kfac", optim::scale_by_kfac{.interval = 3});
  compare("scale_by_ekfac", optim::scale_by_ekfac{.interval = 3});
}

namespace {

/// Reads numbers itself: for the host's memory only.
struct doubles {
  using kind = optim::tensorwise;
  void apply(optim::tensor_update const& t) const {
    for (float& u : t.update) u *= 2;
  }
};
/// Solves where its numbers are, but applies on the host only.
struct half_written {
  using kind = optim::tensorwise;
  static double cost(shape const&) { return 1; }
  template <class Algebra>
  static auto solution(optim::basic_tensor_update<Algebra> const& t) {
    return t.update;
  }
  template <class Algebra>
  void solve(optim::basic_tensor_update<Algebra> const&) const {}
  void apply(optim::tensor_update const&) const {}
};

template <class Span>
concept readable = requires(Span s) {
  s[0];
}
|| requires(Span s) { s.begin(); }
|| requires(Span s) { *s.data(); };

}  // namespace

TEST_CASE("stages for the host's memory are told from those for any") {
  using far = optim::basic_tensor_update<remote::algebra>;
  using optim::detail::written_for;
  static_assert(written_for<doubles, optim::tensor_update> && !written_for<doubles, far>);
  static_assert(written_for<half_written, optim::tensor_update> && !written_for<half_written, far>);
  static_assert(optim::stage_traits<half_written>::solves && !optim::stage_traits<doubles>::solves);
  static_assert(optim::stage_traits<optim::scale_by_kfac>::collects &&
                !optim::stage_traits<optim::scale_by_soap>::collects);
}

TEST_CASE("remote memory cannot be read but through its algebra, nor beyond its end") {
  static_assert(readable<std::span<float>> && !readable<optim::remote_span<float>>);
  static_assert(!std::is_convertible_v<optim::remote_span<float>, std::span<float>>);
  static_assert(!std::is_convertible_v<remote::number, double>);
  remote::values x(4);
  CHECK(remote::memory::read(x.get()).data() == x.here().data());
  CHECK_THROWS_AS(x.get().first(5), argument_error);
  CHECK_THROWS_AS(x.get().subspan(3, 2), argument_error);
  CHECK_THROWS_AS(remote::memory::read(remote::span(x.here())), argument_error);                    // without its tag
  CHECK_THROWS_AS(remote::memory::read(remote::span(x.get().address(), 5)), argument_error);        // too long
  CHECK_THROWS_AS(remote::memory::read(remote::span(x.get().address() + 400, 1)), argument_error);  // another's
}

}  // namespace optim_algebra
