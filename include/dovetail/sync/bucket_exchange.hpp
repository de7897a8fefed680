// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/sync/buckets.hpp>
#include <dovetail/sync/exchange.hpp>

namespace dovetail::sync {

/// One rank's end of the exchange of one bucket: `run` replaces the bucket's values by their sum over all ranks, as far
/// as the codec can tell it. Owns codec states and wire buffers; nothing is allocated after construction, but for
/// codecs of variable size.
template <codec Codec>
class bucket_exchange {
  using traits = compress::codec_traits<Codec>;
  static_assert(compress::detail::must_be_a_codec<Codec>::holds);

 public:
  using state_type = typename traits::state_type;

  /// `values` is the memory of the flat range `part`; codecs may look at its size only.
  DOVETAIL_COLD bucket_exchange(Codec const& codec, exchange::plan plan, parameter_list const& parameters, range part,
                                std::span<float const> values, int ranks, int rank)
      : codec_(codec), plan_(plan), part_(part), ranks_(ranks), rank_(rank) {
    whole_ = tensors_in(parameters, part);
    cost_ = exchange::cost(plan, codec, {values, whole_}, ranks, rank);
    if (is_plain()) return;
    bool const each = plan_ == exchange::plan::reduce_scatter_all_gather;
    int const pieces = each ? ranks + 1 : 1;  // every rank's shard, and the sum of the own one, encoded once more
    pieces_.reserve(static_cast<std::size_t>(pieces));
    for (int i = 0; i < pieces; ++i) {
      auto const r = each ? dovetail::shard(part.size(), ranks, i < ranks ? i : rank) : range{0, part.size()};
      auto tensors = tensors_in(parameters, {part.begin + r.begin, part.begin + r.end});
      auto state = codec_.init(compress::bucket{values.subspan(r.begin, r.size()), tensors});
      pieces_.push_back({r, std::move(tensors), std::move(state)});
    }
    if (each)
      chunk_ = codec_.wire_size(pieces_.front().at.size());
    else
      for (int round = 0; round < traits::rounds; ++round)
        chunk_ = std::max(chunk_, compress::wire_size(codec_, compress::bucket{values, whole_}, round));
    auto const p = static_cast<std::size_t>(ranks);
    send_ = buffer<std::byte>(each ? p * chunk_ : chunk_);
    if (plan_ != exchange::plan::all_reduce) receive_.resize(p * chunk_);
    if (each) sum_ = buffer<float>(pieces_.back().at.size());
  }

  range part() const { return part_; }
  exchange::plan plan() const { return plan_; }
  /// What `run` adds to the communicator's count (an upper bound for codecs of variable size).
  comm::traffic predicted() const { return cost_; }

  /// Collective. `values` are the gradients of the flat range part().
  template <communicator C>
  void run(C& c, std::span<float> values) {
    if (is_plain()) return c.all_reduce(values, comm::reduction::sum);
    switch (plan_) {
      case exchange::plan::all_reduce:
        if constexpr (exchange::all_reduce_is_legal<Codec>) return run_sum(c, values);
        break;
      case exchange::plan::reduce_scatter_all_gather:
        if constexpr (exchange::reduce_scatter_is_legal<Codec>) return run_two_phase(c, values);
        break;
      case exchange::plan::all_gather:
        return run_gather(c, values);
    }
  }

  /// Codec states by name: "<prefix>…" for the bucket's own, "<prefix>shard<r>.…" and "<prefix>sum.…" in two phases.
  DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
    std::vector<named_tensor> all;
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      std::string const name = pieces_.size() == 1       ? prefix
                               : i + 1 == pieces_.size() ? message(prefix, "sum.")
                                                         : message(prefix, "shard", i, '.');
      for (auto& t : pieces_[i].state.tensors(name)) all.push_back(std::move(t));
    }
    return all;
  }

 private:
  /// Nothing to encode: the gradients themselves are summed, in place.
  bool is_plain() const { return std::is_same_v<Codec, compress::identity> && plan_ == exchange::plan::all_reduce; }
  std::size_t encode(std::span<float const> values, std::size_t which, std::span<std::byte> out) {
    return codec_.encode(compress::bucket{values, pieces_[which].tensors}, pieces_[which].state, out);
  }
  static void clear(std::span<float> values) {
    if (!values.empty()) std::memset(values.data(), 0, values.size_bytes());
  }

  template <class C>
  void run_sum(C& c, std::span<float> values) {
    using wire = typename traits::wire_type;
    std::size_t bytes = 0;
    auto const add_up = [&] {
      c.all_reduce(std::span<wire>(reinterpret_cast<wire*>(send_.data()), bytes / sizeof(wire)), comm::reduction::sum);
    };
    if constexpr (traits::rounds == 1) {
      bytes = encode(values, 0, send_.span());
      add_up();
    } else {
      for (int round = 0; round < traits::rounds; ++round) {
        bytes = codec_.encode(compress::bucket{values, pieces_[0].tensors}, pieces_[0].state, send_.span(), round);
        add_up();
        if (round + 1 < traits::rounds)
          codec_.absorb(std::span<std::byte const>(send_.span().first(bytes)), pieces_[0].state, round);
      }
    }
    clear(values);
    auto const payload = std::span<std::byte const>(send_.span().first(bytes));
    if constexpr (traits::decodes_with_state)
      codec_.decode_add(payload, values, 1.f, pieces_[0].state);  // what earlier rounds agreed on lies in the state
    else
      codec_.decode_add(payload, values, 1.f);
  }

  template <class C>
  void run_gather(C& c, std::span<float> values) {
    std::size_t const bytes = encode(values, 0, send_.span());
    auto const mine = std::span<std::byte const>(send_.span().first(bytes));
    std::vector<std::size_t> offsets;
    if constexpr (traits::fixed_size) {
      c.all_gather(mine, std::span<std::byte>(receive_));
      for (std::size_t r = 0; r <= static_cast<std::size_t>(ranks_); ++r) offsets.push_back(r * chunk_);
    } else {
      offsets = c.all_gather_v(mine, receive_);
    }
    clear(values);
    for (std::size_t r = 0; r + 1 < offsets.size(); ++r)
      codec_.decode_add(std::span<std::byte const>(receive_).subspan(offsets[r], offsets[r + 1] - offsets[r]), values,
                        1.f);
  }

  template <class C>
  void run_two_phase(C& c, std::span<float> values) {
    auto const ranks = static_cast<std::size_t>(ranks_), me = static_cast<std::size_t>(rank_);
    for (std::size_t r = 0; r < ranks; ++r)
      encode(values.subspan(pieces_[r].at.begin, pieces_[r].at.size()), r, send_.span().subspan(r * chunk_, chunk_));
    c.all_to_all(std::span<std::byte const>(send_.span()), std::span<std::byte>(receive_));
    clear(sum_.span());
    for (std::size_t r = 0; r < ranks; ++r) codec_.decode_add(payload(r, me), sum_.span(), 1.f);
    encode(sum_.span(), ranks, send_.span().first(chunk_));
    c.all_gather(std::span<std::byte const>(send_.span().first(chunk_)), std::span<std::byte>(receive_));
    clear(values);
    for (std::size_t r = 0; r < ranks; ++r)
      codec_.decode_add(payload(r, r), values.subspan(pieces_[r].at.begin, pieces_[r].at.size()), 1.f);
  }
  /// What is encoded by itself, with what the codec remembers of it.
  struct piece {
    range at;  // within the bucket
    std::vector<compress::bucket_tensor> tensors;
    state_type state;
  };
  /// Chunk `slot` of what was received, which encodes shard `which`.
  std::span<std::byte const> payload(std::size_t slot, std::size_t which) const {
    return std::span<std::byte const>(receive_).subspan(slot * chunk_, codec_.wire_size(pieces_[which].at.size()));
  }

  Codec codec_;
  exchange::plan plan_;
  range part_;
  int ranks_, rank_;
  std::vector<compress::bucket_tensor> whole_;
  comm::traffic cost_;
  std::vector<piece> pieces_;
  std::size_t chunk_ = 0;
  buffer<std::byte> send_;
  std::vector<std::byte> receive_;
  buffer<float> sum_;
};

}  // namespace dovetail::sync
