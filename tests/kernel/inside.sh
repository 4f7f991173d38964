#!/bin/bash
# The tests in the emulated machine (tests/kernel/run.sh), as its first process; its output is the console's.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
for word in $(</proc/cmdline); do
	case $word in
	millrace.tree=*) cd "${word#*=}" || exit ;;
	millrace.daemon=*) daemon=${word#*=} ;;
	millrace.only=*) only=${word#*=} ;;
	esac
done
exec >/dev/ttyS0 2>&1
echo # behind what the firmware left on the line
ip link set lo up
hostname millrace-test
mknod -m 600 /dev/loop-control c 10 237 2>/dev/null
/usr/bin/python3 tests/e2e/run.py --daemon "$daemon" --jobs 1 --work /mnt/work --only "$only" 2>&1 | sed 's/^/test: /'
sync
echo o >/proc/sysrq-trigger
sleep 60
