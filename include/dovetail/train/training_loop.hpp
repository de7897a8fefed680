// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/away.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/model_traits.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/data/dataset.hpp>
#include <dovetail/data/loader.hpp>
#include <dovetail/io/saved_state.hpp>
#include <dovetail/optim/schedules/batch_schedule.hpp>
#include <dovetail/optim/step.hpp>
#include <dovetail/sync/agreement.hpp>
#include <dovetail/sync/session_traits.hpp>
#include <dovetail/train/options.hpp>
#include <dovetail/train/position.hpp>
#include <dovetail/train/preconditions.hpp>
#include <dovetail/train/rank_buffers.hpp>
#include <dovetail/train/restore.hpp>
#include <dovetail/train/step_predictions.hpp>
#include <dovetail/train/trained_with.hpp>

namespace dovetail::train {

/// The weights of a list, by name: what a model contributes to a checkpoint.
DOVETAIL_COLD inline std::vector<named_tensor> weights_of(parameter_list& parameters) {
  std::vector<named_tensor> all;
  for (auto& p : parameters) all.push_back(make_named_tensor(p.name, p.weight, p.shape));
  return all;
}

/// All that a model contributes to a checkpoint: its weights, and its buffers if it has some.
template <class Model>
DOVETAIL_COLD std::vector<named_tensor> state_of(Model& model) {
  auto all = weights_of(model.parameters());
  for (auto& t : model_traits<Model>::buffers(model)) all.push_back(std::move(t));
  return all;
}

/// One rank's part of one call of fit: joins model, optimizer, synchronizer and communicator, and loops.
template <class Model, class Optimizer, class Sync, class Dataset, communicator Communicator>
class training_loop {
  using session = decltype(std::declval<Sync const&>().join(
      std::declval<parameter_list&>(), std::declval<Optimizer const&>(), std::declval<Communicator&>()));
  using session_traits = sync::session_traits<session>;
  static_assert(sync::detail::must_be_a_session<session>::holds);
  DOVETAIL_REQUIRE(!session_traits::has_servers,
                   "has ranks that serve, and train::trainer trains on all: write the loop, in which they call "
                   "session.serve() (docs/synchronizers.md)",
                   Sync);
  static_assert(dovetail::detail::must_be_a_model<Model>::holds);
  DOVETAIL_REQUIRE(!session_traits::acquires || dovetail::model_traits<Model>::acquires,
                   "reads weights without asking for them, and this synchronizer divides them among ranks: let it call "
                   "gradient_pass::acquire and release, and say `static constexpr bool acquires = true`",
                   Model, Sync);
  static_assert(data::detail::must_be_a_dataset<Dataset>::holds);

 public:
  DOVETAIL_COLD training_loop(Model& model, Optimizer const& opt, Sync const& sync, Dataset const& data,
                              Communicator& comm, fit_options const& options, int threads)
      : model_(model),
        comm_(comm),
        options_(checked(options)),
        threads_(threads),
        data_(data),
        predictions_(model, data_),
        notes_(trained_with(opt, sync)),
        session_(sync.join(equal_on_all(model, comm), opt, comm)) {
    if constexpr (session_traits::records) session_.record(options.trace);
    at_.samples = static_cast<std::int64_t>(data_.size());
    at_.data = static_cast<std::int64_t>(data::identity_of(data_));
    require_same_options(options_, at_.samples, independent ? 0 : at_.data, predictions_.masked(), comm);
    require_own_names({position::name, noise_name, last_name},
                      {state_of(model), session_.replicated(""), session_.own(own_prefix(comm.rank()))});
  }

  /// Takes up everything that `saved` holds: weights, optimizer, this rank's residuals, the place in the data.
  DOVETAIL_COLD void restore(io::saved_state const& saved) {
    auto found = position::of(saved);
    require<checkpoint_error>(found.seed == static_cast<std::int64_t>(options_.seed), "the saved run has seed ",
                              found.seed, ", this one ", options_.seed, ": give the same seed to go on with it");
    go_on_with_data(found, at_, options_);
    state_match match(saved);
    match.take({found.tensor()});
    match.take(state_of(model_));
    match.take(session_.replicated(""));
    for (auto const* name : {noise_name, last_name}) match.allow(name);  // of options that need not be the same
    if constexpr (independent)
      require<checkpoint_error>(found.ranks == comm_.size(), "the saved run is of ", found.ranks,
                                " ranks that train apart, this one has ", comm_.size(),
                                ": go on with as many, or begin another from the saved weights, which are their mean");
    auto const own = session_.own("");
    bool const as_many = found.ranks == comm_.size();
    require<checkpoint_error>(own.empty() || static_cast<std::size_t>(found.ranks) <= saved.pieces().size(),
                              "saved state: its position says ", found.ranks, " ranks, it has ", saved.pieces().size(),
                              " pieces: it is damaged");
    // With another number of ranks sums are shared out, shards are divided anew, and of anything else rank 0's is
    // taken.
    std::optional<summed_state> sums;
    std::optional<sharded_state> shards;
    auto from_any = as_many ? own : replicated_part(own, found.ranks, comm_.size(), session_traits::acquires);
    if constexpr (session_traits::acquires) {  // others have no shards
      sharded_state all(saved, own, found.ranks);
      for (auto const& name : all.names()) match.allow(name);
      if (!as_many || !sharded_state::divided_alike(saved, own, own_prefix(comm_.rank()))) {
        if (as_many) from_any = undivided_part(own);
        shards.emplace(std::move(all));
      }
    }
    if (!as_many) {
      sums.emplace(saved, own, found.ranks);
      for (auto const& name : sums->names()) match.allow(name);
    }
    if constexpr (session_traits::owns_unevenly)  // what others have is for them to look at
      for (std::int64_t r = 0; as_many && r < found.ranks; ++r)
        if (r != comm_.rank()) match.allow_all(own_prefix(r));
    for (std::int64_t r = 0; !from_any.empty() && r < found.ranks; ++r)
      if (as_many && r != comm_.rank())
        match.allow(own, own_prefix(r));  // over MPI a process has only its own
      else
        match.take(from_any, own_prefix(r));
    auto const of_ranks =
        found.ranks > 1 ? rank_buffers::own_in(model_traits<Model>::buffers(model_)) : std::vector<named_tensor>{};
    for (std::int64_t r = 0; !of_ranks.empty() && r < found.ranks; ++r)
      if (as_many && r == comm_.rank())
        match.take(of_ranks, own_prefix(r));
      else
        match.allow(of_ranks, own_prefix(r));
    match.require_all(
        as_many && session_traits::owns_unevenly
            ? "it belongs to another model, optimizer or codec, or its ranks were on other hosts"
        : as_many
            ? "it belongs to another model, optimizer or codec"
            : message("it was saved by ", found.ranks, " ranks and this run has ", comm_.size(),
                      ": what a codec keeps of shards, other than sums, or of a host's sum goes on with as many only"));
    require<checkpoint_error>(
        found.parameters == static_cast<std::int64_t>(sync::fingerprint_of(model_.parameters())),
        "saved state: its model has the same tensors in another order: it belongs to another model");
    saved.restore(from_any, own_prefix(as_many ? comm_.rank() : 0));
    if (sums) sums->restore(own, comm_.size());
    if constexpr (session_traits::acquires)
      if (shards) shards->restore(own);
    saved.restore(state_of(model_));
    if (as_many) saved.restore(of_ranks, own_prefix(comm_.rank()));  // or else their mean
    saved.restore(session_.replicated(""));
    if (measures() && saved.contains(noise_name)) saved.restore({noise_.tensor(noise_name)});
    if (saved.contains(last_name)) saved.restore({last_tensor()});
    at_ = found;
  }

  /// This rank's own state and, if asked, what all ranks have in common. Call after run(), when the latter is up to
  /// date.
  DOVETAIL_COLD io::saved_state capture(bool common) {
    at_.ranks = comm_.size();
    at_.batch = options_.batch;
    at_.accumulate = options_.accumulate;
    at_.seed = static_cast<std::int64_t>(options_.seed);
    at_.shuffle = options_.shuffle;
    at_.parameters = static_cast<std::int64_t>(sync::fingerprint_of(model_.parameters()));
    io::saved_state s;
    s.add(session_.own(""), own_prefix(comm_.rank()));
    if constexpr (has_buffers) s.add(buffers_.own(model_traits<Model>::buffers(model_)), own_prefix(comm_.rank()));
    if (common) {
      s.add(state_of(model_));
      s.add(session_.replicated(""));
      s.add({at_.tensor()});
      if (measures()) s.add({noise_.tensor(noise_name)});
      if (options_.accumulate_at) s.add({last_tensor()});
      for (auto const& [name, text] : notes_) s.note(name, text);
    }
    return s;
  }

  DOVETAIL_COLD fit_report run() {
    data::loader<Dataset> loader(data_, {.batch = options_.batch,
                                         .rank = comm_.rank(),
                                         .ranks = comm_.size(),
                                         .seed = options_.seed,
                                         .shuffle = options_.shuffle,
                                         .own_order = independent,
                                         .start = at_.taken()});
    if (options_.steps <= 0) end_ = std::min(options_.epochs, position::most / at_.samples) * at_.samples;
    total_steps_ = options_.steps;
    if (!total_steps_ && !options_.accumulate_at) {  // or else known when they have been made
      auto const left = loader.steps_between(at_.taken(), end_);
      total_steps_ = at_.step + left / options_.accumulate + (left % options_.accumulate != 0);
    }
    begin_ = last_report_ = clock::now();
    bool saved = false;  // what is now
    while (!finished() && !report_.stopped) {
      skipped_in_a_row_ = one_step(loader) ? skipped_in_a_row_ + 1 : 0;
      if (skipped_in_a_row_ > 0 && skipped_in_a_row_ >= options_.max_skipped) stuck_ = skipped_in_a_row_;
      bool const saves = finished() || (options_.save_every > 0 && at_.step % options_.save_every == 0);
      // Of ranks that train apart one alone may be stuck: the others hear of it with the next report.
      bool const ends = saves || (stuck_ > 0 && !independent);
      // A batch schedule looks at every step, so that an interruption changes nothing.
      if (ends || options_.accumulate_at || at_.step % std::max<std::int64_t>(options_.log_every, 1) == 0) report();
      if (any_stuck_ || (bad_losses_in_a_row_ > 0 && bad_losses_in_a_row_ >= options_.max_skipped)) give_up();
      saved = saves || report_.stopped;
      if (saved) save(options_.on_save);
    }
    if (!saved) save(options_.on_save);  // no step was left to make
    agree();
    report_.step = at_.step;
    report_.seconds = seconds_since(begin_);
    return std::move(report_);
  }

 private:
  using clock = std::chrono::steady_clock;
  static constexpr char const *noise_name = "train.noise", *last_name = "train.last";
  named_tensor last_tensor() { return make_named_tensor(last_name, std::span<double>(last_)); }
  static parameter_list& equal_on_all(Model& model, Communicator& comm) {
    sync::make_equal(model.parameters(), comm);
    if constexpr (has_buffers) rank_buffers::make_equal(model_traits<Model>::buffers(model), comm);
    return model.parameters();
  }
  bool finished() const { return options_.steps > 0 ? at_.step >= options_.steps : at_.taken() >= end_; }
  bool measures() const {
    if constexpr (session_traits::measures)
      return session_.measures_noise();
    else
      return false;
  }
  /// Micro-batches of the next step.
  std::int64_t accumulate() const {
    if (!options_.accumulate_at) return in_one_step(options_.accumulate, "accumulate is ");
    auto const n = options_.accumulate_at({.step = at_.step,
                                           .micro_batch = options_.batch * (independent ? 1 : comm_.size()),
                                           .variance = noise_.variance(),
                                           .squared_gradient = noise_.squared_gradient(),
                                           .loss = last_[0],
                                           .lr = last_[1]});
    return in_one_step(n, "accumulate_at gave ");
  }
  /// Without an epoch that ends it, a step of more micro-batches than this would never be over.
  std::int64_t in_one_step(std::int64_t n, char const* said) const {
    constexpr std::int64_t most = std::int64_t{1} << 30;
    require(n >= 1 && (n <= most || end_ > 0), "fit: ", said, n, " micro-batches for step ", at_.step + 1,
            ": it takes at least one, and at most ", most);
    return n;
  }
  static double seconds_since(clock::time_point t) { return std::chrono::duration<double>(clock::now() - t).count(); }

  DOVETAIL_COLD bool one_step(data::loader<Dataset>& loader) {
    auto const before = traffic();
    step_plan const plan = plan_step(loader);
    session_.begin();
    if constexpr (has_buffers) {
      buffers_.put_back(model_traits<Model>::buffers(model_));
      buffers_.remember(model_traits<Model>::buffers(model_));
    }
    agreed_ = false;
    loss_sums sums;
    std::int64_t epoch = 0;
    auto const [micro_batches, own, samples, from, own_predictions, predictions] = plan;
    float const scale = session_.gradient_scale(own_predictions, predictions);
    for (std::int64_t m = 0; m < micro_batches; ++m) {
      auto const share = predictions_.masked() ? predictions_.loaded(m) : next_batch(loader, comm_);
      predictions_.check(share.view);
      gradient_pass pass{.scale = scale,
                         .accumulate = m > 0,
                         .seed = options_.seed,
                         .step = static_cast<std::uint64_t>(at_.batches),
                         .rank = static_cast<std::uint32_t>(comm_.rank()),
                         .threads = threads_};
      if constexpr (session_traits::acquires) {
        pass.acquire = [this](range weights) { session_.acquire(weights); };
        pass.release = [this](range weights) { session_.release(weights); };
      }
      if constexpr (session_traits::observes) pass.observe = session_.observer();
      if (m + 1 == micro_batches) pass.ready = [this](std::size_t first) { session_.ready(first); };
      trace_span const computing(options_.trace, "forward and backward", "nn", comm_.rank());
      sums += model_.gradients(std::as_const(share.view), std::as_const(pass));
      ++at_.batches;
      epoch = share.epoch;
    }
    at_.advance(loader.position() - from);
    auto const result = step(sums.loss * static_cast<double>(scale));
    if constexpr (has_buffers)  // what made the gradients useless is not to stay in running statistics
      if (result.skipped) buffers_.undo(model_traits<Model>::buffers(model_));
    ++at_.step;
    report_.samples += samples;
    auto const moved = count_traffic_since(before);
    pending_sums_.insert(pending_sums_.end(),
                         {sums.loss, static_cast<double>(sums.count), static_cast<double>(sums.correct),
                          result.skipped ? 1.0 : 0.0, static_cast<double>(result.lr)});
    if constexpr (session_traits::measures)
      if (measures()) {
        // The mean gradient of this rank's share, whose size is own / samples of the whole.
        double const share =
            own_predictions > 0 ? static_cast<double>(own_predictions) / static_cast<double>(predictions) : 1;
        pending_sums_.push_back(session_.measured().own / (share * share));
        pending_squares_.push_back(session_.measured().summed);
      }
    pending_.push_back({.step = at_.step,
                        .epoch = epoch,
                        .samples = samples,
                        .gradient_norm = result.gradient_norm,
                        .seconds = seconds_since(begin_),
                        .bytes_sent = moved.bytes_sent,
                        .total_steps = total_steps_});
    pending_samples_ += samples;
    return result.skipped;
  }

  /// What a step takes.
  struct step_plan {
    std::int64_t micro_batches = 0;
    std::int64_t own = 0, samples = 0;  ///< of this rank, and of all
    std::int64_t from = 0;
    std::int64_t own_predictions = 0, predictions = 0;  ///< that count
  };
  /// The step's counts are needed before its first backward: every micro-batch is weighed by the whole step's. The last
  /// step of the last epoch takes what is left. Collective where predictions may be left out: then the step's batches
  /// are loaded now, and ranks tell each other how many of theirs count.
  DOVETAIL_COLD step_plan plan_step(data::loader<Dataset>& loader) {
    step_plan plan;
    std::int64_t const wanted = accumulate();
    plan.from = at_.taken();
    for (std::int64_t at = plan.from; plan.micro_batches < wanted && (end_ == 0 || at < end_); ++plan.micro_batches) {
      auto const n = loader.samples_at(at);
      plan.own += n.own;
      plan.samples += n.all;
      at += n.positions;
    }
    auto const each = static_cast<std::int64_t>(data_.predictions_per_sample());
    plan.own_predictions = plan.own * each;
    plan.predictions = plan.samples * each;
    if (predictions_.masked()) count_predictions(loader, plan);
    return plan;
  }
  DOVETAIL_COLD void count_predictions(data::loader<Dataset>& loader, step_plan& plan) {
    plan.own_predictions = predictions_.load(plan.micro_batches, [&] { return next_batch(loader, comm_); });
    plan.predictions = plan.own_predictions;
    if constexpr (!independent) {
      auto all = static_cast<double>(plan.own_predictions);  // exact up to 2^53
      comm_.all_reduce(std::span<double>(&all, 1), comm::reduction::sum);
      plan.predictions = static_cast<std::int64_t>(all);
    }
    plan.predictions = std::max<std::int64_t>(plan.predictions, 1);  // a step without any has gradients of zero
  }

  /// A slow disk is no reason for the others to give this rank up.
  static data::loaded_batch next_batch(data::loader<Dataset>& loader, Communicator& comm) {
    if (loader.ready_within(std::chrono::milliseconds(20))) return loader.next();
    auto const away = comm.away();
    return loader.next();
  }

  /// `loss` is this rank's share of what the gradients are gradients of.
  optim::step_result step(double loss) { return session_.step({.threads = threads_, .loss = loss}); }

  comm::traffic traffic() const {
    if constexpr (session_traits::counts)
      return comm_.traffic() + session_.traffic();
    else
      return comm_.traffic();
  }
  comm::traffic count_traffic_since(comm::traffic const& before) {
    auto const moved = traffic() - before;
    report_.traffic = report_.traffic + moved;
    return moved;
  }

  /// Collective: where replicas differ, the model becomes what the training gives, until the next step.
  DOVETAIL_COLD void agree() {
    if constexpr (session_traits::finishes || has_buffers) {
      if (agreed_) return;
      agreed_ = true;
      auto const before = traffic();
      if constexpr (session_traits::finishes) session_.finish();
      if constexpr (has_buffers) buffers_.average(model_traits<Model>::buffers(model_), comm_);
      count_traffic_since(before);
    }
  }

  /// Collective: sums what is pending over ranks, and asks whether anybody wants to stop or is stuck.
  DOVETAIL_COLD void report() {
    std::size_t const width = measures() ? 6 : 5, flags = pending_sums_.size();
    pending_sums_.push_back(options_.stop && options_.stop->load() ? 1.0 : 0.0);
    pending_sums_.push_back(stuck_ > 0 ? 1.0 : 0.0);
    comm_.all_reduce(std::span<double>(pending_sums_), comm::reduction::sum);
    report_.stopped = pending_sums_[flags] > 0;
    any_stuck_ = pending_sums_[flags + 1] > 0;
    double const rate = static_cast<double>(pending_samples_) / std::max(seconds_since(last_report_), 1e-9);
    double const ranks = comm_.size();
    for (std::size_t i = 0; i < pending_.size(); ++i) {
      auto& r = pending_[i];
      double const count = std::max(pending_sums_[width * i + 1], 1.0);
      r.loss = pending_sums_[width * i] / count;
      r.accuracy = pending_sums_[width * i + 2] / count;
      r.skipped = pending_sums_[width * i + 3] > 0;
      r.lr = pending_sums_[width * i + 4] / ranks;  // as it is where all have the same
      at_.skipped += r.skipped;
      report_.skipped += r.skipped;
      if (measures()) {
        double const large = static_cast<double>(r.samples);
        noise_.add(large / ranks, pending_sums_[width * i + 5] / ranks, large, pending_squares_[i]);
        r.noise_scale = noise_.value();
      }
      r.samples_per_second = rate;
      bad_losses_in_a_row_ = is_finite(r.loss) ? 0 : bad_losses_in_a_row_ + 1;
      report_.losses.push_back(r.loss);
    }
    if (comm_.rank() == 0 && options_.on_step) {
      auto const away = comm_.away();  // the others wait for the caller's code, however long it takes
      for (auto const& r : pending_) options_.on_step(r);
    }
    if (!pending_.empty()) last_ = {pending_.back().loss, pending_.back().lr};
    pending_.clear();
    pending_sums_.clear();
    pending_squares_.clear();
    pending_samples_ = 0;
    last_report_ = clock::now();
  }

  /// Collective: rank 0 collects what every rank has of its own and hands the whole to `take`.
  DOVETAIL_COLD void save(std::function<void(io::saved_state&)> const& take) {
    std::int64_t wanted = comm_.rank() == 0 && take ? 1 : 0;
    comm_.broadcast(std::span<std::int64_t>(&wanted, 1), 0);
    if (!wanted) return;
    agree();
    trace_span const saving(options_.trace, "save", "train", comm_.rank());
    comm::away_guard away;
    if (comm_.rank() == 0) away = comm_.away();  // collecting, and the caller's code
    auto mine = capture(comm_.rank() == 0);
    if (comm_.rank() != 0) {
      auto const packed = mine.pack();
      std::uint64_t const n = packed.size();
      comm_.send(std::as_bytes(std::span(&n, 1)), 0, 0);
      comm_.send(std::span<std::byte const>(packed), 0, 0);
    } else {
      for (int r = 1; r < comm_.size(); ++r) {
        std::uint64_t n = 0;
        comm_.recv(std::as_writable_bytes(std::span(&n, 1)), r, 0);
        std::vector<std::byte> packed(n);
        comm_.recv(std::span<std::byte>(packed), r, 0);
        mine.merge(io::saved_state::unpack(packed));
      }
      take(mine);
    }
    away = {};
    comm_.barrier();  // nobody goes on, and changes weights that are views, before the state is safe
  }

  [[noreturn]] DOVETAIL_COLD void give_up() {
    save(options_.on_give_up);
    std::string what = any_stuck_ ? "the gradient" : "the loss";
    std::int64_t steps = any_stuck_ ? stuck_ : bad_losses_in_a_row_;
    if (independent && any_stuck_) {
      double rank = stuck_ > 0 ? comm_.rank() : -1;
      comm_.all_reduce(std::span<double>(&rank, 1), comm::reduction::max);
      comm_.broadcast(std::span<std::int64_t>(&steps, 1), static_cast<int>(rank));
      what += " of rank " + std::to_string(static_cast<int>(rank));
    }
    throw numeric_error(message(what, " was not finite for ", steps, " steps in a row, up to step ", at_.step,
                                " (loss ", last_[0],
                                "): lower the learning rate or clip the gradient, and go on from the last good state"));
  }

  Model& model_;
  Communicator& comm_;
  fit_options const& options_;
  int threads_;
  Dataset data_;
  step_predictions<Model, Dataset> predictions_;
  std::map<std::string, std::string> notes_;  ///< for checkpoints
  session session_;
  static constexpr bool independent = session_traits::independent;
  static constexpr bool has_buffers = model_traits<Model>::has_buffers;
  rank_buffers buffers_;
  position at_;
  fit_report report_;
  std::int64_t total_steps_ = 0;
  clock::time_point begin_, last_report_;
  std::vector<step_record> pending_;
  std::vector<double> pending_sums_, pending_squares_;
  optim::noise_scale noise_;
  std::int64_t pending_samples_ = 0;
  std::int64_t skipped_in_a_row_ = 0, bad_losses_in_a_row_ = 0;
  std::int64_t stuck_ = 0;        ///< steps that this rank skipped in a row, once they are too many
  bool any_stuck_ = false;        ///< of all ranks
  bool agreed_ = false;           ///< since the last step
  std::array<double, 2> last_{};  ///< loss and rate of the last step that was reported
  std::int64_t end_ = 0;          ///< samples of the order after which the last epoch ends; 0: steps are counted
};

}  // namespace dovetail::train
