#!/bin/bash
# tests/package/run.sh clean|here DEB...: what a new user does with the packages, the daemon's first, in a container with a real systemd
# (tests/package/inside.sh), and what lintian says of them.  clean: in a clean tree of Debian 12, which debootstrap makes
# from the mirror that this machine uses, once, as build/package-tree; here: over this machine's tree, without a network.
# 'N passed, N failed' goes to build/test-counts/package-MODE too.  Exits 1 if something failed.
set -u
mode=$1
shift
work=$PWD/build/package-work/$$
tree=/
counts=build/test-counts/package-$mode
BOOT_AND_TESTS_S=120

source tests/systemd/container.sh
mkdir -p build/test-counts || exit 1
if [[ $(id -u) != 0 ]] || ! command -v systemd-nspawn >/dev/null; then
	echo "skip: needs root and systemd-nspawn (package systemd-container)" | tee "$counts"
	exit 0
fi

fail()
{
	echo "FAIL $1"
	echo "0 passed, 1 failed" | tee "$counts"
	exit 1
}

# The mirror of the first bookworm index that apt knows here.
mirror()
{
	apt-get indextargets --format '$(SITE) $(RELEASE)' | sed -n 's/ bookworm$//p' | head -n 1
}

inside()
{
	chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy="$http_proxy"} \
		${https_proxy:+https_proxy="$https_proxy"} "${@:2}"
}

# make_tree TREE: the least of Debian that boots, which knows of the packages that there are.
make_tree()
{
	rm -rf "$1.new"
	debootstrap --variant=minbase --include=systemd-sysv bookworm "$1.new" "$(mirror)" &&
		cp /etc/resolv.conf "$1.new/etc/resolv.conf" && cp -r /etc/apt/apt.conf.d/. "$1.new/etc/apt/apt.conf.d/" &&
		inside "$1.new" apt-get update && mv "$1.new" "$1"
}

lintian --allow-root --fail-on error "$@" || fail 'lintian finds errors'
trap container_close EXIT
if [[ $mode == clean ]]; then
	tree=$PWD/build/package-tree
	[[ -d $tree ]] || make_tree "$tree" >build/package-tree.log 2>&1 || fail "no tree of Debian 12: build/package-tree.log"
fi
if ! container_open "$tree"; then
	echo "skip: no overlay of $tree can be mounted here" | tee "$counts"
	exit 0
fi
cp tests/package/inside.sh "$work/share" && cp "$1" "$work/share/millrace.deb" && cp "$1" "$work/root/millrace.deb" || exit 1
# The container has no network: what it will ask for is brought before.
if [[ $mode == clean ]]; then
	inside "$work/root" apt-get install -y --no-install-recommends --download-only /millrace.deb qemu-utils >"$work/console" 2>&1 ||
		{ cat "$work/console"; fail 'the packages that it needs cannot be downloaded'; }
fi
rm "$work/root/millrace.deb"
container_boot $BOOT_AND_TESTS_S "/bin/bash /share/inside.sh"
# What was written is above the tree.
find "$work/layer/upper" \( -path '*/var/log/journal' -o -path '*/var/cache/apt' -o -name millrace-test.service \) -prune \
	-o \( -iname '*millrace*' -o -uid +0 -nouser \) ! -type c -print >"$work/left"
if [[ -s $work/left ]]; then
	sed "s|^$work/layer/upper|FAIL left behind: |" "$work/left"
	[[ ! -e $work/share/counts ]] || sed -i 's/ \([0-9]*\) failed/ 1 failed/' "$work/share/counts"
fi
container_results "$counts"
