#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# configure.sh REPOSITORY WORK: the preset of `./run gpu` on a machine that has nvcc, CMake and ninja, and none of
# Debian's packages. Everything is configured, nothing compiled.
set -eu
repository=$1
work=$2
rm -rf "$work"
mkdir -p "$work/wheels/lib" "$work/wheels/include"

fail() {
  echo "FAILED  $*"
  exit 1
}
set --
for package in doctest benchmark MPI Boost BLAS LAPACK OpenMP nlohmann_json CLI11 Python3 Torch Eigen3; do
  set -- "$@" -DCMAKE_DISABLE_FIND_PACKAGE_$package=ON
done
set -- "$@" -DDOVETAIL_DNNL_INCLUDE=DOVETAIL_DNNL_INCLUDE-NOTFOUND -DDOVETAIL_DNNL_LIBRARY=DOVETAIL_DNNL_LIBRARY-NOTFOUND

programs="bench_cuda_codecs bench_cuda_copy_rate bench_cuda_matrix bench_cuda_optim test_cuda_codecs test_cuda_formats test_cuda_matrix test_cuda_optim"
# NCCL may be there or not.
if [ -e "$(dirname "$(readlink -f "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")/../include/nccl.h" ] || [ -e /usr/include/nccl.h ]; then
  programs="$programs bench_cuda_nccl test_cuda_nccl"
fi
configure() {  # BUILD ARGS...
  build=$1
  shift
  cd "$repository"
  cmake --preset cuda -B "$build" "$@" > "$build.log" 2>&1 || {
    cat "$build.log"
    fail "the preset cuda cannot be configured"
  }
  cd "$build"
  # What the target gpu would do, down to the programs.
  ninja -t commands gpu > "$build.steps" || fail "the target gpu cannot be built"
  for name in $programs; do
    grep -q -- "-o [a-z/]*/$name " "$build.steps" || fail "the target gpu does not make $name"
  done
  ! grep -n 'doctest\|emulated\|benchmark' "$build.steps" || fail "the target gpu makes what it does not need"
  ! grep -q -- '-Werror' build.ninja || fail "a warning of another compiler would end the build"
}
configure "$work/toolkit" "$@"
# One runtime, found without the loader's help.
! grep -q 'libcudart\.so' build.ninja || fail "two CUDA runtimes are linked"
grep 'LINK_LIBRARIES.*cublas' build.ninja | grep -q 'rpath' || fail "cuBLAS is linked, but no path to it"
echo "ok      $programs, without Debian's packages"

# cuBLAS and cuSOLVER of PyTorch's wheels: libraries that have a version at the end of their names only.
for name in libcublas.so.13 libcusolver.so.12; do
  "${CXX:-c++}" -shared -Wl,-soname,$name -o "$work/wheels/lib/$name" -x c /dev/null
done
configure "$work/of_wheels" "$@" -DDOVETAIL_CUDA_WHEELS="$work/wheels"
grep 'LINK_LIBRARIES' build.ninja | grep -q "$work/wheels/lib/libcublas.so.13" || fail "the wheels' cuBLAS is not linked"
grep -q -- "-isystem $work/wheels/include" build.ninja || fail "the wheels' headers are not used"
echo "ok      cuBLAS and cuSOLVER of Python's wheels"
