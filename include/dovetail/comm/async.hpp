// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/comm/away.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/communicator_traits.hpp>
#include <dovetail/comm/fork_mark.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm {

/// Who executes what is submitted to comm::async: a thread of its own, or the caller, when it asks for a ticket;
/// automatic: a thread where the communicator finds a core for it (`has_spare_core`), or does not say. Ranks need not
/// be alike.
enum class progress : std::uint8_t { automatic, thread, caller };

/// The promise of an operation submitted to comm::async: a cheap handle, copies mean the same operation.
class ticket {
 public:
  ticket() = default;  ///< of nothing: done

  /// Returns when the operation is done; throws what it threw. May be called again.
  void wait() const {
    if (!state_) return;
    if (state_->mark) state_->mark->check("comm::ticket");
    if (state_->executor) state_->executor->work_until(*state_);
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [&] { return state_->done; });
    if (state_->error) std::rethrow_exception(state_->error);
  }
  /// Whether wait() would return, or throw, at once. Where the caller makes progress it is made here: then it is true.
  bool ready() const {
    if (!state_ || (state_->mark && state_->mark->forked())) return true;
    if (state_->executor) state_->executor->work_until(*state_);
    std::lock_guard const lock(state_->mutex);
    return state_->done;
  }

 private:
  template <class C>
  friend class async;
  struct state;
  /// Of operations that the caller executes.
  struct caller_side {
    virtual void work_until(state const& done) = 0;

   protected:
    ~caller_side() = default;
  };
  struct state {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    std::exception_ptr error;
    caller_side* executor = nullptr;  // until it is done, where there is no thread
    std::shared_ptr<detail::fork_mark const> mark;
    void finish(std::exception_ptr e) {
      std::lock_guard const lock(mutex);
      done = true;
      if (executor) executor = nullptr;  // without a thread: it may be gone when somebody asks again
      error = std::move(e);
      changed.notify_all();
    }
  };
  explicit ticket(std::shared_ptr<state> s) : state_(std::move(s)) {}
  std::shared_ptr<state> state_;
};

/// A communicator that works in the background: one owner thread executes what is submitted, in the order of
/// submission, and blocks while there is nothing to do. As long as this object lives, the communicator belongs to it.
/// Arrays must stay alive and untouched until their ticket is done. When an operation throws, its ticket and all later
/// ones throw the same. The destructor waits for what was submitted, or, when it runs because of an exception, drops
/// what has not begun. Submission is for one thread: the order is what the ranks must have in common.
///
/// Where ranks have all cores at work, a thread takes from the ranks what it gives: then there is none, and the
/// submitter executes what it has submitted when it asks for a ticket (`progress`), which is for this thread alone.
template <class C>
class async final : ticket::caller_side {
  static_assert(detail::must_be_a_communicator<C>::holds);

 public:
  explicit async(C& communicator, progress by = progress::automatic) : comm_(&communicator) { start(by); }
  explicit async(C&& communicator, progress by = progress::automatic)
      : owned_(std::move(communicator)), comm_(&*owned_) {
    start(by);
  }
  async(async const&) = delete;
  async& operator=(async const&) = delete;
  ~async() {
    if (mark_->forked()) {  // the owner thread is the parent process's: there is nobody to wait for, or to wake
      if (owner_.joinable()) owner_.detach();
      static_cast<void>(wake_.release());
      return;
    }
    {
      std::lock_guard const lock(mutex_);
      if (std::uncaught_exceptions() > exceptions_) {
        auto const dropped =
            std::make_exception_ptr(comm_error("dropped: comm::async was destroyed by an exception", rank_));
        drop(dropped);
      }
      closing_ = true;
    }
    if (!owner_.joinable()) {
      std::unique_lock lock(mutex_);
      while (first_) execute(lock);
      return;
    }
    wake_->notify_one();
    owner_.join();
  }
  /// Whether a thread of its own executes what is submitted.
  bool has_thread() const { return owner_.joinable(); }

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// Of the operations that are done.
  comm::traffic traffic() const {
    std::lock_guard const lock(mutex_);
    return traffic_;
  }

  /// Runs f(communicator) on the owner thread, after everything submitted before.
  template <class F>
  requires std::invocable<F&, C&> ticket submit(F f) {
    mark_->check("comm::async");
    auto const submitted = std::make_shared<work<F>>(std::move(f));
    submitted->mark = mark_;
    if (!owner_.joinable()) submitted->executor = this;
    {
      std::lock_guard const lock(mutex_);
      if (error_) {
        submitted->finish(error_);
      } else {
        (last_ ? last_->next : first_) = submitted;
        last_ = submitted.get();
      }
    }
    wake_->notify_one();
    return ticket(submitted);
  }

  template <reducible T>
  ticket all_reduce(std::span<T> data, reduction how = reduction::sum) {
    return submit([=](C& c) { c.all_reduce(data, how); });
  }
  template <reducible T>
  ticket reduce_scatter(std::span<T> data, reduction how = reduction::sum) {
    return submit([=](C& c) { c.reduce_scatter(data, how); });
  }
  template <movable T>
  ticket all_gather(std::span<T> data) {
    return submit([=](C& c) { c.all_gather(data); });
  }
  template <movable T>
  ticket all_gather(std::type_identity_t<std::span<T const>> in, std::span<T> out) {
    return submit([=](C& c) { c.all_gather(in, out); });
  }
  /// `all` and `offsets` are assigned when the ticket is done.
  ticket all_gather_v(std::span<std::byte const> in, std::vector<std::byte>& all, std::vector<std::size_t>& offsets) {
    return submit([=, &all, &offsets](C& c) { offsets = c.all_gather_v(in, all); });
  }
  template <movable T>
  ticket all_to_all(std::type_identity_t<std::span<T const>> in, std::span<T> out) {
    return submit([=](C& c) { c.all_to_all(in, out); });
  }
  template <movable T>
  ticket broadcast(std::span<T> data, int root) {
    return submit([=](C& c) { c.broadcast(data, root); });
  }
  ticket send(std::span<std::byte const> data, int to, int tag = 0) {
    return submit([=](C& c) { c.send(data, to, tag); });
  }
  ticket recv(std::span<std::byte> data, int from, int tag = 0) {
    return submit([=](C& c) { c.recv(data, from, tag); });
  }
  ticket barrier() {
    return submit([](C& c) { c.barrier(); });
  }
  /// As of the communicator, from behind what was submitted before: see endpoint::away. Must not outlive this object.
  away_guard away() {
    auto const held = std::make_shared<away_guard>();
    auto const begun = submit([held](C& c) { *held = c.away(); });
    if (!owner_.joinable()) begun.ready();  // the others must hear of it now
    return away_guard([this, held] {
      if (mark_->forked()) return;
      auto const over = submit([held](C&) { *held = away_guard(); });
      if (!owner_.joinable()) over.ready();
    });
  }

 private:
  struct job : ticket::state {  // also a link of the queue
    virtual ~job() = default;
    virtual void run(C&) = 0;
    virtual void release() = 0;  // what the function holds goes before anybody can see that it is done
    std::shared_ptr<job> next;
  };
  template <class F>
  struct work final : job {
    explicit work(F function) : f(std::move(function)) {}
    void run(C& c) override { std::invoke(*f, c); }
    void release() override { f.reset(); }
    std::optional<F> f;
  };

  void start(progress by) {
    rank_ = comm_->rank();
    size_ = comm_->size();
    traffic_ = comm_->traffic();
    if (by == progress::automatic) {
      by = progress::thread;
      if constexpr (communicator_traits<C>::knows_cores)
        if (!comm_->has_spare_core()) by = progress::caller;
    }
    if (by == progress::caller) return;
    if constexpr (communicator_traits<C>::asks_for_threads) comm_->allow_other_thread();
    owner_ = std::thread([this] { serve(); });
  }
  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_->wait(lock, [&] { return closing_ || first_; });
      if (!first_) return;
      execute(lock);
    }
  }
  void work_until(ticket::state const& done) override {
    std::unique_lock lock(mutex_);
    while (first_ && !done.done) execute(lock);  // nobody else writes `done`
  }
  void execute(std::unique_lock<std::mutex>& lock) {
    auto const now = take();
    lock.unlock();
    std::exception_ptr failed;
    try {
      now->run(*comm_);
    } catch (...) {
      failed = std::current_exception();
    }
    now->release();
    auto const moved = comm_->traffic();
    lock.lock();
    traffic_ = moved;
    if (failed) {
      error_ = failed;
      drop(error_);
    }
    now->finish(failed);
  }
  std::shared_ptr<job> take() {
    auto j = std::move(first_);
    first_ = std::move(j->next);
    if (!first_) last_ = nullptr;
    return j;
  }
  void drop(std::exception_ptr const& why) {
    while (first_) {
      auto const j = take();
      j->release();
      j->finish(why);
    }
  }

  std::optional<C> owned_;
  C* comm_;
  int rank_ = 0, size_ = 0;
  int const exceptions_ = std::uncaught_exceptions();
  mutable std::mutex mutex_;
  std::unique_ptr<std::condition_variable> wake_ = std::make_unique<std::condition_variable>();
  std::shared_ptr<detail::fork_mark const> mark_ = std::make_shared<detail::fork_mark>();
  std::shared_ptr<job> first_;  // of what has been submitted and not begun
  job* last_ = nullptr;
  std::exception_ptr error_;
  bool closing_ = false;
  comm::traffic traffic_;
  std::thread owner_;
};

}  // namespace dovetail::comm
