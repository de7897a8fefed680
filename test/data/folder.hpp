// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

namespace fixture {

/// A folder of its own under the system's temporary one, removed with everything in it at the end.
struct folder {
  std::filesystem::path path;
  folder() {
    std::string name = (std::filesystem::temp_directory_path() / "dovetail-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::filesystem::filesystem_error("mkdtemp", name, std::error_code());
    path = name;
  }
  folder(folder const&) = delete;
  ~folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::filesystem::path operator/(std::string const& name) const { return path / name; }
};

inline void write(std::filesystem::path const& path, std::string_view bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

inline std::string read(std::filesystem::path const& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The bytes of an IDX file of unsigned bytes.
inline std::string idx(std::initializer_list<std::uint32_t> extents, std::string_view elements) {
  std::string out{'\0', '\0', '\x08', static_cast<char>(extents.size())};
  for (auto const e : extents)
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(e >> shift));
  return out.append(elements);
}

/// what() of the exception that `f` throws as an E; a sentence that no test expects if it throws none.
template <class E, class F>
std::string thrown(F&& f) {
  try {
    f();
  } catch (E const& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace fixture
