// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace dovetail::io {

namespace detail {

/// table[k][b]: the remainder of byte b followed by k zero bytes, for a reflected polynomial.
template <std::uint32_t Polynomial>
inline constexpr auto crc_tables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> t{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t c = b;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (c & 1u ? Polynomial : 0u);
    t[0][b] = c;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t b = 0; b < 256; ++b) t[k][b] = (t[k - 1][b] >> 8) ^ t[0][t[k - 1][b] & 0xffu];
  return t;
}();

/// Eight bytes a turn ("slicing by 8", Kounavis and Berry 2005), so that a checksum is faster than most disks.
template <std::uint32_t Polynomial>
inline std::uint32_t crc(std::span<std::byte const> bytes, std::uint32_t previous) {
  auto const& t = crc_tables<Polynomial>;
  std::uint32_t c = ~previous;
  std::byte const* p = bytes.data();
  std::size_t n = bytes.size();
  auto const one = [&] { c = (c >> 8) ^ t[0][(c ^ static_cast<std::uint32_t>(*p++)) & 0xffu]; };
  if constexpr (std::endian::native == std::endian::little) {
    for (; n >= 8; n -= 8, p += 8) {
      std::uint32_t low, high;
      std::memcpy(&low, p, 4);
      std::memcpy(&high, p + 4, 4);
      low ^= c;
      c = t[7][low & 0xffu] ^ t[6][(low >> 8) & 0xffu] ^ t[5][(low >> 16) & 0xffu] ^ t[4][low >> 24] ^
          t[3][high & 0xffu] ^ t[2][(high >> 8) & 0xffu] ^ t[1][(high >> 16) & 0xffu] ^ t[0][high >> 24];
    }
  }
  for (; n > 0; --n) one();
  return ~c;
}

}  // namespace detail

/// CRC-32 as in zlib, gzip and PNG; pass the CRC of what went before to continue it.
inline std::uint32_t crc32(std::span<std::byte const> bytes, std::uint32_t previous = 0) {
  return detail::crc<0xEDB88320u>(bytes, previous);
}
/// CRC-32C (Castagnoli), as in TensorBoard's record files.
inline std::uint32_t crc32c(std::span<std::byte const> bytes, std::uint32_t previous = 0) {
  return detail::crc<0x82F63B78u>(bytes, previous);
}

}  // namespace dovetail::io
