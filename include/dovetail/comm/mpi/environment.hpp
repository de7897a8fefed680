// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <memory>
#include <type_traits>

#include <mpi.h>

#if defined(DOVETAIL_BOOST_MPI)
#include <boost/mpi/communicator.hpp>
#include <boost/mpi/environment.hpp>
#endif

#include <dovetail/comm/mpi/check.hpp>

// MPI's beginning and end, where the program leaves them to comm::mpi. With DOVETAIL_BOOST_MPI, which the CMake target
// dovetail::mpi defines where Boost.MPI is found, they are boost::mpi::environment's; nothing else asks for it.
namespace dovetail::comm::detail {

inline bool mpi_is_initialized() {
  int yes = 0;
  return MPI_Initialized(&yes) == MPI_SUCCESS && yes != 0;
}

/// Initializes MPI, for calls by one thread at a time, and finalizes it.
class mpi_environment {
 public:
#if defined(DOVETAIL_BOOST_MPI)
  mpi_environment() : environment_(boost::mpi::threading::serialized, /*abort_on_exception*/ false) {}

 private:
  boost::mpi::environment environment_;
#else
  mpi_environment() {
    int provided = MPI_THREAD_SINGLE;
    mpi_check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  }
  mpi_environment(mpi_environment const&) = delete;
  mpi_environment& operator=(mpi_environment const&) = delete;
  ~mpi_environment() {
    if (!mpi_is_over()) static_cast<void>(MPI_Finalize());
  }
#endif
};

/// A communicator of somebody else's: MPI's own, or an object that has ranks and converts to it, as
/// boost::mpi::communicator. Not a number, although MPI_Comm may be one.
template <class C>
concept mpi_communicator = std::is_same_v<C, MPI_Comm> ||
    (std::is_class_v<C>&& std::is_convertible_v<C const&, MPI_Comm>&& requires(C const& c) {
      c.rank();
      c.size();
    });

}  // namespace dovetail::comm::detail
