// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/fingerprint.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/data/dataset.hpp>
#include <dovetail/data/file.hpp>
#include <dovetail/data/vocabulary.hpp>

namespace dovetail::data {

/// How a text is cut into samples and numbered as tokens.
struct text_options {
  std::int64_t window = 64;  ///< T: positions of a sample
  std::int64_t stride = 0;   ///< bytes from one window to the next; 0 means `window`: no overlap
  int vocabulary = 256;      ///< at most so many tokens, 2 to 256: the size of a network's first and last layer
  std::uint64_t rare = 0;    ///< a byte that occurs fewer times than this shares the unknown token
  std::vector<std::string> extensions = {};     ///< of a folder, only files that end so, as ".txt"; empty: all files
  std::uint64_t max_bytes = ~std::uint64_t{0};  ///< stop reading after so many
};

/// Where a corpus may be cut in two.
enum class cut { anywhere, between_files };

/// Text as a stream of bytes, one token each, and samples that are windows of it: position t of a window has the token
/// of a byte, its target is the token of the byte after it. A folder is read recursively, files in the order of their
/// sorted paths, one after the other. A batch has size × T tokens and as many targets.
/// Throws input_error when there is nothing to read or less than one window, argument_error for options out of range.
class text_corpus {
 public:
  explicit text_corpus(std::filesystem::path const& path, text_options options = {})
      : options_(checked(std::move(options))) {
    auto s = std::make_shared<storage>();
    for (auto const& file : files(path)) {
      if (s->tokens.size() >= options_.max_bytes) break;
      auto const bytes = read_bytes(file, options_.max_bytes - s->tokens.size());
      if (bytes.empty()) continue;
      s->starts.push_back(s->tokens.size());
      s->tokens.insert(s->tokens.end(), bytes.begin(), bytes.end());
    }
    use(std::move(s), path.string());
  }
  /// From memory.
  static text_corpus from_string(std::string_view text, text_options options = {}) {
    text_corpus c(checked(std::move(options)), 0);
    auto s = std::make_shared<storage>();
    s->starts = {0};
    s->tokens.assign(text.begin(), text.end());
    c.use(std::move(s), "the given string");
    return c;
  }

  /// Windows that lie wholly in this part.
  std::int64_t size() const { return windows(part_.size()); }
  std::int64_t predictions_per_sample() const { return options_.window; }
  /// A hash of this part's tokens and of how they are cut into windows.
  std::uint64_t identity() const { return identity_; }
  void load(std::span<std::int64_t const> indices, batch_buffer& out) const {
    auto const T = static_cast<std::size_t>(options_.window), stride = static_cast<std::size_t>(options_.stride);
    out.reset(indices.size(), 0, T, T);
    for (std::size_t i = 0; i < indices.size(); ++i) {
      require(indices[i] >= 0 && indices[i] < size(), "text_corpus: window ", indices[i], " of ", size());
      auto const* from = shared_->tokens.data() + part_.begin + static_cast<std::size_t>(indices[i]) * stride;
      std::copy_n(from, T, out.tokens.begin() + static_cast<std::ptrdiff_t>(i * T));
      std::copy_n(from + 1, T, out.targets.begin() + static_cast<std::ptrdiff_t>(i * T));
    }
  }

  /// The first 1 - held_out of the text and the rest, for training and for testing; both share this corpus's memory and
  /// vocabulary, and no window reaches over the cut. `cut::between_files` moves it to the nearest beginning of a file.
  std::pair<text_corpus, text_corpus> split(double held_out = 0.1, cut where = cut::anywhere) const {
    require(held_out > 0 && held_out < 1, "text_corpus: held_out is ", held_out, ": it must lie between 0 and 1");
    auto at = part_.end - static_cast<std::size_t>(std::llround(static_cast<double>(part_.size()) * held_out));
    if (where == cut::between_files) {
      std::size_t best = part_.begin;
      for (std::size_t const start : shared_->starts)
        if (start > part_.begin && start < part_.end &&
            (best == part_.begin || distance(start, at) < distance(best, at)))
          best = start;
      require<input_error>(best != part_.begin,
                           "text_corpus: a single file cannot be cut between files: use cut::anywhere");
      at = best;
    }
    text_corpus train = *this, test = *this;
    train.part_.end = test.part_.begin = at;
    for (auto* c : {&train, &test}) c->identify();
    for (auto const* c : {&train, &test})
      require<input_error>(c->size() >= 1, "text_corpus: holding out ", held_out, " of ", part_.size(),
                           " bytes leaves ", c == &train ? "the training" : "the held-out", " part ", c->part_.size(),
                           " bytes, a window needs ", options_.window + 1, ": use a shorter window or more text");
    return {std::move(train), std::move(test)};
  }

  /// Token -> byte and back; the same for all parts of one corpus.
  data::vocabulary const& vocabulary() const { return shared_->vocabulary; }
  /// The byte of a token, '?' for the unknown token.
  char decode(std::int32_t token) const { return vocabulary().decode(token); }
  std::string decode(std::span<std::int32_t const> tokens) const { return vocabulary().decode(tokens); }
  /// Tokens of this part's text, in order.
  std::span<std::uint8_t const> tokens() const {
    return std::span<std::uint8_t const>(shared_->tokens).subspan(part_.begin, part_.size());
  }
  text_options const& options() const { return options_; }
  bool shares_text_with(text_corpus const& other) const { return shared_ == other.shared_; }

 private:
  struct storage {
    std::vector<std::uint8_t> tokens;
    std::vector<std::size_t> starts;  // of files
    data::vocabulary vocabulary;
  };

  text_corpus(text_options options, int) : options_(std::move(options)) {}

  static text_options checked(text_options o) {
    if (o.stride == 0) o.stride = o.window;
    require(o.window >= 1 && o.window < std::numeric_limits<std::int64_t>::max(), "text_corpus: window is ", o.window,
            ": it must be at least 1 position, and fewer than a text can have bytes");
    require(o.stride >= 1, "text_corpus: stride is ", o.stride, ": it must be at least 1 byte, or 0 for the window");
    require(o.max_bytes >= 1, "text_corpus: max_bytes is 0: it must be at least 1, or nothing is read");
    require(o.vocabulary >= 2 && o.vocabulary <= 256, "text_corpus: vocabulary is ", o.vocabulary,
            ": bytes allow 2 to 256 tokens");
    return o;
  }
  static std::size_t distance(std::size_t a, std::size_t b) { return a < b ? b - a : a - b; }

  std::int64_t windows(std::size_t bytes) const {
    auto const n = static_cast<std::int64_t>(bytes);
    return n <= options_.window ? 0 : (n - options_.window - 1) / options_.stride + 1;
  }

  std::vector<std::filesystem::path> files(std::filesystem::path const& path) const {
    namespace fs = std::filesystem;
    std::error_code failed;
    require<input_error>(fs::exists(path, failed), "text_corpus: ", path,
                         " does not exist: give a text file or a folder");
    if (!fs::is_directory(path, failed)) return {path};
    std::vector<fs::path> found;
    fs::recursive_directory_iterator at(path, failed);
    for (; !failed && at != fs::recursive_directory_iterator(); at.increment(failed)) {
      std::error_code ignored;  // a dangling link is no file
      auto const name = at->path().filename().string();
      bool const wanted =
          options_.extensions.empty() || std::any_of(options_.extensions.begin(), options_.extensions.end(),
                                                     [&](std::string const& e) { return name.ends_with(e); });
      if (wanted && at->is_regular_file(ignored)) found.push_back(at->path());
    }
    require<input_error>(!failed, "text_corpus: ", path, " cannot be read: ", failed.message());
    require<input_error>(!found.empty(), "text_corpus: ", path, " holds no file",
                         options_.extensions.empty() ? "" : " with one of the given extensions, the first being ",
                         options_.extensions.empty() ? "" : options_.extensions.front());
    // The order of a directory is the file system's: sorted, every machine builds the same corpus.
    std::sort(found.begin(), found.end());
    return found;
  }

  void use(std::shared_ptr<storage> s, std::string const& from) {
    require<input_error>(!s->tokens.empty(), "text_corpus: '", from, "' is empty: there is nothing to learn");
    part_ = {0, s->tokens.size()};
    require<input_error>(size() >= 1, "text_corpus: '", from, "' has ", part_.size(), " bytes, a window of ",
                         options_.window, " needs ", options_.window + 1, ": use a shorter window or more text");
    s->vocabulary = data::vocabulary(s->tokens, options_.vocabulary, options_.rare);
    for (auto& t : s->tokens) t = static_cast<std::uint8_t>(s->vocabulary.encode(t));
    shared_ = std::move(s);
    identify();
  }
  void identify() {
    identity_ = fingerprint{}.add(std::as_bytes(tokens())).add(options_.window).add(options_.stride).value();
  }

  std::shared_ptr<storage const> shared_;
  text_options options_;
  range part_;
  std::uint64_t identity_ = 0;
};

/// Bits per character that a bigram model with add-k smoothing, counted on `train`, needs on `test`: the yardstick that
/// a sequence model has to beat. Mean of -log2 p(b | a), p(b | a) = (n(a,b) + k) / (n(a) + k·V) over V tokens.
inline double bigram_bits_per_character(text_corpus const& train, text_corpus const& test, double k = 0.1) {
  require(is_finite(k) && k > 0 && k <= 1e100, "bigram_bits_per_character: k is ", k,
          ": it must be positive, or unseen pairs cost infinitely many bits, and at most 1e100");
  require(train.shares_text_with(test),
          "bigram_bits_per_character: the two parts have vocabularies of their own: "
          "split one corpus");
  auto const v = static_cast<std::size_t>(train.vocabulary().size());
  std::vector<double> pairs(v * v), firsts(v);
  auto const seen = train.tokens(), asked = test.tokens();
  for (std::size_t i = 0; i + 1 < seen.size(); ++i) {
    pairs[seen[i] * v + seen[i + 1]] += 1;
    firsts[seen[i]] += 1;
  }
  double bits = 0;
  for (std::size_t i = 0; i + 1 < asked.size(); ++i)
    bits -= std::log2((pairs[asked[i] * v + asked[i + 1]] + k) / (firsts[asked[i]] + k * static_cast<double>(v)));
  return bits / static_cast<double>(asked.size() - 1);
}

}  // namespace dovetail::data
