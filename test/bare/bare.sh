#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# bare.sh REPOSITORY RELEASE COMMAND…: runs COMMAND in a clone of REPOSITORY on a bare Debian, which has its base system,
# git, and what COMMAND installs. A machine on which a library is developed hides what a newcomer's lacks.
# HEAD is cloned: what is not committed is not seen. The mirror is the one that this machine's apt uses, if it uses one;
# the base system and the packages that were fetched are kept in $DOVETAIL_BARE_CACHE (/var/cache/dovetail-bare).
# Exit status: COMMAND's; 75 where it cannot be tried (no root, no debootstrap, no answer from the mirror).
set -eu
repository=$1 release=$2
shift 2
say() { echo "bare: $*" >&2; }
cannot() { say "CANNOT BE TRIED HERE: $*"; exit 75; }
[ $# -gt 0 ] || { say "what is to be run?"; exit 2; }
[ "$(id -u)" = 0 ] || cannot "only root can make a bare system (debootstrap, chroot)"
command -v debootstrap > /dev/null 2>&1 || cannot "debootstrap is missing (Debian: apt-get install debootstrap)"
unshare --mount --pid --fork --kill-child true 2> /dev/null || cannot "this system lets nobody mount (unshare failed)"

repository=$(cd "$repository" && pwd)
cache=${DOVETAIL_BARE_CACHE:-/var/cache/dovetail-bare}
archives=$cache/$release-archives base=$cache/$release.tar
mkdir -p "$archives/partial"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
tree=$work/tree
mkdir "$tree"

mirror_failed() { grep -Eq 'Failed to fetch|Could not resolve|Could not connect|Unable to connect|Connection (failed|timed out)' "$1"; }

# --- the base system: made once --------------------------------------------------------------------------------------
if [ ! -s "$base" ]; then
  say "making the base system of $release"
  mirror=
  if command -v apt-get > /dev/null 2>&1; then
    # shellcheck disable=SC2016  # apt's variables
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' 2> /dev/null | awk '$2 == "Debian" { print $1 }' | sort -u | head -n 1)
  fi
  # shellcheck disable=SC2086  # without a mirror debootstrap takes its own
  debootstrap --variant=minbase --include=git,ca-certificates "$release" "$tree" $mirror > "$work/log" 2>&1 || {
    tail -n 5 "$work/log" >&2
    # A first try without network and a release that does not exist end alike: nothing was tried yet that is ours.
    cannot "debootstrap could not make $release"
  }
  # What this machine's apt must know to reach its mirror (proxies, clocks) is no part of the comparison.
  if command -v apt-config > /dev/null 2>&1; then
    apt-config dump | grep -E '^Acquire::(https?|Check-[A-Za-z-]*)(::[^ ]*)? ' > "$tree/etc/apt/apt.conf.d/90mirror" || true
  fi
  tar -C "$tree" -cf "$base.part" . && mv "$base.part" "$base"
else
  tar -C "$tree" -xf "$base"
fi
for file in resolv.conf hosts; do cp "/etc/$file" "$tree/etc/$file" 2> /dev/null || true; done
git clone -q "$repository" "$tree/src"

# --- the command, where nothing that is mounted or started outlives it ------------------------------------------------
cat > "$work/inside" <<'END'
set -eu
tree=$1 archives=$2 cd=$3
shift 3
mount --make-rprivate /
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount -t sysfs sys "$tree/sys" 2> /dev/null || true
mount --bind "$archives" "$tree/var/cache/apt/archives"
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
  chroot "$tree" /bin/sh -c 'cd "$0" && exec "$@"' "$cd" "$@" < /dev/null
END
inside() { unshare --mount --pid --fork --kill-child sh "$work/inside" "$tree" "$archives" "$@"; }

# Asked before, so that no answer is told from a package that does not exist. The command finds no lists all the same.
inside / apt-get update -q -o APT::Update::Error-Mode=any > "$work/log" 2>&1 || {
  tail -n 5 "$work/log" >&2
  cannot "the package mirror does not answer"
}
rm -rf "$tree"/var/lib/apt/lists/*

say "$release: $*"
status=0
{ inside /src "$@" 2>&1 || echo $? > "$work/status"; } | tee "$work/log"
[ ! -s "$work/status" ] || status=$(cat "$work/status")
if [ "$status" != 0 ] && mirror_failed "$work/log"; then
  cannot "the package mirror stopped answering (the command's status was $status)"
fi
say "$release: exit status $status: $*"
exit "$status"
