// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <system_error>
#include <vector>

#include <dovetail/core/error.hpp>

namespace dovetail::data {

/// The bytes of a file, at most `limit` of them. Throws input_error with the system's reason.
DOVETAIL_COLD inline std::vector<std::uint8_t> read_bytes(std::filesystem::path const& path,
                                                          std::size_t limit = std::numeric_limits<std::size_t>::max()) {
  std::error_code failed;
  require<input_error>(!std::filesystem::is_directory(path, failed), path, " is a folder where a file is expected");
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  require<input_error>(in.is_open(), path, " cannot be opened: ", std::strerror(errno ? errno : EIO));
  std::vector<std::uint8_t> bytes;
  // By chunks, because the size that a pipe or a special file reports says nothing.
  std::size_t const chunk = std::size_t{1} << 20;
  while (in && bytes.size() < limit) {
    std::size_t const at = bytes.size(), want = std::min(chunk, limit - at);
    bytes.resize(at + want);
    in.read(reinterpret_cast<char*>(bytes.data() + at), static_cast<std::streamsize>(want));
    bytes.resize(at + static_cast<std::size_t>(in.gcount()));
  }
  require<input_error>(!in.bad(), path, " cannot be read past byte ", bytes.size(), ": ",
                       std::strerror(errno ? errno : EIO));
  return bytes;
}

}  // namespace dovetail::data
