# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# What this project's own programs share: warnings, the sanitizer presets, doctest's main, CUDA when wanted.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(DOVETAIL_SANITIZE "" CACHE STRING "Sanitizers of the programs, as for -fsanitize=: address,undefined or thread")

# Off for machines with a GPU, whose compilers are not those that are tried here: a new warning costs no run there.
option(DOVETAIL_WERROR "Warnings of the project's own programs are errors" ON)
set(DOVETAIL_ONLY "" CACHE STRING "Tests and benchmarks of these modules alone, for example cuda; empty: of all")
set(DOVETAIL_TESTS "" CACHE STRING "Tests whose names match this regular expression alone; empty: all")
option(DOVETAIL_TESTS_TOGETHER "Compile several sources of a test program as one" ON)

add_library(dovetail_options INTERFACE)
target_compile_options(dovetail_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wconversion>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>")
if(DOVETAIL_WERROR)
  target_compile_options(dovetail_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Werror> $<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings>)
endif()
if(DOVETAIL_SANITIZE)
  target_compile_options(dovetail_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${DOVETAIL_SANITIZE};-fno-sanitize-recover=all;-fno-omit-frame-pointer;-g1>)
  target_link_options(dovetail_options INTERFACE -fsanitize=${DOVETAIL_SANITIZE})
endif()

set(DOVETAIL_HAS_CUDA OFF)
if(DOVETAIL_CUDA STREQUAL "ON" OR DOVETAIL_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
      # One is enough: the one that is here, so that the tests run; else one that shows what compiles. (CMake's own
      # "native" needs CMake 3.24, and warns where there is no device.)
      execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                      OUTPUT_VARIABLE capabilities RESULT_VARIABLE no_device ERROR_QUIET)
      if(no_device EQUAL 0 AND capabilities MATCHES "^([0-9]+)\\.([0-9])")
        set(CMAKE_CUDA_ARCHITECTURES ${CMAKE_MATCH_1}${CMAKE_MATCH_2})
      else()
        set(CMAKE_CUDA_ARCHITECTURES 90)
        set(compiled_only ON)
      endif()
      message(STATUS "dovetail: CUDA programs are compiled for sm_${CMAKE_CUDA_ARCHITECTURES}")
    endif()
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 20)
    if(compiled_only)  # nobody runs them here: a third of nvcc's time is the host compiler's -O3
      string(REPLACE "-O3" "-O0" CMAKE_CUDA_FLAGS_RELEASE "${CMAKE_CUDA_FLAGS_RELEASE}")
    endif()
    set(DOVETAIL_HAS_CUDA ON)
  elseif(DOVETAIL_CUDA STREQUAL "ON")
    message(FATAL_ERROR "DOVETAIL_CUDA is ON, but no CUDA compiler was found: put nvcc on PATH or set CUDACXX")
  else()
    message(STATUS "dovetail: no CUDA compiler, the CUDA programs are left out")
  endif()
endif()

# All that needs a GPU to run: `./run gpu` builds this target alone, on machines that may have little but nvcc.
add_custom_target(gpu)

# All benchmarks: `./run bench` builds this target alone, on machines that may lack what tests need. Others need to know
# only that they compile, which takes a third of the time: the second target, and the test of its name. What a benchmark
# needs beyond LIBS, definitions and options is to be said for NAME_compiles too.
add_custom_target(benchmarks)
add_custom_target(benchmarks_compile)

# dovetail_program(name sources... LIBS targets... O1): one program of this project; with `cuda` in its name it is for a
# GPU. MPI is said here, in LIBS, where the address sanitizer's leaks are left to it. O1: it asks what is done, not how
# fast, and a third of its compile time would be GCC's loops.
function(dovetail_program name)
  cmake_parse_arguments(arg "O1" "" "LIBS" ${ARGN})
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE dovetail::dovetail ${arg_LIBS} dovetail_options)
  if(arg_O1)
    target_compile_options(${name} PRIVATE -O1)
  endif()
  if(DOVETAIL_SANITIZE MATCHES "address" AND "dovetail::mpi" IN_LIST arg_LIBS)
    target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/test/sanitizers/no_leak_check.cpp)
  endif()
  if(name MATCHES "cuda")
    add_dependencies(gpu ${name})
    # CMake takes the toolkit's folder for one that the loader searches anyway, and writes no path to it.
    set_target_properties(${name} PROPERTIES BUILD_RPATH "${CUDAToolkit_LIBRARY_DIR}")
  elseif(name MATCHES "^bench_")
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
    add_dependencies(benchmarks ${name})
    add_library(${name}_compiles OBJECT EXCLUDE_FROM_ALL ${arg_UNPARSED_ARGUMENTS})
    target_link_libraries(${name}_compiles PRIVATE dovetail::dovetail ${arg_LIBS} dovetail_options)
    foreach(property IN ITEMS COMPILE_DEFINITIONS COMPILE_OPTIONS)
      set_property(TARGET ${name}_compiles APPEND PROPERTY ${property} $<TARGET_PROPERTY:${name},${property}>)
    endforeach()
    set_property(TARGET ${name}_compiles APPEND PROPERTY COMPILE_OPTIONS -fsyntax-only)
    add_dependencies(benchmarks_compile ${name}_compiles)
  endif()
endfunction()
