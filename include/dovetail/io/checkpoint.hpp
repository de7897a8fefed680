// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include <dovetail/core/atomic_file.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/regular_file.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/io/crc32.hpp>
#include <dovetail/io/safetensors.hpp>

namespace dovetail::io {

/// The tensor in which a checkpoint keeps its checksums: int32 bits of the CRC-32 of the file up to the data, then of
/// each other tensor in the order of the data. (int32, because readers of older PyTorch know no uint32.)
inline constexpr std::string_view checksum_tensor = "__crc32__";

using checkpoint_metadata = std::map<std::string, std::string>;

/// A safetensors file opened for reading: its header is read and verified, its tensors wait to be read by name.
class checkpoint_file {
 public:
  /// Throws checkpoint_error if the file cannot be read or anything in its header does not hold.
  static checkpoint_file open(std::filesystem::path const& path) { return checkpoint_file(path); }

  /// All tensors but the checksums, in the order of their data.
  std::vector<safetensors::entry> const& entries() const { return entries_; }
  checkpoint_metadata const& metadata() const { return metadata_; }
  /// Whether the file carries checksums; those of other programs do not.
  bool has_checksums() const { return !checksums_.empty(); }
  /// The tensor called `name`, or null.
  safetensors::entry const* find(std::string const& name) const {
    auto const it = index_.find(name);
    return it == index_.end() ? nullptr : &entries_[it->second];
  }

  /// The bytes of one tensor, checked against its checksum. Throws checkpoint_error.
  std::vector<std::byte> read(std::string const& name) {
    auto const* e = find(name);
    require<checkpoint_error>(e, path_, ": there is no tensor '", name, "'");
    auto bytes = read_at(*e);
    if (has_checksums()) {
      auto const expected = checksums_[1 + static_cast<std::size_t>(e - entries_.data())], found = crc32(bytes);
      require<checkpoint_error>(found == expected, path_, ": tensor '", name, "', ", bytes.size(), " bytes at offset ",
                                data_begin_ + e->begin, ", has checksum ", found, ", expected ", expected,
                                ": the file is damaged, use an older checkpoint");
    }
    return bytes;
  }

 private:
  explicit checkpoint_file(std::filesystem::path const& path) : path_(path) {
    require_regular_to_read<checkpoint_error>(path);
    errno = 0;
    in_.open(path, std::ios::binary);
    require<checkpoint_error>(in_.is_open(), path, " cannot be opened: ", std::strerror(errno ? errno : EIO));
    std::error_code failed;
    auto const size = std::filesystem::file_size(path, failed);
    require<checkpoint_error>(!failed, path, " cannot be read: ", failed.message());
    require<checkpoint_error>(size >= 8, path, " is truncated: it has ", size,
                              " bytes, its header's length alone needs 8");
    std::string head(8, '\0');
    read_exactly(head.data(), 8, 0);
    std::uint64_t length = 0;
    for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<std::uint8_t>(head[i]);
    require<checkpoint_error>(length <= size - 8, path, ": its header claims ", length,
                              " bytes, after it the file has ", size - 8, ": it is truncated or no safetensors file");
    require<checkpoint_error>(length <= safetensors::max_header, path, ": its header claims ", length,
                              " bytes, at most ", safetensors::max_header, " are read");
    head.resize(8 + length);
    read_exactly(head.data() + 8, length, 8);
    data_begin_ = 8 + length;
    safetensors::header h;
    try {
      h = safetensors::read_header(std::string_view(head).substr(8), size - data_begin_);
    } catch (checkpoint_error const& e) {
      throw checkpoint_error(message(path, ": ", e.what()));
    }
    metadata_ = std::move(h.metadata);
    safetensors::entry sums;
    for (auto& e : h.entries) (e.name == checksum_tensor ? sums : entries_.emplace_back()) = std::move(e);
    for (std::size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
    if (sums.name.empty()) return;
    require<checkpoint_error>(sums.type == dtype::i32 && sums.bytes() == 4 * (entries_.size() + 1), path, ": '",
                              checksum_tensor, "' is ", sums.type_name(), ' ', safetensors::to_string(sums.shape),
                              ", expected I32 {", entries_.size() + 1, "}");
    auto const bytes = read_at(sums);
    checksums_.resize(entries_.size() + 1);
    std::memcpy(checksums_.data(), bytes.data(), bytes.size());
    auto const found = crc32(std::as_bytes(std::span(head)));
    require<checkpoint_error>(found == checksums_[0], path, ": the header has checksum ", found, ", expected ",
                              checksums_[0], ": the file is damaged, use an older checkpoint");
  }

  std::vector<std::byte> read_at(safetensors::entry const& e) {
    std::vector<std::byte> bytes(e.bytes());  // the header fits the file: so does this
    read_exactly(reinterpret_cast<char*>(bytes.data()), e.bytes(), data_begin_ + e.begin);
    return bytes;
  }
  void read_exactly(char* to, std::uint64_t n, std::uint64_t at) {
    errno = 0;
    in_.clear();
    in_.seekg(static_cast<std::streamoff>(at));
    in_.read(to, static_cast<std::streamsize>(n));
    require<checkpoint_error>(in_ && static_cast<std::uint64_t>(in_.gcount()) == n, path_, ": ", n, " bytes at offset ",
                              at, " cannot be read: ", errno ? std::strerror(errno) : "the file ends before");
  }

  std::filesystem::path path_;
  std::ifstream in_;
  std::uint64_t data_begin_ = 0;
  std::vector<safetensors::entry> entries_;
  std::unordered_map<std::string, std::size_t> index_;
  checkpoint_metadata metadata_;
  std::vector<std::uint32_t> checksums_;
};

namespace detail {
inline std::vector<std::int64_t> extents_of(shape const& s) { return {s.extents, s.extents + s.rank}; }

inline void check_tensor(std::filesystem::path const& path, named_tensor const& t) {
  // By division: an extent may be negative, and their product may overflow.
  std::uint64_t left = t.bytes.size() / size_of(t.type);
  bool fits = t.bytes.size() % size_of(t.type) == 0, empty = false;
  for (int d = 0; d < t.shape.rank; ++d) {
    fits = fits && t.shape[d] >= 0;
    empty = empty || t.shape[d] == 0;
  }
  for (int d = 0; fits && !empty && d < t.shape.rank; ++d) {
    auto const extent = static_cast<std::uint64_t>(t.shape[d]);
    fits = left % extent == 0;
    left /= extent;
  }
  require<checkpoint_error>(fits && left == (empty ? 0 : 1), path, ": tensor '", t.name, "' of shape ", t.shape,
                            " and dtype ", safetensors::name_of(t.type), " has ", t.bytes.size(), " bytes of memory");
}
}  // namespace detail

/// Writes the tensors as a safetensors file that replaces `path` as a whole or not at all (core/atomic_file.hpp), and
/// is on the disk when it returns. Wider elements come first, so that every tensor is aligned in the file.
/// Throws checkpoint_error: a repeated or reserved name, or the system's reason; the old file is then untouched.
inline void save_checkpoint(std::filesystem::path const& path, std::vector<named_tensor> const& tensors,
                            checkpoint_metadata const& metadata = {}) {
  std::vector<named_tensor const*> order;
  std::unordered_map<std::string_view, int> names;
  for (auto const& t : tensors) {
    require<checkpoint_error>(t.name != checksum_tensor && t.name != "__metadata__", path, ": the name '", t.name,
                              "' is reserved for the format");
    require<checkpoint_error>(names.emplace(t.name, 0).second, path, ": two tensors are called '", t.name,
                              "': names must be unique");
    detail::check_tensor(path, t);
  }
  std::vector<std::uint32_t> checksums(tensors.size() + 1);
  named_tensor const sums{std::string(checksum_tensor),
                          dtype::i32,
                          {static_cast<std::int64_t>(checksums.size())},
                          std::as_writable_bytes(std::span(checksums))};
  for (std::size_t const width : {8u, 4u, 2u, 1u}) {
    for (auto const& t : tensors)
      if (size_of(t.type) == width) order.push_back(&t);
    if (size_of(sums.type) == width) order.push_back(&sums);
  }

  safetensors::header h{.entries = {}, .metadata = metadata};
  std::uint64_t at = 0;
  for (auto const* t : order) {
    h.entries.push_back({.name = t->name,
                         .type = t->type,
                         .shape = detail::extents_of(t->shape),
                         .begin = at,
                         .end = at + t->bytes.size()});
    at += t->bytes.size();
  }
  std::string head;
  try {
    head = safetensors::write_header(h);
  } catch (checkpoint_error const& e) {
    throw checkpoint_error(message(path, ": ", e.what()));
  }
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(head.size() >> (8 * i) & 0xffu);
  head = length + head;
  checksums[0] = crc32(std::as_bytes(std::span(head)));
  std::size_t next = 1;
  for (auto const* t : order)
    if (t != &sums) checksums[next++] = crc32(t->bytes);

  atomic_file<checkpoint_error> file(path);
  file.write(head);
  for (auto const* t : order) file.write(t->bytes);
  file.commit();
}

struct load_options {
  bool ignore_unexpected = false;  ///< skip tensors that nobody asked for: only the weights of a whole checkpoint
  bool allow_unchecked = false;    ///< accept a file without checksums, such as another program's
};

/// Reads a safetensors file into `into`, each tensor by its name, and returns the metadata. All or nothing: header,
/// names, dtypes, shapes and checksums are verified before the first byte of `into` is written; this takes the memory
/// of the tensors once more while it lasts. Throws checkpoint_error that names the file, the tensor, and what was
/// found.
inline checkpoint_metadata load_checkpoint(std::filesystem::path const& path, std::vector<named_tensor> const& into,
                                           load_options const& options = {}) {
  auto file = checkpoint_file::open(path);
  require<checkpoint_error>(file.has_checksums() || options.allow_unchecked, path,
                            " has no checksums: if another program wrote it, load it with .allow_unchecked = true");
  std::unordered_map<std::string_view, int> names;
  std::string missing;
  for (auto const& t : into) {
    detail::check_tensor(path, t);
    require<checkpoint_error>(names.emplace(t.name, 0).second, path, ": two tensors to be loaded are called '", t.name,
                              "': names must be unique");
    auto const* e = file.find(t.name);
    if (!e) {
      missing += (missing.empty() ? "'" : ", '") + t.name + "'";
      continue;
    }
    require<checkpoint_error>(e->type.has_value(), path, ": tensor '", t.name, "' has the dtype '", e->unknown_type,
                              "', which is not known here: convert it to ", safetensors::name_of(t.type));
    require<checkpoint_error>(e->type == t.type && e->shape == detail::extents_of(t.shape), path, ": tensor '", t.name,
                              "' is ", e->type_name(), ' ', safetensors::to_string(e->shape), " in the file, expected ",
                              safetensors::name_of(t.type), ' ', t.shape,
                              ": it belongs to another model or configuration");
  }
  std::string unexpected;
  if (!options.ignore_unexpected)
    for (auto const& e : file.entries())
      if (!names.contains(e.name)) unexpected += (unexpected.empty() ? "'" : ", '") + e.name + "'";
  require<checkpoint_error>(
      missing.empty() && unexpected.empty(), path,
      ": the checkpoint does not match:", missing.empty() ? "" : " missing in the file: ", missing,
      missing.empty() || unexpected.empty() ? "" : ";", unexpected.empty() ? "" : " not expected: ", unexpected);
  std::vector<std::vector<std::byte>> staged;
  staged.reserve(into.size());
  for (auto const& t : into) staged.push_back(file.read(t.name));
  for (std::size_t i = 0; i < into.size(); ++i)
    if (!staged[i].empty()) std::memcpy(into[i].bytes.data(), staged[i].data(), staged[i].size());
  return file.metadata();
}

}  // namespace dovetail::io
