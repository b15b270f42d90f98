#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs the semantics program between two network namespaces and compares with loopback.
#
#   namespace $A 10.213.7.1 fd13::1 ---- vmcomm-delaylink, DELAY ms each way ---- 10.213.7.2 fd13::2 $B
#
# usage: netns-pair.sh DIRECTORY-OF-PROGRAMS [ROUNDS]        (root; 5 rounds unless told)
# Ends with 0 when all outputs are the same.
set -eu
bin=${1:?usage: netns-pair.sh DIRECTORY-OF-PROGRAMS [ROUNDS]}
rounds=${2:-5}
tmp=$(mktemp -d)
A=vmcsem-a-$$
B=vmcsem-b-$$
pids=

cleanup()
{
	for p in $pids; do
		kill "$p" 2>/dev/null || :
	done
	ip netns del "$A" 2>/dev/null || :
	ip netns del "$B" 2>/dev/null || :
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# compare NAME FAMILY: against the first output of that family
compare()
{
	if [ ! -e "$tmp/first-$2" ]; then
		cp "$tmp/$1" "$tmp/first-$2"
	elif ! diff "$tmp/first-$2" "$tmp/$1"; then
		echo "FAIL: $1 differs"
		failed=1
	fi
}

failed=0
"$bin/vmcomm-semantics" server --port 7741 2>/dev/null &
pids="$pids $!"
sleep 0.3
for i in $(seq "$rounds"); do
	"$bin/vmcomm-semantics" client 127.0.0.1 --port 7741 --jobs 8 >"$tmp/lo4-$i" || failed=1
	compare "lo4-$i" 4
	"$bin/vmcomm-semantics" client ::1 --port 7741 --jobs 8 >"$tmp/lo6-$i" || failed=1
	compare "lo6-$i" 6
done
for delay in 0 5; do
	ip netns add "$A"
	ip netns add "$B"
	"$bin/vmcomm-delaylink" "$A" "$B" "$delay" &
	link=$!
	sleep 0.3
	n=1
	for ns in "$A" "$B"; do
		ip -n "$ns" link set lo up
		ip -n "$ns" addr add "10.213.7.$n/24" dev delay0
		ip -n "$ns" addr add "fd13::$n/64" dev delay0 nodad
		ip -n "$ns" link set delay0 txqueuelen 20000 up
		n=2
	done
	ip netns exec "$B" "$bin/vmcomm-semantics" server --port 7742 2>/dev/null &
	server=$!
	pids="$pids $link $server"
	sleep 0.3
	for i in $(seq "$rounds"); do
		ip netns exec "$A" "$bin/vmcomm-semantics" client 10.213.7.2 --port 7742 --jobs 8 \
			>"$tmp/ns4-$delay-$i" || failed=1
		compare "ns4-$delay-$i" 4
		ip netns exec "$A" "$bin/vmcomm-semantics" client fd13::2 --port 7742 --jobs 8 \
			>"$tmp/ns6-$delay-$i" || failed=1
		compare "ns6-$delay-$i" 6
	done
	kill "$link" "$server"
	wait "$link" "$server" 2>/dev/null || :
	ip netns del "$A"
	ip netns del "$B"
done
wc -l <"$tmp/first-4" | sed 's/$/ lines compared/'
exit $failed
