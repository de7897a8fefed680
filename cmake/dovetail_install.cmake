# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
set(_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/dovetail)

install(DIRECTORY include/dovetail DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS dovetail EXPORT dovetail)
install(EXPORT dovetail NAMESPACE dovetail:: DESTINATION ${_config_dir} FILE dovetail-core.cmake)
configure_package_config_file(cmake/dovetail-config.cmake.in dovetail-config.cmake INSTALL_DESTINATION ${_config_dir})
write_basic_package_version_file(dovetail-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/dovetail-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/dovetail-config-version.cmake
              cmake/dovetail_components.cmake DESTINATION ${_config_dir})
