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
  if [ "$(grep -c 'doctest was not found' "$work/$name.log")" != 1 ]; then
    echo "FAILED   $name: that doctest is missing is to be said once"
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
configured nothing "doctest benchmark MPI Boost LAPACK OpenMP nlohmann_json CLI11 Python3 Torch" all "$@" -DDOVETAIL_CUDA=OFF
[ "$failed" = 0 ]
