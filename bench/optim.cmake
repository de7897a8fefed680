# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# One source, several sets of flags, each a shared library that shows nothing but its factory (optim_step.hpp).
function(dovetail_bench_stepper name source)
  add_library(bench_optim_${name} SHARED ${source})
  target_link_libraries(bench_optim_${name} PRIVATE dovetail::dovetail)
  set_target_properties(bench_optim_${name} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_compile_options(bench_optim_${name} PRIVATE ${ARGN})  # these come last, so they override the build type's
endfunction()
dovetail_bench_stepper(plain optim_step_library.cpp -O2)
target_compile_definitions(bench_optim_plain PRIVATE MAKE=make_library_plain)
dovetail_bench_stepper(native optim_step_library.cpp -O3 -march=native -fno-math-errno)
target_compile_definitions(bench_optim_native PRIVATE MAKE=make_library_native)
dovetail_bench_stepper(by_hand optim_step_by_hand.cpp -O3 -march=native -fno-math-errno)

dovetail_bench(optim_rules optim_rules.cpp)
if(TARGET bench_optim_rules)
  target_compile_options(bench_optim_rules PRIVATE -O2)
  target_compile_definitions(bench_optim_rules PRIVATE DOVETAIL_BENCH_SOURCE="${CMAKE_CURRENT_SOURCE_DIR}")
endif()

if(TARGET dovetail::lapack AND TARGET dovetail::onednn)
  dovetail_bench(optim_matrix optim_matrix.cpp LIBS dovetail::lapack dovetail::onednn)
  if(TARGET bench_optim_matrix)
    foreach(name IN ITEMS sgemm ssyrk dsyevd dgeqrf dorgqr dpotrf dpotri)
      target_link_options(bench_optim_matrix PRIVATE -Wl,--wrap=${name}_)
    endforeach()
  endif()
else()
  message(STATUS "dovetail: bench_optim_matrix is left out: it needs LAPACK and oneDNN")
endif()

find_package(Torch QUIET)
dovetail_bench(optim_step optim_step.cpp LIBS bench_optim_plain bench_optim_native bench_optim_by_hand)
if(Torch_FOUND AND TARGET bench_optim_step)
  # libtorch's headers are not held to this project's warnings.
  foreach(program IN ITEMS bench_optim_step bench_optim_step_compiles)
    target_include_directories(${program} SYSTEM PRIVATE ${TORCH_INCLUDE_DIRS})
  endforeach()
  target_link_libraries(bench_optim_step PRIVATE ${TORCH_LIBRARIES})
  target_compile_definitions(bench_optim_step PRIVATE DOVETAIL_BENCH_TORCH=1)
endif()

# Its figures are accuracies: a plain program.
if(TARGET dovetail::onednn)
  dovetail_program(bench_optim_large_batch optim_large_batch.cpp LIBS dovetail::onednn)
endif()
