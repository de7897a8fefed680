// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The header of a safetensors file (https://github.com/huggingface/safetensors, "Format"): 8 bytes of little-endian
// length, then JSON: name -> {dtype, shape, data_offsets}, and "__metadata__": string -> string. The data follows
// without holes. Nothing in a file is trusted: every number is checked before it is used.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <dovetail/core/error.hpp>
#include <dovetail/core/state.hpp>

namespace dovetail::io::safetensors {

/// The reference implementation's limit.
inline constexpr std::uint64_t max_header = 100'000'000;

struct entry {
  std::string name;
  std::optional<dovetail::dtype> type = {};  ///< nothing: one that this library does not know
  std::vector<std::int64_t> shape = {};
  std::uint64_t begin = 0, end = 0;  ///< bytes, counted from the end of the header
  std::string unknown_type = {};     ///< as the file calls it, where `type` is nothing

  std::uint64_t bytes() const { return end - begin; }
  /// The type as the file calls it: "F32".
  std::string_view type_name() const;
};

struct header {
  std::vector<entry> entries;  ///< in the order of their data
  std::map<std::string, std::string> metadata;
};

inline constexpr std::array<std::pair<dtype, std::string_view>, 10> dtype_names{{{dtype::f64, "F64"},
                                                                                 {dtype::f32, "F32"},
                                                                                 {dtype::f16, "F16"},
                                                                                 {dtype::bf16, "BF16"},
                                                                                 {dtype::i64, "I64"},
                                                                                 {dtype::i32, "I32"},
                                                                                 {dtype::u64, "U64"},
                                                                                 {dtype::u32, "U32"},
                                                                                 {dtype::u16, "U16"},
                                                                                 {dtype::u8, "U8"}}};

inline std::string_view name_of(dtype t) {
  for (auto const& [type, name] : dtype_names)
    if (type == t) return name;
  return "?";
}

inline std::string_view entry::type_name() const { return type ? name_of(*type) : std::string_view(unknown_type); }

inline std::string to_string(std::vector<std::int64_t> const& extents) {
  std::string s = "{";
  for (std::size_t i = 0; i < extents.size(); ++i) s += (i ? ", " : "") + std::to_string(extents[i]);
  return s + "}";
}

/// The JSON text of a header, padded with spaces so that the data, 8 bytes of length before it, is 8-byte aligned.
/// Throws checkpoint_error for a name or a metadata text that is not UTF-8, and for more text than can be read back.
inline std::string write_header(header const& h) {
  // By hand: a tree of JSON that keeps its order looks through all names for each one.
  std::string text = "{";
  try {
    if (!h.metadata.empty()) text += "\"__metadata__\":" + nlohmann::json(h.metadata).dump();
    for (auto const& e : h.entries) {
      text += (text.size() > 1 ? "," : "") + nlohmann::json(e.name).dump();
      text += message(":{\"dtype\":\"", e.type_name(), "\",\"shape\":[");
      for (std::size_t i = 0; i < e.shape.size(); ++i) text += (i ? "," : "") + std::to_string(e.shape[i]);
      text += message("],\"data_offsets\":[", e.begin, ',', e.end, "]}");
    }
  } catch (nlohmann::json::exception const&) {
    throw checkpoint_error("a tensor's name or a metadata text is not valid UTF-8, which the format demands");
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  require<checkpoint_error>(text.size() <= max_header, "the header of ", h.entries.size(), " tensors has ", text.size(),
                            " bytes, at most ", max_header, " can be read back: save them in several files");
  return text;
}

namespace detail {

/// Reads the header event by event: no tree is built, so a hostile header costs no more memory than its own length.
class header_reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  header result;
  std::string problem;

  bool null() override { return refuse("null"); }
  bool boolean(bool) override { return refuse("a boolean"); }
  bool number_integer(number_integer_t v) override { return refuse(message("the number ", v)); }
  bool number_float(number_float_t, string_t const& text) override { return refuse(message("the number ", text)); }
  bool binary(binary_t&) override { return refuse("binary data"); }
  bool number_unsigned(number_unsigned_t v) override {
    if (at_ == place::shape && v <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      result.entries.back().shape.push_back(static_cast<std::int64_t>(v));
      return true;
    }
    if (at_ == place::offsets && offsets_ < 2) {
      (offsets_++ == 0 ? result.entries.back().begin : result.entries.back().end) = v;
      return true;
    }
    return refuse(message("the number ", v));
  }
  bool string(string_t& v) override {
    if (at_ == place::metadata)
      return result.metadata.emplace(field_, v).second || stop(message("the metadata has two '", field_, "'"));
    if (at_ == place::tensor && field_ == "dtype") {
      auto& e = result.entries.back();
      for (auto const& [type, name] : dtype_names)
        if (name == v) e.type = type;
      if (!e.type) e.unknown_type = v;  // its tensor cannot be loaded, the others can
      field_.clear();
      return true;
    }
    return refuse(message("the string '", v, "'"));
  }
  bool start_object(std::size_t) override {
    if (at_ == place::start)
      at_ = place::top;
    else if (at_ == place::top && top_is_metadata_)
      at_ = place::metadata;
    else if (at_ == place::top)
      at_ = place::tensor;
    else
      return refuse("an object");
    return true;
  }
  bool key(string_t& k) override {
    if (at_ == place::top) {
      if (!names_.insert(k).second) return stop(message("'", k, "' appears twice"));
      top_is_metadata_ = k == "__metadata__";
      if (!top_is_metadata_) result.entries.push_back({.name = k});
      fields_.clear();
      return true;
    }
    if (at_ == place::metadata) {
      field_ = k;
      return true;
    }
    if (k != "dtype" && k != "shape" && k != "data_offsets")
      return stop(
          message("tensor '", result.entries.back().name, "' has a field '", k, "' that the format does not know"));
    field_ = k;
    if (!fields_.insert(k).second)
      return stop(message("tensor '", result.entries.back().name, "' has two fields '", k, "'"));
    return true;
  }
  bool end_object() override {
    if (at_ == place::tensor && fields_.size() != 3)
      return stop(message("tensor '", result.entries.back().name, "' lacks its dtype, its shape or its data_offsets"));
    at_ = at_ == place::top ? place::finished : place::top;
    return true;
  }
  bool start_array(std::size_t) override {
    if (at_ != place::tensor || (field_ != "shape" && field_ != "data_offsets")) return refuse("an array");
    at_ = field_ == "shape" ? place::shape : place::offsets;
    offsets_ = 0;
    return true;
  }
  bool end_array() override {
    if (at_ == place::offsets && offsets_ != 2)
      return stop(message("tensor '", result.entries.back().name, "' has ", offsets_, " data_offsets instead of 2"));
    at_ = place::tensor;
    field_.clear();
    return true;
  }
  bool parse_error(std::size_t position, std::string const&, nlohmann::json::exception const&) override {
    return problem.empty() ? stop(message("is not JSON at byte ", position + 7)) : false;
  }

 private:
  enum class place { start, top, metadata, tensor, shape, offsets, finished };
  bool stop(std::string what) {
    problem = std::move(what);
    return false;
  }
  bool refuse(std::string const& what) {
    return stop(what + " stands where the format has none" +
                (at_ == place::tensor || at_ == place::shape || at_ == place::offsets
                     ? " (tensor '" + result.entries.back().name + "')"
                     : std::string()));
  }

  place at_ = place::start;
  bool top_is_metadata_ = false;
  std::string field_;
  std::set<std::string> names_, fields_;
  int offsets_ = 0;
};

}  // namespace detail

/// Reads the JSON of a header and checks that its tensors fill `data_bytes` bytes exactly: no hole, no overlap, no size
/// that disagrees with a shape. Throws checkpoint_error, without the file's name.
inline header read_header(std::string_view json, std::uint64_t data_bytes) {
  // The parser skips a byte-order mark and ends at a byte of zero; the format begins with '{' and has neither.
  require<checkpoint_error>(!json.starts_with("\xef\xbb\xbf"), "the header begins with a byte-order mark");
  auto const zero = json.find('\0');
  require<checkpoint_error>(zero == std::string_view::npos, "the header has a byte of zero at byte ", zero + 8);
  detail::header_reader reader;
  bool const read = nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  require<checkpoint_error>(read && reader.problem.empty(), "the header: ", reader.problem);
  auto h = std::move(reader.result);
  std::sort(h.entries.begin(), h.entries.end(), [](entry const& a, entry const& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t at = 0;
  for (auto const& e : h.entries) {
    require<checkpoint_error>(e.begin == at && e.end >= e.begin && e.end <= data_bytes, "tensor '", e.name,
                              "' claims bytes [", e.begin, ", ", e.end, ") of the data; expected it to begin at ", at,
                              " and to end within ", data_bytes);
    at = e.end;
    if (!e.type) continue;  // so many bytes, of whatever they are
    std::uint64_t size = size_of(*e.type);
    bool fits = true;
    for (auto const extent : e.shape) {
      auto const x = static_cast<std::uint64_t>(extent);
      fits = fits && (x == 0 || size <= std::numeric_limits<std::uint64_t>::max() / x);
      size = fits ? size * x : size;
    }
    require<checkpoint_error>(fits && size == e.bytes(), "tensor '", e.name, "' of shape ", to_string(e.shape),
                              " and dtype ", e.type_name(), " does not fit its ", e.bytes(), " bytes at offset ",
                              e.begin);
  }
  require<checkpoint_error>(at == data_bytes, "the tensors end at byte ", at, " of the data, the file at ", data_bytes);
  return h;
}

}  // namespace dovetail::io::safetensors
