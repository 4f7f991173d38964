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

mkdir -p build/test-counts || exit 1
if [[ $(id -u) != 0 ]] || ! command -v systemd-nspawn >/dev/null; then
	echo "skip: needs root and systemd-nspawn (package systemd-container)" | tee "$counts"
	exit 0
fi

clean_up()
{
	umount "$work/root" 2>/dev/null
	umount "$work/layer" 2>/dev/null
	rm -rf "$work"
	rmdir build/systemd-work 2>/dev/null
}
trap clean_up EXIT

mkdir -p "$work"/{root,layer,share,state} && mount -t tmpfs millrace-test "$work/layer" &&
	mkdir "$work"/layer/{upper,work} || exit 1
if ! mount -t overlay millrace-test -o "lowerdir=/,upperdir=$work/layer/upper,workdir=$work/layer/work" "$work/root"; then
	echo "skip: no overlay of / can be mounted here" | tee "$counts"
	exit 0
fi
DESTDIR=$work/root packaging/install.sh install "$prefix" "$sysconfdir" || exit 1
cp -r "tests/${name%-*}/inside.py" doc "$work/share" || exit 1
if [[ -d build/$name-files ]]; then
	cp -r "build/$name-files" "$work/share/files" || exit 1
fi
fuse=()
[[ -e /dev/fuse ]] && fuse=(--bind=/dev/fuse)
cat >"$work/share/millrace-test.service" <<-END
	[Unit]
	Requires=basic.target
	After=basic.target
	SuccessAction=exit-force
	FailureAction=exit-force
	[Service]
	Type=oneshot
	Environment=SYSCONFDIR=$sysconfdir PAGES=$name
	ExecStart=/usr/bin/python3 /share/inside.py
END

# The container must not be sheltered itself, to see that the service is.  Source: systemd-nspawn(1), ENVIRONMENT.
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_SECCOMP=0 timeout --kill-after=5 $BOOT_AND_TESTS_S systemd-nspawn \
	--directory="$work/root" --boot --register=no --keep-unit --private-network --console=pipe --capability=all \
	--link-journal=no "${fuse[@]}" --bind="$work/share:/share" --bind="$work/state:/var/lib/millrace" \
	--bind-ro="$work/share/millrace-test.service:/etc/systemd/system/millrace-test.service" \
	-- systemd.unit=millrace-test.service </dev/null >"$work/console" 2>&1
status=$?
if [[ ! -e $work/share/counts ]]; then
	echo "the container ended with $status before the tests did; what it said:"
	tail -n 40 "$work/console"
	cat "$work/share/output" 2>/dev/null
	echo "0 passed, 1 failed" | tee "$counts"
	exit 1
fi
cat "$work/share/output"
cp "$work/share/counts" "$counts"
grep -q ' 0 failed' "$counts"
