#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Install what is missing of the Debian packages that vmcomm needs. Needs no network if none is.
#
#	scripts/deps.sh [GROUP...]	default: build test check package
#	scripts/deps.sh --print [GROUP...]

. "$(dirname "$0")/lib.sh"

# The one list of packages.
group_packages() {
	case $1 in
	build)	# user space, and the module for Debian's own kernel
		echo gcc libc6-dev make meson ninja-build pkg-config rsync kmod \
			libsystemd-dev libjansson-dev libinih-dev libsmartcols-dev libgnutls28-dev \
			libvirt-dev libxml2-dev libxen-dev linux-headers-amd64
		;;
	test)	# guests, and the programs that run in them
		echo qemu-system-x86 qemu-utils busybox-static linux-image-amd64 iproute2 ethtool util-linux \
			procps xz-utils zstd python3 iperf3 redis-server redis-tools nginx-light wrk \
			ncat openssh-server openssh-client socat openssl curl strace \
			libpython3.11-testsuite e2fsprogs rsync nftables postgresql libvirt-daemon-system \
			libvirt-clients
		;;
	check)	# unit tests, models, static analysis
		echo check libsubunit-dev sparse spin clang clang-tidy cppcheck shellcheck \
			linux-headers-cloud-amd64 linux-headers-6.12-amd64
		;;
	package)	# debian/, and the suite that looks at what it makes
		echo dpkg-dev debhelper dh-dkms dkms lintian fakeroot
		;;
	debug)	# guest kernels with KASAN and friends (tests/debug-kernel/build)
		echo linux-source-6.1 gcc libc6-dev make flex bison bc libelf-dev libssl-dev lz4 \
			xz-utils perl
		;;
	xen)	# not installed: tests/xen unpacks them into the cache
		echo xen-hypervisor-4.17-amd64 xen-utils-4.17 xen-utils-common xenstore-utils \
			bridge-utils libxencall1 libxendevicemodel1 libxenevtchn1 \
			libxenforeignmemory1 libxengnttab1 libxenhypfs1 libxenmisc4.17 \
			libxenstore4 libxentoolcore1 libxentoollog1
		;;
	*)
		die "no package group '$1' (there are: build test check package debug xen)"
		;;
	esac
}

print=
if [ "${1:-}" = --print ]; then
	print=1
	shift
fi
[ $# -gt 0 ] || set -- build test check package

packages=()
for group in "$@"; do
	list=$(group_packages "$group")
	for package in $list; do
		packages+=("$package")
	done
done
if [ -n "$print" ]; then
	printf '%s\n' "${packages[@]}"
	exit 0
fi

missing=()
for package in "${packages[@]}"; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=none
	[ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

say "installing ${missing[*]}"
# Guests run these servers; the host must not start them.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
	as_root chmod 755 "$policy"
	trap 'as_root rm -f "$policy"' EXIT
fi
log=$(mktemp)
install_missing() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
		--no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >"$log" 2>&1
}
# Known package lists may do; fetch new ones only if not.
if ! install_missing; then
	as_root apt-get update -q >>"$log" 2>&1 || true
	install_missing || { cat "$log" >&2; die "cannot install ${missing[*]}"; }
fi
rm -f "$log"
