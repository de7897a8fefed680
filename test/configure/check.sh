#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# check.sh REPOSITORY WORK CMAKE [CMAKE ARGUMENTS…]: configures this project as on machines that lack packages, and asks
# for the targets that a command of ./run builds. A machine on which everything is installed hides that one cannot.
set -eu
repository=$1 work=$2 cmake=$3
shift 3
rm -rf "$work"
mkdir -p "$work"
failed=0

# configured NAME "missing packages" "targets" [CMAKE ARGUMENTS…]
configured() {
  name=$1 lacks=$2 targets=$3
  shift 3
  for package in $lacks; do set -- "$@" "-DCMAKE_DISABLE_FIND_PACKAGE_$package=ON"; done
  if ! "$cmake" -S "$repository" -B "$work/$name" -G Ninja "$@" > "$work/$name.log" 2>&1; then
    echo "FAILED   $name: does not configure without $lacks"
    tail -n 20 "$work/$name.log"
    failed=1
    return
  fi
  if grep -q 'CMake Warning' "$work/$name.log"; then
    echo "FAILED   $name: a warning where nothing is wrong"
    grep -A 5 'CMake Warning' "$work/$name.log"
    failed=1
  fi
  case " $lacks " in *" doctest "*) times=1 ;; *) times=0 ;; esac
  if [ "$(grep -c 'doctest was not found' "$work/$name.log")" != $times ]; then
    echo "FAILED   $name: that doctest is missing is to be said $times times"
    failed=1
  fi
  for target in $targets; do
    if "$cmake" --build "$work/$name" -- -t query "$target" > "$work/$name.$target" 2>&1; then
      echo "ok       $name: $target, without $lacks"
    else
      echo "FAILED   $name: no target $target without $lacks"
      failed=1
    fi
  done
}

configured demo "doctest benchmark Python3 Torch" "char_rnn" "$@" -DDOVETAIL_CUDA=OFF
configured bench "doctest CLI11 Torch" "benchmarks bench_optim_step bench_nn_char_lstm" "$@" -DDOVETAIL_CUDA=OFF
configured nothing "doctest benchmark MPI LAPACK OpenMP nlohmann_json CLI11 Python3 Torch" all "$@" -DDOVETAIL_CUDA=OFF
configured boost "Boost Torch" "char_rnn comm_conformance" "$@" -DDOVETAIL_CUDA=OFF  # MPI alone
# ./run aarch64: with a compiler of its own, for which nothing but the C++ library is installed.
if command -v aarch64-linux-gnu-g++ > /dev/null 2>&1 && command -v qemu-aarch64-static > /dev/null 2>&1; then
  configured aarch64 MPI "aarch64_bits test_core_o2 test_compress test_optim_conformance test_comm" \
    -DCMAKE_TOOLCHAIN_FILE="$repository/cmake/aarch64_toolchain.cmake" -DDOVETAIL_CUDA=OFF -DDOVETAIL_BUILD_EXAMPLES=OFF \
    -DDOVETAIL_BUILD_BENCHMARKS=OFF "-DDOVETAIL_ONLY=aarch64;comm;compress;core;optim;sync"
else
  echo "skipped  aarch64: no cross compiler, or no emulator (Debian: g++-aarch64-linux-gnu qemu-user-static)"
fi
[ "$failed" = 0 ]
