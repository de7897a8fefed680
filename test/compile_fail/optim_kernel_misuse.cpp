// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Functions of a stage that can be called, and would do something else than they say: a rate that is taken for the
// step, an emit and a measure that change slots, a factor that is no number, a kernel that only prepare can make.
// mistakes: 7
// first error 1 gcc: its prepare is `prepare\(std::int64_t step, float rate\) const.*by_rate>
// first error 1 clang: by_rate.*its prepare is `prepare\(std::int64_t step, float rate\) const
// first error 2 gcc: `emit` changes a slot.*by_slot>
// first error 2 clang: by_slot.*`emit` changes a slot
// first error 3 gcc: `measure` cannot be called as.*by_sum>
// first error 3 clang: by_sum.*`measure` cannot be called as
// first error 4 gcc: `factor` cannot be called.*returns a float or a std::array of them.*by_sum>
// first error 4 clang: by_sum.*`factor` cannot be called.*returns a float or a std::array of them
// first error 5 gcc: not a kernel: a class that is not final, with a default value.*by_number>
// first error 5 clang: by_number.*not a kernel: a class that is not final, with a default value
// first error 6: passing .const dovetail::simd::tracer. as .this. argument|no viable overloaded
// first error 7: passing .const dovetail::simd::tracer. as .this. argument|no viable overloaded
#include <array>
#include <cstdint>

#include <dovetail/optim/chain.hpp>
#include <dovetail/optim/stages/elementwise.hpp>

using namespace dovetail;
#if !defined FAIL || FAIL == 1
struct by_rate {
  using kind = optim::elementwise;
  static constexpr bool ends_chain = true;
  struct kernel {
    float rate = 0;
    template <class T>
    constexpr T emit(T, T u) const {
      return -rate * u;
    }
  };
  float learning_rate(std::int64_t) const { return 0.1f; }
#if FAIL
  constexpr kernel prepare(float rate, std::int64_t) const { return {rate}; }
#else
  constexpr kernel prepare(int, float rate) const { return {rate}; }
#endif
};
static_assert(optim::chain<by_rate>::passes == 1);
#endif
#if !defined FAIL || FAIL == 2 || FAIL == 6
struct by_slot {
  using kind = optim::elementwise;
  static constexpr std::array slots{"velocity"};
  struct kernel {
    template <class T>
    constexpr void advance(T u, T& m) const {
      m = m + u;
    }
#if FAIL == 2
    template <class T>
    constexpr T emit(T, T, T& m) const {
      return m = 2.0f * m;
    }
#elif FAIL == 6
    template <class T>
    constexpr T emit(T, T, auto& m) const {
      return m = 2.0f * m;
    }
#else
    template <class T>
    constexpr T emit(T, T, T m) const {
      return 2.0f * m;
    }
#endif
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<by_slot, optim::scale_by_learning_rate>::passes == 1);
#endif
#if !defined FAIL || FAIL == 3 || FAIL == 4 || FAIL == 7
struct by_sum {
  using kind = optim::reducing;
  static constexpr optim::reduction needs{.per_tensor = true};
  static constexpr std::array slots{"velocity"};
  struct kernel {
    template <class T>
    constexpr void advance(T u, T& m) const {
      m = m + u;
    }
#if FAIL == 3
    template <class T>
    constexpr std::array<optim::product<T>, 1> measure(T, T, T& m) const {
      return {optim::square(m)};
    }
#elif FAIL == 7
    template <class T>
    constexpr std::array<optim::product<T>, 1> measure(T, T, auto& m) const {
      m = 2.0f * m;
      return {optim::square(T(m))};
    }
#else
    template <class T>
    constexpr std::array<optim::product<T>, 1> measure(T, T, T m) const {
      return {optim::square(m)};
    }
#endif
#if FAIL == 4
    constexpr void factor(std::array<double, 1>) const {}
#else
    constexpr double factor(std::array<double, 1> sums) const { return sums[0]; }
#endif
    template <class T>
    constexpr T emit(T, T, T m, T factor) const {
      return factor * m;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return {}; }
};
static_assert(optim::chain<by_sum, optim::scale_by_learning_rate>::passes == 2);
#endif
#if !defined FAIL || FAIL == 5
struct by_number {
  using kind = optim::elementwise;
  struct kernel {
    float factor;
#if FAIL
    explicit constexpr kernel(float x) : factor(x) {}
#else
    explicit constexpr kernel(float x = 1) : factor(x) {}
#endif
    template <class T>
    constexpr T emit(T, T u) const {
      return factor * u;
    }
  };
  constexpr kernel prepare(std::int64_t) const { return kernel{2.0f}; }
};
static_assert(optim::chain<by_number, optim::scale_by_learning_rate>::passes == 1);
#endif
