# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The interface targets, used by this build, by add_subdirectory and, through the package's config file, by
# find_package(dovetail COMPONENTS mpi onednn lapack io). The core needs a compiler and threads.
#
#   dovetail::dovetail   everything that needs no dependency
#   dovetail::mpi        comm/mpi.hpp      (MPI, Boost.MPI)
#   dovetail::onednn     nn/onednn/…       (oneDNN 2 or 3)
#   dovetail::lapack     optim/matrix/…    (BLAS, LAPACK)
#   dovetail::io         io/checkpoint.hpp and the other files a run leaves  (nlohmann-json)
#   dovetail::gzip       data/gzip.hpp     (zlib)
#   dovetail::zstd       compress/zstd.hpp (zstd)
#   dovetail::cuda       optim/cuda/…, compress/cuda/…  (CUDA toolkit)
#   dovetail::cuda_matrix  optim/cuda/matrix.cuh  (cuBLAS, cuSOLVER)
#   dovetail::nccl       comm/nccl.hpp     (CUDA toolkit, NCCL)
find_package(Threads REQUIRED)
include(GNUInstallDirs)

if(NOT TARGET dovetail::dovetail)
  add_library(dovetail INTERFACE)
  add_library(dovetail::dovetail ALIAS dovetail)
  target_compile_features(dovetail INTERFACE cxx_std_20)
  target_include_directories(dovetail INTERFACE $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
                                                $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(dovetail INTERFACE Threads::Threads)
  set_target_properties(dovetail PROPERTIES EXPORT_NAME dovetail)
  set(dovetail_is_new ON)
endif()

include(${CMAKE_CURRENT_LIST_DIR}/dovetail_components.cmake)
if(dovetail_is_new)
  dovetail_same_bits(dovetail)
endif()
foreach(component IN ITEMS mpi onednn lapack io gzip zstd cuda cuda_matrix nccl)
  dovetail_component(${component} QUIET)
  if(NOT dovetail_${component}_FOUND)
    message(STATUS "dovetail: ${dovetail_NOT_FOUND_MESSAGE}")
  endif()
endforeach()
