// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <new>
#include <span>
#include <vector>

#include <zlib.h>

#include <dovetail/core/error.hpp>

namespace dovetail::data {

/// The contents of a gzip file (RFC 1952) whose bytes are given, of all its members, or their first `limit` bytes: a
/// file can unpack to a thousand times its size. Throws input_error, with `path`, when the bytes are damaged or end in
/// the middle. Needs zlib (dovetail::gzip); made for idx_options::unpack.
DOVETAIL_COLD inline std::vector<std::uint8_t> gunzip(std::span<std::uint8_t const> bytes,
                                                      std::filesystem::path const& path,
                                                      std::size_t limit = std::numeric_limits<std::size_t>::max()) {
  auto const fail = [&](char const* why) {
    throw input_error(message(path, " cannot be unpacked: ", why, ": download it again"));
  };
  struct stream {  // freed however this function ends
    z_stream z{};
    bool open = false;
    ~stream() {
      if (open) inflateEnd(&z);
    }
  } s;
  constexpr int gzip_only = 15 + 16;  // the largest window, and no zlib header in its place
  if (inflateInit2(&s.z, gzip_only) != Z_OK) throw std::bad_alloc();  // nothing else can be wrong with it
  s.open = true;

  std::vector<std::uint8_t> out;
  constexpr std::size_t step = std::size_t{1} << 20;
  std::size_t read = 0, written = 0;
  for (bool in_member = true; written < limit && (in_member || read < bytes.size());) {
    if (!in_member && inflateReset(&s.z) != Z_OK) fail("zlib cannot begin another member");
    std::size_t const room = std::min(step, limit - written);
    out.resize(written + room);
    std::size_t const given = std::min(bytes.size() - read, std::size_t{std::numeric_limits<uInt>::max()});
    s.z.next_in = const_cast<Bytef*>(bytes.data() + read);  // zlib only reads, but says so under a macro alone
    s.z.avail_in = static_cast<uInt>(given);
    s.z.next_out = out.data() + written;
    s.z.avail_out = static_cast<uInt>(room);
    int const code = inflate(&s.z, Z_NO_FLUSH);
    std::size_t const taken = given - s.z.avail_in, made = room - s.z.avail_out;
    read += taken;
    written += made;
    if (code == Z_MEM_ERROR) throw std::bad_alloc();
    if (code == Z_BUF_ERROR || (code == Z_OK && taken == 0 && made == 0)) fail("it ends in the middle");
    if (code != Z_OK && code != Z_STREAM_END) fail(s.z.msg ? s.z.msg : "what is there is not gzip");
    in_member = code != Z_STREAM_END;
  }
  out.resize(written);
  return out;
}

}  // namespace dovetail::data
