# Runs in the container that tests/package/run.sh boots: a new user installs the package, edits one file, starts the unit, connects
# with qemu-img, reloads a second export in, and removes it all.
# Output goes to /share/output, the last line to /share/counts.
set -u
rm -f /var/lib/man-db/auto-update # an index of a full machine's pages is not of interest, and takes long
exec >/share/output 2>&1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
conf=/etc/millrace/millrace.conf
disk=nbd://127.0.0.1:10809/disk
second=nbd://127.0.0.1:10809/second
passed=0
failed=0

# step NAME COMMAND...: counts whether COMMAND succeeds; its output is shown if it does not.
step()
{
	local name=$1 began=$EPOCHREALTIME
	shift
	if "$@" >/tmp/said 2>&1 </dev/null; then
		((passed++))
		echo "ok   $name ($(((${EPOCHREALTIME/[^0-9]/} - ${began/[^0-9]/}) / 1000)) ms)"
	else
		((failed++))
		echo "FAIL $name"
		tail -n 30 /tmp/said | sed 's/^/     | /'
	fi
}

shown()
{
	systemctl show --value -p "$1" "${2:-millrace.service}"
}

install_deb()
{
	apt-get install -y --no-install-recommends "$@"
}

user_and_pages_are_there()
{
	getent passwd millrace && getent group millrace && [[ -s /usr/share/man/man8/millraced.8.gz ]] &&
		[[ $(stat -c '%U %a' /var/lib/millrace) == 'millrace 700' ]]
}

nothing_runs_by_itself()
{
	local unit
	for unit in millrace.service millrace.socket; do
		[[ $(shown ActiveState $unit) == inactive && $(shown UnitFileState $unit) == disabled ]] || { systemctl status $unit; return 1; }
	done
}

edit_one_file()
{
	cat >>$conf <<-END_OF_EXPORT

		[export disk]
		path = /var/lib/millrace/disk.img
		create = sparse
		size = 64M
	END_OF_EXPORT
	millraced --config $conf --check
}

start_the_unit()
{
	systemctl start millrace && shown StatusText | grep 'serving 1 exports' && [[ $(stat -c %a /var/lib/millrace) == 700 ]]
}

qemu_img_connects()
{
	head -c 1M /dev/urandom >/tmp/data && qemu-img info "$disk" | grep 'virtual size: 64 MiB' &&
		qemu-img convert -n -f raw -O raw /tmp/data "$disk" && cmp -n 1048576 /tmp/data /var/lib/millrace/disk.img &&
		qemu-img convert -f raw -O raw "$disk" /tmp/copy && cmp -n 1048576 /tmp/data /tmp/copy
}

# A client is connected all the while, and notices nothing.
reload_a_second_export_in()
{
	local client status commands
	mkfifo /tmp/commands
	stdbuf -oL qemu-io -f raw "$disk" </tmp/commands >/tmp/client 2>&1 &
	client=$!
	exec {commands}>/tmp/commands
	echo 'write -P 7 0 4k' >&"$commands"
	until grep -q wrote /tmp/client || ! kill -0 $client; do
		sleep 0.05
	done
	printf '[export second]\ntype = memory\nsize = 16M\n' >/etc/millrace/exports.d/second.conf
	systemctl reload millrace && qemu-img info "$second" | grep 'virtual size: 16 MiB' && kill -0 $client
	status=$?
	echo 'read -P 7 0 4k' >&"$commands"
	exec {commands}>&-
	wait $client && grep 'read 4096/4096' /tmp/client && ! grep -i 'fail\|error' /tmp/client && return $status
}

mistake_is_named_and_changes_nothing()
{
	printf '[export third]\npth = /nowhere\n' >/etc/millrace/exports.d/third.conf
	! systemctl reload millrace || return 1
	journalctl --sync
	journalctl -u millrace -o cat | grep -F '/etc/millrace/exports.d/third.conf:2: [export third] pth = /nowhere: unknown key' || return 1
	qemu-img info "$second" && rm /etc/millrace/exports.d/third.conf && systemctl reload millrace &&
		qemu-img info "$disk" && qemu-img info "$second"
}

# What an upgrade does, too: what runs already runs the new program.
edited_file_survives_a_new_install()
{
	local before
	before=$(shown MainPID)
	dpkg -i /share/millrace.deb && grep '^\[export disk\]' $conf && [[ $(shown ActiveState) == active ]] &&
		[[ $(shown MainPID) != "$before" ]] && qemu-img info "$disk"
}

# A mistake in its configuration is no reason for dpkg to call the package broken.
upgrade_does_not_depend_on_the_service()
{
	printf '[export third]\npth = /nowhere\n' >/etc/millrace/exports.d/third.conf
	dpkg -i /share/millrace.deb && [[ $(dpkg-query -f '${db:Status-Status}' -W millrace) == installed ]] || return 1
	rm /etc/millrace/exports.d/third.conf && systemctl restart millrace && qemu-img info "$disk"
}

enable_it()
{
	systemctl enable millrace && [[ $(shown UnitFileState) == enabled && $(shown UnitFileState millrace.socket) == disabled ]]
}

removal_stops_it_and_keeps_etc()
{
	apt-get remove -y millrace && [[ ! -e /usr/bin/millraced ]] && grep '^\[export disk\]' $conf &&
		[[ -e /var/lib/millrace/disk.img ]] && ! pgrep millraced && ! find /etc/systemd -name 'millrace*.s*' ! -name millrace-test.service | grep .
}

purge_keeps_volumes()
{
	dpkg -i /share/millrace.deb && dpkg --purge millrace && [[ -e /var/lib/millrace/disk.img ]] && getent passwd millrace
}

# What is left in the tree is looked for by tests/package/run.sh.
purge_leaves_nothing()
{
	# A purge leaves the group behind if it has other members: it is found, and used.
	userdel millrace && groupadd --system millrace || return 1
	dpkg -i /share/millrace.deb && [[ $(id -gn millrace) == millrace ]] && rm /var/lib/millrace/disk.img || return 1
	umount /var/lib/millrace # the test's disk below it
	apt-get purge -y millrace || return 1
	! { grep millrace /etc/passwd /etc/group /etc/shadow /etc/gshadow; find /run /tmp -iname '*millrace*' ! -path '*millrace-test*'; } | grep .
}

command -v qemu-img >/dev/null || step 'qemu-utils, to connect with' install_deb qemu-utils
step 'the package is installed with what it needs' install_deb /share/millrace.deb
step 'the user, the pages and the place for volumes are there' user_and_pages_are_there
step 'nothing is started or enabled' nothing_runs_by_itself
step 'one file is edited, and --check accepts it' edit_one_file
step 'the unit starts' start_the_unit
step 'qemu-img connects, writes and reads' qemu_img_connects
step 'a second export is reloaded in, and a client stays' reload_a_second_export_in
step 'a mistake is named with file and line, and changes nothing' mistake_is_named_and_changes_nothing
step 'an edited file survives a new install, the service runs again' edited_file_survives_a_new_install
step 'an upgrade does not depend on the service' upgrade_does_not_depend_on_the_service
step 'it is enabled' enable_it
step 'removal stops and disables it, and keeps what is in etc' removal_stops_it_and_keeps_etc
step 'purge keeps volumes' purge_keeps_volumes
step 'purge leaves nothing' purge_leaves_nothing

echo "$passed passed, $failed failed" | tee /share/counts
