# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Sourced: two "hosts" on one machine, network namespaces with a name each, joined by a link of a given rate. Needs root,
# iproute2 and Open MPI; `two_hosts` says why where that is not so, and returns 1. They end with the shell.
two_hosts_end() {
  for n in a b; do ip netns del "dovetail-$hosts_id-$n" 2> /dev/null || :; done
  rm -rf "$hosts_files"
}
# two_hosts RATE: of tc ("1gbit"), or "unshaped".
two_hosts() {
  hosts_id=$$ hosts_rate=$1
  for tool in ip tc unshare taskset nproc; do
    [ -x "$(command -v $tool)" ] || { echo "no two hosts: there is no $tool"; return 1; }
  done
  [ "$(id -u)" = 0 ] || { echo "no two hosts: only root can make network namespaces"; return 1; }
  case $("${MPIRUN:-mpirun}" --version 2> /dev/null) in
    *"Open MPI) 4"* | *"OpenRTE) 4"*) ;;  # as mpirun and as mpiexec say it
    *) echo "no two hosts: they are started with the options of Open MPI 4"; return 1 ;;
  esac
  hosts_a=dovetail-$hosts_id-a hosts_b=dovetail-$hosts_id-b hosts_files=$(mktemp -d)
  # Each has half of the cores: ranks of one are not to take those of the other's.
  half=$(($(nproc) / 2))
  hosts_cores_a=0 hosts_cores_b=0
  [ $half = 0 ] || hosts_cores_a=0-$((half - 1)) hosts_cores_b=$half-$((2 * half - 1))
  trap two_hosts_end EXIT
  trap 'exit 1' INT TERM
  two_hosts_up > "$hosts_files/said" 2>&1 && return 0
  echo "no two hosts: $(head -n 1 "$hosts_files/said")"
  return 1
}
two_hosts_up() {
  ip netns add "$hosts_a" && ip netns add "$hosts_b" &&
    ip link add eth0 netns "$hosts_a" type veth peer name eth0 netns "$hosts_b" || return 1
  # What is let through at once: some packets, or short messages would not see the rate.
  case $hosts_rate in *gbit) burst=128kb ;; *) burst=64kb ;; esac
  last=1
  for n in "$hosts_a" "$hosts_b"; do
    ip -n "$n" addr add 10.71.0.$last/24 dev eth0 && ip -n "$n" link set eth0 up && ip -n "$n" link set lo up || return 1
    [ "$hosts_rate" = unshaped ] ||
      tc -n "$n" qdisc add dev eth0 root tbf rate "$hosts_rate" burst $burst latency 100ms || return 1
    last=2
  done
  # What mpirun starts the other host's ranks by, in place of ssh: SCRIPT HOST COMMAND...
  cat > "$hosts_files/launch" << END
#!/bin/sh
shift
exec ip netns exec $hosts_b taskset -c $hosts_cores_b unshare --uts /bin/sh -c "hostname host-b; \$*"
END
  chmod +x "$hosts_files/launch"
}
# on_two_hosts RANKS_A RANKS_B PROGRAM ARGS...
on_two_hosts() {
  here=$1 there=$2
  shift 2
  # shellcheck disable=SC2016
  ip netns exec "$hosts_a" taskset -c "$hosts_cores_a" unshare --uts /bin/sh -c 'hostname host-a; exec "$@"' sh \
    "${MPIRUN:-mpirun}" --mca plm_rsh_agent "$hosts_files/launch" --mca plm_rsh_no_tree_spawn 1 --mca pml ob1 \
    --mca btl tcp,vader,self --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 --bind-to none --map-by slot \
    -H "10.71.0.1:$here,10.71.0.2:$there" -n $((here + there)) "$@"
}
# What host a or b has sent to the other one, in bytes.
sent_by_host() {
  ip netns exec "dovetail-$hosts_id-$1" cat /sys/class/net/eth0/statistics/tx_bytes
}
