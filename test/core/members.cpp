// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Members are found by name, whatever they are, and constants are read if they are some.
#include <type_traits>

#include <dovetail/core/member_constant.hpp>
#include <dovetail/core/member_function.hpp>

#include <doctest/doctest.h>

namespace core_members {

namespace {

DOVETAIL_MEMBER_CONSTANT(mark)
namespace functions {
DOVETAIL_MEMBER_FUNCTION(mark)
}

struct nothing {};
struct constant {
  static constexpr bool mark = true;
};
struct function {
  static constexpr bool mark() { return false; }
};
struct overloaded {
  void mark();
  void mark(int) const;
};
struct templated {
  template <class T>
  static void mark();
};
struct deleted {
  void mark() = delete;
};
struct pure {
  virtual void mark() = 0;
};
class hidden {
  void mark();
};
struct inherited : private hidden {};
struct twice : constant, function {};
struct data {
  bool mark = true;
};
struct bits {
  unsigned mark : 3;
};
struct reference {
  bool& mark;
};
struct type {
  using mark = bool;
};
struct nested {
  template <class T>
  struct mark {};
};
struct enumerator {
  enum { mark = 1 };
};
struct wide {
  static constexpr int mark = 2;
};
struct of_class {
  static constexpr std::false_type mark{};
};
struct variable {
  inline static bool mark = true;
};
struct real {
  static constexpr double mark = 1;
};
struct last_function final {
  void mark();
};
struct last_data final {
  unsigned mark : 3;
};
struct last_type final {
  using mark = bool;
};
union either {
  int mark;
};

template <class... T>
constexpr bool all_have = (has_mark<T> && ...);
template <class... T>
constexpr bool all_have_functions = (functions::has_mark<T> && ...);
template <class... T>
constexpr bool none_fits = (!mark_fits<T, bool> && ...);

}  // namespace

TEST_CASE("a member is found by its name, whatever it is") {
  static_assert(!has_mark<nothing> && !has_mark<int> && !functions::has_mark<nothing>);
  static_assert(all_have<constant, function, overloaded, templated, deleted, pure, hidden, inherited, twice>);
  static_assert(all_have<data, bits, reference, type, nested, enumerator, variable>);
  static_assert(all_have<last_function, last_data, last_type, either>);
  static_assert(all_have_functions<function, overloaded, templated, deleted, pure, hidden, inherited, last_function>);
  static_assert(!functions::has_mark<constant> && !functions::has_mark<data> && !functions::has_mark<either>);
  CHECK(has_mark<constant>);
}

TEST_CASE("a constant is one of the type that it is asked for, and neither a function nor a member of objects") {
  static_assert(none_fits<nothing, function, overloaded, templated, deleted, hidden, data, type, wide, variable, real>);
  static_assert(mark_fits<constant, bool> && mark_fits<of_class, bool> && mark_fits<enumerator, bool>);
  static_assert(mark_fits<wide, int> && !mark_fits<real, int>);
  static_assert(mark_misfits<function, bool>() && mark_misfits<data, bool>() && mark_misfits<wide, bool>());
  static_assert(!mark_misfits<nothing, bool>() && !mark_misfits<constant, bool>());
  CHECK(mark_or<constant>(false));
  CHECK_FALSE(mark_or<of_class>(true));
  CHECK(mark_or<function>(true));
  CHECK(mark_or<wide>(7) == 2);
  CHECK(mark_or<nothing>(7) == 7);
}

}  // namespace core_members
