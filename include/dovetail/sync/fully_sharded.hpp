// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <dovetail/comm/async.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/volume.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/core/trace.hpp>
#include <dovetail/optim/optimizer_traits.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/sync/agreement.hpp>
#include <dovetail/sync/buckets.hpp>
#include <dovetail/sync/hyperparameters.hpp>
#include <dovetail/sync/replica.hpp>

namespace dovetail::sync {

namespace detail {

/// Gives the whole pages of an array, of memory that the process has for itself, back to the system: they read as zeros
/// until they are written. False where that is not possible.
DOVETAIL_COLD inline bool give_back_pages(std::span<float> x) {
#if defined(__linux__)
  auto const page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  auto const begin = reinterpret_cast<std::uintptr_t>(x.data());
  auto const from = (begin + page - 1) / page * page, to = (begin + x.size_bytes()) / page * page;
  if (from >= to) return true;
  return madvise(reinterpret_cast<std::byte*>(x.data()) + (from - begin), to - from, MADV_DONTNEED) == 0;
#else
  static_cast<void>(x);
  return false;
#endif
}

inline bool overlap(range a, range b) { return a.begin < b.end && b.begin < a.end; }

}  // namespace detail

template <optimizer Optimizer, communicator Communicator>
class fully_sharded_session;

/// Synchronous data parallelism in which weights, gradients and optimizer state are divided among ranks (Rajbhandari et
/// al., ZeRO, SC 2020, stage 3; PyTorch's FSDP). Each bucket of tensors is cut in size() equal shards. A rank keeps its
/// shards; the rest of a bucket's weights is there from `acquire` on, around the forward and the backward pass of the
/// layers that it is of, until it is released and others are acquired; of gradients a rank gets the sum of its shards.
/// Memory of what is not there is given back to the system. The steps are those of sync::all_reduce, of elementwise
/// rules to the last bit.
///
///     sync::fully_sharded{}
///
/// The model must ask for its weights (gradient_pass::acquire, model_traits' `acquires`), as nn's networks do; the
/// parameters lie in one block, as an arena has them. Optimizers work on parts of tensors: elementwise ones, and those
/// that need sums over tensors or over all. Between finish() and the next begin() all ranks have all weights.
///
/// Errors: argument_error from join as sync::all_reduce's, and if tensors lie apart from each other; from ready() and
/// step() for weights that nobody has asked for.
struct fully_sharded {
  std::size_t bucket_bytes = 64u << 10;  ///< of weights, at least: what is gathered at once
  bool give_back_memory = true;  ///< false: weights that are not there are NaN, which shows a model that reads them
  bool check_equal = false;      ///< join compares all ranks' starting weights, bit for bit, and hyperparameters
  comm::progress progress{};     ///< see sync::all_reduce

  template <optimizer Optimizer, communicator Communicator>
  auto join(parameter_list& parameters, Optimizer const& opt, Communicator& comm) const {
    using traits = optim::optimizer_traits<Optimizer>;
    DOVETAIL_REQUIRE(
        !traits::needs.whole_tensors && !traits::needs.layers && !traits::needs.curvature && !traits::steps_together &&
            !traits::contributes && traits::division_block == 1,
        "needs more than parts of tensors and their gradients (whole tensors or blocks of them, layers, "
        "curvature, or another exchange), and sync::fully_sharded has no rank with more: use sync::all_reduce",
        Optimizer);
    require_same_list(parameters, comm, "sync::fully_sharded");
    if (check_equal) {
      require_equal_weights(parameters, comm, "sync::fully_sharded");
      require_equal_hyperparameters(hyperparameters_of(opt), comm, "sync::fully_sharded");
    }
    return fully_sharded_session<Optimizer, Communicator>(*this, parameters, opt, comm);
  }
  template <class T, class Space, class Optimizer, class Communicator>
  requires detail::other_list<basic_parameter_list<T, Space>>
  auto join(basic_parameter_list<T, Space>&, Optimizer const&, Communicator&) const {
    static_assert(detail::refuse_list<basic_parameter_list<T, Space>>());
  }

  /// What weights and gradients of one step move on rank `rank` of `ranks`: equal to what the communicator counts. The
  /// model asks for these ranges of flat indices one after another in forward, and the other way round in backward (of
  /// an nn network: each layer's); none: for each bucket by itself. What ranks agree on besides (whether gradients are
  /// finite, sums) is not in it.
  DOVETAIL_COLD comm::traffic predict(parameter_list const& parameters, int ranks, int rank,
                                      std::vector<range> asked = {}, int micro_batches = 1) const {
    auto const parts = cut_buckets(parameters, bucket_bytes);
    if (asked.empty()) asked.assign(parts.rbegin(), parts.rend());
    std::vector<char> here(parts.size());
    comm::traffic total;
    auto const add = [&](comm::operation op, range part) {
      total = total + comm::volume_of({op, dtype::f32, comm::reduction::sum, -1, part.size()}, ranks, rank);
    };
    auto const ask = [&](range wanted) {
      if (wanted.empty()) return;
      for (std::size_t i = 0; i < parts.size(); ++i) {
        bool const is_wanted = detail::overlap(parts[i], wanted);
        if (is_wanted && !here[i]) add(comm::operation::all_gather, parts[i]);
        here[i] = is_wanted;
      }
    };
    for (int m = 0; m < micro_batches; ++m) {
      std::for_each(asked.begin(), asked.end(), ask);
      std::for_each(asked.rbegin(), asked.rend(), ask);
    }
    for (auto const& part : parts) add(comm::operation::reduce_scatter, part);  // the gradients
    return total;
  }
};

/// One rank's end of fully_sharded. Made by fully_sharded::join; refers to the caller's parameter list and
/// communicator, which must outlive it and stay where they are. Not thread-safe. Its end leaves each rank with its
/// shards: call finish() before, for whole weights.
template <optimizer Optimizer, communicator Communicator>
class fully_sharded_session {
 public:
  DOVETAIL_COLD fully_sharded_session(fully_sharded const& policy, parameter_list& parameters, Optimizer const& opt,
                                      Communicator& comm)
      : whole_(&parameters),
        rank_(comm.rank()),
        ranks_(comm.size()),
        gives_back_(policy.give_back_memory),
        buckets_(buckets_of(parameters, policy.bucket_bytes, rank_, ranks_)),
        own_(own_parts(parameters, buckets_)),
        replica_(own_, opt) {
    check_flat(parameters);
    weights_ = parameters.flat_weights().data();
    gradients_ = parameters.flat_gradients().data();
    owner_.emplace(comm, policy.progress);
  }
  fully_sharded_session(fully_sharded_session const&) = delete;
  fully_sharded_session& operator=(fully_sharded_session const&) = delete;

  /// Begins a step: what is not this rank's goes. What an abandoned one had begun is waited for.
  void begin() {
    if (exchanged_) ++attempt_;
    exchanged_ = false;
    wait_for_launched();
    follow_memory();
    for (auto& b : buckets_) {
      b.users = 0;
      b.was_here = false;
      if (b.here) drop(b);
    }
  }
  /// Gradients are summed over ranks: each rank weighs its losses by the count of all.
  float gradient_scale(std::int64_t /*local*/, std::int64_t global) const {
    return detail::scale_of_sums(global, "sync::fully_sharded");
  }

  /// For gradient_pass::acquire: collective; returns when the weights of this range of flat indices are there.
  void acquire(range wanted) {
    if (wanted.empty()) return;
    comm::ticket last;
    for (auto& b : buckets_)  // those that nobody uses stayed, because the next layer might
      if (b.here && b.users == 0 && !detail::overlap(b.part, wanted)) drop(b);
    for (std::size_t i = buckets_.size(); i-- > 0;) {  // as forward comes by
      auto& b = buckets_[i];
      if (!detail::overlap(b.part, wanted)) continue;
      ++b.users;
      b.was_here = true;
      if (!std::exchange(b.here, true)) last = gather(i);
    }
    last.wait();
  }
  /// For gradient_pass::release: this user is done with them. They go when others are asked for, or with the step.
  void release(range wanted) {
    for (auto& b : buckets_)
      if (detail::overlap(b.part, wanted) && b.users > 0) --b.users;
  }
  /// Gradients with flat index >= first are final: starts the sums of every bucket that lies above.
  void ready(std::size_t first) {
    while (launched_ < buckets_.size() && buckets_[launched_].part.begin >= first) launch();
  }

  /// Waits for this rank's sums and applies the optimizer to its shards, with what else the context says.
  optim::step_result step(optim::step_context context = {}) {
    ready(0);
    wait_for_launched();
    exchanged_ = false;
    detail::next_attempt const next{attempt_};
    for (auto& b : buckets_)  // the others' shards are about to change
      if (b.here) drop(b);
    bool finite = true;
    for (auto const& p : own_) finite = finite && all_finite(p.gradient);
    double bad = finite ? 0 : 1;
    sum("agree on finite gradients", std::span<double>(&bad, 1));
    if (bad > 0) return replica_.skip();
    if constexpr (optim::optimizer_traits<Optimizer>::needs.loss)
      if (replica_.needs().loss) sum("sum losses", detail::share_of_loss(context, "sync::fully_sharded"));
    if (ranks_ > 1) context.all_reduce_sums = [this](std::span<double> sums) { sum("sum over shards", sums); };
    return replica_.step(context, trace_, rank_);
  }

  /// Collective: all ranks get all weights, until the next begin().
  DOVETAIL_COLD void finish() {
    wait_for_launched();
    comm::ticket last;
    for (std::size_t i = 0; i < buckets_.size(); ++i)
      if (!std::exchange(buckets_[i].here, true)) last = gather(i);
    last.wait();
    ++attempt_;
    exchanged_ = false;
  }

  DOVETAIL_COLD std::vector<named_tensor> replicated(std::string const&) { return {}; }
  /// The optimizer's state of this rank's shards, by tensor and first element (state_kind::sharded).
  DOVETAIL_COLD std::vector<named_tensor> own(std::string const& prefix) {
    auto all = replica_.state().tensors("");
    for (auto& t : all) {
      // Numbers of one for all, or one a tensor, are the same on all ranks; of what else it has nothing is known.
      if (t.shape.rank != 0) t.kind = state_kind::own;
      for (std::size_t i = 0; i < own_.size(); ++i)
        if (t.type == dtype::f32 && t.shape == own_[i].shape &&
            std::string_view(t.name).substr(0, t.name.rfind('.')) == own_[i].name) {
          t.kind = state_kind::sharded;
          t.name += '@' + std::to_string(own_[i].first);
          break;
        }
      t.name = prefix + "optimizer." + t.name;
    }
    return all;
  }

  /// Records what is gathered, what is summed, and every step from now on; nullptr stops it.
  void record(trace* to) { trace_ = to; }
  std::size_t bucket_count() const { return buckets_.size(); }

 private:
  struct bucket {
    range part, own;        // of flat indices
    int users = 0;          // that have acquired it and not released it yet
    bool here = true;       // all of its weights
    bool was_here = false;  // in this step
    comm::ticket summed{};
  };

  static std::vector<bucket> buckets_of(parameter_list const& parameters, std::size_t bytes, int rank, int ranks) {
    std::vector<bucket> all;
    for (auto const part : cut_buckets(parameters, bytes)) {
      auto const own = dovetail::shard(part.size(), ranks, rank);
      all.push_back({part, {part.begin + own.begin, part.begin + own.end}});
    }
    return all;
  }
  /// Every tensor, as far as this rank has it.
  static parameter_list own_parts(parameter_list const& all, std::vector<bucket> const& buckets) {
    parameter_list list;
    for (std::size_t i = 0; i < all.size(); ++i) {
      range const tensor{all.offset(i), all.offset(i) + all[i].size()};
      range mine{0, 0};
      for (auto const& b : buckets)
        if (b.part.begin <= tensor.begin && tensor.end <= b.part.end && !tensor.empty()) {
          auto const in = [&](std::size_t x) { return std::clamp(x, tensor.begin, tensor.end) - tensor.begin; };
          mine = {in(b.own.begin), in(b.own.end)};
        }
      list.add_part(all[i], mine);
    }
    return list;
  }
  std::string name_at(std::size_t element) const {
    std::size_t i = 0;
    while (i + 1 < whole_->size() && whole_->offset(i + 1) <= element) ++i;
    return (*whole_)[i].name;
  }
  std::span<float> weights(range r) const { return whole_->flat_weights().subspan(r.begin, r.size()); }
  std::span<float> gradients(range r) const { return whole_->flat_gradients().subspan(r.begin, r.size()); }

  template <class F>
  comm::ticket submit(char const* what, std::int64_t of, std::uint64_t bytes, F f) {
    exchanged_ = true;
    return owner_->submit([this, what, bytes, f, about = comm::subject{attempt_, of}](Communicator& c) {
      trace_span const exchanging(trace_, what, "comm", rank_, bytes);
      detail::with_subject(c, about, [&] { f(c); });
    });
  }
  comm::ticket gather(std::size_t i) {
    auto const& b = buckets_[i];
    return submit("gather weights", static_cast<std::int64_t>(i), b.own.size() * sizeof(float),
                  [all = weights(b.part)](Communicator& c) { c.all_gather(all); });
  }
  [[noreturn]] DOVETAIL_COLD void refuse_unasked(bucket const& b) const {
    throw argument_error(message(
        "sync::fully_sharded: the model has gradients of '", name_at(b.part.begin),
        "' and did not ask for its weights in this step: it calls gradient_pass::acquire and release around what reads "
        "them, as nn's networks do (session.acquire and session.release in a loop of your own)"));
  }
  void launch() {
    auto& b = buckets_[launched_];
    if (!b.was_here) [[unlikely]]
      refuse_unasked(b);
    b.summed = submit("sum gradients", static_cast<std::int64_t>(launched_), (b.part.size() - b.own.size()) * 4,
                      [this, &b](Communicator& c) {
                        c.reduce_scatter(gradients(b.part));
                        forget(gradients({b.part.begin, b.own.begin}));
                        forget(gradients({b.own.end, b.part.end}));
                      });
    ++launched_;
  }
  /// The list may have been given other memory (parameter_list::rebind) between two steps.
  void follow_memory() {
    auto const w = whole_->flat_weights(), g = whole_->flat_gradients();
    if (w.data() == weights_ && g.data() == gradients_) return;
    check_flat(*whole_);
    own_ = own_parts(*whole_, buckets_);
    weights_ = w.data();
    gradients_ = g.data();
  }
  static void check_flat(parameter_list const& parameters) {
    require(!parameters.flat_size() || (!parameters.flat_weights().empty() && !parameters.flat_gradients().empty()),
            "sync::fully_sharded: the tensors, or some of them, do not lie one behind the other in this process's "
            "memory: give it an arena's list");
  }
  void wait_for_launched() {
    for (std::size_t i = 0; i < launched_; ++i) {
      trace_span const waiting(trace_, "wait for exchange", "sync", rank_);
      buckets_[i].summed.wait();
    }
    launched_ = 0;
  }
  void sum(char const* what, std::span<double> sums) {
    submit(what, static_cast<std::int64_t>(buckets_.size()), 0, [sums](Communicator& c) {
      c.all_reduce(sums, comm::reduction::sum);
    }).wait();
  }
  void drop(bucket& b) {
    b.here = false;
    forget(weights({b.part.begin, b.own.begin}));
    forget(weights({b.own.end, b.part.end}));
  }
  void forget(std::span<float> x) const {
    if (ranks_ == 1) return;
    if (!gives_back_ || !detail::give_back_pages(x)) std::fill(x.begin(), x.end(), not_a_number<float>());
  }

  parameter_list* whole_;
  int rank_ = 0, ranks_ = 1;
  bool gives_back_ = true, exchanged_ = false;
  float *weights_ = nullptr, *gradients_ = nullptr;
  std::vector<bucket> buckets_;  ///< the last tensors first
  parameter_list own_;
  replica<Optimizer> replica_;
  std::size_t launched_ = 0;
  std::int64_t attempt_ = 0;  ///< steps that were made or abandoned: what exchanges say that they are of
  trace* trace_ = nullptr;
  // Last, so that it is destroyed first: its thread still works on the members above.
  std::optional<comm::async<Communicator>> owner_;
};

}  // namespace dovetail::sync
