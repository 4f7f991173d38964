# Sourced by the scripts that test under a real systemd: a container that boots a tree and leaves it as it is.
#   container_open TREE            lays $work/root over TREE; what is written there is kept in memory.  Fails if that can't be
#   container_boot SECONDS LINE    boots it, with $work/share as /share and $work/state, on a disk, as /var/lib/millrace, and
#                                  runs LINE, a unit's ExecStart=; ends when that has ended, or after SECONDS
#   container_close                takes all of it away, and $work
# $work is the caller's, below build.  What systemd says goes to $work/console.

container_open()
{
	mkdir -p "$work"/{root,layer,share,state} && mount -t tmpfs millrace-test "$work/layer" &&
		mkdir "$work"/layer/{upper,work} &&
		mount -t overlay millrace-test -o "lowerdir=$1,upperdir=$work/layer/upper,workdir=$work/layer/work" "$work/root"
}

container_boot()
{
	local seconds=$1 fuse=()
	[[ -e /dev/fuse ]] && fuse=(--bind=/dev/fuse)
	cat >"$work/share/millrace-test.service" <<-END_OF_UNIT
		[Unit]
		Requires=basic.target
		After=basic.target
		SuccessAction=exit-force
		FailureAction=exit-force
		[Service]
		Type=oneshot
		ExecStart=$2
	END_OF_UNIT
	# The container must not be sheltered itself, to see that the service is.  Source: systemd-nspawn(1), ENVIRONMENT.
	SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_SECCOMP=0 timeout --kill-after=5 "$seconds" systemd-nspawn \
		--directory="$work/root" --boot --register=no --keep-unit --private-network --console=pipe --capability=all \
		--link-journal=no "${fuse[@]}" --bind="$work/share:/share" --bind="$work/state:/var/lib/millrace" \
		--bind-ro="$work/share/millrace-test.service:/etc/systemd/system/millrace-test.service" \
		-- systemd.unit=millrace-test.service </dev/null >"$work/console" 2>&1
}

container_close()
{
	umount "$work/root" 2>/dev/null
	umount "$work/layer" 2>/dev/null
	rm -rf "$work"
	rmdir "${work%/*}" 2>/dev/null
}

# container_results FILE: print $work/share/output and put its counts, $work/share/counts, into FILE.  Fails if there are none, or
# some test failed.
container_results()
{
	cat "$work/share/output" 2>/dev/null
	if [[ ! -e $work/share/counts ]]; then
		echo "the container ended before the tests did; what it said:"
		tail -n 40 "$work/console"
		echo "0 passed, 1 failed" | tee "$1"
		return 1
	fi
	cp "$work/share/counts" "$1"
	grep -q ' 0 failed' "$1"
}
