# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# dovetail_test_rules, dovetail_test_matrix_rules: every rule of the library's lists, compiled once for all tests that go
# through the rules (known.hpp). In parts, so that several cores have something to do. Quickly optimized and with the
# loops of one processor level, they compile in little more than half the time; that other loops give the same is what
# optim_levels shows. They need nothing but the library: machines with a device have no doctest.
add_library(dovetail_test_rules STATIC EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/known.cpp)
foreach(part RANGE 3)
  add_library(dovetail_test_rules_${part} OBJECT EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/part.cpp)
  target_compile_definitions(dovetail_test_rules_${part} PRIVATE PART=${part})
  target_sources(dovetail_test_rules PRIVATE $<TARGET_OBJECTS:dovetail_test_rules_${part}>)
endforeach()
set(libraries dovetail_test_rules dovetail_test_rules_0 dovetail_test_rules_1 dovetail_test_rules_2 dovetail_test_rules_3)
if(TARGET dovetail::lapack)
  add_library(dovetail_test_matrix_rules STATIC EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/matrix.cpp)
  target_link_libraries(dovetail_test_matrix_rules PUBLIC dovetail_test_rules dovetail::lapack)
  list(APPEND libraries dovetail_test_matrix_rules)
endif()
foreach(library IN LISTS libraries)
  target_link_libraries(${library} PUBLIC dovetail::dovetail PRIVATE dovetail_options)
  target_include_directories(${library} PUBLIC ${PROJECT_SOURCE_DIR}/test)
  target_compile_options(${library} PRIVATE -O1)
  target_compile_definitions(${library} PUBLIC DOVETAIL_X86_LEVELS=0)  # one kind of loops in a program
endforeach()
