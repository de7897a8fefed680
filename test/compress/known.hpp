// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <dovetail/comm/operation.hpp>
#include <dovetail/comm/threads.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/core/parameters.hpp>
#include <dovetail/core/state.hpp>

// A codec of the registry without its type, so that what every codec goes through is compiled once and each codec once
// for all of it.
namespace test {

using namespace dovetail;

/// What a codec's own page says of it, as far as a test can look. The functions are of the whole bucket x.
struct promise {
  std::size_t (*bytes)(std::size_t n) = nullptr;        ///< a payload's size; null: as wire_size says
  double (*omega)(std::span<float const> x) = nullptr;  ///< unbiased, and E|C(x) − x|² <= omega |x|²
  double (*delta)(std::span<float const> x) = nullptr;  ///< E|C(x) − x|² <= (1 − delta) |x|²
  bool conserves = false;         ///< decoded + residual is input + old residual, bit for bit, as sparsifiers' is
  bool keeps_zeros = false;       ///< what is 0 is decoded as 0
  bool overflows = false;         ///< finite input may be decoded as infinity
  bool seen_in_place = true;      ///< an element that is not finite is decoded so itself, not only something near it
  bool regroups = true;           ///< goes on with another number of ranks
  std::size_t block = 0;          ///< elements that are treated together; 0: none, or all
  std::size_t largest = 100'003;  ///< elements of a test, where a codec is slow
};

/// The state of one bucket, with the codec that it is of.
class known_state {
 public:
  virtual ~known_state() = default;
  virtual std::unique_ptr<known_state> copy() const = 0;
  virtual std::vector<named_tensor> tensors() = 0;
  virtual void begin() = 0;
  virtual void commit() = 0;
  virtual void rollback() = 0;
  virtual std::size_t encode(compress::bucket const& b, std::span<std::byte> out, compress::context const& where) = 0;
  virtual void absorb(std::span<std::byte const> payload, compress::context const& where) = 0;
  virtual void decode_add(std::span<std::byte const> payload, std::span<float> out, float weight,
                          compress::context const& where) = 0;
};

/// How a bucket's payloads are to travel: types of sync::exchange, as values.
enum class wish : std::uint8_t { automatic, all_reduce, reduce_scatter_all_gather, all_gather, merge_tree };
inline constexpr wish wishes[] = {wish::automatic, wish::all_reduce, wish::reduce_scatter_all_gather, wish::all_gather,
                                  wish::merge_tree};
constexpr char const* name_of(wish w) {
  constexpr char const* names[] = {"automatic", "all_reduce", "reduce_scatter_all_gather", "all_gather", "merge_tree"};
  return names[static_cast<int>(w)];
}

using thread_rank = comm::threads::communicator;

/// sync::bucket_exchange of one bucket.
class known_exchange {
 public:
  virtual ~known_exchange() = default;
  virtual comm::traffic predicted(std::int64_t step) const = 0;
  virtual void run(thread_rank& c, std::span<float> values, compress::context const& when) = 0;
  virtual void commit() = 0;
  virtual void rollback() = 0;
  virtual std::vector<named_tensor> tensors(std::string const& prefix) = 0;
};

/// A session of sync::all_reduce with plain gradient descent.
class known_session {
 public:
  virtual ~known_session() = default;
  virtual void begin() = 0;
  virtual bool step() = 0;  ///< whether it was made, not skipped
  virtual std::vector<named_tensor> own() = 0;
};

class known_codec {
 public:
  virtual ~known_codec() = default;

  std::string label, name;
  promise promised;
  bool summable = false, fixed_size = false, unbiased = false, contraction = false, wants_error_feedback = false;
  bool decodes_with_state = false;
  int rounds = 1;
  bool has_feedback = false;              ///< this is the entry's codec within error_feedback
  std::unique_ptr<known_codec> feedback;  ///< the same within error_feedback, where that is allowed

  /// As it is meant to be used: what loses must keep what it loses.
  known_codec const& as_used() const { return wants_error_feedback && feedback ? *feedback : *this; }

  virtual std::size_t wire_size(compress::bucket const& b, int round = 0) const = 0;
  virtual std::unique_ptr<known_state> init(compress::bucket const& b, compress::context const& where = {}) const = 0;
  virtual bool legal(wish w) const = 0;
  /// Of the exchange that is chosen for the bucket, by name.
  virtual char const* plan(wish w, compress::bucket const& b, int ranks, std::int64_t step = 0) const = 0;
  virtual comm::traffic cost(wish w, compress::bucket const& b, int ranks, int rank, std::int64_t step = 0) const = 0;
  // Null in programs that need none, and of codecs that are not used so.
  virtual std::unique_ptr<known_exchange> exchange(wish w, parameter_list const& parameters,
                                                   std::span<float const> values, int ranks, int rank) const = 0;
  virtual std::unique_ptr<known_session> session(parameter_list& parameters, std::size_t bucket_bytes,
                                                 thread_rank& c) const = 0;
  virtual comm::traffic predict(parameter_list const& parameters, std::size_t bucket_bytes, int ranks, int rank,
                                std::int64_t step) const = 0;
};

/// All entries of the registry, in its order. Compiled in parts, see part.cpp.
std::vector<std::unique_ptr<known_codec>> const& known_codecs();

/// Parts in which the registry is compiled.
inline constexpr std::size_t codec_parts = 4;

}  // namespace test
