// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/fingerprint.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/data/dataset.hpp>
#include <dovetail/data/file.hpp>

namespace dovetail::data {

/// Makes the contents of a compressed file from its bytes; `path` is for messages. It may stop behind `limit` bytes.
using unpacker = std::vector<std::uint8_t> (*)(std::span<std::uint8_t const> bytes, std::filesystem::path const& path,
                                               std::size_t limit);

/// Which files of the folder, and what a pixel becomes.
struct idx_options {
  std::string split = "train";  ///< "train", "test" (files called t10k-…), or another prefix of the file names
  float mean = 0;               ///< a value is (pixel / 255 - mean) × scale: [0, 1] as it stands
  float scale = 1;              ///< 1 / standard deviation, to normalize
  unpacker unpack = nullptr;    ///< for files that are compressed: data::gunzip, of data/gzip.hpp
};

namespace detail {

/// An IDX file of bytes: its extents and where its elements begin.
struct idx_file {
  std::vector<std::uint8_t> bytes;
  std::vector<std::size_t> extents;
  std::size_t header = 0, elements = 0;
};

/// The bytes of an IDX file, which may be compressed. No more is unpacked than the file's own header announces, and one
/// block to see whether there is more.
DOVETAIL_COLD inline std::vector<std::uint8_t> read_idx_bytes(std::filesystem::path const& path, unpacker unpack) {
  auto bytes = read_bytes(path);
  if (bytes.size() < 2 || bytes[0] != 0x1f || bytes[1] != 0x8b) return bytes;  // as every gzip file begins
  require<input_error>(unpack, path,
                       " is compressed with gzip: unpack it, or include <dovetail/data/gzip.hpp> (zlib) and "
                       "pass {.unpack = data::gunzip}");
  auto const head = unpack(bytes, path, 4 + 4 * 4);
  std::uint64_t announced = 4, elements = 1;
  for (std::size_t at = 4; at + 4 <= head.size() && at < 4 + 4 * std::size_t{head[3]}; at += 4) {
    auto const extent = std::uint64_t{head[at]} << 24 | std::uint64_t{head[at + 1]} << 16 |
                        std::uint64_t{head[at + 2]} << 8 | std::uint64_t{head[at + 3]};
    announced += 4;
    elements = extent && elements > (std::uint64_t{1} << 40) / extent ? std::uint64_t{1} << 40 : elements * extent;
  }
  return unpack(bytes, path, announced + elements + 1);
}

/// Reads an IDX file of unsigned bytes with `least` to `most` dimensions; everything is checked against its length.
DOVETAIL_COLD inline idx_file read_idx(std::filesystem::path const& path, std::size_t least, std::size_t most,
                                       char const* what, unpacker unpack) {
  idx_file f{read_idx_bytes(path, unpack), {}, 0, 1};
  auto const word = [&](std::size_t at) {
    return std::uint32_t{f.bytes[at]} << 24 | std::uint32_t{f.bytes[at + 1]} << 16 |
           std::uint32_t{f.bytes[at + 2]} << 8 | std::uint32_t{f.bytes[at + 3]};
  };
  require<input_error>(f.bytes.size() >= 4, path, " is truncated: it has ", f.bytes.size(),
                       " bytes, less than an IDX file's magic number: download it again");
  std::uint32_t const magic = word(0), dimensions = magic & 0xffu;
  if (magic >> 8 != 8 || dimensions < least || dimensions > most) {
    throw input_error(message(path, " is not an IDX file of ", what, ": its magic number is ", magic, ", expected ",
                              0x800 + least, ": is it the right file?"));
  }
  f.header = 4 + 4 * static_cast<std::size_t>(dimensions);
  require<input_error>(f.bytes.size() >= f.header, path, " is truncated: it has ", f.bytes.size(),
                       " bytes, its header alone needs ", f.header, ": download it again");
  std::size_t const available = f.bytes.size() - f.header;
  for (std::size_t d = 0; d < dimensions; ++d) f.extents.push_back(word(4 + 4 * d));
  bool const empty = std::find(f.extents.begin(), f.extents.end(), 0u) != f.extents.end();
  require<input_error>(!empty, path, " holds no ", what, ": one of its extents is 0");
  for (std::size_t const extent : f.extents) {
    // By division: four extents of 32 bits overflow a product.
    require<input_error>(extent <= available / f.elements, path, " is truncated: its header announces more ", what,
                         " than its ", available, " bytes of data hold (first extent ", f.extents[0],
                         "): download it again");
    f.elements *= extent;
  }
  require<input_error>(f.elements == available, path, " has ", available, " bytes of data, its header announces ",
                       f.elements, ": download it again");
  return f;
}

DOVETAIL_COLD inline std::filesystem::path find_idx(std::filesystem::path const& folder, std::string const& split,
                                                    char const* what, int dimensions) {
  std::string const prefix = (split == "test" ? "t10k" : split) + "-" + what;
  std::string const kind = message("idx", dimensions, "-ubyte");
  std::error_code failed;
  for (char const* const ending : {"", ".gz"})
    for (char const dot : {'-', '.'})
      if (auto path = folder / (prefix + dot + kind + ending); std::filesystem::exists(path, failed)) return path;
  throw input_error(message("idx_images: there is no '", prefix, "-", kind, "' in ", folder,
                            ", nor its .gz: put the four IDX files of the data set there"));
}

}  // namespace detail

/// Images of bytes in IDX files, as MNIST and Fashion-MNIST come (LeCun, "The MNIST database"), also compressed
/// (idx_options::unpack): n × height × width, or n × channels × height × width, and one label per image. A batch has
/// size × channels·height·width values. Throws input_error for a file that is missing, truncated or of another kind,
/// and when the counts disagree.
class idx_images {
 public:
  /// Reads <split>-images-idx3-ubyte and <split>-labels-idx1-ubyte (or with a dot before "idx") from `folder`,
  /// or where they are missing the same with .gz behind.
  DOVETAIL_COLD explicit idx_images(std::filesystem::path const& folder, idx_options const& options = {})
      : idx_images(files{detail::find_idx(folder, options.split, "images", 3),
                         detail::find_idx(folder, options.split, "labels", 1)},
                   options) {}
  idx_images(std::filesystem::path const& images, std::filesystem::path const& labels, idx_options const& options = {})
      : idx_images(files{images, labels}, options) {}

  std::int64_t size() const { return static_cast<std::int64_t>(shared_->images.extents[0]); }
  std::int64_t predictions_per_sample() const { return 1; }
  /// A hash of all pixels, as values, and labels.
  std::uint64_t identity() const { return identity_; }
  /// {channels, height, width} of one image.
  dovetail::shape image_shape() const { return shape_; }
  /// Largest label + 1.
  std::int32_t classes() const { return classes_; }

  void load(std::span<std::int64_t const> indices, batch_buffer& out) const {
    auto const& s = *shared_;
    auto const pixels = static_cast<std::size_t>(shape_.size());
    out.reset(indices.size(), pixels, 0, 1);
    float* value = out.values.data();
    for (std::size_t i = 0; i < indices.size(); ++i) {
      require(indices[i] >= 0 && indices[i] < size(), "idx_images: image ", indices[i], " of ", size());
      auto const at = static_cast<std::size_t>(indices[i]);
      std::uint8_t const* pixel = s.images.bytes.data() + s.images.header + at * pixels;
      for (std::size_t p = 0; p < pixels; ++p) *value++ = s.value_of[pixel[p]];
      out.targets[i] = s.labels.bytes[s.labels.header + at];
    }
  }

 private:
  struct files {
    std::filesystem::path images, labels;
  };
  struct storage {
    detail::idx_file images, labels;
    std::array<float, 256> value_of;  // pixels stay bytes in memory: a quarter of the floats
  };

  DOVETAIL_COLD idx_images(files const& from, idx_options const& options) {
    auto const& [images, labels] = from;
    require(is_finite(options.mean) && is_finite(options.scale) && options.scale != 0, "idx_images: mean is ",
            options.mean, " and scale ", options.scale, ": both must be finite, and scale not 0");
    storage s{detail::read_idx(images, 3, 4, "images", options.unpack),
              detail::read_idx(labels, 1, 1, "labels", options.unpack),
              {}};
    require<input_error>(s.images.extents[0] == s.labels.extents[0], "idx_images: ", images, " holds ",
                         s.images.extents[0], " images, but ", labels, " ", s.labels.extents[0],
                         " labels: are they of the same split?");
    for (std::size_t p = 0; p < 256; ++p)
      s.value_of[p] = (static_cast<float>(p) / 255.0f - options.mean) * options.scale;
    auto const& e = s.images.extents;
    shape_ = {e.size() == 4 ? e[1] : std::size_t{1}, e[e.size() - 2], e[e.size() - 1]};
    for (std::size_t i = s.labels.header; i < s.labels.bytes.size(); ++i)
      classes_ = std::max(classes_, static_cast<std::int32_t>(s.labels.bytes[i]) + 1);
    identity_ = fingerprint{}
                    .add(std::as_bytes(std::span(s.images.bytes)))
                    .add(std::as_bytes(std::span(s.labels.bytes)))
                    .add(std::as_bytes(std::span(s.value_of)))
                    .value();
    shared_ = std::make_shared<storage const>(std::move(s));
  }

  std::shared_ptr<storage const> shared_;
  dovetail::shape shape_;
  std::int32_t classes_ = 0;
  std::uint64_t identity_ = 0;
};

}  // namespace dovetail::data
