// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/comm/async.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/batch.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/flat_copy.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/trace.hpp>
#include <dovetail/optim/curvature.hpp>
#include <dovetail/optim/linalg/span_math.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/sync/agreement.hpp>
#include <dovetail/sync/automatic_exchange.hpp>
#include <dovetail/sync/bucket_exchange.hpp>
#include <dovetail/sync/buckets.hpp>
#include <dovetail/sync/encoded_gradients.hpp>
#include <dovetail/sync/exchange.hpp>
#include <dovetail/sync/hierarchical_exchange.hpp>
#include <dovetail/sync/host_groups.hpp>
#include <dovetail/sync/replica.hpp>

namespace dovetail::sync {

template <class Codec, class Exchange>
struct all_reduce;

/// One rank's end of all_reduce. Made by all_reduce::join; refers to the caller's parameter list and communicator,
/// which must outlive it and stay where they are. Not thread-safe: begin, ready and step are called by the thread that
/// computes gradients. From ready(first) on, gradients with flat index >= first are the session's until step returns;
/// then they are the sums over ranks, or, if the step was skipped, unspecified; where the exchange is fused, those of
/// the rank itself.
template <optimizer Optimizer, communicator Communicator, codec Codec, class Exchange>
class all_reduce_session {
  static constexpr bool hierarchical = exchange::is_hierarchical<Exchange>;

 public:
  /// Whether ranks differ in what of `own` they have.
  static constexpr bool owns_unevenly = hierarchical;

  DOVETAIL_COLD all_reduce_session(all_reduce<Codec, Exchange> const& policy, parameter_list& parameters,
                                   Optimizer const& opt, Communicator& comm)
      : replica_(parameters, opt),
        rank_(comm.rank()),
        ranks_(comm.size()),
        seed_(policy.seed),
        measures_(policy.measure_noise) {
    require(!measures_ || ranks_ > 1,
            "sync::all_reduce: measure_noise compares the gradients of several ranks, and there is one: train on more, "
            "or leave it off");
    if constexpr (contributes)
      require(!measures_,
              "sync::all_reduce: measure_noise compares gradients, and this optimizer has ranks add up something else: "
              "leave it off");
    if constexpr (fused)
      require(
          !measures_,
          "sync::all_reduce: measure_noise compares gradients, and with sync::exchange::fused there are none of all "
          "ranks: leave one of them out");
    require(
        !parameters.has_opaque(),
        "sync::all_reduce: some gradients are not in the list but elsewhere, where it cannot add them up: give it a "
        "list with their memory");
    follow_memory();
    if constexpr (hierarchical) groups_.emplace(comm);
    for (auto part : cut_buckets(parameters, policy.bucket_bytes)) {
      auto const values = gradients_.subspan(part.begin, part.size());
      auto const tensors = tensors_in(parameters, part);
      if constexpr (hierarchical) {
        auto const& place = groups_->place();
        auto const plan = exchange::choose<Exchange>(policy.codec, {values, tensors}, place.hosts);
        buckets_.push_back({{policy.codec, plan, parameters, part, values, place, place.lane_of(buckets_.size())}});
      } else {
        auto const plan = exchange::choose<Exchange>(policy.codec, {values, tensors}, comm.size());
        buckets_.push_back({{policy.codec, plan, parameters, part, values, comm.size(), rank_}});
      }
    }
    owner_.emplace(comm, policy.progress);
  }
  all_reduce_session(all_reduce_session const&) = delete;
  all_reduce_session& operator=(all_reduce_session const&) = delete;

  /// Begins a step. What an abandoned one (its backward threw) had exchanged already is waited for, dropped, and taken
  /// back.
  void begin() {
    if (launched_ > 0) ++attempt_;
    for (std::size_t i = 0; i < launched_; ++i) buckets_[i].done.wait();
    launched_ = 0;
    for (auto& b : buckets_) b.exchange.rollback();
    replica_.forget_observed();
  }

  /// Gradients are summed over ranks: each rank weighs its losses by the count of all.
  float gradient_scale(std::int64_t /*local*/, std::int64_t global) const {
    return detail::scale_of_sums(global, "sync::all_reduce");
  }

  /// Gradients with flat index >= first are final. Starts the exchange of every bucket that lies above.
  void ready(std::size_t first) {
    while (launched_ < buckets_.size() && buckets_[launched_].exchange.part().begin >= first) launch();
  }

  /// For gradient_pass::observe: empty unless the optimizer learns from layers' inputs and output gradients.
  std::function<void(kfac_statistics const&)> observer() { return replica_.observer(); }

  /// Collective, between two steps: gives the mean of the ranks' estimates of the Hessian's diagonal (each that of the
  /// mean loss of its own samples, or all the same one) to the optimizer. False, on all ranks, if it is not finite.
  bool observe(optim::hessian_diagonal const& d) requires(optim::optimizer_traits<Optimizer>::needs.curvature) {
    require(
        launched_ == 0,
        "sync::all_reduce: an estimate of the Hessian's diagonal came while gradients are exchanged: give it before "
        "the first ready, or behind step");
    auto const size = replica_.parameters().flat_size();
    require(d.estimate.size() == size, "sync::all_reduce: an estimate of the Hessian's diagonal has ",
            d.estimate.size(), " elements, there are ", size, " parameters");
    std::vector<float> mean(d.estimate.begin(), d.estimate.end());
    detail::next_attempt const next{attempt_};
    behind_buckets("sum estimates of curvature",
                   [&mean](Communicator& c) { c.all_reduce(std::span(mean), comm::reduction::sum); });
    for (float& x : mean) x /= static_cast<float>(ranks_);
    return replica_.observe(optim::hessian_diagonal{mean});
  }

  /// Squared norms of the last step's gradient: this rank's own, and that of all ranks.
  struct squares {
    double own = 0, summed = 0;
  };
  bool measures_noise() const { return measures_; }
  squares const& measured() const { return squares_; }

  /// Waits for the exchange and applies the optimizer to the summed gradients, with what else the context says.
  optim::step_result step(optim::step_context context = {}) {
    if constexpr (contributes)
      require(context.gradient_factor == 1, "sync::all_reduce: a gradient factor of ", context.gradient_factor,
              ": ranks add up what this optimizer makes of gradients, which are taken as they are: put the factor into "
              "gradient_pass::scale");
    ready(0);
    bool finite = true;
    squares_.summed = 0;
    for (std::size_t i = 0; i < launched_; ++i) {
      trace_span const waiting(trace_, "wait for exchange", "sync", rank_);
      buckets_[i].done.wait();
      finite = finite && buckets_[i].finite;
      squares_.summed += buckets_[i].squares;
    }
    launched_ = 0;
    detail::next_attempt const next{attempt_};
    if (!finite) return settled(replica_.skip());
    if constexpr (!fused)
      if (!staging_.empty()) copy_from_flat(staging_.span(), replica_.parameters(), &parameter::gradient);
    auto const& needs = replica_.needs();
    if constexpr (may_need.layers)
      if (needs.layers) add_observed();
    if constexpr (may_need.loss)
      if (needs.loss) add_losses(context);
    // Replicas are equal: what tensorwise stages have to work out, each does a part of.
    if constexpr (may_need.whole_tensors)
      if (needs.whole_tensors)
        context.preconditioning = {
            rank_, ranks_, [this](std::span<float> all, std::span<std::size_t const> first) { gather(all, first); }};
    if constexpr (contributes) context.contributed = true;
    double const factor = static_cast<double>(context.gradient_factor);
    squares_.own *= factor * factor;
    squares_.summed *= factor * factor;
    if constexpr (fused) {
      encoded_.all.clear();
      for (std::size_t i = buckets_.size(); i-- > 0;)  // the last one has the first elements
        encoded_.all.insert(encoded_.all.end(), buckets_[i].encoded.all.begin(), buckets_[i].encoded.all.end());
      return settled(replica_.step(context, trace_, rank_, encoded_.source()));
    } else {
      return settled(replica_.step(context, trace_, rank_));
    }
  }

  DOVETAIL_COLD std::vector<named_tensor> replicated(std::string const& prefix) {
    DOVETAIL_REQUIRE(!optim::optimizer_traits<Optimizer>::steps_together,
                     "has its state divided among ranks, so it is not what every rank would save: step it in a loop "
                     "of your own, and save what its gathered() returns",
                     Optimizer);
    auto all = replica_.state().tensors(prefix + "optimizer.");
    if constexpr (compress::codec_traits<Codec>::takes_context) {
      all.push_back(make_named_count(prefix + "exchange.steps", steps_));
      all.push_back(make_named_tensor(prefix + "exchange.rate", rate_));
    }
    return all;
  }
  DOVETAIL_COLD std::vector<named_tensor> own(std::string const& prefix) {
    take_back();
    std::vector<named_tensor> all;
    for (std::size_t i = 0; i < buckets_.size(); ++i)
      for (auto& t : buckets_[i].exchange.tensors(prefix + "bucket" + std::to_string(i) + "."))
        all.push_back(std::move(t));
    return all;
  }

  /// Whether the last step broke off inside of the optimizer, which itself exchanges something (what ranks divide among
  /// them): weights and state are those of no step.
  bool half_made() const { return replica_.half_made(); }

  /// Records the exchange of every bucket and every step from now on; nullptr stops it.
  void record(trace* to) { trace_ = to; }
  std::size_t bucket_count() const { return buckets_.size(); }
  /// Under sync::exchange::hierarchical that among hosts; of a bucket that another rank of the host exchanges with
  /// them, and of every one where there is one host: all_reduce.
  exchange::plan plan_of(std::size_t bucket) const { return buckets_[bucket].exchange.plan(); }
  /// Between two steps: what has been moved beside the communicator that it was joined with, on those that
  /// sync::exchange::hierarchical made of it. Without that, nothing.
  comm::traffic traffic() const {
    if constexpr (hierarchical)
      return groups_->traffic();
    else
      return {};
  }

 private:
  static constexpr bool fused = exchange::is_fused<Exchange>;
  using encoded_type = detail::encoded_gradients<Codec, fused>;
  struct no_groups {};
  using groups_type = std::conditional_t<hierarchical, std::optional<detail::host_groups<Communicator>>, no_groups>;
  struct bucket_slot {
    std::conditional_t<hierarchical, detail::hierarchical_exchange<Codec>, bucket_exchange<Codec>> exchange;
    bool finite = true;
    double squares = 0;
    comm::ticket done{};
    encoded_type encoded{};
  };

  /// Of a step that was not finished codecs keep nothing: what is listed is that of the last one, and may be replaced.
  DOVETAIL_COLD void take_back() {
    for (std::size_t i = 0; i < launched_; ++i) try {
        buckets_[i].done.wait();
      } catch (std::exception const&) {
        continue;  // begin() says it
      }
    for (auto& b : buckets_) b.exchange.rollback();
  }
  /// Codecs keep what they have of a step that was made, and of another one nothing.
  optim::step_result settled(optim::step_result const& r) {
    ++steps_;
    if (!r.skipped) rate_ = r.lr;
    for (auto& b : buckets_) r.skipped ? b.exchange.rollback() : b.exchange.commit();
    return r;
  }
  /// Where the gradients are now: the list may have been given other memory (parameter_list::rebind) between two steps.
  void follow_memory() {
    auto const& parameters = replica_.parameters();
    gradients_ = parameters.flat_gradients();
    if (!gradients_.empty()) {
      staging_ = {};
    } else {  // scattered tensors are exchanged through a copy
      if (staging_.size() != parameters.flat_size()) staging_ = buffer<float>(parameters.flat_size());
      gradients_ = staging_.span();
    }
  }
  void launch() {
    if (launched_ == 0) {
      squares_.own = 0;
      follow_memory();
    }
    auto const bucket = static_cast<std::int64_t>(launched_);
    auto& slot = buckets_[launched_++];
    auto const part = slot.exchange.part();
    if (!staging_.empty()) copy_to_flat(replica_.parameters(), &parameter::gradient, staging_.span(), part);
    if (measures_) squares_.own += optim::sum_of_squares(gradients_.subspan(part.begin, part.size()));
    if constexpr (contributes) replica_.contribute(part.begin, gradients_.subspan(part.begin, part.size()), ranks_);
    comm::subject const about{attempt_, bucket};
    if constexpr (hierarchical) {
      launch_sum(slot, about);
      // A lane for each: those of a host work at once. The last ones may be fewer.
      auto const lanes = static_cast<std::size_t>(groups_->place().lanes);
      if (launched_ % lanes == 0 || launched_ == buckets_.size()) launch_between((launched_ - 1) / lanes * lanes);
    } else {
      slot.done = owner_->submit([this, &slot, part, about](Communicator& c) {
        trace_span const exchanging(trace_, "exchange bucket", "comm", rank_,
                                    slot.exchange.predicted(steps_).bytes_sent);
        auto const values = gradients_.subspan(part.begin, part.size());
        if constexpr (fused) {
          detail::with_subject(c, about, [&] { slot.exchange.run_encoded(c, values, when_of(about)); });
          slot.encoded.take(slot.exchange);
          slot.finite = slot.encoded.all_finite(part);
        } else {
          detail::with_subject(c, about, [&] { slot.exchange.run(c, values, when_of(about)); });
          look_at(slot, values);
        }
      });
    }
  }
  compress::context when_of(comm::subject const& about) const {
    return {.step = steps_, .seed = seed_, .bucket = static_cast<int>(about.bucket), .rate = rate_};
  }
  void look_at(bucket_slot& slot, std::span<float const> sums) const {
    slot.finite = all_finite(sums);
    if (measures_) slot.squares = optim::sum_of_squares(sums);
  }
  /// One bucket's sum inside of this host.
  void launch_sum(bucket_slot& slot, comm::subject const& about) requires(hierarchical) {
    slot.done = owner_->submit([this, &slot, about](Communicator& c) {
      trace_span const summing(trace_, "sum inside of host", "comm", rank_);
      auto const part = slot.exchange.part();
      groups_->run(c, [&] {
        groups_->meet(c, about);
        slot.exchange.sum(*groups_, gradients_.subspan(part.begin, part.size()), about);
      });
    });
  }
  /// The exchange between hosts of the buckets from `first` on that have been launched, and back.
  void launch_between(std::size_t first) requires(hierarchical) {
    auto const done = owner_->submit([this, first, end = launched_, attempt = attempt_](Communicator& c) {
      auto const each = [&](auto const& f) {
        for (std::size_t i = first; i < end; ++i) {
          auto& slot = buckets_[i];
          auto const part = slot.exchange.part();
          f(slot, gradients_.subspan(part.begin, part.size()), comm::subject{attempt, static_cast<std::int64_t>(i)});
        }
      };
      groups_->run(c, [&] {
        each([&](bucket_slot& slot, std::span<float> values, comm::subject const& about) {
          if (!slot.exchange.is_here()) return;
          trace_span const exchanging(trace_, "exchange bucket", "comm", rank_,
                                      slot.exchange.predicted(steps_).sent_off_host);
          slot.exchange.between(*groups_, values, when_of(about), about);
        });
        each([&](bucket_slot& slot, std::span<float> values, comm::subject const& about) {
          trace_span const sharing(trace_, "share inside of host", "comm", rank_);
          slot.exchange.share(*groups_, values, about);
          look_at(slot, values);
        });
      });
    });
    for (std::size_t i = first; i < launched_; ++i) buckets_[i].done = done;
  }
  static constexpr bool contributes = optim::optimizer_traits<Optimizer>::contributes;
  DOVETAIL_REQUIRE((!fused || !contributes),
                   "has ranks add up something else than gradients, which sync::exchange::fused cannot: leave it out",
                   Optimizer);
  DOVETAIL_REQUIRE((!hierarchical || !exchange::is_fused<exchange::among_payloads<Exchange>>),
                   "cannot be decoded by the step under sync::exchange::hierarchical, where most ranks get the sum and "
                   "no payloads: leave fused out",
                   Codec);
  DOVETAIL_REQUIRE((encoded_type::template is_taken_by<Optimizer>),
                   "takes no gradient source, which sync::exchange::fused gives it: leave fused out", Optimizer);
  static constexpr optim::rule_needs may_need = optim::optimizer_traits<Optimizer>::needs;
  /// f(communicator) on the owner's thread, as what a step exchanges when its buckets are through. Waits.
  template <class F>
  void behind_buckets(char const* what, F const& f, std::uint64_t bytes = 0) {
    auto done = owner_->submit([this, what, &f, bytes](Communicator& c) {
      trace_span const exchanging(trace_, what, "comm", rank_, bytes);
      detail::with_subject(c, {attempt_, static_cast<std::int64_t>(buckets_.size())}, [&] { f(c); });
    });
    done.wait();
  }
  /// Adds up what the ranks have observed.
  void add_observed() requires(may_need.layers) {
    auto sums = replica_.unreduced_statistics();
    behind_buckets("sum what layers showed", [&sums](Communicator& c) {
      for (auto const s : sums) c.all_reduce(s, comm::reduction::sum);
    });
  }
  /// Makes of this rank's share of the loss that of all ranks.
  void add_losses(optim::step_context& context) requires(may_need.loss) {
    auto const loss = detail::share_of_loss(context, "sync::all_reduce");
    behind_buckets("sum losses", [loss](Communicator& c) { c.all_reduce(loss, comm::reduction::sum); });
  }
  /// What one rank has of `all`, for all of them (optim::distributed_preconditioning).
  void gather(std::span<float> all, std::span<std::size_t const> first) requires(may_need.whole_tensors) {
    auto const r = static_cast<std::size_t>(rank_);
    auto const own = std::as_bytes(std::span<float const>(all).subspan(first[r], first[r + 1] - first[r]));
    behind_buckets(
        "gather optimizer's work",
        [&](Communicator& c) {
          std::vector<std::byte> parts;
          c.all_gather_v(own, parts);
          require(parts.size() == all.size_bytes(),
                  "sync::all_reduce: the ranks divided the optimizer's work differently: ",
                  "their parameters or hyperparameters are not the same");
          std::copy(parts.begin(), parts.end(), std::as_writable_bytes(all).begin());
        },
        own.size());
  }

  replica<Optimizer> replica_;
  std::span<float> gradients_;
  buffer<float> staging_;
  std::vector<bucket_slot> buckets_;
  std::size_t launched_ = 0;
  std::int64_t attempt_ = 0;  ///< steps that were made or abandoned: what exchanges say that they are of
  int rank_ = 0, ranks_ = 1;
  std::uint64_t seed_ = 0;
  std::int64_t steps_ = 0;  ///< made or skipped: what codecs are told, and what is saved where they ask
  float rate_ = 0;          ///< of the last step that was made
  bool measures_ = false;
  squares squares_;
  encoded_type encoded_;  ///< of all buckets
  groups_type groups_;
  trace* trace_ = nullptr;
  // Last, so that it is destroyed first: its thread still works on the members above.
  std::optional<comm::async<Communicator>> owner_;
};

}  // namespace dovetail::sync
