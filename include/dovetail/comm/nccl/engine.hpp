// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <dovetail/comm/away.hpp>
#include <dovetail/comm/call.hpp>
#include <dovetail/comm/nccl/check.hpp>
#include <dovetail/comm/nccl/control.hpp>
#include <dovetail/comm/nccl/options.hpp>
#include <dovetail/comm/nccl/report.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/cuda.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/fingerprint.hpp>

namespace dovetail::comm::detail {

/// An operation that was queued: marks in its stream before and behind it, and what became of it.
struct nccl_work {
  call what;
  int also_to = -1;  ///< of a sendrecv, whose `what` is the recv
  std::uint64_t number = 0;
  traffic moves;
  nccl_mark begun, done;
  bool finished = false;
  std::optional<std::chrono::steady_clock::time_point> since;  ///< its stream was seen to have come to it
  std::exception_ptr error;
};

/// One rank's end of a communicator of NCCL's, and the control communicator beside it. All NCCL calls are non-blocking:
/// whoever waits, here, asks NCCL for errors and looks at the clock. When something failed this rank first ends what
/// runs on its device, so that nothing waits behind a kernel that never ends, and then meets the others to find out who
/// is to blame.
class nccl_engine {
  using clock = std::chrono::steady_clock;

 public:
  /// Collective. Without `where`: the rank's place on its host modulo the devices there, and a stream of its own.
  DOVETAIL_COLD nccl_engine(std::unique_ptr<nccl_control> control, std::optional<cuda::device> where,
                            nccl_options const& options)
      : control_(std::move(control)), options_(options) {
    auto const id = introduce(where.has_value());
    if (where) device_ = *where;
    begin(!where, [&] { initialize(id); });
  }
  nccl_engine(nccl_engine const&) = delete;
  DOVETAIL_COLD ~nccl_engine() {
    cuda::current_device const here(device_.index, std::nothrow);
    bool const in_order = comm_ && !broken_ && std::uncaught_exceptions() <= exceptions_ && finalize();
    if (!in_order) abort_now();
    word_ = {};
    if (own_stream_) static_cast<void>(cudaStreamDestroy(device_.stream));
  }

  int rank() const { return control_->rank(); }
  int size() const { return control_->size(); }
  cuda::device const& device() const { return device_; }
  nccl_options const& options() const { return options_; }
  ncclComm_t handle() const { return comm_; }
  int* word() { return word_.data(); }
  subject& about() { return about_; }
  comm::traffic traffic() {
    sweep();
    return traffic_;
  }

  /// Queues an operation: `queue` makes the NCCL calls, on stream s, and returns their first error.
  template <class Queue>
  std::shared_ptr<nccl_work> start(call const& c, cudaStream_t s, comm::traffic const& moves, char const* name,
                                   Queue const& queue, int also_to = -1) {
    bool const together = c.op != operation::send && c.op != operation::recv;
    require_usable();
    auto const here = device_.use();
    require(!cuda::device{device_.index, s}.capturing(), c,
            ": the stream is being captured: operations of comm::nccl have a deadline, which a graph knows nothing of");
    if (together) ++sequence_;
    if (together && options_.check) compare(c);
    auto const w = std::make_shared<nccl_work>();
    w->what = c;
    w->also_to = also_to;
    w->number = sequence_;
    w->moves = moves;
    w->begun.record(s);
    settle(queue(), name, c, also_to);
    w->done.record(s);  // behind what NCCL has queued: not before it says that it has
    outstanding_.push_back(w);
    return w;
  }
  /// Waits for an operation, and for those before it.
  void wait(nccl_work& w) {
    while (!w.finished) {
      auto const first = outstanding_.front();
      await(*first);
    }
    if (w.error) std::rethrow_exception(w.error);
  }
  void wait_all() {
    while (!outstanding_.empty()) wait(*outstanding_.back());
  }
  /// Whether wait() would return, or throw, at once.
  bool ready(nccl_work const& w) {
    sweep();
    return w.finished || look(*outstanding_.front()).over();
  }
  bool failed(nccl_work const& w) {
    sweep();
    return w.finished ? w.error != nullptr : look(*outstanding_.front()).over();
  }

  /// Collective; its own check is not left out.
  DOVETAIL_COLD std::shared_ptr<nccl_engine> split(int color, int key) {
    call const c{operation::split};
    auto const here = device_.use();
    ++sequence_;
    require_usable();
    compare(c);
    wait_all();
    auto part = control_->split(color, key);
    return std::shared_ptr<nccl_engine>(new nccl_engine(
        std::move(part), *this, [&](ncclComm_t* to) { return ncclCommSplit(comm_, color, key, to, nullptr); }));
  }
  /// By all who are left. NCCL's own shrink where it has one and every rank could revoke what ran; a new communicator
  /// otherwise.
  DOVETAIL_COLD std::shared_ptr<nccl_engine> shrink() {
    auto const here = device_.use();
    stop();
    if (!broken_) break_with(std::make_exception_ptr(comm_error("comm::nccl: the ranks have shrunk it", rank())));
    auto rest = control_->shrink();
    struct left {
      std::int32_t rank, revoked;
    };
    auto const all = gathered(*rest, left{rank(), revoked_ && comm_ ? 1 : 0});
    std::vector<int> gone;
    for (int r = 0; r < size(); ++r)
      if (std::none_of(all.begin(), all.end(), [r](left const& l) { return l.rank == r; })) gone.push_back(r);
    // NCCL does not shrink by nobody.
    bool const can = !gone.empty() && std::all_of(all.begin(), all.end(), [](left const& l) { return l.revoked != 0; });
#ifdef NCCL_SHRINK_DEFAULT
    if (can) {
      return std::shared_ptr<nccl_engine>(new nccl_engine(std::move(rest), *this, [&](ncclComm_t* to) {
        return ncclCommShrink(comm_, gone.data(), static_cast<int>(gone.size()), to, nullptr, NCCL_SHRINK_DEFAULT);
      }));
    }
#endif
    static_cast<void>(can);
    return std::shared_ptr<nccl_engine>(new nccl_engine(std::move(rest), *this));
  }
  std::vector<int> lost_ranks() const { return control_->lost_ranks(); }
  DOVETAIL_COLD void abort(std::string const& why) {
    auto const here = device_.use();
    control_->abort(why);
    stop();
    break_with(std::make_exception_ptr(rank_lost(message("rank ", rank(), " has ended it: ", why), rank())));
  }
  away_guard away() { return control_->away(); }

 private:
  /// What every rank tells every other one first.
  struct hello {
    std::uint64_t host = 0;
    std::int32_t version = 0, devices = 0;
    ncclUniqueId id{};  ///< of rank 0
    std::array<char, 240> trouble{};
  };

  /// A part of another communicator, made by `create` of NCCL's from that one.
  template <class Create>
  nccl_engine(std::unique_ptr<nccl_control> control, nccl_engine& parent, Create const& create)
      : control_(std::move(control)), device_(parent.device_), options_(parent.options_) {
    begin(parent.own_stream_, [&] {
      auto const slot = std::make_shared<ncclComm_t>();
      // The parent is busy until NCCL has written to the slot.
      attempt(slot, create(slot.get()), [&] { return state_of(parent.comm_); });
      attempt(slot, ncclInProgress, [&] { return *slot ? state_of(*slot) : ncclInProgress; });
    });
  }
  /// A new communicator on the same device.
  nccl_engine(std::unique_ptr<nccl_control> control, nccl_engine const& like)
      : control_(std::move(control)), device_(like.device_), options_(like.options_) {
    auto const id = introduce(true);
    begin(like.own_stream_, [&] { initialize(id); });
  }

  /// Throws on all ranks where one of them cannot take part; chooses the device unless it is given.
  ncclUniqueId introduce(bool given) {
    require(options_.deadline.count() > 0, "comm::nccl: deadline ", options_.deadline.count(),
            " ms: it must be positive");
    hello mine;
    int version = 0;
    auto code = ncclGetVersion(&version);
    mine.version = version;
    char host[256] = {};
    static_cast<void>(gethostname(host, sizeof host - 1));
    mine.host = fingerprint{}.add(host).value();
    cudaError_t no_device = cudaSuccess;
    mine.devices = cuda::device_count(&no_device);
    std::string trouble;
    if (mine.devices == 0) trouble = message("there is no CUDA device (", cudaGetErrorString(no_device), ')');
    if (trouble.empty() && code == ncclSuccess && rank() == 0) code = ncclGetUniqueId(&mine.id);
    if (code != ncclSuccess) trouble = message("NCCL does not begin: ", nccl_text(code, nullptr));
    std::snprintf(mine.trouble.data(), mine.trouble.size(), "%s", trouble.c_str());
    auto const all = gathered(*control_, mine);
    int place = 0;
    for (std::size_t r = 0; r < all.size(); ++r) {
      if (all[r].trouble[0]) throw comm_error(message("comm::nccl: rank ", r, ": ", all[r].trouble.data()), int(r));
      if (all[r].version != all[0].version)
        throw comm_error(message("comm::nccl: rank ", r, " has NCCL ", all[r].version, ", rank 0 has ", all[0].version,
                                 ": all ranks need the same"),
                         int(r));
      if (static_cast<int>(r) < rank()) place += all[r].host == mine.host;
    }
    if (!given) device_.index = place % mine.devices;
    return all[0].id;
  }
  void initialize(ncclUniqueId const& id) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    auto const slot = std::make_shared<ncclComm_t>();
    auto const code = ncclCommInitRankConfig(slot.get(), size(), id, rank(), &config);
    attempt(slot, code, [&] { return *slot ? state_of(*slot) : ncclInProgress; });
  }
  /// The stream and the word of this rank, and NCCL's communicator; every rank learns whether all have theirs.
  template <class Make>
  void begin(bool own_stream, Make const& make) {
    nccl_report mine;
    mine.what = {operation::split};
    try {
      auto const here = device_.use();
      if (own_stream) {
        device_.stream = nullptr;
        cuda::check(cudaStreamCreateWithFlags(&device_.stream, cudaStreamNonBlocking), "cudaStreamCreate");
        own_stream_ = true;
      }
      word_ = cuda::device_buffer<int>(1, device_);
      device_.wait();
      make();
    } catch (std::exception const& e) {
      mine.is = nccl_report::state::broken;
      mine.say(e.what());
    }
    try {
      auto const all = gathered(*control_, mine);
      for (std::size_t r = 0; r < all.size(); ++r)
        if (all[r].is != nccl_report::state::calls)
          throw comm_error(message("comm::nccl: rank ", r, " could not join: ", all[r].text.data()), int(r));
    } catch (...) {  // the destructor does not run
      cuda::current_device const here(device_.index, std::nothrow);
      abort_now();
      word_ = {};
      if (own_stream_) static_cast<void>(cudaStreamDestroy(device_.stream));
      throw;
    }
  }
  /// Waits for a communicator that is being made. Where that does not come to an end the slot is left to NCCL.
  template <class State>
  void attempt(std::shared_ptr<ncclComm_t> const& slot, ncclResult_t code, State const& state) {
    auto const limit = std::max<std::chrono::milliseconds>(options_.deadline, std::chrono::seconds(2));
    if (nccl_goes_on(code) && !poll(limit, [&] { return (code = state()) != ncclInProgress; })) {
      comm_ = *slot;
      if (!comm_) static_cast<void>(new std::shared_ptr<ncclComm_t>(slot));
      throw comm_error(message("NCCL is not ready after ", limit.count(), " ms (nccl_options::deadline)"), rank());
    }
    comm_ = *slot;
    nccl_check(code, "making a communicator", rank(), comm_);
  }

  template <class T>
  static std::vector<T> gathered(nccl_control& control, T const& mine) {
    std::vector<T> all(static_cast<std::size_t>(control.size()));
    control.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
    return all;
  }
  static ncclResult_t state_of(ncclComm_t c) {
    ncclResult_t state = ncclSuccess;
    auto const code = ncclCommGetAsyncError(c, &state);
    return code == ncclSuccess ? state : code;
  }
  /// What NCCL has to say of this rank: success, or an error.
  ncclResult_t reported() const {
    if (!comm_ || broken_) return ncclInternalError;
    auto const code = state_of(comm_);
    return code == ncclInProgress ? ncclSuccess : code;
  }
  void require_usable() const {
    if (broken_) std::rethrow_exception(broken_);
  }

  /// Asks again and again: often at first, then every fiftieth of a millisecond. The others are told that this rank is
  /// there when it takes longer. False when the time is over.
  template <class Done>
  bool poll(std::chrono::milliseconds limit, Done const& done) {
    auto const since = clock::now();
    std::optional<away_guard> there;
    for (int n = 0;; ++n) {
      if (done()) return true;
      auto const waited = clock::now() - since;
      if (waited > limit) return false;
      if (!there && waited > std::chrono::milliseconds(10)) {
        away_guard now = control_->away();  // with a name: nvcc takes the argument of a call for discarded
        there = std::move(now);
      }
      pause(n);
    }
  }
  static void pause(int n) {
    if (n < 200)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(20));
  }

  /// All ranks say what they call; throws the same on all unless it is the same.
  void compare(call c) {
    c.about = about_;
    nccl_report mine{c, sequence_};
    meet(mine);
  }
  /// NCCL queues in the background what it cannot queue at once.
  void settle(ncclResult_t code, char const* name, call const& c, int also_to) {
    if (code == ncclSuccess) return;
    if (code == ncclInProgress && !poll(options_.deadline, [&] { return (code = state_of(comm_)) != ncclInProgress; }))
      fail(nccl_report::state::late, message(name, " was not queued within ", options_.deadline.count(), " ms"), c,
           sequence_, also_to);
    if (code != ncclSuccess)
      fail(nccl_report::state::failed, message(name, ": ", nccl_text(code, comm_)), c, sequence_);
  }

  void finish(nccl_work& w) {
    w.finished = true;
    traffic_ = traffic_ + w.moves;
  }
  /// Takes out what is done.
  void sweep() {
    while (!outstanding_.empty() && outstanding_.front()->done.state() == cudaSuccess) {
      finish(*outstanding_.front());
      outstanding_.pop_front();
    }
  }
  /// What is known of the first outstanding operation.
  struct view {
    cudaError_t code = cudaErrorNotReady;
    ncclResult_t error = ncclSuccess;
    bool late = false;
    bool over() const { return code != cudaErrorNotReady || error != ncclSuccess || late; }
  };
  /// Its time begins when its stream has come to it, as far as was seen. Before that there is no limit: what is queued
  /// there is the caller's.
  view look(nccl_work& w) const {
    view v{w.done.state()};
    if (v.code != cudaErrorNotReady) return v;
    v.error = reported();
    if (!w.since && w.begun.state() == cudaSuccess) w.since = clock::now();
    v.late = w.since && clock::now() - *w.since > options_.deadline;
    return v;
  }
  /// Waits for the first outstanding operation.
  void await(nccl_work& w) {
    auto const here = device_.use();
    view now;
    static_cast<void>(poll(std::chrono::hours(24 * 365), [&] { return (now = look(w)).over(); }));
    auto const [code, error, late] = now;
    static_cast<void>(late);  // if it is nothing else
    if (code == cudaSuccess) {
      finish(w);
      outstanding_.pop_front();
    } else if (code != cudaErrorNotReady) {
      fail(nccl_report::state::broken,
           message("CUDA: ", cudaGetErrorString(code), " (", cudaGetErrorName(code),
                   "): a kernel before it failed, which compute-sanitizer finds; the process must end"),
           w.what, w.number);
    } else if (error != ncclSuccess) {
      fail(nccl_report::state::failed, nccl_text(error, comm_), w.what, w.number);
    } else {
      fail(nccl_report::state::late, {}, w.what, w.number, w.also_to);
    }
  }

  /// Ends what runs, finds out with the others what happened, and throws it; so does every later operation.
  [[noreturn]] DOVETAIL_COLD void fail(nccl_report::state how, std::string const& text, call const& c,
                                       std::uint64_t number, int also_to = -1) {
    stop();
    if (c.op == operation::send || c.op == operation::recv) {  // an affair of two: the others know nothing of it
      auto const here = message(c, " on rank ", rank(), ": ");
      if (how == nccl_report::state::late && also_to >= 0 && also_to != c.root) {  // NCCL does not say which it was
        auto const lost = control_->lost_ranks();
        auto const is_lost = [&](int r) { return std::find(lost.begin(), lost.end(), r) != lost.end(); };
        bool const from = is_lost(c.root), to = is_lost(also_to);
        give_up<rank_lost>(message(here, "it, or the send to rank ", also_to, " with it, was not done for ", late()),
                           from == to ? -1
                           : from     ? c.root
                                      : also_to);
      }
      if (how == nccl_report::state::late)
        give_up<rank_lost>(message(here, "rank ", c.root, " did not come for ", late()), c.root);
      give_up<comm_error>(here + text, rank());
    }
    nccl_report mine{c, number, how};
    mine.say(text);
    meet(mine);
    std::rethrow_exception(broken_);  // meet throws what does not only call
  }
  /// Throws unless all ranks are about to call the same.
  DOVETAIL_COLD void meet(nccl_report const& mine) {
    std::vector<nccl_report> all;
    try {
      all = gathered(*control_, mine);
    } catch (rank_lost const& e) {
      give_up<rank_lost>(message(where(mine), ": ", e.what()), e.rank);
    } catch (rank_diverged const& e) {
      give_up<rank_diverged>(message(where(mine), ": ", e.what()), e.rank);
    } catch (comm_error const& e) {
      give_up<comm_error>(message(where(mine), ": ", e.what()), e.rank);
    }
    bool good = true;
    for (auto const& r : all) good = good && r.is == nccl_report::state::calls && same_call(r, mine);
    if (good) return;
    auto const v = judge(all, late());
    auto const what = message(where(mine), ": ", v.why);
    if (v.is == nccl_verdict::kind::lost) give_up<rank_lost>(what, v.who);
    if (v.is == nccl_verdict::kind::diverged) give_up<rank_diverged>(what, v.who);
    give_up<comm_error>(what, v.who);
  }
  template <class Error>
  [[noreturn]] DOVETAIL_COLD void give_up(std::string const& what, int who) {
    stop();
    break_with(std::make_exception_ptr(Error(what, who)));
    std::rethrow_exception(broken_);
  }
  void break_with(std::exception_ptr e) {
    broken_ = std::move(e);
    for (auto const& w : outstanding_) {
      w->finished = true;
      w->error = broken_;
    }
    outstanding_.clear();
  }
  std::string where(nccl_report const& r) const {
    return message(r.what, ", operation ", r.number, " of ", size(), " ranks over NCCL");
  }
  std::string late() const {
    return message(options_.deadline.count(), " ms, the deadline (nccl_options::deadline can be raised)");
  }

  /// Ends what runs on the device: revoked, so that NCCL can shrink it, or aborted. Never waits for long.
  DOVETAIL_COLD void stop() noexcept {
    if (!comm_ || revoked_) return;
    sweep();  // behind this, what is ended looks as what is done
#ifdef NCCL_REVOKE_DEFAULT
    try {
      auto const limit = std::min<std::chrono::milliseconds>(options_.deadline, std::chrono::seconds(2));
      ncclResult_t code = ncclCommRevoke(comm_, NCCL_REVOKE_DEFAULT);
      if (nccl_goes_on(code) && poll(limit, [&] { return (code = state_of(comm_)) != ncclInProgress; }) &&
          code == ncclSuccess) {
        revoked_ = true;
        return;
      }
    } catch (...) {  // the others could not be told that this rank is there
    }
#endif
    abort_now();
  }
  /// ncclCommAbort may wait, for a device that hangs for ever: another thread does.
  DOVETAIL_COLD void abort_now() noexcept {
    if (!comm_) return;
    auto* const c = std::exchange(comm_, nullptr);
    try {
      auto const over = std::make_shared<std::atomic<bool>>(false);
      std::thread waits([c, over, index = device_.index] {
        static_cast<void>(cudaSetDevice(index));
        static_cast<void>(ncclCommAbort(c));
        *over = true;
      });
      auto const since = clock::now();
      for (int n = 0; !*over && clock::now() - since < options_.deadline; ++n) pause(n);
      if (*over)
        waits.join();
      else
        waits.detach();
    } catch (...) {  // no thread to be had
      static_cast<void>(ncclCommAbort(c));
    }
  }
  /// The end in good order: when all that was queued is done everywhere. False when the others do not come to it.
  DOVETAIL_COLD bool finalize() noexcept {
    try {
      ncclResult_t code = ncclCommFinalize(comm_);
      if (!nccl_goes_on(code)) return false;
      auto const over = [&] { return (code = state_of(comm_)) != ncclInProgress; };
      // Ranks that are lost do not come to it; but who has left may have done its part of what still runs here.
      auto const alone = [&] {
        if (control_->lost_ranks().empty()) return false;
        sweep();
        return outstanding_.empty() || look(*outstanding_.front()).over();
      };
      if (!poll(options_.deadline, [&] { return over() || alone(); })) return false;
      if (!over() || code != ncclSuccess) return false;
      static_cast<void>(ncclCommDestroy(std::exchange(comm_, nullptr)));
      return true;
    } catch (...) {
      return false;
    }
  }

  std::unique_ptr<nccl_control> control_;
  cuda::device device_;
  bool own_stream_ = false;
  nccl_options options_;
  int exceptions_ = std::uncaught_exceptions();
  ncclComm_t comm_ = nullptr;
  bool revoked_ = false;
  cuda::device_buffer<int> word_;  ///< what a barrier adds up
  std::uint64_t sequence_ = 0;
  std::deque<std::shared_ptr<nccl_work>> outstanding_;  ///< in the order of the device
  std::exception_ptr broken_;
  subject about_;
  comm::traffic traffic_;
};

}  // namespace dovetail::comm::detail
