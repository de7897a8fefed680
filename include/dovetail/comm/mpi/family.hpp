// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <chrono>
#include <iterator>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include <dovetail/comm/fork_mark.hpp>
#include <dovetail/comm/mpi/check.hpp>
#include <dovetail/comm/mpi/environment.hpp>
#include <dovetail/comm/mpi/peers.hpp>
#include <dovetail/comm/mpi/wire.hpp>

namespace dovetail::comm::detail {

/// What a communicator and all that was split from it have in common: MPI's own end of life, and those of them that
/// were destroyed while others of their ranks still work. They are ended whenever somebody of the family waits or
/// makes a communicator, so that ranks may destroy them at different times and in any order.
class mpi_family {
 public:
  mpi_family(std::unique_ptr<mpi_environment> environment, std::chrono::milliseconds deadline)
      : deadline_(deadline), environment_(std::move(environment)) {}
  mpi_family(mpi_family const&) = delete;
  mpi_family& operator=(mpi_family const&) = delete;
  /// Waits for the others to leave what this rank has left, up to the deadline. What is not ended then is not freed.
  ~mpi_family() {
    auto const start = mpi_clock::now();
    while (!off_limits() && !mpi_is_over()) {
      tend();
      auto const waited = mpi_clock::now() - start;
      // MPI_Finalize waits for everybody, and without noticing that somebody dies: who is to call it waits here. After
      // a failure nobody is to; what is left by then are the parts of those who went on.
      if (closing_.empty() || (waited > deadline_ && (broken_ || !environment_))) break;
      if (waited > std::chrono::milliseconds(1))
        std::this_thread::sleep_for(std::min<mpi_clock::duration>(waited / 16, std::chrono::milliseconds(1)));
    }
    if (broken_ || off_limits()) static_cast<void>(environment_.release());  // MPI_Finalize would wait for everybody
  }

  void bury(std::unique_ptr<mpi_wire> wire, mpi_peers peers, bool is_whole) {
    {
      std::lock_guard const lock(mutex_);
      closing_.push_back({std::move(wire), std::move(peers), is_whole});
    }
    tend();
  }
  /// Ends what can be ended now.
  void tend() noexcept {
    std::unique_lock const lock(mutex_, std::try_to_lock);
    if (!lock) return;
    bool const look = mpi_clock::now() - looked_ > std::chrono::milliseconds(50);
    if (look) looked_ = mpi_clock::now();
    for (auto at = closing_.begin(); at != closing_.end();) {
      bool over = false, failed = false;
      try {
        over = at->wire->settled();
        if (over) at->wire->free();
        failed = !over && at->wire->failed();
        for (int r = 0; !over && look && r < at->wire->size(); ++r)  // who has ended will not bid farewell any more
          failed = failed || (!at->wire->has_farewell(r) && !at->peers.alive(r));
      } catch (...) {
        failed = true;
      }
      broken_ = broken_ || (failed && at->is_whole);
      at = over || failed ? closing_.erase(at) : std::next(at);  // what has failed is not freed
    }
  }
  /// After a failure of the whole.
  void give_up() { broken_ = true; }

  /// MPI must not be called: in the child of a fork, and while a call that will not return occupies it.
  bool off_limits() const { return mark.forked() || occupied; }

  fork_mark const mark;
  bool occupied = false;

 private:
  struct closing {
    std::unique_ptr<mpi_wire> wire;
    mpi_peers peers;
    bool is_whole;
  };
  std::chrono::milliseconds const deadline_;
  std::unique_ptr<mpi_environment> environment_;
  std::mutex mutex_;
  std::list<closing> closing_;
  bool broken_ = false;
  mpi_clock::time_point looked_{};
};

}  // namespace dovetail::comm::detail
