// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/concepts.hpp>
#include <dovetail/core/cores.hpp>
#include <dovetail/core/model_traits.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/data/dataset.hpp>
#include <dovetail/io/saved_state.hpp>
#include <dovetail/nn/with_loss.hpp>
#include <dovetail/train/options.hpp>
#include <dovetail/train/position.hpp>
#include <dovetail/train/restore.hpp>
#include <dovetail/train/trained_with.hpp>
#include <dovetail/train/training_loop.hpp>

namespace dovetail::train {

/// The distributed trainer that a model (a network and its loss), an optimizer, a synchronizer with its codec, and a
/// world make together:
///
///     train::trainer t{lenet{}, nn::softmax_cross_entropy{}, optim::adamw{}, sync::all_reduce{}, comm::threads{4}};
///     t.fit(data, {.batch = 128, .epochs = 3});
///
/// or, with a model of one's own that computes its loss itself, `trainer{model, optimizer, synchronizer, world}`.
/// Every rank trains a copy of the model; the weights of all copies are bitwise equal after every step of a synchronous
/// policy, and after fit of any; buffers (running statistics) after fit.
/// A world given by name is referred to and must outlive the trainer; a temporary one is kept.
/// Not thread-safe. If fit throws, model and state are those of before the call. Over MPI every process has a trainer:
/// all call the same, restore included. Callbacks of fit may not call the trainer: it throws argument_error.
template <class Model, class Optimizer, class Sync, class World>
class trainer {
  DOVETAIL_REQUIRE(model<Model>,
                   "is no model: it needs parameters() -> parameter_list& and gradients(batch, gradient_pass) -> "
                   "loss_sums (see concepts.hpp); a network is followed by its loss: trainer{network, loss, optimizer, "
                   "synchronizer, world}",
                   Model);
  static_assert(dovetail::detail::must_be_a_model<Model>::holds);
  DOVETAIL_REQUIRE(std::is_move_assignable_v<Model>,
                   "cannot be assigned: fit assigns what it trained to the trainer's model", Model);
  DOVETAIL_REQUIRE(optimizer<Optimizer>, "is no optimizer: it needs init(parameters) and step(parameters, state)",
                   Optimizer);
  DOVETAIL_REQUIRE(world<std::remove_reference_t<World>>,
                   "is no world: it needs run(f), which calls f(communicator) once per rank", World);

 public:
  trainer(Model m, Optimizer opt, Sync sync, World&& w)
      : model_(std::move(m)), optimizer_(std::move(opt)), sync_(std::move(sync)), world_(std::forward<World>(w)) {}
  template <class Network, class Loss>
  trainer(Network network, Loss loss, Optimizer opt, Sync sync, World&& w)
      : trainer(Model{std::move(network), std::move(loss)}, std::move(opt), std::move(sync), std::forward<World>(w)) {}

  /// Trains until options.epochs or options.steps have been made since the beginning, and goes on from where an
  /// earlier fit or restore left off. Throws what a rank threw first (over MPI in that rank's process; in the others
  /// rank_lost with its text); numeric_error when the training diverges.
  template <class Dataset>
  DOVETAIL_COLD fit_report fit(Dataset const& data, fit_options const& options = {}) {
    static_assert(data::detail::must_be_a_dataset<Dataset>::holds);
    checked(options);
    auto const running = start("fit");
    std::mutex mutex;
    fit_report report;
    std::optional<Model> trained;
    io::saved_state after;
    world_.run([&](auto& comm) {
      DOVETAIL_REQUIRE((synchronizer<Sync, Optimizer, std::remove_reference_t<decltype(comm)>>),
                       "is no synchronizer for this optimizer and communicator: it needs join(parameters, optimizer, "
                       "communicator) (see concepts.hpp); a codec goes into one: sync::all_reduce{codec}",
                       Sync);
      Model replica(model_);
      training_loop run(replica, optimizer_, sync_, data, comm, options,
                        threads_per_rank(options.threads, comm.size()));
      if (!state_.empty()) run.restore(state_);
      comm.barrier();
      auto mine = run.run();
      std::lock_guard const lock(mutex);
      bool const first = !trained;  // of this process's ranks: replicas are equal now, one speaks for all
      after.merge(run.capture(first));
      if (first || comm.rank() == 0) report = std::move(mine);
      if (first) trained.emplace(std::move(replica));
    });
    state_ = std::move(after);
    model_ = std::move(*trained);
    return report;
  }

  /// Sums of losses over all samples of `data`, without noise. Every rank takes its shard.
  template <class Dataset>
  DOVETAIL_COLD loss_sums evaluate(Dataset const& data, std::int64_t batch = 32, int threads = 0) {
    static_assert(data::detail::must_be_a_dataset<Dataset>::holds);
    DOVETAIL_REQUIRE(model_traits<Model>::evaluates,
                     "cannot be evaluated: it needs evaluate(batch, threads) -> loss_sums", Model);
    require(batch >= 1, "evaluate: batch is ", batch, ": it must be at least 1 sample");
    require(threads >= 0, "evaluate: threads is ", threads, ": it is a number of cores, or 0 for all of them");
    auto const samples = static_cast<std::int64_t>(data.size());
    require(samples >= 0, "evaluate: data.size() is ", samples, ": it is a number of samples");
    auto const running = start("evaluate");
    std::mutex mutex;
    loss_sums total;
    world_.run([&](auto& comm) {
      Model replica(model_);
      auto const part = shard(static_cast<std::size_t>(samples), comm.size(), comm.rank());
      data::batch_buffer buffer;
      loss_sums sums;
      int const cores = threads_per_rank(threads, comm.size());
      std::vector<std::int64_t> indices;
      for (auto i = part.begin; i < part.end; i += indices.size()) {
        indices.resize(std::min<std::size_t>(static_cast<std::size_t>(batch), part.end - i));
        std::iota(indices.begin(), indices.end(), static_cast<std::int64_t>(i));
        data.load(std::span<std::int64_t const>(indices), buffer);
        auto const view = buffer.view();
        sums += replica.evaluate(view, cores);
      }
      std::array<double, 3> all{sums.loss, static_cast<double>(sums.count), static_cast<double>(sums.correct)};
      comm.all_reduce(std::span<double>(all), comm::reduction::sum);
      std::lock_guard const lock(mutex);
      total = {all[0], static_cast<std::int64_t>(all[1]), static_cast<std::int64_t>(all[2])};
    });
    return total;
  }

  /// The model as trained so far: rank 0's copy, which every rank's equals. Throws argument_error while fit runs.
  Model& model() {
    require_idle("model");
    return model_;
  }
  Model const& model() const {
    require_idle("model");
    return model_;
  }
  Optimizer const& optimizer_policy() const { return optimizer_; }

  /// Goes on from `saved`, as on_save gave it: the next fit makes the steps that are left, bit for bit as if there had
  /// been no interruption. Throws checkpoint_error, naming what is missing, unlike or left over, if it belongs to
  /// another model; then nothing has changed. What concerns optimizer, codec and data is checked when fit begins,
  /// before the first step: all of a state must be taken up.
  /// Returns what the saved run trained with and this trainer does not, one sentence each: "adamw.beta1 was 0.9 and is
  /// 0.95". To go on with other hyperparameters is no error; whoever did not mean to reads it here.
  DOVETAIL_COLD std::vector<std::string> restore(io::saved_state saved) {
    require_idle("restore");
    auto const of_model = state_of(model_);
    bool const same_list =
        position::of(saved).parameters == static_cast<std::int64_t>(sync::fingerprint_of(model_.parameters()));
    state_match match(saved);
    match.take(of_model);
    for (auto const& [name, piece] : saved.pieces()) {
      // What optimizers and ranks have is looked at by fit; what is left belongs to a model that has more.
      bool const others = name.starts_with("train.") || name.starts_with("optimizer.") ||
                          name.starts_with("exchange.") || name.starts_with("rank");
      if (same_list || others) match.allow(name);
    }
    match.require_all("it belongs to another model");
    require<checkpoint_error>(same_list, "saved state: its model has these tensors in another order, or with others: ",
                              "it belongs to another model");
    saved.restore(of_model);
    state_ = std::move(saved);
    return differences(state_.notes(), trained_with());
  }
  /// Names of optimizer, synchronizer and codec and their hyperparameters, as they stand in every saved state: for
  /// logs.
  DOVETAIL_COLD std::map<std::string, std::string> trained_with() const {
    return train::trained_with(optimizer_, sync_);
  }
  /// Steps made so far, in all fits and restores.
  std::int64_t steps() const {
    require_idle("steps");
    return state_.empty() ? 0 : position::of(state_).step;
  }
  /// Everything that this process knows of the training's state: all ranks' with comm::threads, its own with MPI.
  io::saved_state const& state() const {
    require_idle("state");
    return state_;
  }

 private:
  /// What fit changes is the ranks' own until it returns: who asks for it from a callback would get that of before.
  DOVETAIL_COLD void require_idle(char const* what) const {
    require(
        !running_, "trainer: ", what, "() was called while ", running_ ? running_ : "", " runs, from a callback or a ",
        "dataset: what it gives is that of before. on_save is given the state of now: copy its weights into a model ",
        "with io::saved_state::restore(train::state_of(model)); or let fit return and call it again to go on");
  }
  struct at_end {
    char const*& running;
    ~at_end() { running = nullptr; }
  };
  DOVETAIL_COLD at_end start(char const* what) {
    require_idle(what);
    running_ = what;
    return {running_};
  }
  /// A rank's share of the machine, and no more than its process may use: a container may have two of its many cores.
  static int threads_per_rank(int wanted, int ranks) {
    if (wanted > 0) return wanted;
    return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / ranks, 1, usable_cores());
  }

  Model model_;
  Optimizer optimizer_;
  Sync sync_;
  World world_;
  io::saved_state state_;
  char const* running_ = nullptr;  ///< the collective call that is under way
};

template <class Network, class Loss, class Optimizer, class Sync, class World>
trainer(Network, Loss, Optimizer, Sync, World&&) -> trainer<nn::with_loss<Network, Loss>, Optimizer, Sync, World>;
template <class Model, class Optimizer, class Sync, class World>
trainer(Model, Optimizer, Sync, World&&) -> trainer<Model, Optimizer, Sync, World>;

}  // namespace dovetail::train
