#!/bin/bash
# tests/kernel/run.sh DAEMON: what needs a kernel that this machine may not have (vsock over loopback, TLS in the kernel, LVM, the
# kernel's NBD client), on Debian's own, in an emulated machine with two CPUs whose root is this machine's tree, read only, with
# what is written there kept in memory.  Without KVM it is slow: no test here measures time.  The kernel's package is taken from the
# mirror, once, to build/kernel.  KERNEL=VERSION in the environment: another one, of 'apt-cache search linux-image'.
# 'N passed, N failed' goes to build/test-counts/kernel too.  Exits 1 if something failed.
set -u
daemon=$PWD/$1
counts=build/test-counts/kernel
BOOT_AND_TESTS_S=${KERNEL_TEST_S:-900}
MEMORY_MIB=2048
DISK_BYTES=2G # /mnt of the machine, ext4: the tests need O_DIRECT
# What the kernel's drivers need comes with them.
MODULES="virtio_pci virtio_blk 9p 9pnet_virtio overlay ext4 vsock_loopback tls dm-mod nbd loop aesni-intel gcm chacha20poly1305"
# And that some versions lack.
MODULES_IF_ANY="chacha_generic poly1305_generic chacha"

mkdir -p build/test-counts build/kernel || exit 1
for command in qemu-system-x86_64 busybox cpio depmod mkfs.ext4; do
	if ! PATH=$PATH:/usr/sbin:/sbin command -v $command >/dev/null; then
		echo "skip: needs $command (packages qemu-system-x86, busybox-static, cpio, kmod, e2fsprogs)" | tee "$counts"
		exit 0
	fi
done
export PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d "$PWD/build/kernel/run.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

# kernel VERSION: its package's tree, build/kernel/VERSION.
kernel()
{
	local tree=build/kernel/$1
	[[ -d $tree ]] && return
	(cd "$work" && apt-get download "linux-image-$1") && dpkg-deb -x "$work/linux-image-$1"_*.deb "$work/tree" &&
		{ [[ -d $work/tree/lib ]] || mv "$work/tree/usr/lib" "$work/tree/lib"; } &&
		depmod -b "$work/tree" "$1" && mv "$work/tree" "$tree"
}

# image VERSION: the first root file system, $work/initrd, which mounts the true one.
image()
{
	local tree=build/kernel/$1 module path
	mkdir -p "$work"/initrd.d/{bin,modules,proc,sys,dev,lower,layer,new} && cp "$(command -v busybox)" "$work/initrd.d/bin" || return
	for module in $MODULES $MODULES_IF_ANY; do
		modprobe -S "$1" -d "$tree" --show-depends $module || [[ " $MODULES_IF_ANY " == *" $module "* ]] || return
	done 2>"$work/modprobe.errors" | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/modules" || return
	while read -r path; do
		cp "$path" "$work/initrd.d/modules" && path=${path##*/} || return
		[[ $path != *.xz ]] || xz -d "$work/initrd.d/modules/$path" || return
		echo "${path%.xz}" >>"$work/initrd.d/modules/order"
	done <"$work/modules"
	cp tests/kernel/init "$work/initrd.d/init" && (cd "$work/initrd.d" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd"
}

version=${KERNEL:-$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: linux-image-//p' | head -n 1)}
if ! { kernel "$version" && image "$version" && truncate -s $DISK_BYTES "$work/disk" && mkfs.ext4 -q "$work/disk"; }; then
	echo "FAIL no kernel '$version' to boot: see above"
	echo "0 passed, 1 failed" | tee "$counts"
	exit 1
fi
timeout --kill-after=5 "$BOOT_AND_TESTS_S" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m $MEMORY_MIB \
	-nographic -nodefaults -no-reboot -serial "file:$work/console" \
	-kernel "build/kernel/$version/boot/vmlinuz-$version" -initrd "$work/initrd" \
	-append "console=ttyS0 quiet panic=-1 mitigations=off millrace.tree=$PWD millrace.daemon=$daemon millrace.only=${KERNEL_TEST_ONLY:-vsock.,kernel.,tls.}" \
	-fsdev "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=root,mount_tag=root \
	-drive "file=$work/disk,format=raw,if=virtio,cache=unsafe" </dev/null

tr -d '\r' <"$work/console" >build/kernel/console
sed -n 's/^test: //p' build/kernel/console
if ! sed -n 's/^test: \([0-9]* passed, [0-9]* failed.*\)/\1/p' build/kernel/console | grep . >"$counts"; then
	echo "the machine ended before the tests did; what it said:"
	tail -n 40 build/kernel/console
	echo "0 passed, 1 failed" | tee "$counts"
	exit 1
fi
grep -q ' 0 failed' "$counts"
