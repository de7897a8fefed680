// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/comm/binomial.hpp>
#include <dovetail/compress/after.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/bytes.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/revocable.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/sync/buckets.hpp>
#include <dovetail/sync/entry_merger.hpp>
#include <dovetail/sync/exchange.hpp>

namespace dovetail::sync {

/// One rank's end of the exchange of one bucket: `run` replaces the bucket's values by their sum over all ranks, as far
/// as the codec can tell it. Owns codec states and wire buffers; nothing is allocated after construction, but for
/// codecs of variable size and, in the first run, for a copy of states that cannot be taken back otherwise.
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
    auto whole = tensors_in(parameters, part);
    compress::bucket const all{values, whole};
    cost_ = exchange::cost(plan, codec, all, ranks, rank);
    if (is_plain()) return;
    auto const p = static_cast<std::size_t>(ranks);
    auto const add = [&](range at, int shard, compress::context::inputs input) {
      auto tensors = compress::tensors_in(whole, at);
      compress::context where{.rank = rank, .ranks = ranks, .shard = shard, .input = input};
      where.offset = part.begin + at.begin;
      compress::bucket const b{values.subspan(at.begin, at.size()), tensors};
      std::size_t const bytes = shard < 0 ? 0 : compress::wire_size(codec_, b);
      auto state = compress::init(codec_, b, where);
      pieces_.push_back({at, std::move(tensors), compress::revocable<Codec>(std::move(state)), where, bytes});
    };
    if (plan_ == exchange::plan::reduce_scatter_all_gather) {
      using enum compress::context::inputs;
      // Every rank's shard, and the sum of the own one, encoded once more. A codec that keeps a state of what it
      // decodes has one of each shard's sum.
      for (int r = 0; r < ranks; ++r) add(dovetail::shard(part.size(), ranks, r), r, gradient);
      for (int r = 0; r < ranks; ++r)
        if (traits::decodes_with_state || r == rank) add(dovetail::shard(part.size(), ranks, r), r, sum);
      chunk_ = exchange::shard_payload(codec_, all, ranks);
      send_ = buffer<std::byte>(p * chunk_);
      sum_ = buffer<float>(pieces_[sum_of(rank)].at.size());
    } else {
      add({0, part.size()}, -1, compress::context::inputs::gradient);
      for (int round = 0; round < traits::rounds; ++round)
        chunk_ = std::max<std::size_t>(chunk_, compress::wire_size(codec_, all, round));
      send_ = buffer<std::byte>(chunk_);
    }
    if (plan_ == exchange::plan::merge_tree) {
      if constexpr (exchange::merge_is_legal<Codec>) {
        std::size_t merges = 0;
        comm::detail::binomial_children(rank, ranks, [&](int) { ++merges; });
        merger_.resize(codec_.count(part.size()), merges);
        flags_ = exchange::merge_flags(codec_, part.size());
        receive_.resize(flags_ + chunk_);
      }
    } else if (plan_ != exchange::plan::all_reduce) {
      receive_.resize(p * chunk_);
    }
  }

  range part() const { return part_; }
  exchange::plan plan() const { return plan_; }
  /// What `run` adds to the communicator's count (an upper bound for codecs of variable size).
  comm::traffic predicted(std::int64_t /*step*/ = 0) const { return cost_; }

  /// Collective. `values` are the gradients of the flat range part(). Of `when`, codecs are told step, seed, bucket,
  /// rate and stream; the rest follows from where they are. What codecs keep of it stands with commit, or with the next
  /// run.
  template <communicator C>
  void run(C& c, std::span<float> values, compress::context const& when = {}) {
    if (is_plain()) return c.all_reduce(values, comm::reduction::sum);
    send(c, values, when);
    clear(values);
    each_payload([&](range at, std::span<std::byte const> payload, piece& p, compress::context const& where) {
      compress::decode_add(codec_, payload, values.subspan(at.begin, at.size()), 1.f, p.state.state(), where);
    });
  }
  /// As run, but leaves the sum as it was received, for `received`, until the next run.
  template <communicator C>
  void run_encoded(C& c, std::span<float const> values, compress::context const& when = {}) {
    send(c, values, when);
  }
  /// After run_encoded: f(range within part(), payload) for each payload whose sum the bucket's is, in the order in
  /// which they are added. Throws what a damaged payload makes decode_add throw.
  template <class F>
  void received(F const& f) {
    each_payload([&](range at, std::span<std::byte const> payload, piece&, compress::context const&) {
      f(at, compress::read(codec_, payload, at.size()));
    });
  }
  /// The step of the last run was made.
  void commit() {
    for (auto& p : pieces_) p.state.commit(codec_);
  }
  /// The step of the last run was skipped or abandoned: codec states are as they were before it. Nothing if the last
  /// run is committed or taken back already.
  void rollback() {
    for (auto& p : pieces_) p.state.rollback(codec_);
  }

  /// Codec states by name: "<prefix>…" for the bucket's own, "<prefix>shard<r>.…" and "<prefix>sum.…" in two phases. Of
  /// what counts as a sum over ranks the name says which elements of the bucket it is of: "<prefix>…@<first>", and of
  /// the sum "<prefix>…@sum" or, where each rank has all of them, "<prefix>…@<first>.sum".
  DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
    std::vector<named_tensor> all;
    for (auto& p : pieces_) {
      bool const of_sum = p.where.input == compress::context::inputs::sum;
      std::string const of = p.where.shard < 0            ? ""
                             : !of_sum                    ? message("shard", p.where.shard, '.')
                             : traits::decodes_with_state ? message("sum", p.where.shard, '.')
                                                          : "sum.";
      for (auto& t : p.state.state().tensors("")) {
        bool const elements = t.kind == state_kind::summed && t.bytes.size() == p.at.size() * sizeof(float);
        if (elements && p.where.shard >= 0)
          t.name = of_sum && !traits::decodes_with_state
                       ? message(prefix, t.name, "@sum")
                       : message(prefix, t.name, '@', p.at.begin, of_sum ? ".sum" : "");
        else
          t.name = prefix + of + t.name;
        all.push_back(std::move(t));
      }
    }
    return all;
  }

 private:
  /// What is encoded by itself, with what the codec remembers of it.
  struct piece {
    range at;  // within the bucket
    std::vector<compress::bucket_tensor> tensors;
    compress::revocable<Codec> state;
    compress::context where;
    std::size_t bytes;  // of a shard's payload
  };

  /// Nothing to encode: the gradients themselves are summed, in place.
  bool is_plain() const { return std::is_same_v<Codec, compress::identity> && plan_ == exchange::plan::all_reduce; }
  /// Of the pieces, the one of the sum of shard r.
  std::size_t sum_of(int r) const { return static_cast<std::size_t>(ranks_ + (traits::decodes_with_state ? r : 0)); }
  std::size_t encode(std::span<float const> values, piece& p, std::span<std::byte> out) {
    return compress::encode(codec_, compress::bucket{values, p.tensors}, p.state.state(), out, p.where);
  }
  /// The context of what `sender` has encoded of the same piece, one of all ranks or the sum of all.
  compress::context of(piece const& p, int sender) const {
    auto where = p.where;
    where.rank = sender;
    where.first = sender <= 0;
    where.last = sender < 0 || sender + 1 == ranks_;
    return where;
  }
  static void clear(std::span<float> values) {
    if (!values.empty()) std::memset(values.data(), 0, values.size_bytes());
  }

  template <class C>
  void send(C& c, std::span<float const> values, compress::context const& when) {
    for (auto& p : pieces_) {
      p.state.begin(codec_);
      p.where.step = when.step;
      p.where.seed = when.seed;
      p.where.bucket = when.bucket;
      p.where.rate = when.rate;
      p.where.stream = when.stream;
    }
    switch (plan_) {
      case exchange::plan::all_reduce:
        if constexpr (exchange::all_reduce_is_legal<Codec>) send_sum(c, values);
        break;
      case exchange::plan::reduce_scatter_all_gather:
        if constexpr (exchange::reduce_scatter_is_legal<Codec>) send_two_phase(c, values);
        break;
      case exchange::plan::all_gather:
        send_gather(c, values);
        break;
      case exchange::plan::merge_tree:
        if constexpr (exchange::merge_is_legal<Codec>) send_merge(c, values);
        break;
    }
  }
  /// f(range within part(), payload, piece, context) for what was received.
  template <class F>
  void each_payload(F const& f) {
    if (plan_ == exchange::plan::all_reduce) {
      f(pieces_[0].at, std::span<std::byte const>(send_.span().first(ends_[0])), pieces_[0],
        of(pieces_[0], compress::context::sum_of_ranks));
    } else if (plan_ == exchange::plan::merge_tree) {
      f(pieces_[0].at, std::span<std::byte const>(receive_).subspan(ends_[0], ends_[1] - ends_[0]), pieces_[0],
        of(pieces_[0], compress::context::sum_of_ranks));
    } else if (plan_ == exchange::plan::all_gather) {
      for (std::size_t r = 0; r + 1 < ends_.size(); ++r)
        f(pieces_[0].at, std::span<std::byte const>(receive_).subspan(ends_[r], ends_[r + 1] - ends_[r]), pieces_[0],
          of(pieces_[0], static_cast<int>(r)));
    } else {
      for (int r = 0; r < ranks_; ++r) {
        auto const& shard = pieces_[static_cast<std::size_t>(r)];
        auto where = of(shard, r);
        where.input = compress::context::inputs::sum;
        where.first = where.last = true;
        f(shard.at, payload(r, shard), pieces_[sum_of(r)], where);
      }
    }
  }

  template <class C>
  void send_sum(C& c, std::span<float const> values) {
    using wire = typename traits::wire_type;
    auto& whole = pieces_[0];
    std::size_t bytes = 0;
    for (int round = 0; round < traits::rounds; ++round) {
      whole.where.round = round;
      bytes = encode(values, whole, send_.span());
      require(bytes % sizeof(wire) == 0, compress::name_of(codec_), ": a payload of ", bytes,
              " bytes is no array of its wire_type, of ", sizeof(wire), " bytes each");
      c.all_reduce(std::span<wire>(reinterpret_cast<wire*>(send_.data()), bytes / sizeof(wire)), comm::reduction::sum);
      if constexpr (traits::rounds > 1)
        if (round + 1 < traits::rounds)
          codec_.absorb(std::span<std::byte const>(send_.span().first(bytes)), whole.state.state(), whole.where);
    }
    ends_.assign(1, bytes);
  }

  template <class C>
  void send_gather(C& c, std::span<float const> values) {
    std::size_t const bytes = encode(values, pieces_[0], send_.span());
    auto const mine = std::span<std::byte const>(send_.span().first(bytes));
    if constexpr (traits::fixed_size) {
      c.all_gather(mine, std::span<std::byte>(receive_));
      ends_.clear();
      for (std::size_t r = 0; r <= static_cast<std::size_t>(ranks_); ++r) ends_.push_back(r * chunk_);
    } else {
      ends_ = c.all_gather_v(mine, receive_);
    }
  }

  template <class C>
  void send_two_phase(C& c, std::span<float const> values) {
    for (std::size_t r = 0; r < static_cast<std::size_t>(ranks_); ++r)
      encode(values.subspan(pieces_[r].at.begin, pieces_[r].at.size()), pieces_[r],
             send_.span().subspan(r * chunk_, chunk_));
    c.all_to_all(std::span<std::byte const>(send_.span()), std::span<std::byte>(receive_));
    clear(sum_.span());
    auto& own = pieces_[static_cast<std::size_t>(rank_)];
    for (int r = 0; r < ranks_; ++r)
      compress::decode_add(codec_, payload(r, own), sum_.span(), 1.f, own.state.state(), of(own, r));
    encode(sum_.span(), pieces_[sum_of(rank_)], send_.span().first(chunk_));
    c.all_gather(std::span<std::byte const>(send_.span().first(chunk_)), std::span<std::byte>(receive_));
  }

  template <class C>
  void send_merge(C& c, std::span<float const> values) {
    auto& whole = pieces_[0];
    std::size_t const n = values.size();
    ends_.assign(2, 0);
    if (n == 0) return;
    // Messages do not say of which step and bucket they are: whoever is elsewhere is noticed here.
    c.barrier();
    auto const mine = std::span<std::byte const>(send_.span()).first(encode(values, whole, send_.span()));
    merger_.begin(codec_.read_entries(mine, n, merger_.own()));
    std::vector<int> children;  // the one with the most ranks behind it first: the others are merged before
    comm::detail::binomial_children(rank_, ranks_, [&](int child) { children.push_back(child); });
    for (auto child = children.rbegin(); child != children.rend(); ++child)
      merger_.merge(codec_.read_entries(receive_message(c, *child, {receive_.data(), chunk_}), n, merger_.incoming()));

    // What came through, behind a bit of each entry that says whether what was merged here is part of it.
    std::span<std::byte> const all(receive_), flags = all.first(flags_);
    std::size_t const bytes = codec_.write_entries(merger_.merged(), n, rank_ > 0 ? send_.span() : all.subspan(flags_));
    std::span<std::byte const> result = all.first(flags_ + bytes);
    if (rank_ > 0) {
      int const parent = comm::detail::binomial_parent(rank_);
      send_message(c, parent, send_.span().first(bytes));
      result = receive_message(c, parent, all);
      require<input_error>(result.size() >= flags_, "sync::exchange::merge_tree: ", result.size(), " bytes of rank ",
                           parent, ", where at least ", flags_, " are sent");
    } else {
      std::memset(flags.data(), 0xff, flags.size());
    }
    auto const payload = result.subspan(flags_);
    merger_.end(codec_.read_entries(payload, n, merger_.result()));
    for (std::size_t i = 0; i < children.size(); ++i) {
      merger_.drop(children.size() - 1 - i, flags);
      send_message(c, children[i], result);
    }
    if constexpr (traits::returns_entries) codec_.return_entries(merger_.lost(flags), whole.state.state());
    ends_ = {flags_, result.size()};
  }
  static constexpr int merge_tag = 0x6d74;
  template <class C>
  static void send_message(C& c, int to, std::span<std::byte const> data) {
    if constexpr (!traits::fixed_size) {
      std::byte length[8];
      compress::detail::store_word(length, std::uint64_t{data.size()});
      c.send(std::span<std::byte const>(length), to, merge_tag);
    }
    c.send(data, to, merge_tag);
  }
  template <class C>
  static std::span<std::byte const> receive_message(C& c, int from, std::span<std::byte> room) {
    std::size_t bytes = room.size();
    if constexpr (!traits::fixed_size) {
      std::byte length[8];
      c.recv(std::span<std::byte>(length), from, merge_tag);
      auto const said = compress::detail::load_word<std::uint64_t>(length);
      require<input_error>(said <= room.size(), "sync::exchange::merge_tree: ", said, " bytes of rank ", from,
                           ", where up to ", room.size(), " are sent: ranks disagree on the bucket");
      bytes = static_cast<std::size_t>(said);
    }
    c.recv(room.first(bytes), from, merge_tag);
    return room.first(bytes);
  }

  /// Chunk `slot` of what was received, which encodes `shard`.
  std::span<std::byte const> payload(int slot, piece const& shard) const {
    return std::span<std::byte const>(receive_).subspan(static_cast<std::size_t>(slot) * chunk_, shard.bytes);
  }

  Codec codec_;
  exchange::plan plan_;
  range part_;
  int ranks_, rank_;
  comm::traffic cost_;
  std::vector<piece> pieces_;
  std::size_t chunk_ = 0;
  buffer<std::byte> send_;
  std::vector<std::byte> receive_;
  std::vector<std::size_t> ends_;  ///< of the payloads of the last run
  buffer<float> sum_;
  std::size_t flags_ = 0;  // bytes
  detail::entry_merger merger_;
};

/// Two exchanges, of which the step says which one runs.
template <codec First, codec Then>
class bucket_exchange<compress::after<First, Then>> {
 public:
  template <class A, class B>
  DOVETAIL_COLD bucket_exchange(compress::after<First, Then> const& codec, exchange::plans<A, B> const& plans,
                                parameter_list const& parameters, range part, std::span<float const> values, int ranks,
                                int rank)
      : codec_(codec),
        first_(codec.first, plans.first, parameters, part, values, ranks, rank),
        then_(codec.then, plans.then, parameters, part, values, ranks, rank) {
    check_policy(codec);
  }

  range part() const { return first_.part(); }
  /// Of the last run, or of the first one that is to come.
  exchange::plan plan() const { return codec_.is_first(step_) ? first_.plan() : then_.plan(); }
  comm::traffic predicted(std::int64_t step = 0) const {
    return codec_.is_first(step) ? first_.predicted() : then_.predicted();
  }
  template <communicator C>
  void run(C& c, std::span<float> values, compress::context const& when = {}) {
    step_ = when.step;
    codec_.is_first(step_) ? then_.commit() : first_.commit();  // of an earlier step
    codec_.is_first(step_) ? first_.run(c, values, when) : then_.run(c, values, when);
  }
  void commit() {
    first_.commit();
    then_.commit();
  }
  void rollback() {
    first_.rollback();
    then_.rollback();
  }
  DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
    auto all = first_.tensors(prefix + "first.");
    for (auto& t : then_.tensors(prefix + "then.")) all.push_back(std::move(t));
    return all;
  }

 private:
  compress::after<First, Then> codec_;
  std::int64_t step_ = 0;
  bucket_exchange<First> first_;
  bucket_exchange<Then> then_;
};

}  // namespace dovetail::sync
