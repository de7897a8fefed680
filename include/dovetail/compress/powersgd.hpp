// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/gram_schmidt.hpp>
#include <dovetail/compress/kernels.hpp>
#include <dovetail/compress/matrices.hpp>
#include <dovetail/compress/powersgd_kernels.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::compress {

/// Sends matrices as products of two thin ones, P Qᵀ of `rank` columns, that ranks work out together by one step of
/// subspace iteration, and keeps what is lost. On rank i, of G_i (m x n) and the residual E_i,
///   M_i = G_i + E_i,   P = orthonormal(Σ M_i Q),   Q_i = M_iᵀ P,   E_i = M_i − P Q_iᵀ,   gradient = P (Σ Q_i)ᵀ,
/// and Σ Q_i, made orthonormal, is the next step's Q (`warm_start`; otherwise, and in the first step, seeded noise that
/// is the same on all ranks). Two rounds, both summable.
///
/// A tensor is a matrix of its first dimension against the others. It is compressed if (m + n) r · min_rate < m n, of
/// rank r = min(rank, m, n); all else (vectors, small matrices, elements of no tensor, and a slice of a tensor that a
/// bucket cuts) is sent as it is, and loses nothing. sync::all_reduce never cuts a tensor, whatever its bucket_bytes.
///
/// The residual is what the rank's own Q_i leaves. With ΣQ_i in its place, as is common, the sum over ranks is the
/// same, but what ranks differ in would stay in each residual for ever and grow with the square root of the steps.
///
/// Subspace iteration from the last step's Q can be caught: a direction that Q does not touch at all is never found,
/// while the residual grows along it. With `refresh` = T, Q begins from seeded noise again in every T-th step (and not
/// from a singular value decomposition, which would need the whole sum on every rank). That step sends less; the
/// residual keeps it.
///
/// A payload is an array of floats in native byte order. Round 0: for each compressed matrix P, column by column, r m
/// floats; then all else, in order. Round 1: for each matrix Q, column by column, r n floats.
///
/// Non-finite gradients are seen by all ranks after round 0: everything compressed is then decoded as NaN, and residual
/// and Q of all ranks stay as they were. Where gradient and residual overflow together, infinity or NaN is sent and the
/// matrix's residual restarts at 0, also when the step is taken back. State is two floats an element, the residual and
/// the one before; thin matrices besides.
///
/// Errors: argument_error for fields outside of their ranges, tensors outside of their bucket or over one another, a
/// state that was made for another bucket, and rounds out of order; input_error for payloads of another size.
///
/// Sources: Vogels, Karimireddy, Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed
/// Optimization", NeurIPS 2019, algorithms 1 and 2. That the subspace should be renewed now and then: "PowerSGD+",
/// arXiv 2509.11254, 2025.
struct powersgd {
  int rank = 4;            ///< columns of P and Q
  bool warm_start = true;  ///< whether Q begins as in the last step
  int refresh = 0;         ///< steps; 0: never
  float min_rate = 2;      ///< how many times smaller a matrix has to become
  static constexpr auto describe() {
    return policy{"powersgd", field{"rank", &powersgd::rank, bounds{.low = 1, .high = 4096}},
                  field{"warm_start", &powersgd::warm_start},
                  field{"refresh", &powersgd::refresh, ranges::not_negative},
                  field{"min_rate", &powersgd::min_rate, ranges::positive}};
  }

  static constexpr bool summable = true;
  static constexpr bool fixed_size = true;
  static constexpr bool unbiased = false;
  static constexpr bool wants_error_feedback = false;  ///< keeps its own residual
  static constexpr int rounds = 2;
  using wire_type = float;

  /// One compressed tensor; p and q say where its factors begin among all of the bucket.
  struct matrix : detail::low_rank_matrix {
    std::size_t p = 0, q = 0;
  };

  struct state {
    buffer<float> residual;
    buffer<float> before;    ///< the residual before the last step; until round 1 is encoded, gradient + residual
    buffer<float> q;         ///< of each matrix, as ranks added it up; 0 before the first step
    buffer<float> q_before;  ///< before the last step
    buffer<float> p, basis, dense;  ///< of this step: orthonormal P and Q, and the sum of what is not compressed
    std::vector<matrix> matrices;
    bucket_layout layout;
    std::size_t size = 0;
    enum class progress : std::uint8_t { none, sent_p, has_p, sent_q } at = progress::none;
    bool broken = false;  ///< this step's P is not finite
    bool took_residual = false, took_q = false;

    DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
      if (matrices.empty()) return {};
      std::vector<named_tensor> all{make_named_tensor(prefix + "residual", residual.span()),
                                    make_named_tensor(prefix + "q", q.span())};
      all[0].kind = state_kind::summed;
      return all;
    }
    friend bool operator==(state const& a, state const& b) {
      return a.residual == b.residual && a.q == b.q && a.layout == b.layout && a.size == b.size;
    }
  };

  static constexpr char const* name() { return "PowerSGD"; }
  /// Of elements without shapes: they are sent as they are.
  static constexpr std::size_t wire_size(std::size_t n) { return sizeof(float) * n; }
  constexpr std::size_t wire_size(bucket const& b, int round) const {
    check_policy(*this);
    std::size_t floats = round == 0 ? b.size() : 0;
    for (auto const& t : b.tensors)
      if (auto const m = detail::matrix_of(t, rank, min_rate); m.rank > 0)
        floats = round == 0 ? floats - m.size() + m.rank * m.rows : floats + m.rank * m.columns;
    return sizeof(float) * floats;
  }

  state init(bucket const& b) const {
    check_policy(*this);
    state s;
    std::size_t p = 0, q = 0;
    for (auto const& m : detail::matrices_in(name(), b, rank, min_rate)) {
      s.matrices.push_back({m, p, q});
      p += m.rank * m.rows;
      q += m.rank * m.columns;
    }
    if (!s.matrices.empty()) {
      s.residual = buffer<float>(b.size());
      s.before = buffer<float>(b.size());
    }
    s.p = buffer<float>(p);
    s.q = s.q_before = s.basis = buffer<float>(q);
    s.dense = buffer<float>(wire_size(b, 0) / sizeof(float) - p);
    s.layout = bucket_layout(b);
    s.size = b.size();
    return s;
  }

  std::size_t encode(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    require(s.size == b.size(), name(), ": a bucket of ", b.size(), " elements meets a state made for ", s.size,
            ": make one state per bucket with init");
    s.layout.check(b, name());
    require(where.round == 0 || (where.round == 1 && s.at == state::progress::has_p), name(), ": round ", where.round,
            " is encoded out of order: encode round 0, absorb the sum of all payloads, encode round 1");
    std::size_t const bytes = wire_size(b, where.round);
    require_room(name(), b.size(), bytes, out);
    where.round == 0 ? encode_p(b, s, out, where) : encode_q(s, out);
    return bytes;
  }

  /// Takes the sum of round 0's payloads.
  void absorb(std::span<std::byte const> payload, state& s, context const& where) const {
    require(s.at == state::progress::sent_p, name(), ": a sum is absorbed before round 0 is encoded");
    std::size_t const p = s.p.size() * sizeof(float), dense = s.dense.size() * sizeof(float);
    require_payload(name(), s.size, p + dense, payload);
    copy_bytes(s.p.data(), payload.data(), p);
    copy_bytes(s.dense.data(), payload.data() + p, dense);
    auto const& kernel = kernels::best();
    s.broken = !kernel.all_finite(s.p.data(), s.p.size()) || !kernel.all_finite(s.dense.data(), s.dense.size());
    if (!s.broken)
      for (auto const& m : s.matrices) orthonormalize(s.p.data() + m.p, m.rows, m.rank, noise{where, m.begin, 1});
    s.at = state::progress::has_p;
  }

  /// Takes the sum of round 1's payloads.
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight, state& s,
                  context const&) const {
    require(s.size == out.size(), name(), ": ", out.size(), " elements meet a state made for ", s.size,
            ": make one state per bucket with init");
    require(s.at == state::progress::sent_q, name(), ": a sum is decoded before round 1 is encoded");
    require_payload(name(), s.size, s.q.size() * sizeof(float), payload);
    // Where ranks have sent no numbers, all keep the Q that they had; what has been encoded is NaN.
    buffer<float>& q = s.broken ? s.basis : s.took_q ? s.q : s.q_before;
    if (!s.broken) copy_bytes(q.data(), payload.data(), payload.size());
    auto const& kernel = powersgd_kernels::best();
    for (auto const& m : s.matrices)
      kernel.add_product(s.p.data() + m.p, m.rows, q.data() + m.q, m.columns, m.rank, weight, out.data() + m.begin);
    float const* dense = s.dense.data();
    detail::for_each_between(s.matrices, s.size, [&](std::size_t begin, std::size_t n) {
      kernels::best().add_float(reinterpret_cast<std::byte const*>(dense), n, weight, out.data() + begin);
      dense += n;
    });
    if (s.broken || s.took_q) return;
    std::swap(s.q, s.q_before);
    s.took_q = true;
  }

  void commit(state& s) const {
    s.took_residual = s.took_q = false;
    s.at = state::progress::none;
  }
  void rollback(state& s) const {
    if (s.took_residual) std::swap(s.residual, s.before);
    if (s.took_q) std::swap(s.q, s.q_before);
    commit(s);
  }

 private:
  /// Numbers around 0, and never 0, that all ranks draw alike: of each factor (0: Q, 1: P), column and row its own.
  struct noise {
    context const& where;
    std::size_t begin;
    std::uint32_t factor;
    float operator()(std::size_t column, std::size_t row) const {
      auto const random = where.common_random(2 * static_cast<std::uint32_t>(column) + factor);
      return static_cast<float>(static_cast<std::int32_t>(random.word(begin + row) | 1u)) * 0x1p-31f;
    }
  };

  static void copy_bytes(void* to, void const* from, std::size_t bytes) {
    if (bytes) std::memcpy(to, from, bytes);
  }

  void encode_p(bucket const& b, state& s, std::span<std::byte> out, context const& where) const {
    commit(s);
    bool const anew = !warm_start || (refresh > 0 && where.step % refresh == 0);
    copy_bytes(s.basis.data(), s.q.data(), s.q.size() * sizeof(float));
    if (anew) std::fill(s.basis.begin(), s.basis.end(), 0.0f);
    auto const& kernel = powersgd_kernels::best();
    auto const& elements = kernels::best();
    for (auto const& m : s.matrices) {
      float* const q = s.basis.data() + m.q;
      float* const p = s.p.data() + m.p;
      orthonormalize(q, m.columns, m.rank, noise{where, m.begin, 0});
      kernel.project(b.values.data() + m.begin, s.residual.data() + m.begin, s.before.data() + m.begin, m.rows,
                     m.columns, q, m.rank, p);
      // A product with a column of length 1 is not finite where an element is not, and where a row overflows.
      if (!elements.all_finite(p, m.rank * m.rows) && elements.all_finite(b.values.data() + m.begin, m.size()))
        restart(s, m);
    }
    copy_bytes(out.data(), s.p.data(), s.p.size() * sizeof(float));
    std::byte* to = out.data() + s.p.size() * sizeof(float);
    detail::for_each_between(s.matrices, s.size, [&](std::size_t begin, std::size_t n) {
      std::memcpy(to, b.values.data() + begin, n * sizeof(float));
      to += n * sizeof(float);
    });
    s.at = state::progress::sent_p;
  }

  void encode_q(state& s, std::span<std::byte> out) const {
    s.at = state::progress::sent_q;
    float* const all = s.basis.data();  // no longer needed as it is
    if (s.broken) {
      std::fill(s.basis.begin(), s.basis.end(), not_a_number<float>());
      return copy_bytes(out.data(), all, s.basis.size() * sizeof(float));
    }
    auto const& kernel = powersgd_kernels::best();
    for (auto const& m : s.matrices) {
      float* const x = s.before.data() + m.begin;
      float const* const p = s.p.data() + m.p;
      float* const q = all + m.q;
      kernel.project_back(x, m.rows, m.columns, p, m.rank, q);
      kernel.add_product(p, m.rows, q, m.columns, m.rank, -1.0f, x);
      if (!kernels::best().all_finite(q, m.rank * m.columns)) restart(s, m);
    }
    copy_bytes(out.data(), all, s.basis.size() * sizeof(float));
    std::swap(s.residual, s.before);
    s.took_residual = true;
  }

  static void restart(state& s, matrix const& m) {
    for (auto* x : {&s.residual, &s.before}) std::fill_n(x->begin() + m.begin, m.size(), 0.0f);
  }
};

}  // namespace dovetail::compress
