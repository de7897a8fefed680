// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A member of a loss that a model would leave out, or could not use, is refused.
// mistakes: 9
// first error 1 gcc: `loss_sums operator\(\)\(predictions const&, float scale\) const`.*hinge
// first error 1 clang: hinge.*`loss_sums operator\(\)\(predictions const&, float scale\) const`
// first error 2 gcc: `static constexpr bool fits\(shape const& output\)`.*hinge
// first error 2 clang: hinge.*`static constexpr bool fits\(shape const& output\)`
// first error 3 gcc: `static constexpr bool fits\(shape const& output\)`.*hinge
// first error 3 clang: hinge.*`static constexpr bool fits\(shape const& output\)`
// first error 4 gcc: `curvature\(predictions const&, float scale, float const.*v, float.* out\) const`.*hinge
// first error 4 clang: hinge.*`curvature\(predictions const&, float scale, float const.*v, float.* out\) const`
// first error 5 gcc: `static constexpr bool is_log_likelihood = ...`.*hinge
// first error 5 clang: hinge.*`static constexpr bool is_log_likelihood = ...`
// first error 6 gcc: `static constexpr bool takes_values = ...`.*hinge
// first error 6 clang: hinge.*`static constexpr bool takes_values = ...`
// first error 7 gcc: `ignore_index` is no member.*hinge
// first error 7 clang: hinge.*`ignore_index` is no member
// first error 8 gcc: `ignore_index` is no member.*hinge
// first error 8 clang: hinge.*`ignore_index` is no member
// first error 9 gcc: is one of integers, and it says that it takes values.*hinge
// first error 9 clang: hinge.*is one of integers, and it says that it takes values
#include <dovetail/nn/dense.hpp>
#include <dovetail/nn/plain.hpp>
#include <dovetail/nn/with_loss.hpp>

using namespace dovetail;
struct hinge {
#if FAIL == 1
  loss_sums operator()(nn::predictions const&, float) { return {}; }
#else
  loss_sums operator()(nn::predictions const&, float) const { return {}; }
#endif
#if FAIL == 2
  bool fits(nn::shape const&) const { return false; }
#elif FAIL == 3
  static constexpr bool fits = false;
#else
  static constexpr bool fits(nn::shape const& output, int rank = 1) { return output.rank == rank; }
#endif
#if FAIL == 4
  void curvature(nn::predictions const&, float, float const*, float*) {}
#endif
#if FAIL == 5
  static constexpr bool is_log_likelihood() { return false; }
#endif
#if FAIL == 6
  bool takes_values = true;
#elif FAIL == 9
  static constexpr bool takes_values = true;
#endif
#if FAIL == 7
  std::int32_t ignore_index() const { return 0; }
#elif FAIL == 8
  char const* ignore_index = "none";
#else
  static constexpr int ignore_index = 0;
#endif
};
using net = nn::basic_network<nn::plain, nn::shape{2}, nn::dense<2>>;
static_assert(sizeof(nn::with_loss<net, hinge>) > 0);
