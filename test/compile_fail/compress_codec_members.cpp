// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A member of a codec that exchanges would leave out, or could not use, is refused, and not taken for its default.
// mistakes: 22
// first error 1 gcc: `static constexpr int rounds = ...`.*codec_type
// first error 1 clang: codec_type.*`static constexpr int rounds = ...`
// first error 2 gcc: `static constexpr int rounds = ...`.*codec_type
// first error 2 clang: codec_type.*`static constexpr int rounds = ...`
// first error 3 gcc: `std::size_t wire_size\(std::size_t n\) const`.*codec_type
// first error 3 clang: codec_type.*`std::size_t wire_size\(std::size_t n\) const`
// first error 4 gcc: std::size_t wire_size\(compress::bucket const&\) const.*codec_type
// first error 4 clang: codec_type.*std::size_t wire_size\(compress::bucket const&\) const
// first error 5 gcc: `name\(\) const`.*codec_type
// first error 5 clang: codec_type.*`name\(\) const`
// first error 6 gcc: `name\(\) const`.*codec_type
// first error 6 clang: codec_type.*`name\(\) const`
// first error 7 gcc: encode_with_residual\(compress::bucket const&, std::span<float> residual, std::span<float> next, state&.*codec_type
// first error 7 clang: codec_type.*encode_with_residual\(compress::bucket const&, std::span<float> residual, std::span<float> next, state&
// first error 8 gcc: `std::size_t encode\(compress::bucket const&, state&.*codec_type
// first error 8 clang: codec_type.*`std::size_t encode\(compress::bucket const&, state&
// first error 9 gcc: `decode_add\(std::span<std::byte const> payload.*codec_type
// first error 9 clang: codec_type.*`decode_add\(std::span<std::byte const> payload
// first error 10 gcc: `state init\(compress::bucket const&\) const`.*codec_type
// first error 10 clang: codec_type.*`state init\(compress::bucket const&\) const`
// first error 11 gcc: `static constexpr bool summable, fixed_size, unbiased, wants_error_feedback`.*codec_type
// first error 11 clang: codec_type.*`static constexpr bool summable, fixed_size, unbiased, wants_error_feedback`
// first error 12 gcc: `static constexpr bool summable, fixed_size, unbiased, wants_error_feedback`.*codec_type
// first error 12 clang: codec_type.*`static constexpr bool summable, fixed_size, unbiased, wants_error_feedback`
// first error 13 gcc: `using wire_type = float`.*codec_type
// first error 13 clang: codec_type.*`using wire_type = float`
// first error 14 gcc: `using wire_type = float`.*codec_type
// first error 14 clang: codec_type.*`using wire_type = float`
// first error 15 gcc: `absorb\(std::span<std::byte const> payload, state&, compress::context const&\) const`.*codec_type
// first error 15 clang: codec_type.*`absorb\(std::span<std::byte const> payload, state&, compress::context const&\) const`
// first error 16 gcc: has `absorb`.* `static constexpr int rounds`.*codec_type
// first error 16 clang: codec_type.*has `absorb`.* `static constexpr int rounds`
// first error 17 gcc: a value that can be copied and assigned.*codec_type
// first error 17 clang: codec_type.*a value that can be copied and assigned
// first error 18 gcc: `name\(\) const`.*codec_type
// first error 18 clang: codec_type.*`name\(\) const`
// first error 19 gcc: `commit\(state&\) const` and `rollback\(state&\) const`: it has both or neither.*codec_type
// first error 19 clang: codec_type.*`commit\(state&\) const` and `rollback\(state&\) const`: it has both or neither
// first error 20 gcc: error feedback needs a contraction.*codec_type
// first error 20 clang: codec_type.*error feedback needs a contraction
// first error 21 gcc: wants error feedback: write compress::error_feedback\{codec\}.*codec_type
// first error 21 clang: codec_type.*wants error feedback: write compress::error_feedback\{codec\}
// first error 22 gcc: `reader\(std::span<std::byte const> payload, std::size_t n\) const`.*codec_type
// first error 22 clang: codec_type.*`reader\(std::span<std::byte const> payload, std::size_t n\) const`
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress/error_feedback.hpp>
#include <dovetail/sync/all_reduce.hpp>

using namespace dovetail;
struct codec_type {
#if FAIL == 11
  bool summable = true;
#elif FAIL == 12  // whose address would be true
  static constexpr bool summable() { return false; }
#elif FAIL == 13 || FAIL == 14
  static constexpr bool summable = true;
#else
  static constexpr bool summable = false;
#endif
  static constexpr bool fixed_size = true, unbiased = false;
#if FAIL == 21
  static constexpr bool wants_error_feedback = true;
#else
  static constexpr bool wants_error_feedback = false;
#endif
#if FAIL != 20
  static constexpr bool contraction = true;
#endif
  struct state {
#if FAIL == 10
    int count = 0;
#else
    static std::vector<named_tensor> tensors(std::string const&) { return {}; }
#endif
  };
#if FAIL == 1
  int rounds = 2;
#elif FAIL == 2
  static constexpr int rounds = 0;
#elif FAIL == 15
  static constexpr int rounds = 2;
#endif
#if FAIL == 14
  static constexpr int wire_type = 4;
#elif FAIL != 13
  using wire_type = float;
#endif
#if FAIL == 3
  std::size_t wire_size(compress::bucket const& b) const { return 4 * b.size(); }
#else
  std::size_t wire_size(std::size_t n) const { return 4 * n; }
#endif
#if FAIL == 4
  void wire_size(compress::bucket const&) const {}
#endif
  state init(compress::bucket const&) const { return {}; }
#if FAIL == 5
  int name() const { return 1; }
#elif FAIL == 6
  std::string name = "halves";
#elif FAIL == 18
  std::string name() { return "halves"; }
#else
  template <class T = char>
  T const* name(int = 0) const {
    return "halves";
  }
#endif
#if FAIL == 7
  std::size_t encode_with_residual(compress::bucket const& b, state&, std::span<std::byte>) const { return b.size(); }
#endif
#if FAIL == 8
  std::size_t encode(compress::bucket const& b, state&, std::span<std::byte>) { return 4 * b.size(); }
#else
  std::size_t encode(compress::bucket const& b, state&, std::span<std::byte>) const { return 4 * b.size(); }
#endif
#if FAIL == 9
  void decode_add(std::span<std::byte const>, std::span<float>) const {}
#else
  void decode_add(std::span<std::byte const>, std::span<float>, float) const {}
#endif
  struct reader_type {
#if FAIL == 22  // without a weight
    void add(std::size_t, std::span<float>) const {}
#else
    void add(std::size_t, std::span<float>, float = 1) const {}
#endif
    static std::size_t size() { return 0; }
    static std::size_t bytes() { return 0; }
  };
  reader_type reader(std::span<std::byte const>, std::size_t) const { return {}; }
#if FAIL == 16
  void absorb(std::span<std::byte const>, state&, compress::context const&) const {}
#endif
#if FAIL == 19
  void commit(state&) const {}
#endif
#if FAIL == 17
  int const seed = 1;
#endif
};
using policy_type = sync::all_reduce<codec_type>;
static_assert(sizeof(policy_type) > 0 && sizeof(compress::error_feedback<codec_type>) > 0);
