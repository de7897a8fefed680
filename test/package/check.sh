#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# check.sh REPOSITORY BUILD WORK COMPONENTS [CMAKE ARGUMENTS…]: the library as a guest in other projects. Installs BUILD
# into a prefix, then builds and runs programs that find the package, add the folder, and include every header in two
# translation units; and looks at what is said when a component is missing. COMPONENTS are those found here.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$3"
mkdir -p "$3/generated"
repository=$(cd "$1" && pwd) build=$(cd "$2" && pwd) work=$(cd "$3" && pwd) components=$4
shift 4
list=$(echo "$components" | tr ' ' ';')

quietly() {  # what: command…
  what=$1
  shift
  "$@" > "$work/log" 2>&1 || { echo "FAILED   $what"; cat "$work/log"; exit 1; }
}
consume() {  # project, CMake arguments…
  project=$1
  shift
  quietly "configuring $project" cmake -S "$here/$project" -B "$work/$project" -G Ninja "$@"
  quietly "building $project" cmake --build "$work/$project"
  quietly "running $project" "$work/$project/consumer"
  echo "ok       $project"
}

quietly "installing" cmake --install "$build" --prefix "$work/prefix"
# Except the insides of other headers: *.inc.hpp, and those whose comment says `Included by … only`.
(cd "$repository/include" && find dovetail -name '*.hpp' ! -name '*.inc.hpp' -exec grep -L 'Included by .* only' {} + |
  LC_ALL=C sort | xargs awk -f "$here/../headers/needs.awk") > "$work/needs"
while IFS="$(printf '\t')" read -r header needs; do
  missing=
  for component in $needs; do
    case " $components " in *" $component "*) ;; *) missing="$missing $component" ;; esac
  done
  if [ -n "$missing" ]; then echo "skipped  $header: needs$missing"; else echo "#include <$header>"; fi
done < "$work/needs" > "$work/all"
grep '^skipped' "$work/all" || true
grep '^#include' "$work/all" > "$work/generated/everything.hpp"
LC_ALL=C sort -r "$work/generated/everything.hpp" > "$work/generated/everything_backwards.hpp"

consume installed "$@" -DCMAKE_PREFIX_PATH="$work/prefix" -DCOMPONENTS="$list"
consume subdirectory "$@" -DREPOSITORY="$repository"
# Headers go where the installing side wants them, and are found there.
quietly "configuring exporting" cmake -S "$here/exporting" -B "$work/exporting" -G Ninja "$@" \
  -DREPOSITORY="$repository" -DCMAKE_INSTALL_INCLUDEDIR=include/elsewhere
quietly "installing exporting" cmake --install "$work/exporting" --prefix "$work/theirs"
[ -f "$work/theirs/include/elsewhere/dovetail/concepts.hpp" ] && [ ! -e "$work/theirs/include/dovetail" ] ||
  { echo "FAILED   CMAKE_INSTALL_INCLUDEDIR was not obeyed"; exit 1; }
consume exported "$@" -DCMAKE_PREFIX_PATH="$work/theirs"
consume everything "$@" -DCMAKE_PREFIX_PATH="$work/prefix" -DCOMPONENTS="$list" -DGENERATED="$work/generated"

refuses() {  # component, what must be said, CMake arguments…
  component=$1 said=$2
  shift 2
  rm -rf "$work/refused"
  if cmake -S "$here/installed" -B "$work/refused" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" \
    -DCOMPONENTS="$component" "$@" > "$work/log" 2>&1; then
    echo "FAILED   a project that asks for $component, which is not there, was configured"
    exit 1
  fi
  tr '\n' ' ' < "$work/log" | tr -s ' ' | grep -q "$said" ||
    { echo "FAILED   a project without $component is not told: $said"; cat "$work/log"; exit 1; }
  echo "ok       without $component: $said"
}
refuses telepathy "dovetail has no component 'telepathy'" "$@"
refuses mpi "component 'mpi' needs MPI (Debian" "$@" -DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON
refuses io "component 'io' needs nlohmann-json" "$@" -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
# All that is missing is said at once.
refuses "telepathy;mpi;io" "no component 'telepathy'.*component 'mpi' needs.*component 'io' needs nlohmann-json" "$@" \
  -DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
