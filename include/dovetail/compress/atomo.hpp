// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/bytes.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/matrices.hpp>
#include <dovetail/compress/powersgd_kernels.hpp>
#include <dovetail/compress/spectrum.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/rounded.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// Spectral ATOMO: unbiased, and of all ways to send a matrix as `rank` of its singular triplets on average the one of
/// least variance. Of X = Σ σ_i u_i v_iᵀ triplet i is sent with the probability p_i, as σ_i / p_i u_i v_iᵀ. The p_i add
/// up to s = rank: as long as s σ_i > Σ_{j>=i} σ_j, from the largest on, p_i = 1 and s falls by 1; of the others
///   p_i = s σ_i / Σ_{j>=i} σ_j.
/// E|decoded − X|² = Σ σ_i² (1/p_i − 1), at most (min(m, n) / rank − 1) |X|² of a matrix {m, n}; 0 if its rank is no
/// larger. It is no contraction: error feedback must not be around it.
///
/// Triplets are drawn systematically, as Madow did: the p_i are added up from a random beginning in [0, 1), and each
/// that completes the next whole number is sent. One random number of the rank does for a matrix, no more than `rank`
/// triplets are ever sent, and as they are orthogonal the variance is that of independent draws.
///
/// A tensor is a matrix of its first dimension against the others. It is decomposed if (m + n) r · min_rate < m n, of
/// r = min(rank, m, n), as PowerSGD's are; all else (vectors, small matrices, elements of no tensor, and a slice of a
/// tensor that a bucket cuts) is sent as it is.
///
/// A payload is of each matrix the number of triplets (u32), and of each triplet m and n floats, u and v times the root
/// of σ/p; then all else, in order: the same bytes on every processor. A matrix that is not finite is the number
/// 2^32 − 1 alone, which decodes to NaN in all of it.
///
/// What it costs: encoding takes k² l multiplications of doubles for a matrix whose sides are k <= l, and 4/3 k³ more.
/// That is 30 to 90 times what PowerSGD takes: on one core with AVX-512 10 ms of processor time for 256 x 1024, 0.16 s
/// for 512 x 4608, 0.7 s for 1024 x 4096. It pays where wires are slow and matrices have a side of up to some hundred.
/// Decoding takes r operations an element and rank. Memory: up to 24 k² bytes for the largest matrix, and a copy of it
/// where it has more rows than columns.
///
/// Errors: argument_error for fields outside of their ranges, tensors outside of their bucket or over one another, and
/// a state that was made for another bucket; input_error for payloads that are truncated, too long, or have more
/// triplets than are sent.
///
/// Sources: Wang, Sievert, Charles, Liu, Wright, Papailiopoulos, "ATOMO: Communication-efficient Learning via Atomic
/// Sparsification", NeurIPS 2018, algorithm 1 and section 5; drawing: Madow, "On the Theory of Systematic Sampling,
/// II", Annals of Mathematical Statistics 1949.
struct atomo {
  int rank = 3;  ///< triplets of a matrix that are sent on average: the paper's sparsity budget
  float min_rate = 2;  ///< how many times smaller a matrix has to become
  static constexpr auto describe() {
    return policy{"atomo", field{"rank", &atomo::rank, bounds{.low = 1, .high = 4096}},
                  field{"min_rate", &atomo::min_rate, ranges::positive}};
  }

  static constexpr bool summable = false;
  static constexpr bool fixed_size = false;
  static constexpr bool unbiased = true;
  static constexpr bool wants_error_feedback = false;
  static constexpr bool contraction = false;

  /// Which tensors are matrices, and scratch memory, reused from step to step: nothing to save.
  struct state {
    std::vector<detail::low_rank_matrix> matrices;
    bucket_layout layout;
    std::size_t size = 0;
    detail::spectrum spectrum;
    buffer<float> turned;   ///< a matrix with more rows than columns, column by column
    buffer<float> factors;  ///< of the triplets of a matrix
    std::vector<double> probabilities, left, right;

    std::vector<named_tensor> tensors(std::string const& /*prefix*/) { return {}; }
    friend bool operator==(state const& a, state const& b) { return a.layout == b.layout && a.size == b.size; }
  };

  static constexpr char const* name() { return "ATOMO"; }
  /// Of elements without shapes: they are sent as they are.
  static constexpr std::size_t wire_size(std::size_t n) { return sizeof(float) * n; }
  std::size_t wire_size(bucket const& b) const {
    check_policy(*this);
    std::size_t bytes = wire_size(b.size());
    for (auto const& t : b.tensors)
      if (auto const m = detail::matrix_of(t, rank, min_rate); m.rank > 0)
        bytes = bytes - wire_size(m.size()) + 4 + m.rank * triplet_size(m);
    return bytes;
  }

  state init(bucket const& b) const {
    check_policy(*this);
    state s;
    s.matrices = detail::matrices_in(name(), b, rank, min_rate);
    std::size_t turned = 0, factors = 0;
    for (auto const& m : s.matrices) {
      if (m.rows > m.columns) turned = std::max(turned, m.size());
      factors = std::max(factors, in_passes(m.rank) * (m.rows + m.columns));
    }
    s.turned = buffer<float>(turned);
    s.factors = buffer<float>(factors);
    s.layout = bucket_layout(b);
    s.size = b.size();
    return s;
  }
  /// What is remembered is memory that is written before it is read: there is nothing to take back.
  void commit(state&) const {}
  void rollback(state&) const {}

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    check_size(b.size(), s);
    s.layout.check(b, name());
    require_room(name(), b.size(), wire_size(b), out);
    std::byte* to = out.data();
    auto const random = where.own_random();
    for (auto const& m : s.matrices)
      to = encode_matrix(b.values.subspan(m.begin, m.size()), m, random.word(m.begin), s, to);
    detail::for_each_between(s.matrices, s.size, [&](std::size_t begin, std::size_t n) {
      for (float const x : b.values.subspan(begin, n)) {
        detail::store_float(to, x);
        to += sizeof(float);
      }
    });
    return static_cast<std::size_t>(to - out.data());
  }

  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                  context const& /*where*/) const {
    check_size(out.size(), s);
    check_payload(payload, s);
    std::byte const* from = payload.data();
    for (auto const& m : s.matrices) {
      std::size_t const count = detail::load_word<std::uint32_t>(from);
      from += 4;
      auto const values = out.subspan(m.begin, m.size());
      if (count == not_finite) {
        for (float& v : values) v += not_a_number<float>();
        continue;
      }
      // All left factors, then all right ones.
      std::size_t const columns = in_passes(count);
      float* const left = s.factors.data();
      float* const right = left + columns * m.rows;
      for (std::size_t k = 0; k < count; ++k) {
        from = load_floats(from, m.rows, left + k * m.rows);
        from = load_floats(from, m.columns, right + k * m.columns);
      }
      std::fill(left + count * m.rows, right, 0.0f);
      std::fill(right + count * m.columns, right + columns * m.columns, 0.0f);
      powersgd_kernels::best().add_product(left, m.rows, right, m.columns, columns, weight, values.data());
    }
    detail::for_each_between(s.matrices, s.size, [&](std::size_t begin, std::size_t n) {
      for (float& v : out.subspan(begin, n)) {
        v += rounded(weight * detail::load_float(from));
        from += sizeof(float);
      }
    });
  }

  /// The paper's algorithm 1: p[i] of the values, which fall and are not negative; they add up to `budget`, or are 1 of
  /// all values above 0 where these are fewer.
  static void find_probabilities(std::span<double const> values, int budget, std::span<double> p) {
    int left = budget;
    for (std::size_t i = 0; i < values.size(); ++i) {
      double rest = 0;
      for (std::size_t j = values.size(); j-- > i;) rest += values[j];
      if (values[i] * left <= rest) {
        for (; i < values.size(); ++i) p[i] = rest > 0 ? values[i] * left / rest : 0;
        return;
      }
      p[i] = 1;
      --left;
    }
  }

 private:
  static constexpr std::uint32_t not_finite = std::numeric_limits<std::uint32_t>::max();

  /// The kernel adds up four products in one pass, and one at a time of fewer: up to four are filled up with zeros.
  static constexpr std::size_t in_passes(std::size_t count) { return (count + 3) / 4 * 4; }
  static constexpr std::size_t triplet_size(detail::low_rank_matrix const& m) {
    return sizeof(float) * (m.rows + m.columns);
  }
  static void check_size(std::size_t n, state const& s) {
    require(s.size == n, name(), ": a bucket of ", n, " elements meets a state made for ", s.size,
            ": make one state per bucket with init");
  }
  static std::byte const* load_floats(std::byte const* from, std::size_t n, float* to) {
    for (std::size_t i = 0; i < n; ++i) to[i] = detail::load_float(from + sizeof(float) * i);
    return from + sizeof(float) * n;
  }
  static std::byte* store_scaled(std::span<double const> x, double factor, std::byte* to) {
    for (std::size_t i = 0; i < x.size(); ++i)
      detail::store_float(to + sizeof(float) * i, static_cast<float>(x[i] * factor));
    return to + sizeof(float) * x.size();
  }

  /// Before anything is added.
  static void check_payload(std::span<std::byte const> payload, state const& s) {
    std::size_t at = 0, others = s.size;
    for (auto const& m : s.matrices) {
      others -= m.size();
      require<input_error>(payload.size() - at >= 4, name(), ": a payload of ", payload.size(), " bytes for ", s.size,
                           " elements: it is truncated");
      std::size_t const count = detail::load_word<std::uint32_t>(payload.data() + at);
      at += 4;
      if (count == not_finite) continue;
      require<input_error>(count <= m.rank, name(), ": ", count, " triplets of a matrix {", m.rows, ", ", m.columns,
                           "}, where up to ", m.rank, " are sent: the payload is damaged");
      require<input_error>((payload.size() - at) / triplet_size(m) >= count, name(), ": a payload of ", payload.size(),
                           " bytes for ", s.size, " elements: it is truncated");
      at += count * triplet_size(m);
    }
    require<input_error>(payload.size() - at == wire_size(others), name(), ": a payload of ", payload.size(),
                         " bytes has ", payload.size() - at, " for ", others,
                         " elements that are sent as they are: it is truncated, or ranks disagree on the bucket");
  }

  std::byte* encode_matrix(std::span<float const> x, detail::low_rank_matrix const& m, std::uint32_t random, state& s,
                           std::byte* to) const {
    if (!kernels::best().all_finite(x.data(), x.size())) {
      detail::store_word(to, not_finite);
      return to + 4;
    }
    bool const tall = m.rows > m.columns;
    std::size_t const k = std::min(m.rows, m.columns), l = std::max(m.rows, m.columns);
    float const* const rows = tall ? turned(x, m, s) : x.data();
    s.spectrum.decompose(rows, k, l);
    auto const values = s.spectrum.values();
    s.probabilities.resize(k);
    find_probabilities(values, static_cast<int>(m.rank), s.probabilities);

    s.left.resize(k);
    s.right.resize(l);
    std::byte* const head = to;
    to += 4;
    std::uint32_t count = 0;
    double drawn = (static_cast<double>(random) + 0.5) * 0x1p-32;
    for (std::size_t i = 0; i < k && count < m.rank; ++i) {
      double const next = drawn + s.probabilities[i];
      bool const taken = std::floor(next) > std::floor(drawn);
      drawn = next;
      if (!taken) continue;
      // X = Σ u (uᵀ X), however exact the values are.
      s.spectrum.vector(i, s.left);
      double const length = std::sqrt(project(rows, k, l, s.left, s.right));
      double const half = length > 0 ? std::sqrt(length / s.probabilities[i]) : 0;
      double const other = length > 0 ? half / length : 0;
      to = tall ? store_scaled(s.right, other, to) : store_scaled(s.left, half, to);
      to = tall ? store_scaled(s.left, half, to) : store_scaled(s.right, other, to);
      ++count;
    }
    detail::store_word(head, count);
    return to;
  }
  /// right = xᵀ left of k rows of l floats; its square.
  static double project(float const* x, std::size_t k, std::size_t l, std::span<double const> left,
                        std::span<double> right) {
    std::fill(right.begin(), right.end(), 0.0);
    for (std::size_t i = 0; i < k; ++i, x += l)
      for (std::size_t j = 0; j < l; ++j) right[j] += rounded(left[i] * static_cast<double>(x[j]));
    double square = 0;
    for (double const v : right) square += rounded(v * v);
    return square;
  }
  static float const* turned(std::span<float const> x, detail::low_rank_matrix const& m, state& s) {
    constexpr std::size_t tile = 16;
    for (std::size_t i = 0; i < m.rows; i += tile)
      for (std::size_t j = 0; j < m.columns; ++j)
        for (std::size_t r = i; r < std::min(i + tile, m.rows); ++r) s.turned[j * m.rows + r] = x[r * m.columns + j];
    return s.turned.data();
  }
};

}  // namespace dovetail::compress
