// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A member of a dataset that a training would leave out, or could not use, is refused.
// mistakes: 11
// first error 1 gcc: `std::uint64_t identity\(\) const`.*points
// first error 1 clang: points.*`std::uint64_t identity\(\) const`
// first error 2 gcc: `std::uint64_t identity\(\) const`.*points
// first error 2 clang: points.*`std::uint64_t identity\(\) const`
// first error 3 gcc: `std::uint64_t identity\(\) const`.*points
// first error 3 clang: points.*`std::uint64_t identity\(\) const`
// first error 4 gcc: `std::uint64_t identity\(\) const`.*points
// first error 4 clang: points.*`std::uint64_t identity\(\) const`
// first error 5 gcc: `std::uint64_t identity\(\) const`.*points
// first error 5 clang: points.*`std::uint64_t identity\(\) const`
// first error 6 gcc: `std::int64_t size\(\) const`.*points
// first error 6 clang: points.*`std::int64_t size\(\) const`
// first error 7 gcc: `std::int64_t predictions_per_sample\(\) const`.*points
// first error 7 clang: points.*`std::int64_t predictions_per_sample\(\) const`
// first error 8 gcc: `void load\(std::span<std::int64_t const> indices.*points
// first error 8 clang: points.*`void load\(std::span<std::int64_t const> indices
// first error 9 gcc: it cannot be copied.*points
// first error 9 clang: points.*it cannot be copied
// first error 10 gcc: `bool masks\(\) const`.*points
// first error 10 clang: points.*`bool masks\(\) const`
// first error 11 gcc: `bool masks\(\) const`.*points
// first error 11 clang: points.*`bool masks\(\) const`
#include <cstdint>
#include <span>
#include <type_traits>

#include <dovetail/data/loader.hpp>

using namespace dovetail;
struct points {
#if FAIL == 1
  std::uint64_t identity() { return 1; }
#elif FAIL == 2
  double identity() const { return 0.5; }
#elif FAIL == 3
  std::uint64_t identity(int) const { return 1; }
  std::uint64_t identity(char) const { return 1; }
#elif FAIL == 4
  std::uint64_t identity = 1;
#elif FAIL == 5
 private:
  std::uint64_t identity() const { return 1; }

 public:
#else
  static std::uint32_t identity(int = 0) { return 1; }
#endif
#if FAIL == 6
  void size() const {}
#else
  std::int64_t size() const { return 1; }
#endif
#if FAIL == 7
  std::int64_t predictions_per_sample(int) const { return 1; }
#else
  static constexpr std::int64_t predictions_per_sample() { return 1; }
#endif
#if FAIL == 8
  void load(std::span<std::int64_t const>, data::batch_buffer&) {}
#else
  void load(std::span<std::int64_t const>, data::batch_buffer&) const {}
#endif
#if FAIL == 9
  points() = default;
  points(points const&) = delete;
#endif
#if FAIL == 10
  bool masks() { return true; }
#elif FAIL == 11
  bool masks = true;
#else
  static std::false_type masks() { return {}; }
#endif
};
static_assert(sizeof(data::loader<points>) > 0);
