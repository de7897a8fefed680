// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// digits FOLDER TRAIN TEST: writes IDX files of so many drawn digits, in the form of MNIST: seven segments, moved,
// of changing thickness and brightness, with noise. What a network learns from them it has not learnt by heart.
#include <dovetail/core/philox.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

namespace {

constexpr int side = 28;
// Segments of each digit, as bits: top, upper left, upper right, middle, lower left, lower right, bottom.
constexpr std::array<unsigned, 10> segments{0x77, 0x24, 0x5d, 0x6d, 0x2e, 0x6b, 0x7b, 0x25, 0x7f, 0x6f};
struct bar {
  int x, y, w, h;
};
constexpr std::array<bar, 7> bars{
    {{0, 0, 10, 0}, {0, 0, 0, 8}, {10, 0, 0, 8}, {0, 8, 10, 0}, {0, 8, 0, 8}, {10, 8, 0, 8}, {0, 16, 10, 0}}};

std::array<unsigned char, side * side> draw(int digit, dovetail::random_stream const& random) {
  std::uint64_t n = 0;
  auto const whole = [&](int low, int high) {
    return low + static_cast<int>(random.uniform(n++) * static_cast<float>(high - low + 1));
  };
  int const left = whole(3, 12), top = whole(2, 7), thick = whole(1, 3), bright = whole(120, 255), noise = whole(0, 60);
  std::array<unsigned char, side * side> image{};
  for (auto& pixel : image) pixel = static_cast<unsigned char>(whole(0, noise));
  for (std::size_t s = 0; s < bars.size(); ++s) {
    if (!(segments[static_cast<std::size_t>(digit)] >> s & 1)) continue;
    for (int y = bars[s].y; y < bars[s].y + bars[s].h + thick; ++y)
      for (int x = bars[s].x; x < bars[s].x + bars[s].w + thick; ++x)
        if (top + y < side && left + x < side)
          image[static_cast<std::size_t>((top + y) * side + left + x)] = static_cast<unsigned char>(bright);
  }
  return image;
}

void word(std::ostream& out, std::uint32_t w) {
  for (int shift = 24; shift >= 0; shift -= 8) out.put(static_cast<char>(w >> shift));
}

void write(std::filesystem::path const& folder, std::string const& split, std::uint32_t n, std::uint64_t seed) {
  std::ofstream images(folder / (split + "-images-idx3-ubyte"), std::ios::binary);
  std::ofstream labels(folder / (split + "-labels-idx1-ubyte"), std::ios::binary);
  word(images, 0x803), word(images, n), word(images, side), word(images, side);
  word(labels, 0x801), word(labels, n);
  for (std::uint32_t i = 0; i < n; ++i) {
    dovetail::random_stream const random{seed + i};
    int const digit = std::min(9, static_cast<int>(random.uniform(1u << 20) * 10));
    auto const image = draw(digit, random);
    images.write(reinterpret_cast<char const*>(image.data()), static_cast<std::streamsize>(image.size()));
    labels.put(static_cast<char>(digit));
  }
  if (!images.flush() || !labels.flush()) {
    std::cerr << "digits: cannot write to " << folder << '\n';
    std::exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: digits FOLDER TRAIN TEST\n";
    return 2;
  }
  std::filesystem::create_directories(argv[1]);
  write(argv[1], "train", static_cast<std::uint32_t>(std::atoi(argv[2])), 0);
  write(argv[1], "t10k", static_cast<std::uint32_t>(std::atoi(argv[3])), 1'000'000'000);
}
