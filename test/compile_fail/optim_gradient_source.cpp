// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A step from what is no source of gradients says what one has.
// mistakes: 5
// first error 1 gcc: this is not a gradient source: it has no `double bytes\(\) const`.*float
// first error 1 clang: float.*this is not a gradient source: it has no `double bytes\(\) const`
// first error 2 gcc: this is not a gradient source: it has no `double bytes\(\) const`.*vector
// first error 2 clang: vector.*this is not a gradient source: it has no `double bytes\(\) const`
// first error 3 gcc: source.*`check` cannot be called as `check\(parameter_list const&\) const`.*negated
// first error 3 clang: negated.*source.*`check` cannot be called as `check\(parameter_list const&\) const`
// first error 4 gcc: source.*`at` cannot be called as `cursor at\(parameter_list const&, std::size_t tensor\) const`.*negated
// first error 4 clang: negated.*source.*`at` cannot be called as `cursor at\(parameter_list const&, std::size_t tensor\) const`
// first error 5 gcc: `cursor padded\(std::size_t, std::byte.*\) const`.*negated
// first error 5 clang: negated.*`cursor padded\(std::size_t, std::byte.*\) const`
#include <cstddef>
#include <span>
#include <vector>

#include <dovetail/optim/rules/adam.hpp>

using namespace dovetail;
struct negated {
  struct cursor {
    optim::gradient::dense::cursor from;
    simd::pack load(std::size_t i) const { return -1.0f * from.load(i); }
    cursor advanced(std::size_t n) const { return {from.advanced(n)}; }
#if FAIL != 5
    cursor padded(std::size_t n, std::byte* room) const { return {from.padded(n, room)}; }
#endif
    bool continued_by(std::size_t n, cursor next) const { return from.continued_by(n, next.from); }
  };
  static constexpr double bytes() { return 4; }
#if FAIL == 3
  void check() const {}
#else
  static void check(parameter_list const& p) { optim::gradient::dense::check(p); }
#endif
#if FAIL == 4
  cursor at(parameter_list const& p) const { return {optim::gradient::dense::at(p, 0)}; }
#else
  cursor at(parameter_list const& p, std::size_t i) const { return {optim::gradient::dense::at(p, i)}; }
#endif
};
inline optim::step_result step(optim::adamw const& rule, parameter_list const& p, optim::state& s) {
#if FAIL == 1
  return rule.step(p, s, 0.5f);
#elif FAIL == 2
  return rule.step(p, s, std::vector<std::span<fp16 const> >{}, {});
#else
  return rule.step(p, s, negated{});
#endif
}
