#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# run_gpu.sh REPOSITORY: `./run gpu` on machines that are made of small scripts: what it does when all is well, when
# there is no device, when programs fail, hang, do not compile, and when its time is over.
set -eu
repository=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

check() {  # NAME CONDITION...
  name=$1
  shift
  if "$@"; then
    echo "ok      $name"
  else
    echo "FAILED  $name"
    failures=$((failures + 1))
  fi
}
says() { grep -q -- "$1" "$here/said"; }
has() { grep -q -- "$2" "$here/out/$1"; }
status_is() { [ "$(cat "$here/status")" = "$1" ]; }
failed() { [ "$(cat "$here/status")" != 0 ]; }
lacks() { ! grep -q -- "$2" "$here/out/$1"; }
at_most_eight_files() { [ "$(find "$here/out" -type f | wc -l)" -le 8 ]; }

# A machine: tools that say what they were asked for, and programs that do what `behavior` says of them.
machine() {
  here=$work/$1
  mkdir -p "$here/bin" "$here/out"
  cp "$repository/run" "$here/run"
  mkdir -p "$here/test"
  cp "$repository/test/mpi_environment.sh" "$here/test/"
  : > "$here/behavior"
  cat > "$here/program" <<'END'
#!/bin/sh
name=$(basename "$0")
for argument; do
  case $argument in --benchmark_out=*) echo '{"benchmarks": []}' > "${argument#*=}" ;; esac
done
echo "$name was given: $*"
case $(sed -n "s/^$name //p" "$HERE/behavior") in
  fails) echo "FAILED  lamb equals the host's engine: largest difference 1"; echo "failed cases: lamb lars"; exit 1 ;;
  crashes) kill -SEGV $$ ;;
  hangs) trap '' TERM; echo "a figure before"; while :; do sleep 1; done ;;
  "no device") echo "skipped: no CUDA device (no driver)"; exit 77 ;;
esac
echo "ok      adamw equals the host's engine: largest difference 1e-07"
END
  cat > "$here/bin/cmake" <<'END'
#!/bin/sh
echo "cmake $*"
case "$*" in *--preset\ cuda*)
  grep -q "no NCCL" "$HERE/behavior" && echo "-- dovetail: component 'nccl' needs NCCL, which was not found" ;;
esac
case "$*" in
  *--build*copy_rate*) names=bench/bench_cuda_copy_rate ;;
  *--build*) names="test/cuda/test_cuda_optim test/cuda/test_cuda_formats test/cuda/test_cuda_codecs test/cuda/test_cuda_matrix test/cuda/test_cuda_nccl bench/bench_cuda_optim bench/bench_cuda_codecs bench/bench_cuda_matrix bench/bench_cuda_nccl" ;;
  *) exit 0 ;;
esac
status=0
for name in $names; do
  mkdir -p "build/cuda/$(dirname "$name")"
  if grep -q "^$(basename "$name") does not compile" "$HERE/behavior"; then
    echo "FAILED: $name.o: error: no such thing"
    status=1
  else
    cp "$HERE/program" "build/cuda/$name"
    chmod +x "build/cuda/$name"
  fi
done
exit $status
END
  printf '#!/bin/sh\necho "compute-sanitizer $*"\n' > "$here/bin/compute-sanitizer"
  printf '#!/bin/sh\n' > "$here/bin/nvcc"
  printf '#!/bin/sh\n' > "$here/bin/ninja"
  chmod +x "$here/bin/"*
}
run_gpu() {  # SECONDS
  status=0
  HERE=$here PATH="$here/bin:$PATH" OUT="$here/out" DOVETAIL_GPU_SECONDS=$1 "$here/run" gpu > "$here/said" 2>&1 || status=$?
  echo "$status" > "$here/status"
}

machine well
run_gpu 60
check "all is well: exit code 0" status_is 0
for name in optim formats codecs matrix nccl; do check "test_cuda_$name ran" has tests.log "== test_cuda_$name: passed"; done
check "figures of tests that pass are kept" has tests.log "largest difference 1e-07"
for name in copy_rate cuda_optim cuda_matrix cuda_nccl; do check "$name.json was written" has $name.json benchmarks; done
check "figures of codecs are in the log" has benchmarks.log "== bench_cuda_codecs: passed"
check "one test by name under racecheck" has sanitizer.log "tool racecheck .*test_cuda_optim lamb"
check "one test by name under synccheck" has sanitizer.log "tool synccheck .*test_cuda_formats slots_8bit_lamb"
check "eight files at most" at_most_eight_files

machine without
echo "no NCCL" > "$here/behavior"
run_gpu 60
check "no NCCL is no failure" status_is 0
check "and is said" says "skipped: ranks over NCCL: component 'nccl' needs NCCL, which was not found"
check "its programs are left out" lacks tests.log test_cuda_nccl

machine none
echo "bench_cuda_copy_rate no device" > "$here/behavior"
run_gpu 60
check "no device is a failure" failed
check "which is said" says "no CUDA device"
check "with the reason" says "no driver"
check "before the long programs are built" test ! -e "$here/build/cuda/test"

machine skipping
echo "test_cuda_matrix no device" > "$here/behavior"
run_gpu 60
check "a test without a device is a failure" failed
check "which is named" says "test_cuda_matrix(no CUDA device)"

machine failing
printf '%s\n' "test_cuda_optim fails" "test_cuda_formats crashes" "bench_cuda_optim fails" > "$here/behavior"
run_gpu 60
check "a test that fails is a failure at the end" failed
check "it is named" says "test_cuda_optim(exit code 1)"
check "so is one that crashes" says "test_cuda_formats(exit code 139)"
check "the failing case is shown" says "^FAILED  lamb equals"
check "the next test ran" has tests.log "== test_cuda_matrix: passed"
check "the benchmarks ran" has benchmarks.log "== bench_cuda_matrix: passed"
check "memcheck of the failing cases" has sanitizer.log "tool memcheck .*test_cuda_optim lamb lars$"
check "memcheck of all cases of what crashed" has sanitizer.log "tool memcheck .*test_cuda_formats$"
check "no tool for races beside" lacks sanitizer.log racecheck
check "eight files at most" at_most_eight_files

machine hanging
echo "test_cuda_formats hangs" > "$here/behavior"
begun=$(date +%s)
run_gpu 4
check "a program that hangs is ended" test $(($(date +%s) - begun)) -lt 30
check "a failure" failed
check "named with its time" says "test_cuda_formats(not done after"
check "what it had said is kept" has tests.log "a figure before"
check "the others ran" has benchmarks.log "== bench_cuda_matrix: passed"

machine broken
echo "test_cuda_matrix does not compile" > "$here/behavior"
run_gpu 60
check "what does not compile is a failure" failed
check "named" says "failed: build test_cuda_matrix(missing)"
check "with the compiler's words" says "error: no such thing"
check "the others ran" has tests.log "== test_cuda_optim: passed"

machine unsanitary
rm "$here/bin/compute-sanitizer"
mkdir "$here/empty"
if ! command -v compute-sanitizer > /dev/null && [ ! -e /usr/local/cuda/bin/compute-sanitizer ]; then
  run_gpu 60
  check "a missing compute-sanitizer is a failure" says "compute-sanitizer racecheck(missing)"
fi

[ "$failures" = 0 ] || cat "$here/said"
echo "$failures failed"
[ "$failures" = 0 ]
