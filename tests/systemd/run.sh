#!/bin/bash
# tests/systemd/run.sh PREFIX SYSCONFDIR [NAME]: the units under a real systemd.  Boots this machine's tree as a container, with
# what 'ninja install' puts in place laid over it, and runs tests/NAME/inside.py in there (NAME: systemd, or pages for the
# commands of the documentation; pages-boot for those of the page that boots a machine, with build/pages-boot-files beside them).  Nothing outside of the container and of build/systemd-work changes.
# 'N passed, N failed' goes to build/test-counts/NAME too.  Exits 1 if something failed.
set -u
prefix=$1
sysconfdir=$2
name=${3:-systemd}
work=$PWD/build/systemd-work/$$
counts=build/test-counts/$name
BOOT_AND_TESTS_S=240

source tests/systemd/container.sh
mkdir -p build/test-counts || exit 1
if [[ $(id -u) != 0 ]] || ! command -v systemd-nspawn >/dev/null; then
	echo "skip: needs root and systemd-nspawn (package systemd-container)" | tee "$counts"
	exit 0
fi
trap container_close EXIT
if ! container_open /; then
	echo "skip: no overlay of / can be mounted here" | tee "$counts"
	exit 0
fi
DESTDIR=$work/root packaging/install.sh install "$prefix" "$sysconfdir" || exit 1
cp -r "tests/${name%-*}/inside.py" doc "$work/share" || exit 1
if [[ -d build/$name-files ]]; then
	cp -r "build/$name-files" "$work/share/files" || exit 1
fi
container_boot $BOOT_AND_TESTS_S "/usr/bin/env SYSCONFDIR=$sysconfdir PAGES=$name /usr/bin/python3 /share/inside.py"
container_results "$counts"
