// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <dovetail/comm/endpoint.hpp>
#include <dovetail/comm/mpi/engine.hpp>
#include <dovetail/comm/mpi/environment.hpp>

namespace dovetail::comm {

/// Ranks that are processes of an MPI job: a communicator, and a world of which one rank lives in each process. A
/// handle: copies mean the same rank, count the same traffic, and must not be used by two threads at once.
/// Construction is collective. So is the end of the last copy: it waits for the other ranks' end, for the deadline at
/// most, or, where it has to finalize MPI, until they have come or their processes have ended. Parts made by split may
/// be destroyed in any order, whatever the other ranks do.
///
/// A rank whose process ends, that leaves, or that does not answer within the deadline makes the others throw
/// rank_lost; divergence makes them throw rank_diverged. Afterwards nothing is freed and MPI is not finalized, as
/// both would wait for the lost rank: the process should report and end (with a status other than 0: mpirun notices).
/// Throws argument_error after MPI_Finalize, and for options that cannot be.
class mpi : public endpoint<detail::mpi_engine> {
 public:
  using communicator = mpi;

  /// `sums` is what it promises unless it is told otherwise: with mpi_order::native all-reduce is MPI's, and MPI
  /// requires that all ranks receive identical results (MPI 3.1, section 5.9.6), in whatever order.
  sum_order sums_in_use() { return engine().job().options.order == mpi_order::native ? sum_order::same_on_all : sums; }

  /// All ranks of the job. Initializes MPI, for use by one thread at a time, if nobody has; then the last copy to go
  /// finalizes it, so that a program keeps one for as long as it communicates.
  explicit mpi(mpi_options options = {}) : endpoint(join_world(options)) {}
  /// The ranks of the caller's communicator, an MPI_Comm or a boost::mpi::communicator, which is duplicated: messages
  /// do not mix.
  template <detail::mpi_communicator C>
  explicit mpi(C const& c, mpi_options options = {}) : endpoint(join(static_cast<MPI_Comm>(c), options, nullptr)) {}

  /// Makes the steps of an algorithm (comm/algorithms.hpp) as the own collectives are made: from and to the caller's
  /// memory, with their deadline, by the same sequence of calls.
  class steps {
   public:
    explicit steps(detail::mpi_engine engine) : engine_(std::move(engine)) {}
    void check() const {}  // the job throws the first failure itself
    void fail() {}
    void begin(call const& c) {
      call_ = c;
      engine_.begin_steps(c);
    }
    template <class Piece>
    void exchange(std::span<Piece const> sends, std::span<Piece const> recvs) {
      engine_.exchange_step(call_, sends, recvs);
    }
    bool unfinished() { return engine_.job().unfinished(); }

   private:
    detail::mpi_engine engine_;
    call call_;
  };
  steps step_transport() { return steps(engine()); }

  /// Calls f(*this). An exception is told to the other ranks before it goes on, so that they need not wait; so is that
  /// f has returned: a rank that is still in its own run() then knows that this one does not come any more.
  template <class F>
  void run(F&& f) {
    engine().job().watch().enter_run();
    try {
      std::invoke(std::forward<F>(f), *this);
      engine().job().watch().return_from_run();
    } catch (std::exception const& e) {
      give_up(message("rank ", rank(), " threw: ", e.what()));
      throw;
    } catch (...) {
      give_up(message("rank ", rank(), " threw something that is no std::exception"));
      throw;
    }
  }
  /// comm::async calls this before its thread does. Throws argument_error when MPI does not allow it.
  void allow_other_thread() const {
    int level = MPI_THREAD_SINGLE;
    detail::mpi_check(MPI_Query_thread(&level), "MPI_Query_thread");
    require(level >= MPI_THREAD_SERIALIZED, "comm::async on comm::mpi: this program initialized MPI with ",
            level == MPI_THREAD_SINGLE ? "MPI_THREAD_SINGLE" : "MPI_THREAD_FUNNELED",
            ", which forbids calls from another thread: use MPI_Init_thread with MPI_THREAD_SERIALIZED");
  }
  /// What collectives move data by: "messages" of MPI; "messages from host to host", where ranks of several hosts
  /// follow one another; "shared memory", where all ranks are on one host; "shared memory, single copy", where they may
  /// also read each other's arrays. The results are the same.
  char const* transport() { return engine().transport(); }
  mpi split(int color, int key) { return mpi(endpoint::split(color, key)); }
  mpi duplicate() { return mpi(endpoint::duplicate()); }
  mpi shrink() { return mpi(endpoint::shrink()); }

 private:
  explicit mpi(endpoint&& e) : endpoint(std::move(e)) {}

  static detail::mpi_engine join_world(mpi_options const& options) {
    require(!detail::mpi_is_over(), "comm::mpi after MPI_Finalize: keep one comm::mpi (or your own environment) alive");
    check(options);
    std::unique_ptr<detail::mpi_environment> environment;
    if (!detail::mpi_is_initialized()) environment = std::make_unique<detail::mpi_environment>();
    return join(MPI_COMM_WORLD, options, std::move(environment));
  }
  static void check(mpi_options const& options) {
    require(options.deadline.count() > 0, "deadline ", options.deadline.count(), " ms: it must be positive");
    require(options.largest_message >= 8 && options.largest_message <= 0x7ffffff8 && options.largest_message % 8 == 0,
            "largest_message ", options.largest_message, ": a multiple of 8 below 2^31");
    require(options.lanes >= 0, "mpi_options::lanes ", options.lanes, ": a number of ranks, or 0");
    require(options.host.size() <= 63, "mpi_options::host '", options.host, "': at most 63 characters");
    require(options.mailbox.messages > 0 && options.mailbox.bytes > 0, "mailbox of ", options.mailbox.messages,
            " messages and ", options.mailbox.bytes, " bytes: there must be room for one message");
  }
  static detail::mpi_engine join(MPI_Comm c, mpi_options const& options,
                                 std::unique_ptr<detail::mpi_environment> environment) {
    check(options);
    require(detail::mpi_is_initialized() && !detail::mpi_is_over(),
            "comm::mpi on a communicator before MPI_Init or after MPI_Finalize");
    check(c);
    auto const family = std::make_shared<detail::mpi_family>(std::move(environment), options.deadline);
    try {
      auto const nobody_is_known = [] {};
      MPI_Comm const collective = detail::mpi_duplicate(c, options.deadline, nobody_is_known);
      MPI_Comm const messages = detail::mpi_duplicate(collective, options.deadline, nobody_is_known);
      return detail::mpi_engine(std::make_shared<detail::mpi_job>(
          std::make_unique<detail::mpi_wire>(collective, messages), options, family, nullptr));
    } catch (...) {
      family->give_up();
      throw;
    }
  }
  static void check(MPI_Comm c) {
    require(c != MPI_COMM_NULL,
            "comm::mpi on MPI_COMM_NULL: this rank is in no communicator (MPI_Comm_split with "
            "MPI_UNDEFINED gives that): do not construct it here");
    // Where MPI_Comm is a number, any number gets here.
    detail::errors_returned const world(MPI_COMM_WORLD), self(MPI_COMM_SELF);
    int inter = 0;
    int const code = MPI_Comm_test_inter(c, &inter);
    require(code == MPI_SUCCESS, "comm::mpi: this is no communicator of MPI: ", detail::mpi_text(code),
            " (comm::mpi{} is all ranks of the job; mpirun -n says how many)");
    require(inter == 0,
            "comm::mpi on an inter-communicator: collectives need one group of ranks: merge it first, with "
            "MPI_Intercomm_merge");
  }
  void give_up(std::string const& reason) { engine().job().watch().give_up(reason); }
};

}  // namespace dovetail::comm
