// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <dovetail/comm/operation.hpp>
#include <dovetail/compress/automatic.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/sync/bucket_exchange.hpp>
#include <dovetail/sync/buckets.hpp>
#include <dovetail/sync/exchange.hpp>

namespace dovetail::sync {
namespace exchange {

/// The plans of compress::automatic's candidates, of which the first is to send gradients as they are.
template <std::size_t N>
struct candidate_plans {
  std::array<plan, N> each{};
};

template <class Wish, class... Cs>
struct check_legal<fused<Wish>, compress::automatic<Cs...>> {
  DOVETAIL_REQUIRE((sizeof(compress::automatic<Cs...>) == 0),
                   "is exchanged by parts, which the optimizer cannot decode: leave sync::exchange::fused out",
                   compress::automatic<Cs...>);
  static constexpr bool holds = false;
};
template <class Codec>
inline constexpr bool changes_later = false;
template <class First, class Then>
inline constexpr bool changes_later<compress::after<First, Then>> = true;
template <class... Cs>
inline constexpr bool decides_itself<compress::automatic<Cs...>> = true;
template <class Wish, class... Cs>
struct check_legal<Wish, compress::automatic<Cs...>> {
  DOVETAIL_REQUIRE((!(changes_later<Cs> || ...) && !(decides_itself<Cs> || ...)),
                   "compares candidates in one step, and one of them is another codec in another step "
                   "(compress::after, compress::automatic): name the codecs themselves",
                   compress::automatic<Cs...>);
  static constexpr bool holds = (check_legal<Wish, Cs>::holds && ...);
};

/// Dense gradients go by all_reduce, candidates by the plan that is meant for each.
template <class Wish, class... Cs>
constexpr candidate_plans<1 + sizeof...(Cs)> choose(compress::automatic<Cs...> const& codec, compress::bucket const& b,
                                                    int ranks) {
  return std::apply(
      [&](auto const&... c) {
        return candidate_plans<1 + sizeof...(Cs)>{{plan::all_reduce, choose<Wish>(c, b, ranks)...}};
      },
      codec.candidates);
}

/// The most that a step costs once a bucket has decided: of the first step, in which all candidates are tried, and of
/// those that try again, bucket_exchange says what it was.
template <std::size_t N, class... Cs>
constexpr comm::traffic cost(candidate_plans<N> const& plans, compress::automatic<Cs...> const& codec,
                             compress::bucket const& b, int ranks, int rank, std::int64_t /*step*/ = 0) {
  comm::traffic most = cost(plan::all_reduce, compress::identity{}, b, ranks, rank);
  std::size_t i = 1;
  std::apply(
      [&](auto const&... c) {
        auto const take = [&](comm::traffic const& t) {
          most = {std::max(most.bytes_sent, t.bytes_sent), std::max(most.bytes_received, t.bytes_received),
                  std::max(most.operations, t.operations)};
        };
        (take(cost(plans.each[i++], c, b, ranks, rank)), ...);
      },
      codec.candidates);
  return most;
}

}  // namespace exchange

/// One exchange for each candidate, and what decides which one runs.
template <codec... Cs>
class bucket_exchange<compress::automatic<Cs...>> {
  static constexpr std::size_t count = 1 + sizeof...(Cs);
  using codec_type = compress::automatic<Cs...>;

 public:
  /// What one candidate takes, as the slowest rank has it.
  struct measured {
    std::string name;
    double seconds = 0;        ///< of an exchange
    double codec_seconds = 0;  ///< of these, encoding and decoding
    std::uint64_t bytes = 0;   ///< that a rank sends
    double break_even = 0;     ///< bytes a second of a link on which it takes as long as dense gradients do
  };

  DOVETAIL_COLD bucket_exchange(codec_type const& codec, exchange::candidate_plans<count> plans,
                                parameter_list const& parameters, range part, std::span<float const> values, int ranks,
                                int rank)
      : bucket_exchange(codec, plans, parameters, part, values, ranks, rank,
                        std::make_index_sequence<sizeof...(Cs)>{}) {}

  range part() const { return std::get<0>(exchanges_).part(); }
  exchange::plan plan() const {
    return with_picked([](auto const& e) { return e.plan(); });
  }
  /// Of a step after the decision; before it, the most that any candidate takes.
  comm::traffic predicted(std::int64_t step = 0) const {
    if (!has_picked()) return most_;
    return with_picked([&](auto const& e) { return e.predicted(step); });
  }
  /// The candidate that is used: 0 for dense gradients, −1 before the first run.
  int picked() const { return static_cast<int>(pick_); }
  /// The last measurement.
  std::vector<measured> const& times() const { return times_; }
  /// What measurements have moved so far, beside the exchanges themselves.
  comm::traffic spent() const { return spent_; }

  template <communicator C>
  void run(C& c, std::span<float> values, compress::context const& when = {}) {
    bool const again = codec_.options.every > 0 && when.step > 0 && when.step % codec_.options.every == 0;
    before_ = pick_;
    open_ = true;
    if (!has_picked() || again) decide(c, values, when);
    std::size_t i = 0;
    std::apply(
        [&](auto&... e) { ((static_cast<std::int64_t>(i++) == pick_ ? e.run(c, values, when) : e.commit()), ...); },
        exchanges_);
  }
  void commit() {
    std::apply([](auto&... e) { (e.commit(), ...); }, exchanges_);
    open_ = false;
  }
  /// Also what was decided: gradients that are not finite may take another time than others.
  void rollback() {
    std::apply([](auto&... e) { (e.rollback(), ...); }, exchanges_);
    if (std::exchange(open_, false)) pick_ = before_;
  }
  DOVETAIL_COLD std::vector<named_tensor> tensors(std::string const& prefix) {
    std::vector<named_tensor> all{make_named_tensor(prefix + "picked", pick_)};
    std::size_t i = 0;
    std::apply(
        [&](auto&... e) {
          auto const add = [&](std::vector<named_tensor> list) {
            for (auto& t : list) all.push_back(std::move(t));
          };
          (add(e.tensors(message(prefix, "candidate", i++, '.'))), ...);
        },
        exchanges_);
    return all;
  }

 private:
  template <std::size_t... I>
  bucket_exchange(codec_type const& codec, exchange::candidate_plans<count> const& plans,
                  parameter_list const& parameters, range part, std::span<float const> values, int ranks, int rank,
                  std::index_sequence<I...>)
      : codec_(codec),
        rank_(rank),
        ranks_(ranks),
        tensors_(tensors_in(parameters, part)),
        most_(exchange::cost(plans, codec, compress::bucket{values, tensors_}, ranks, rank)),
        exchanges_(bucket_exchange<compress::identity>(compress::identity{}, plans.each[0], parameters, part, values,
                                                       ranks, rank),
                   bucket_exchange<Cs>(std::get<I>(codec.candidates), plans.each[I + 1], parameters, part, values,
                                       ranks, rank)...) {
    check_policy(codec.options);
  }

  /// Not before the first run, and not with the number of a candidate that a saved run had and this one has not.
  bool has_picked() const { return pick_ >= 0 && pick_ < static_cast<std::int64_t>(count); }
  template <class F>
  auto with_picked(F f) const {
    using result = decltype(f(std::get<0>(exchanges_)));
    result found = f(std::get<0>(exchanges_));
    std::size_t i = 0;
    std::apply(
        [&](auto const&... e) { ((static_cast<std::int64_t>(i++) == pick_ ? void(found = f(e)) : void()), ...); },
        exchanges_);
    return found;
  }
  template <class Work>
  static double seconds_of(Work const& work) {
    auto const begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  static double median(std::vector<double> x) {
    std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
    return x[x.size() / 2];
  }

  /// Collective: measures all candidates and picks the one of the least time.
  template <communicator C>
  DOVETAIL_COLD void decide(C& c, std::span<float> values, compress::context const& when) {
    auto const before = c.traffic();
    std::vector<float> copy(values.size());
    std::vector<double> seconds;
    std::vector<std::uint64_t> bytes;
    std::apply(
        [&](auto&... e) {
          auto const measure = [&](auto& candidate) {
            std::vector<double> trials;
            for (int t = 0; t <= codec_.options.trials; ++t) {
              std::copy(values.begin(), values.end(), copy.begin());
              c.barrier();
              double const s = seconds_of([&] { candidate.run(c, copy, when); });
              candidate.rollback();
              if (t > 0) trials.push_back(s);
            }
            seconds.push_back(median(std::move(trials)));
            bytes.push_back(candidate.predicted(when.step).bytes_sent);
          };
          (measure(e), ...);
        },
        exchanges_);
    std::apply(
        [&](auto const&... one) {
          seconds.push_back(0);  // of coding dense gradients
          (seconds.push_back(coding_seconds(one, values, when)), ...);
        },
        codec_.candidates);
    c.all_reduce(std::span<double>(seconds), comm::reduction::max);
    spent_ = spent_ + (c.traffic() - before);

    times_.clear();
    std::size_t fastest = 0;
    for (std::size_t i = 0; i < count; ++i) {
      measured m{i == 0 ? "dense" : candidate_name(i - 1), seconds[i], seconds[count + i], bytes[i], 0};
      if (m.codec_seconds > 0 && bytes[0] > bytes[i])
        m.break_even = static_cast<double>(bytes[0] - bytes[i]) / m.codec_seconds;
      times_.push_back(std::move(m));
      if (seconds[i] < seconds[fastest]) fastest = i;
    }
    auto const used = static_cast<std::size_t>(has_picked() ? pick_ : 0);
    bool const changes = seconds[fastest] < (1 - static_cast<double>(codec_.options.margin)) * seconds[used];
    std::int64_t const next = static_cast<std::int64_t>(changes ? fastest : used);
    if (codec_.options.log && rank_ == 0) explain(when, used, fastest, next);
    pick_ = next;
  }
  /// What encoding and decoding take of an exchange, without the wire: each payload of this bucket that a rank makes or
  /// reads. A state of its own, so that nothing is left of it.
  template <class Codec>
  double coding_seconds(Codec const& codec, std::span<float const> values, compress::context where) const {
    compress::bucket const b{values, tensors_};
    where.rank = rank_;
    where.ranks = ranks_;
    auto state = compress::init(codec, b, where);
    std::vector<std::byte> payload;
    std::vector<double> trials;
    std::vector<float> out(values.size());
    bool const gathers = !exchange::all_reduce_is_legal<Codec> && !exchange::reduce_scatter_is_legal<Codec>;
    for (int t = 0; t <= codec_.options.trials; ++t) {
      double const s = seconds_of([&] {
        std::size_t bytes = 0;
        for (int round = 0; round < compress::rounds_of<Codec>; ++round) {
          where.round = round;
          payload.resize(compress::wire_size(codec, b, round));
          bytes = compress::encode(codec, b, state, payload, where);
          if constexpr (compress::rounds_of < Codec >> 1)
            if (round + 1 < compress::rounds_of<Codec>)
              codec.absorb(std::span<std::byte const>(payload).first(bytes), state, where);
        }
        // In two phases a rank decodes as much as the bucket twice, and encodes a share of it again.
        int const payloads = gathers ? ranks_ : exchange::all_reduce_is_legal<Codec> ? 1 : 2;
        for (int i = 0; i < payloads; ++i)
          compress::decode_add(codec, std::span<std::byte const>(payload).first(bytes), std::span<float>(out), 1.0f,
                               state, where);
      });
      if (t > 0) trials.push_back(s);
    }
    return median(std::move(trials));
  }
  std::string candidate_name(std::size_t i) const {
    std::string found;
    std::size_t at = 0;
    std::apply([&](auto const&... c) { ((at++ == i ? void(found = compress::name_of(c)) : void()), ...); },
               codec_.candidates);
    return found;
  }
  DOVETAIL_COLD void explain(compress::context const& when, std::size_t used, std::size_t fastest,
                             std::int64_t next) const {
    std::ostream& to = *codec_.options.log;
    to << message("step ", when.step, ", bucket ", when.bucket, " of ", part().size(),
                  " elements: ", times_[static_cast<std::size_t>(next)].name);
    if (fastest != static_cast<std::size_t>(next))
      to << message(" stays: ", times_[fastest].name, " is not faster by ", 100 * codec_.options.margin, " %");
    else if (has_picked() && fastest != used)
      to << message(" instead of ", times_[used].name);
    to << '\n';
    for (auto const& m : times_) {
      to << message("  ", m.name, ": ", 1e3 * m.seconds, " ms, ", m.bytes, " bytes sent");
      if (m.codec_seconds > 0) to << message(", ", 1e3 * m.codec_seconds, " ms of it coding");
      if (m.break_even > 0) to << message(", pays below ", 1e-9 * m.break_even, " GB/s");
      to << '\n';
    }
    to.flush();
  }

  codec_type codec_;
  int rank_, ranks_;
  std::vector<compress::bucket_tensor> tensors_;
  comm::traffic most_;
  std::int64_t pick_ = -1, before_ = -1;  ///< before the last run
  bool open_ = false;                     ///< whether that can be taken back
  comm::traffic spent_;
  std::vector<measured> times_;
  std::tuple<bucket_exchange<compress::identity>, bucket_exchange<Cs>...> exchanges_;
};

}  // namespace dovetail::sync
