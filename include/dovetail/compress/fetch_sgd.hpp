// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/select.hpp>
#include <dovetail/compress/sketch.hpp>
#include <dovetail/compress/top_k.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// Ranks add up count sketches of their gradients; momentum and what is still owed are kept as sketches too, by all
/// ranks alike, and the largest elements of what is owed are the step. With S the sum of the sketches:
///   U = momentum · U + S,   E = E + U,   D = the ⌈ratio · n⌉ largest elements of E,   gradient = D,
///   the cells of D's elements become 0 in E and in U; without `clear`: E = E − sketch(D), and D's elements leave U.
///
/// The paper subtracts. What a sketch says of an element is off by |E| / sqrt(columns); unless few elements are much
/// larger than that, D is mostly error, and to subtract it makes E grow without bound: of noise on 1,000 elements it
/// did so with sketches of any size from 250 to 999 cells. Cells that are cleared take with them what others have
/// there, and E stays bounded, as in the authors' program; what always shares cells with larger elements is never sent,
/// and weights stop that far from the optimum. Of least squares with 50 of 1,000 weights other than 0, sketches of 300,
/// 450 and 750 cells left 0.6, 0.4 and 0.2 of the distance.
///
/// No rank keeps a residual of its own, so ranks may come and go; state is four sketches and scratch memory of n
/// floats. Momentum is in the codec: behind it belongs plain SGD, without momentum and, because D is sparse, without a
/// rule that divides by second moments. E is in units of the gradient: where the paper adds rate · U, here the step
/// after it is multiplied by the rate. Places are those of `seed` in all steps. `columns` should be several times the
/// elements of D.
///
/// A payload is rows · columns floats, row by row, in native byte order; for buckets of no more elements, the elements.
/// A sum with a cell that is not finite is decoded as NaN everywhere, and leaves U and E as they were.
///
/// Errors: argument_error for fields outside of their ranges, or a state that was made for another bucket; input_error
/// for payloads of another size.
///
/// Source: Rothchild et al., "FetchSGD: Communication-Efficient Federated Learning with Sketching", ICML 2020,
/// algorithm 1; momentum at D's elements after Lin et al., "Deep Gradient Compression", ICLR 2018 (momentum factor
/// masking).
struct fetch_sgd {
  int rows = 5;                 ///< of the sketch
  std::size_t columns = 16384;  ///< cells of a row
  float ratio = 0.01f;          ///< share of the elements that is a step
  float momentum = 0.9f;
  bool clear = true;  ///< whether cells of what was sent become 0
  static constexpr auto describe() {
    return policy{"fetch_sgd",
                  field{"rows", &fetch_sgd::rows, bounds{.low = 1, .high = sketch_places::most_rows}},
                  field{"columns", &fetch_sgd::columns, bounds{.low = 1, .high = 0x1p31}},
                  field{"ratio", &fetch_sgd::ratio, ranges::positive_unit},
                  field{"momentum", &fetch_sgd::momentum, ranges::share},
                  field{"clear", &fetch_sgd::clear}};
  }

  static constexpr bool summable = true;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;  ///< keeps what is owed
  using wire_type = float;

  struct state {
    buffer<float> momentum, owed;                ///< U, E
    buffer<float> momentum_before, owed_before;  ///< the last step
    bool taken = false;                          ///< whether that can be taken back
    std::size_t size = 0;
    sketch_places places;
    buffer<float> sum, elements;
    std::vector<std::byte> largest;
    selection_scratch scratch;

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      return {make_named_tensor(prefix + "momentum", momentum.span()), make_named_tensor(prefix + "owed", owed.span())};
    }
    friend bool operator==(state const& a, state const& b) {
      return a.momentum == b.momentum && a.owed == b.owed && a.size == b.size;
    }
  };

  static constexpr char const* name() { return "FetchSGD"; }
  constexpr std::size_t wire_size(std::size_t n) const {
    check_policy(*this);
    return sizeof(float) * sketch_places::cells_for(n, static_cast<std::size_t>(rows), columns);
  }
  state init(bucket const& b) const {
    buffer<float> const cells(wire_size(b.size()) / sizeof(float));
    state s;
    s.momentum = s.owed = s.momentum_before = s.owed_before = s.sum = cells;
    s.size = b.size();
    s.elements = buffer<float>(b.size());
    s.largest.resize(top_k{ratio}.wire_size(b.size()));
    return s;
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    check_size(s, b.size());
    std::size_t const bytes = wire_size(b.size());
    require_room(name(), b.size(), bytes, out);
    commit(s);
    draw(s, where);
    std::fill(s.sum.begin(), s.sum.end(), 0.0f);
    s.places.add(b.values, 0, s.sum.data());
    if (bytes > 0) std::memcpy(out.data(), s.sum.data(), bytes);
    return bytes;
  }
  /// Payloads may be added up before or come one by one; the step is made with the last one.
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                  context const& where) const {
    check_size(s, out.size());
    require_payload(name(), out.size(), wire_size(out.size()), payload);
    draw(s, where);
    if (where.first) std::fill(s.sum.begin(), s.sum.end(), 0.0f);
    auto const& kernel = kernels::best();
    kernel.add_float(payload.data(), s.sum.size(), 1.0f, s.sum.data());
    if (!where.last) return;
    if (!kernel.all_finite(s.sum.data(), s.sum.size())) {
      for (float& x : out) x = not_a_number<float>();
      return;
    }
    rollback(s);  // the same step again
    for (std::size_t i = 0; i < s.sum.size(); ++i) {
      s.momentum_before[i] = rounded(momentum * s.momentum[i]) + s.sum[i];
      s.owed_before[i] = s.owed[i] + s.momentum_before[i];
    }
    std::swap(s.momentum, s.momentum_before);
    std::swap(s.owed, s.owed_before);
    s.taken = true;
    add_largest(out, weight, s, kernel);
  }
  void commit(state& s) const { s.taken = false; }
  void rollback(state& s) const {
    if (!std::exchange(s.taken, false)) return;
    std::swap(s.momentum, s.momentum_before);
    std::swap(s.owed, s.owed_before);
  }

 private:
  void check_size(state const& s, std::size_t n) const {
    require(s.size == n, name(), ": a bucket of ", n, " elements meets a state made for ", s.size,
            ": make one state per bucket with init");
  }
  void draw(state& s, context where) const {
    where.step = 0;  // sketches of different steps are added
    s.places.draw(s.size, static_cast<std::size_t>(rows), columns, where);
  }
  void add_largest(std::span<float> out, float weight, state& s, kernels::kernel_set const& kernel) const {
    s.places.estimate(0, s.owed.data(), s.elements.span());
    std::size_t const k = s.largest.size() / 8;
    select_largest(s.elements.span(), nullptr, nullptr, k, s.scratch, s.largest.data(), kernel);
    auto const index = [&](std::size_t i) {
      std::uint32_t at;
      std::memcpy(&at, s.largest.data() + 8 * i, sizeof at);
      return std::size_t{at};
    };
    for (std::size_t i = 0; i < k; ++i) {
      float const found = s.elements[index(i)];
      out[index(i)] += rounded(weight * found);
      if (!clear) s.places.add(-found, index(i), s.owed.data());
    }
    if (clear) {
      for (auto* sketch : {&s.owed, &s.momentum})
        for (std::size_t i = 0; i < k; ++i) s.places.clear(index(i), sketch->data());
    } else {  // all are read before one is changed: the order makes no difference
      for (std::size_t i = 0; i < k; ++i) s.elements[i] = s.places.estimate(index(i), s.momentum.data());
      for (std::size_t i = 0; i < k; ++i) s.places.add(-s.elements[i], index(i), s.momentum.data());
    }
  }
};

}  // namespace dovetail::compress
