// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A member of a layer that a network would leave out, or could not use, is refused, and not taken for its default.
// mistakes: 24
// first error 1 gcc: needs `static constexpr shape output\(shape const& in\)`.*doubled, .*at<1
// first error 1 clang: doubled, .*at<1.*needs `static constexpr shape output\(shape const& in\)`
// first error 2 gcc: `output` is no constant .*doubled, .*at<1
// first error 2 clang: doubled, .*at<1.*`output` is no constant
// first error 3 gcc: `static constexpr scratch_plan scratch\(shape const& in\)`.*doubled, .*at<1
// first error 3 clang: doubled, .*at<1.*`static constexpr scratch_plan scratch\(shape const& in\)`
// first error 4 gcc: `static constexpr scratch_plan scratch\(shape const& in\)`.*doubled
// first error 4 clang: doubled.*`static constexpr scratch_plan scratch\(shape const& in\)`
// first error 5 gcc: `parameters`, `buffers`, `scratch` or `flops` is no constant.*doubled
// first error 5 clang: doubled.*`parameters`, `buffers`, `scratch` or `flops` is no constant
// first error 6 gcc: `static constexpr std::int64_t flops\(shape const& in\)`.*doubled
// first error 6 clang: doubled.*`static constexpr std::int64_t flops\(shape const& in\)`
// first error 7 gcc: `static constexpr std::int64_t flops\(shape const& in\)`.*doubled
// first error 7 clang: doubled.*`static constexpr std::int64_t flops\(shape const& in\)`
// first error 8 gcc: `static constexpr std::array<tensor_plan, N> parameters\(shape const& in\)`.*doubled
// first error 8 clang: doubled.*`static constexpr std::array<tensor_plan, N> parameters\(shape const& in\)`
// first error 9 gcc: `static constexpr std::array<tensor_plan, N> parameters\(shape const& in\)`.*doubled
// first error 9 clang: doubled.*`static constexpr std::array<tensor_plan, N> parameters\(shape const& in\)`
// first error 10 gcc: `static constexpr bool in_place = ...`.*doubled
// first error 10 clang: doubled.*`static constexpr bool in_place = ...`
// first error 11 gcc: `static constexpr bool keeps_output = ...`.*doubled
// first error 11 clang: doubled.*`static constexpr bool keeps_output = ...`
// first error 12 gcc: `static constexpr bool takes_tokens = ...`.*doubled
// first error 12 clang: doubled.*`static constexpr bool takes_tokens = ...`
// first error 13 gcc: `template <class At> static constexpr void check\(\)`.*doubled
// first error 13 clang: doubled.*`template <class At> static constexpr void check\(\)`
// first error 14 gcc: `template <class At> static constexpr void check\(\)`.*doubled
// first error 14 clang: doubled.*`template <class At> static constexpr void check\(\)`
// first error 15 gcc: `static void forward\(layer_call<Backend> const& call\)`.*doubled, .*nn::plain
// first error 15 clang: doubled, .*nn::plain.*`static void forward\(layer_call<Backend> const& call\)`
// first error 16 gcc: `static void backward\(layer_call<Backend> const& call\)`.*doubled
// first error 16 clang: doubled.*`static void backward\(layer_call<Backend> const& call\)`
// first error 17 gcc: `static void backward\(layer_call<Backend> const& call\)`.*doubled
// first error 17 clang: doubled.*`static void backward\(layer_call<Backend> const& call\)`
// first error 18 gcc: `static void factors\(layer_call<Backend> const& call, f\)`.*doubled
// first error 18 clang: doubled.*`static void factors\(layer_call<Backend> const& call, f\)`
// first error 19 gcc: `static constexpr std::int64_t flops\(shape const& in\)`.*doubled
// first error 19 clang: doubled.*`static constexpr std::int64_t flops\(shape const& in\)`
// first error 20 gcc: `static constexpr scratch_plan scratch\(shape const& in\)`.*doubled
// first error 20 clang: doubled.*`static constexpr scratch_plan scratch\(shape const& in\)`
// first error 21 gcc: `static constexpr scratch_plan scratch\(shape const& in\)`.*doubled
// first error 21 clang: doubled.*`static constexpr scratch_plan scratch\(shape const& in\)`
// first error 22 gcc: `static constexpr bool in_place = ...`.*doubled
// first error 22 clang: doubled.*`static constexpr bool in_place = ...`
// first error 23 gcc: `static constexpr std::array<tensor_plan, N> buffers\(shape const& in\)`.*doubled
// first error 23 clang: doubled.*`static constexpr std::array<tensor_plan, N> buffers\(shape const& in\)`
// first error 24 gcc: `static constexpr std::array<tensor_plan, N> buffers\(shape const& in\)`.*doubled
// first error 24 clang: doubled.*`static constexpr std::array<tensor_plan, N> buffers\(shape const& in\)`
#include <array>
#include <vector>

#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/network.hpp>
#include <dovetail/nn/plain.hpp>

using namespace dovetail;
struct base {
#if FAIL == 19  // found in a base class
  static constexpr void flops(nn::shape const&) {}
#elif FAIL == 20  // which may be private
  static constexpr nn::scratch_plan scratch(nn::shape const&) { return {1, 0}; }
#endif
};
#if FAIL == 20
struct doubled : private base {
#else
struct doubled : base {
#endif
#if FAIL == 1
  static constexpr nn::shape outputs(nn::shape const& in) { return in; }
#elif FAIL == 2
  static nn::shape output(nn::shape const& in) { return in; }
#else
static constexpr nn::shape output(nn::shape const& in) { return in; }
#endif
#if FAIL == 3
  static constexpr nn::scratch_plan scratch() { return {1, 0}; }
#elif FAIL == 4
  static constexpr nn::scratch_plan scratch{1, 0};
#elif FAIL == 5
static constexpr nn::scratch_plan scratch(nn::shape const& in) { return in.rank == 1 ? throw 1 : nn::scratch_plan{}; }
#elif FAIL == 21
static nn::scratch_plan scratch(nn::shape const&) = delete;
#elif FAIL != 20
static constexpr nn::scratch_plan scratch(nn::shape const&, int = 0) { return {1, 0}; }
#endif
#if FAIL == 6
  static constexpr void flops(nn::shape const&) {}
#elif FAIL == 7  // a member of objects, overloaded
  std::int64_t flops(nn::shape const&, int) const { return 1; }
  std::int64_t flops(nn::shape const&) const { return 1; }
#endif
#if FAIL == 8
  static std::vector<nn::tensor_plan> parameters(nn::shape const&) { return {}; }
#elif FAIL == 9
  static constexpr std::array<nn::tensor_plan, 0> parameters(nn::shape&) { return {}; }
#endif
#if FAIL == 10
  bool in_place = false;
#elif FAIL == 22
  static bool in_place;
#else
static constexpr std::false_type in_place{};
#endif
#if FAIL == 11  // whose address would be true
  static constexpr bool keeps_output() { return false; }
#endif
#if FAIL == 12
 private:
  static constexpr bool takes_tokens = false;

 public:
#endif
#if FAIL == 13
  static constexpr void check() {}
#elif FAIL == 14  // of which nobody would read the answer
  template <class At>
  static constexpr bool check() {
    return false;
  }
#endif
#if FAIL == 15
  void forward(auto const&) {}
#else
  static void forward(auto const& c) {
    for (std::int64_t i = 0; i < c.out_size(); ++i) c.y[i] = 2 * c.x[i];
  }
#endif
#if FAIL == 16
  static void backward(auto&&, int) {}
#elif FAIL == 17
  static void backward(nn::layer_call<nn::plain>&) {}
#else
static void backward(auto const& c) {
  for (std::int64_t i = 0; c.dx && i < c.out_size(); ++i) c.dx[i] = 2 * c.dy[i];
}
#endif
#if FAIL == 23
  static constexpr std::array<float, 3> buffers(nn::shape const&) { return {}; }
#elif FAIL == 24
  float buffers[3];
#endif
#if FAIL == 18
  static void factors(auto const&) {}
#endif
};
using net = nn::basic_network<nn::plain, nn::shape{4}, nn::dense<3>, doubled, nn::dense<2>>;
static_assert(sizeof(net) > 0 && net::depth == 3);
