// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Column-major tensors: rules that see rows, columns or a matrix give the bits of the row-major form.
#include <dovetail/optim.hpp>
#include <dovetail/optim/matrix.hpp>

#include <cmath>
#include <cstring>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

namespace optim_column_major {

using namespace dovetail;

namespace {

/// A list of one matrix {6, 4}, a tensor {3, 4, 2} and a vector, in rows or in columns.
struct tensors {
  std::vector<shape> const shapes{{6, 4}, {6}, {3, 4, 2}};
  layout order;
  std::vector<std::vector<float>> w, g;
  parameter_list list;

  explicit tensors(layout of) : order(of), w(3), g(3) {
    char const* const names[] = {"0.weight", "0.bias", "1.weight"};
    for (std::size_t i = 0; i < 3; ++i) {
      w[i].resize(static_cast<std::size_t>(shapes[i].size()));
      g[i] = w[i];
      set(w[i], shapes[i], 17 + i);
      list.add(names[i], w[i], g[i], shapes[i], order);
    }
  }
  /// Where the element is that has index k by rows.
  std::size_t at(shape const& s, std::size_t k) const {
    if (order == layout::row_major) return k;
    std::size_t index[3]{}, place = 0, step = 1;
    for (int d = s.rank; d-- > 0; k /= static_cast<std::size_t>(s[d])) index[d] = k % static_cast<std::size_t>(s[d]);
    for (int d = 0; d < s.rank; ++d, step *= static_cast<std::size_t>(s[d - 1])) place += index[d] * step;
    return place;
  }
  void set(std::vector<float>& values, shape const& s, std::size_t seed) const {
    for (std::size_t k = 0; k < values.size(); ++k)
      values[at(s, k)] = std::sin(static_cast<float>(k * k + 3 * k + 7 * seed)) + 0.1f;
  }
  void gradients(std::size_t step) {
    for (std::size_t i = 0; i < 3; ++i) set(g[i], shapes[i], 100 * step + i);
  }
  std::vector<float> by_rows() const {
    std::vector<float> all;
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t k = 0; k < w[i].size(); ++k) all.push_back(w[i][at(shapes[i], k)]);
    return all;
  }
};

template <class Rule>
void check(Rule const& rule, char const* name, int threads = 1) {
  CAPTURE(name);
  tensors rows(layout::row_major), columns(layout::column_major);
  auto const step = [&](tensors& t, auto& state, std::size_t k) {
    t.gradients(k);
    if constexpr (optim::optimizer_traits<Rule>::needs.layers) {
      std::vector<float> x(8 * 4), d(8 * 6);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::cos(static_cast<float>(i * i + k));
      for (std::size_t i = 0; i < d.size(); ++i) d[i] = std::cos(static_cast<float>(3 * i + k)) / 8;
      rule.observe(
          t.list, state,
          kfac_statistics{
              .rows = 8, .in = 4, .out = 6, .inputs = x.data(), .output_gradients = d.data(), .scale = 1.f / 8});
    }
    rule.step(t.list, state, {.threads = threads});
  };
  auto a = rule.init(rows.list), b = rule.init(columns.list);
  auto const before = rows.by_rows();
  for (std::size_t k = 0; k < 12; ++k) {
    step(rows, a, k);
    step(columns, b, k);
  }
  auto const x = rows.by_rows(), y = columns.by_rows();
  CHECK(x != before);
  CHECK(std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
}

}  // namespace

TEST_CASE("rules that see rows, columns or matrices give a column-major tensor the bits of the row-major one") {
  using namespace optim;
  check(
      chain{clip_adaptively{.clipping = 0.5f}, centralize{}, scale_by_row_wise_adagrad{}, scale_by_learning_rate{0.1f}},
      "row-wise");
  check(adafactor{}, "adafactor");
  check(sm3{}, "sm3");
  check(muon{}, "muon");
  check(shampoo{.interval = 2, .block = 4}, "shampoo");
  check(soap{}, "soap", 2);
  check(kfac{.interval = 3}, "kfac");
}

TEST_CASE("what is saved of a column-major matrix is labeled as its memory is: the transpose, by rows") {
  tensors t(layout::column_major);
  auto state = optim::adamw{}.init(t.list);
  for (auto const& x : state.tensors(""))
    if (x.name.starts_with("0.weight.")) CHECK(x.shape == shape{4, 6});
  CHECK(t.list[0].shape == shape{4, 6});
  // Groups are chosen by the shape that was registered.
  auto const is_first = [](std::string_view, shape const& of) { return of == shape{6, 4}; };
  optim::param_groups const rule{optim::sgd{.lr = 0}, optim::group{is_first, optim::sgd{.lr = 1}}};
  CHECK(rule.groups_of(t.list) == std::vector<std::uint32_t>{1, 0, 0});
}

}  // namespace optim_column_major
