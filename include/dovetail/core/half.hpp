// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <bit>
#include <cstdint>

#include <dovetail/core/config.hpp>

namespace dovetail {

/// bfloat16: the upper half of a float; rounds to nearest even, keeps NaN a NaN. A storage type: arithmetic is fp32.
struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  DOVETAIL_HD constexpr explicit bf16(float f) : bits(round(std::bit_cast<std::uint32_t>(f))) {}
  DOVETAIL_HD constexpr explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  DOVETAIL_HD friend constexpr bool operator==(bf16, bf16) = default;

 private:
  DOVETAIL_HD static constexpr std::uint16_t round(std::uint32_t u) {
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u >> 16) | 0x40u);  // quiet NaN
    return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
};

/// IEEE binary16; rounds to nearest even, overflows to infinity, keeps NaN a NaN. A storage type: arithmetic is fp32.
struct fp16 {
  std::uint16_t bits;

  fp16() = default;
  DOVETAIL_HD constexpr explicit fp16(float f) : bits(from_float(std::bit_cast<std::uint32_t>(f))) {}
  DOVETAIL_HD constexpr explicit operator float() const {
    std::uint32_t const sign = (bits & 0x8000u) << 16;
    std::uint32_t const exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
    // Subnormal: mantissa * 2^-24 is exact in a float.
    float const magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  DOVETAIL_HD friend constexpr bool operator==(fp16, fp16) = default;

 private:
  DOVETAIL_HD static constexpr std::uint16_t from_float(std::uint32_t u) {
    std::uint32_t const sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds to 2^16 or more
    if (a < 0x38800000u) {  // below 2^-14: adding 0.5 lets the float unit round to a multiple of 2^-24
      std::uint32_t const r = std::bit_cast<std::uint32_t>(std::bit_cast<float>(a) + 0.5f) - 0x3f000000u;
      return static_cast<std::uint16_t>(sign | r);
    }
    return static_cast<std::uint16_t>(sign | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13));
  }
};

static_assert(sizeof(fp16) == 2 && sizeof(bf16) == 2);

}  // namespace dovetail
