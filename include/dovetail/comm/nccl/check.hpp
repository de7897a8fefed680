// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/operation.hpp>
#include <dovetail/core/cuda.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/half.hpp>

static_assert(NCCL_VERSION_CODE >= 21800, "comm/nccl.hpp needs NCCL 2.18 or later: ncclCommSplit is missing");

namespace dovetail::comm {

/// NCCL reported an error on this rank.
struct nccl_error : comm_error {
  nccl_error(std::string const& what, int who, ncclResult_t c) : comm_error(what, who), code(c) {}
  ncclResult_t code;
};

namespace detail {

/// NCCL's own words, and where it says more.
inline std::string nccl_text(ncclResult_t code, ncclComm_t c) {
  char const* const last = ncclGetLastError(c);
  return message(
      ncclGetErrorString(code), last && *last ? ": " : "", last ? last : "",
      code == ncclInvalidUsage ? " (two ranks on one GPU? Each needs another NCCL_HOSTID in its environment)" : "",
      " (NCCL_DEBUG=WARN in the environment prints the cause)");
}
inline bool nccl_goes_on(ncclResult_t code) { return code == ncclSuccess || code == ncclInProgress; }
/// Throws unless the call succeeded or is in progress.
inline void nccl_check(ncclResult_t code, char const* what, int rank, ncclComm_t c) {
  if (!nccl_goes_on(code))
    throw nccl_error(message("NCCL: ", what, " failed on rank ", rank, ": ", nccl_text(code, c)), rank, code);
}

/// NCCL has no integers of 16 bits.
template <class T>
concept nccl_reducible = reducible<T> && !std::same_as<T, std::uint16_t>;

template <class T>
constexpr ncclDataType_t nccl_type() {
  if constexpr (std::is_same_v<T, float>) return ncclFloat32;
  if constexpr (std::is_same_v<T, double>) return ncclFloat64;
  if constexpr (std::is_same_v<T, fp16>) return ncclFloat16;
  if constexpr (std::is_same_v<T, bf16>) return ncclBfloat16;
  if constexpr (std::is_same_v<T, std::int32_t>) return ncclInt32;
  if constexpr (std::is_same_v<T, std::int64_t>) return ncclInt64;
  if constexpr (std::is_same_v<T, std::uint32_t>) return ncclUint32;
  if constexpr (std::is_same_v<T, std::uint64_t>) return ncclUint64;
  return ncclUint8;
}
constexpr ncclRedOp_t nccl_operation(reduction how) {
  return how == reduction::sum ? ncclSum : how == reduction::min ? ncclMin : ncclMax;
}

/// A mark in a stream.
class nccl_mark {
 public:
  nccl_mark() { cuda::check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  nccl_mark(nccl_mark const&) = delete;
  ~nccl_mark() { static_cast<void>(cudaEventDestroy(event_)); }
  void record(cudaStream_t s) { cuda::check(cudaEventRecord(event_, s), "cudaEventRecord"); }
  /// cudaErrorNotReady, success, or what an earlier kernel did.
  cudaError_t state() const {
    auto const code = cudaEventQuery(event_);
    if (code != cudaSuccess) static_cast<void>(cudaGetLastError());  // "not ready" would be reported again, as an error
    return code;
  }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_{};
};

}  // namespace detail

}  // namespace dovetail::comm
