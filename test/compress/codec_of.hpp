// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// How a codec's type becomes a test::known_codec. Included where codecs are compiled, not by tests.
#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/compress.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/sync/exchange.hpp>

#include "known.hpp"
#if !defined(DOVETAIL_CODECS_ALONE)
#include "exchange_of.hpp"
#endif

namespace test {

template <class C>
inline constexpr bool is_after = false;
template <class First, class Then>
inline constexpr bool is_after<compress::after<First, Then>> = true;

template <class Codec>
class state_of_codec final : public known_state {
 public:
  state_of_codec(Codec const& c, compress::revocable<Codec> s) : codec_(c), state_(std::move(s)) {}
  std::unique_ptr<known_state> copy() const override { return std::make_unique<state_of_codec>(*this); }
  std::vector<named_tensor> tensors() override { return state_.state().tensors(""); }
  void begin() override { state_.begin(codec_); }
  void commit() override { state_.commit(codec_); }
  void rollback() override { state_.rollback(codec_); }
  std::size_t encode(compress::bucket const& b, std::span<std::byte> out, compress::context const& where) override {
    return compress::encode(codec_, b, state_.state(), out, where);
  }
  void absorb([[maybe_unused]] std::span<std::byte const> payload,
              [[maybe_unused]] compress::context const& where) override {
    if constexpr (compress::rounds_of < Codec >> 1) codec_.absorb(payload, state_.state(), where);
  }
  void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight,
                  compress::context const& where) override {
    constexpr std::size_t most = compress::codec_traits<Codec>::reads_parts ? 5000 : 0;  // elements, to be read again
    std::vector<float> in_parts(out.begin(),
                                out.begin() + static_cast<std::ptrdiff_t>(out.size() < most ? out.size() : 0));
    compress::decode_add(codec_, payload, out, weight, state_.state(), where);
    if constexpr (most > 0) {
      if (in_parts.empty()) return;
      read_parts(payload, in_parts, weight);
      if (std::memcmp(in_parts.data(), out.data(), out.size_bytes()) != 0)
        throw std::logic_error(compress::name_of(codec_) + ": what is read in parts is not what is decoded");
    }
  }

 private:
  /// Parts of several lengths, the last first.
  void read_parts(std::span<std::byte const> payload, std::span<float> out, float weight) const
      requires(compress::codec_traits<Codec>::reads_parts) {
    auto const reader = compress::read(codec_, payload, out.size());
    std::size_t end = out.size();
    for (std::size_t more = 0; end > 0; more = (more + 1) % 5) {
      std::size_t const last = (end - 1) / compress::payload_step;
      std::size_t const begin = (last - std::min(more, last)) * compress::payload_step;
      reader.add(begin, out.subspan(begin, end - begin), weight);
      end = begin;
    }
  }

  Codec codec_;
  compress::revocable<Codec> state_;
};

template <class Codec>
class codec_of final : public known_codec {
  using traits = compress::codec_traits<Codec>;
  static_assert(codec<Codec>);
  static constexpr bool may_have_feedback = traits::contraction && traits::rounds == 1 && !traits::decodes_with_state;

 public:
  codec_of(char const* its_label, Codec const& c, promise const& p) : codec_(c) {
    label = its_label;
    name = compress::name_of(c);
    promised = p;
    summable = traits::summable;
    fixed_size = traits::fixed_size;
    unbiased = traits::unbiased;
    contraction = traits::contraction;
    wants_error_feedback = traits::wants_error_feedback;
    decodes_with_state = traits::decodes_with_state;
    rounds = traits::rounds;
    if constexpr (may_have_feedback) {
      // Codec by codec, so that what is printed names the codec that failed.
      auto within = p;
      within.omega = within.delta = nullptr;
      auto const label_within = "error_feedback{" + label + "}";
      feedback = std::make_unique<codec_of<compress::error_feedback<Codec>>>(
          label_within.c_str(), compress::error_feedback<Codec>{c}, within);
      feedback->has_feedback = true;
    }
  }

  std::size_t wire_size(compress::bucket const& b, int round) const override {
    return compress::wire_size(codec_, b, round);
  }
  std::unique_ptr<known_state> init(compress::bucket const& b, compress::context const& where) const override {
    return std::make_unique<state_of_codec<Codec>>(codec_,
                                                   compress::revocable<Codec>(compress::init(codec_, b, where)));
  }
  bool legal(wish w) const override {
    return w == wish::automatic    ? true
           : w == wish::all_gather ? traits::rounds == 1
           : w == wish::all_reduce ? legal_as<sync::exchange::all_reduce>(codec_)
           : w == wish::merge_tree ? legal_as<sync::exchange::merge_tree>(codec_)
                                   : legal_as<sync::exchange::reduce_scatter_all_gather>(codec_);
  }
  char const* plan(wish w, compress::bucket const& b, int ranks, std::int64_t step) const override {
    auto const p = chosen(w, b, ranks);
    if constexpr (is_after<Codec>)
      return sync::exchange::name_of(codec_.is_first(step) ? p.first : p.then);
    else
      return sync::exchange::name_of(p);
  }
  comm::traffic cost(wish w, compress::bucket const& b, int ranks, int rank, std::int64_t step) const override {
    return sync::exchange::cost(chosen(w, b, ranks), codec_, b, ranks, rank, step);
  }
#if !defined(DOVETAIL_CODECS_ALONE)
  std::unique_ptr<known_exchange> exchange(wish w, parameter_list const& parameters, std::span<float const> values,
                                           int ranks, int rank) const override {
    if constexpr (traits::wants_error_feedback && may_have_feedback)
      return nullptr;
    else {
      range const whole{0, parameters.flat_size()};
      auto const tensors = sync::tensors_in(parameters, whole);
      return std::make_unique<exchange_of<Codec>>(codec_, chosen(w, {values, tensors}, ranks), parameters, whole,
                                                  values, ranks, rank);
    }
  }
  std::unique_ptr<known_session> session(parameter_list& parameters, std::size_t bucket_bytes,
                                         thread_rank& c) const override {
    if constexpr (traits::wants_error_feedback)
      return nullptr;
    else
      return std::make_unique<session_of<Codec>>(codec_, parameters, bucket_bytes, c);
  }
  comm::traffic predict(parameter_list const& parameters, std::size_t bucket_bytes, int ranks, int rank,
                        std::int64_t step) const override {
    if constexpr (traits::wants_error_feedback)
      return {};
    else
      return all_reduce_of(codec_, bucket_bytes).predict(parameters, ranks, rank, step);
  }
#else
  std::unique_ptr<known_exchange> exchange(wish, parameter_list const&, std::span<float const>, int,
                                           int) const override {
    return nullptr;
  }
  std::unique_ptr<known_session> session(parameter_list&, std::size_t, thread_rank&) const override { return nullptr; }
  comm::traffic predict(parameter_list const&, std::size_t, int, int, std::int64_t) const override { return {}; }
#endif

 private:
  template <class Wish, class C>
  static constexpr bool legal_as(C const&) {
    return std::is_same_v<Wish, sync::exchange::all_reduce>   ? sync::exchange::all_reduce_is_legal<C>
           : std::is_same_v<Wish, sync::exchange::merge_tree> ? sync::exchange::merge_is_legal<C>
                                                              : sync::exchange::reduce_scatter_is_legal<C>;
  }
  template <class Wish, class First, class Then>
  static constexpr bool legal_as(compress::after<First, Then> const& c) {
    return legal_as<Wish>(c.first) && legal_as<Wish>(c.then);
  }
  auto chosen(wish w, compress::bucket const& b, int ranks) const {
    using namespace sync;
    return w == wish::automatic    ? exchange::choose<exchange::automatic>(codec_, b, ranks)
           : w == wish::all_reduce ? exchange::choose<exchange::all_reduce>(codec_, b, ranks)
           : w == wish::all_gather ? exchange::choose<exchange::all_gather>(codec_, b, ranks)
           : w == wish::merge_tree ? exchange::choose<exchange::merge_tree>(codec_, b, ranks)
                                   : exchange::choose<exchange::reduce_scatter_all_gather>(codec_, b, ranks);
  }
  Codec codec_;
};

}  // namespace test
