// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <exception>
#include <functional>
#include <memory>
#include <utility>

#include <boost/mpi/communicator.hpp>
#include <boost/mpi/environment.hpp>

#include <dovetail/comm/endpoint.hpp>
#include <dovetail/comm/mpi_engine.hpp>

namespace dovetail::comm {

/// Ranks that are processes of an MPI job: a communicator, and a world of which one rank lives in each process. A
/// handle: copies mean the same rank, count the same traffic, and must not be used by two threads at once.
/// Construction is collective and, like the call of MPI inside split, has no deadline.
///
/// A rank whose process ends, that leaves, or that does not answer within the deadline makes the others throw
/// rank_lost; divergence makes them throw rank_diverged. Afterwards nothing is freed and MPI is not finalised, as
/// both would wait for the lost rank: the process should report and end (with a status other than 0: mpirun notices).
/// Throws argument_error after MPI_Finalize, and for options that cannot be.
class mpi : public endpoint<detail::mpi_engine> {
 public:
  using communicator = mpi;

  /// All ranks of the job. Initialises MPI, for use by one thread at a time, if nobody has; then the last copy to go
  /// finalises it, so that a program keeps one for as long as it communicates.
  explicit mpi(mpi_options options = {}) : endpoint(join_world(options)) {}
  /// The ranks of the caller's communicator, which is duplicated: messages do not mix.
  explicit mpi(boost::mpi::communicator const& c, mpi_options options = {})
      : endpoint(join(static_cast<MPI_Comm>(c), options, nullptr)) {}
  explicit mpi(MPI_Comm c, mpi_options options = {}) : endpoint(join(c, options, nullptr)) {}

  /// Calls f(*this). An exception is told to the other ranks before it goes on, so that they need not wait.
  template <class F>
  void run(F&& f) {
    try {
      std::invoke(std::forward<F>(f), *this);
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
    MPI_Query_thread(&level);
    require(level >= MPI_THREAD_SERIALIZED, "comm::async on comm::mpi: this program initialised MPI with ",
            level == MPI_THREAD_SINGLE ? "MPI_THREAD_SINGLE" : "MPI_THREAD_FUNNELED",
            ", which forbids calls from another thread: use MPI_Init_thread with MPI_THREAD_SERIALIZED");
  }
  mpi split(int color, int key) { return mpi(endpoint::split(color, key)); }

 private:
  explicit mpi(endpoint&& e) : endpoint(std::move(e)) {}

  static detail::mpi_engine join_world(mpi_options const& options) {
    int finalized = 0;
    MPI_Finalized(&finalized);
    require(!finalized, "comm::mpi after MPI_Finalize: keep one comm::mpi (or your own environment) alive");
    std::unique_ptr<boost::mpi::environment> environment;
    if (!boost::mpi::environment::initialized())
      environment = std::make_unique<boost::mpi::environment>(boost::mpi::threading::serialized, false);
    return join(MPI_COMM_WORLD, options, std::move(environment));
  }
  static detail::mpi_engine join(MPI_Comm c, mpi_options const& options,
                                 std::unique_ptr<boost::mpi::environment> environment) {
    require(options.deadline.count() > 0, "deadline ", options.deadline.count(), " ms: it must be positive");
    require(options.largest_message >= 8 && options.largest_message <= 0x7ffffff8 && options.largest_message % 8 == 0,
            "largest_message ", options.largest_message, ": a multiple of 8 below 2^31");
    require(boost::mpi::environment::initialized(), "comm::mpi on a communicator before MPI_Init");
    return detail::mpi_engine(std::make_shared<detail::mpi_job>(c, options, std::move(environment)));
  }
  void give_up(std::string const& reason) { engine().job().give_up(reason); }
};

}  // namespace dovetail::comm
