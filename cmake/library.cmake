# What applications link: libflashelm as a shared and as a static library, and
# what find_package() and pkg-config need to find them where they are installed.
#
#   flashelm::flashelm         shared; brings all that it needs
#   flashelm::flashelm_static  static; needs the libraries listed below
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# As FLASHELM_ABI_VERSION in the header.
set(FLASHELM_SOVERSION 0)
set(rooms base kernels predictor storage core c_api)

# Neither has a source of its own, which CMake asks for.
set(no_source ${PROJECT_BINARY_DIR}/generated/flashelm_library.cc)
file(CONFIGURE OUTPUT ${no_source} CONTENT "// Nothing.\n")

add_library(flashelm_shared SHARED
  ${no_source} $<TARGET_OBJECTS:flashelm_c_api>)
# Of these archives, what the interface needs.
target_link_libraries(flashelm_shared PRIVATE flashelm_core)
set_target_properties(flashelm_shared PROPERTIES
  EXPORT_NAME flashelm
  VERSION ${PROJECT_VERSION}
  SOVERSION ${FLASHELM_SOVERSION})
if(NOT APPLE)
  # What the map does not list stays inside, templates of other libraries too.
  # Newer Android devices have pages of 16 KiB.
  target_link_options(flashelm_shared PRIVATE
    LINKER:--version-script=${PROJECT_SOURCE_DIR}/core/flashelm.map
    LINKER:-z,max-page-size=16384)
  set_target_properties(flashelm_shared PROPERTIES
    LINK_DEPENDS ${PROJECT_SOURCE_DIR}/core/flashelm.map)
  if(NOT FLASHELM_SANITIZE)
    target_link_options(flashelm_shared PRIVATE LINKER:-z,defs)
  endif()
endif()

add_library(flashelm_static STATIC ${no_source})
foreach(room IN LISTS rooms)
  target_sources(flashelm_static PRIVATE $<TARGET_OBJECTS:flashelm_${room}>)
endforeach()
set(dependencies
  fmt::fmt Threads::Threads PkgConfig::hwy PkgConfig::zstd PkgConfig::xxhash)
set(FLASHELM_PC_REQUIRES "fmt libhwy libzstd libxxhash")
if(FLASHELM_HAS_URING)
  list(APPEND dependencies PkgConfig::uring)
  string(APPEND FLASHELM_PC_REQUIRES " liburing")
endif()
target_link_libraries(flashelm_static INTERFACE
  "$<BUILD_INTERFACE:${dependencies}>"
  $<INSTALL_INTERFACE:flashelm::static_dependencies>)

foreach(library flashelm_shared flashelm_static)
  flashelm_target(${library})
  set_target_properties(${library} PROPERTIES OUTPUT_NAME flashelm)
  target_include_directories(${library} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()
# How the library was compiled is no affair of who links it.
set_property(TARGET flashelm_shared flashelm_static
  PROPERTY INTERFACE_COMPILE_FEATURES "")
add_library(flashelm::flashelm ALIAS flashelm_shared)
add_library(flashelm::flashelm_static ALIAS flashelm_static)

# Of a project that adds this one, only what it links is built.
if(NOT PROJECT_IS_TOP_LEVEL)
  set_property(TARGET flashelm_shared flashelm_static
    PROPERTY EXCLUDE_FROM_ALL TRUE)
  foreach(room IN LISTS rooms)
    set_property(TARGET flashelm_${room} PROPERTY EXCLUDE_FROM_ALL TRUE)
  endforeach()
endif()

if(NOT FLASHELM_INSTALL)
  return()
endif()
set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/flashelm)
# Parts, for packages: what runs, and what others are compiled with.
install(TARGETS flashelm_shared flashelm_static EXPORT flashelm
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    COMPONENT runtime NAMELINK_COMPONENT development
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/flashelm
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(EXPORT flashelm NAMESPACE flashelm:: FILE flashelm-targets.cmake
  DESTINATION ${config_dir} COMPONENT development)
configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/flashelm-config.cmake.in
  ${PROJECT_BINARY_DIR}/generated/flashelm-config.cmake
  INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/generated/flashelm-config-version.cmake
  COMPATIBILITY SameMinorVersion)
file(RELATIVE_PATH FLASHELM_PC_PREFIX
  /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
foreach(pc flashelm flashelm-static)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/${pc}.pc.in
    ${PROJECT_BINARY_DIR}/generated/${pc}.pc @ONLY)
endforeach()
install(FILES
  ${PROJECT_BINARY_DIR}/generated/flashelm-config.cmake
  ${PROJECT_BINARY_DIR}/generated/flashelm-config-version.cmake
  DESTINATION ${config_dir} COMPONENT development)
install(FILES
  ${PROJECT_BINARY_DIR}/generated/flashelm.pc
  ${PROJECT_BINARY_DIR}/generated/flashelm-static.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
