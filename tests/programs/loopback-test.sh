#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Runs the programs over loopback: each must work, and the checking ones must notice what is wrong.
#
# usage: loopback-test.sh semantics|verify|etecho|perf DIRECTORY-OF-PROGRAMS [DIRECTORY-OF-PERF]
set -eu
what=${1:?usage: loopback-test.sh semantics|verify|etecho|perf DIRECTORY [DIRECTORY]}
bin=${2:?the directory of the programs is missing}
here=$(dirname "$0")
tmp=$(mktemp -d)
pids=

cleanup()
{
	for p in $pids; do
		kill "$p" 2>/dev/null || :
	done
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

fail()
{
	echo "FAIL: $*"
	exit 1
}

# serve PROGRAM: starts its server on any port and sets $port
serve()
{
	"$1" server --port 0 2>"$tmp/server" &
	pids="$pids $!"
	port=
	while [ -z "$port" ]; do
		sleep 0.05
		kill -0 "$!" || fail "$1 server: $(cat "$tmp/server")"
		port=$(sed -n 's/^listening on port //p' "$tmp/server")
	done
}

semantics()
{
	serve "$bin/vmcomm-semantics"
	for i in 1 2; do
		"$bin/vmcomm-semantics" client 127.0.0.1 --port "$port" --jobs 8 >"$tmp/out$i" ||
			fail "cases did not run to their end: $(grep -E ': [A-Z ]+$' "$tmp/out$i")"
	done
	diff "$tmp/out1" "$tmp/out2" || fail "two runs differ"
	! grep -E 'WRONG|NOT ALL|WAITED IN VAIN|OUT OF STEP' "$tmp/out1" || fail "wrong results"
	# Each case has to have said something.
	for c in $("$bin/vmcomm-semantics" --list); do
		grep -q "^$c " "$tmp/out1" || fail "case $c is silent"
	done
	if [ -e /proc/net/if_inet6 ]; then
		"$bin/vmcomm-semantics" client ::1 --port "$port" --jobs 8 >"$tmp/out6" ||
			fail "IPv6: cases did not run to their end"
	else
		echo "SKIP part: no IPv6 on this machine"
	fi
	echo "$(wc -l <"$tmp/out1") lines, the same in both runs"
}

verify()
{
	serve "$bin/vmcomm-verify"
	good=$port
	"$bin/vmcomm-verify" client 127.0.0.1 --port "$good" --connections 300 --bytes 100k >"$tmp/v" ||
		fail "300 connections: $(cat "$tmp/v")"
	"$bin/vmcomm-verify" client 127.0.0.1 --port "$good" --connections 10 --bytes 200k --seed 3 \
		--sleep 5/50k >"$tmp/v" || fail "slow reader: $(cat "$tmp/v")"
	(sleep 1; echo) | "$bin/vmcomm-verify" client 127.0.0.1 --port "$good" --connections 20 \
		--seconds 1 --hold >"$tmp/v" || fail "held: $(cat "$tmp/v")"
	# What must be noticed: "mode text of the report".
	while read -r mode text; do
		rm -f "$tmp/proxy"
		python3 "$here/faulty-proxy.py" 0 "$good" "$mode" >"$tmp/proxy" &
		proxy=$!
		pids="$pids $proxy"
		while ! [ -s "$tmp/proxy" ]; do
			sleep 0.05
		done
		if "$bin/vmcomm-verify" client 127.0.0.1 --port "$(cat "$tmp/proxy")" --connections 2 \
			--kind bulk >"$tmp/v"; then
			[ "$mode" = none ] || fail "$mode was not noticed"
		else
			[ "$mode" != none ] || fail "a good stream was blamed: $(cat "$tmp/v")"
			grep -q "$text" "$tmp/v" || fail "$mode: '$text' is not in $(cat "$tmp/v")"
		fi
		kill "$proxy"
	done <<-END
		none none
		drop 256 bytes missing
		dup again
		swap bytes missing
		flip of no stream
		cut server received 99984
	END
	echo "verified, and six faults told apart"
}

etecho()
{
	for s in vmcomm-etecho vmcomm-static; do
		serve "$bin/$s"
		for c in vmcomm-etecho vmcomm-static; do
			"$bin/$c" client 127.0.0.1 --port "$port" --connections 40 --bytes 1m ||
				fail "$c with the server $s"
		done
	done
}

perf()
{
	serve "$bin/vmcomm-perf"
	for mode in rr stream crr; do
		"$bin/vmcomm-perf" "$mode" 127.0.0.1 --port "$port" --seconds 0.2 --rounds 2 >"$tmp/p"
		python3 -m json.tool "$tmp/p" >/dev/null || fail "$mode: $(cat "$tmp/p")"
		grep -q '"median": [1-9]' "$tmp/p" || fail "$mode: $(cat "$tmp/p")"
		for transport in tcp unix pipe; do
			[ "$mode-$transport" != crr-pipe ] || continue
			"$bin/vmcomm-perf" "$mode" --transport "$transport" --seconds 0.1 --rounds 1 \
				>"$tmp/p" || fail "$mode by $transport"
			python3 -m json.tool "$tmp/p" >/dev/null || fail "$mode: $(cat "$tmp/p")"
		done
	done
	"$bin/vmcomm-perf" memcpy --seconds 0.1 --rounds 1 | python3 -m json.tool >/dev/null ||
		fail memcpy
}

"$what"
