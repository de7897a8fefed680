// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include <mpi.h>

#include <dovetail/core/error.hpp>

// Calls of MPI whose result is looked at, and calls that take part in a collective of MPI against a deadline.
namespace dovetail::comm::detail {

using mpi_clock = std::chrono::steady_clock;

inline std::string mpi_text(int code) {
  char text[MPI_MAX_ERROR_STRING + 1]{};
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return message("error ", code, " of MPI");
  return text;
}
/// Throws comm_error when a call of MPI has failed; `rank` is the peer's that it was about.
inline void mpi_check(int code, char const* what, int rank = -1) {
  if (code != MPI_SUCCESS) [[unlikely]]
    throw comm_error(message(what, " failed: ", mpi_text(code)), rank);
}

inline bool mpi_is_over() {
  int finalized = 0;
  return MPI_Finalized(&finalized) != MPI_SUCCESS || finalized != 0;
}

/// While it lives, errors on somebody else's communicator are returned: by default MPI ends the program.
class errors_returned {
 public:
  explicit errors_returned(MPI_Comm c) : comm_(c) {
    if (MPI_Comm_get_errhandler(c, &before_) != MPI_SUCCESS) before_ = MPI_ERRHANDLER_NULL;
    static_cast<void>(MPI_Comm_set_errhandler(c, MPI_ERRORS_RETURN));
  }
  errors_returned(errors_returned const&) = delete;
  errors_returned& operator=(errors_returned const&) = delete;
  ~errors_returned() {
    if (before_ == MPI_ERRHANDLER_NULL) return;
    static_cast<void>(MPI_Comm_set_errhandler(comm_, before_));
    static_cast<void>(MPI_Errhandler_free(&before_));
  }

 private:
  MPI_Comm comm_;
  MPI_Errhandler before_ = MPI_ERRHANDLER_NULL;
};

/// The deadline for the construction of a communicator: not less than two seconds, because MPI cannot take back what
/// was begun, and makes no further communicators afterwards.
inline std::chrono::milliseconds to_construct(std::chrono::milliseconds deadline) {
  return std::clamp<std::chrono::milliseconds>(deadline, std::chrono::seconds(2), std::chrono::hours(24 * 365));
}

/// A duplicate, made together by all ranks of `parent`, within the deadline. MPI does not say who is missing; `alive()`
/// throws when a rank is known to have ended.
template <class Alive>
MPI_Comm mpi_duplicate(MPI_Comm parent, std::chrono::milliseconds deadline, Alive alive) {
  deadline = to_construct(deadline);
  errors_returned const quiet(parent);
  auto made = std::make_unique<MPI_Comm>(MPI_COMM_NULL);  // MPI writes here when it is done
  MPI_Request request = MPI_REQUEST_NULL;
  mpi_check(MPI_Comm_idup(parent, made.get(), &request), "MPI_Comm_idup");
  auto const start = mpi_clock::now();
  auto look = start + std::chrono::milliseconds(10);
  for (;;) {
    int there = 0;
    mpi_check(MPI_Test(&request, &there, MPI_STATUS_IGNORE), "MPI_Comm_idup");
    if (there) break;
    auto const now = mpi_clock::now();
    auto const waited = now - start;
    if (now >= look) {
      look = now + std::chrono::milliseconds(10);
      try {
        alive();
      } catch (...) {
        static_cast<void>(made.release());
        throw;
      }
    }
    if (waited > deadline) {
      static_cast<void>(made.release());
      throw rank_lost(message("comm::mpi: not all ranks of the communicator came to construct it within ",
                              deadline.count(), " ms, the deadline (mpi_options::deadline can be raised)"),
                      -1);
    }
    if (waited > std::chrono::milliseconds(1))
      std::this_thread::sleep_for(std::min<mpi_clock::duration>(waited / 16, std::chrono::milliseconds(1)));
    else
      std::this_thread::yield();
  }
  mpi_check(MPI_Comm_set_errhandler(*made, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return *made;
}

/// What `make(MPI_Comm*)` makes of ranks that have all just met: MPI has no splitting that can be polled. So that
/// a rank that dies in the middle of it does not block the others for ever, another thread calls it where MPI allows
/// that; `occupied` stays true when it has not returned. `alive()` throws when a rank is known to have ended.
template <class Make, class Alive>
MPI_Comm mpi_made(char const* what, Make make, std::chrono::milliseconds deadline, bool& occupied, Alive alive) {
  deadline = to_construct(deadline);
  struct shared {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    int code = MPI_SUCCESS;
    MPI_Comm part = MPI_COMM_NULL;
  };
  auto const state = std::make_shared<shared>();
  auto const split = [=] {
    MPI_Comm part = MPI_COMM_NULL;
    int const code = make(&part);
    std::lock_guard const lock(state->mutex);
    state->code = code;
    state->part = part;
    state->done = true;
    state->changed.notify_one();
  };
  int level = MPI_THREAD_SINGLE;
  mpi_check(MPI_Query_thread(&level), "MPI_Query_thread");
  if (level < MPI_THREAD_SERIALIZED) {
    split();
  } else {
    std::thread(split).detach();
    occupied = true;
    auto const give_up = mpi_clock::now() + deadline;
    std::unique_lock lock(state->mutex);
    while (!state->changed.wait_for(lock, std::chrono::milliseconds(10), [&] { return state->done; })) {
      alive();
      if (mpi_clock::now() > give_up)
        throw rank_lost(message(what, " did not return within ", deadline.count(), " ms, the deadline"), -1);
    }
    occupied = false;
  }
  mpi_check(state->code, what);
  mpi_check(MPI_Comm_set_errhandler(state->part, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return state->part;
}

}  // namespace dovetail::comm::detail
