"""What needs a kernel with more than this machine's may have: its own NBD client, LVM, and TLS.  `ninja kernel-test` boots one."""

import os
import shutil
import ssl
import subprocess
import sys
import time

import wire
from authority import IDENTITY, Authority
from harness import FILE, MIB, Skip
from harness import check, equal, random_bytes, same_bytes, test, two_cores, wait_until
from test_reload import Server
from test_tls import CONTENT, PSK, X509
from test_tls import connect, connect_tls, copy_both_ways, go, serve, uri
from wire import Wire

IMAGE_BYTES = 256 * MIB
NBD_DEVICES = 4


def needs(program, package):
    if shutil.which(program) is None:
        raise Skip(f"no {program} (package {package})")


def on_exit(env, *command):
    env.stack.callback(subprocess.run, command, check=False, capture_output=True)


# The kernel's client.


def free_nbd_device():
    needs("nbd-client", "nbd-client")
    for index in range(NBD_DEVICES):
        if os.path.exists(f"/dev/nbd{index}") and not os.path.exists(f"/sys/block/nbd{index}/pid"):
            return f"/dev/nbd{index}"
    raise Skip("no free /dev/nbd0: this kernel has no NBD client (module nbd)")


def attach(env, daemon, *options):
    """The export "disk" as a block device of this machine."""
    device = free_nbd_device()
    where = ["-unix", daemon.address.path] if daemon.address.path else ["127.0.0.1", daemon.address.port]
    env.run(["nbd-client", *where, device, "-N", "disk", *options])
    on_exit(env, "nbd-client", "-d", device)
    return device


def detach(env, device):
    env.run(["nbd-client", "-d", device])
    wait_until(lambda: not os.path.exists(f"/sys/block/{os.path.basename(device)}/pid"), 10, f"{device} is free")


def write_files(directory, count):
    contents = {f"{directory}/{index}": random_bytes(3 * MIB + index, index) for index in range(count)}
    for path, content in contents.items():
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return contents


WAYS = [("tcp", ()), ("tcp", ("-C", "4")), ("unix", ("-b", "512"))]


@test(over=WAYS)
def kernels_client_keeps_a_file_system(env, transport, options):
    """Made, filled, trimmed and checked through /dev/nbd0; what is in the image in the end is the same file system."""
    free_nbd_device()
    image = env.image(FILE, IMAGE_BYTES)
    listen = "127.0.0.1:0" if transport == "tcp" else f"unix:{env.path('socket')}"
    daemon = env.serve("--export", f"disk={image.path}", "--listen", listen, "--cores", two_cores())
    device = attach(env, daemon, *options)
    equal(env.run(["blockdev", "--getsize64", device]).out.strip(), str(IMAGE_BYTES), "size of the device")
    mounted = env.path("mounted")
    os.mkdir(mounted)
    env.run(["mkfs.ext4", "-q", device])
    env.run(["mount", "-o", "discard", device, mounted])
    on_exit(env, "umount", mounted)
    contents = write_files(mounted, 8)
    removed = f"{mounted}/0"
    os.unlink(removed)
    del contents[removed]
    env.run(["fstrim", mounted])
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")
    for path, content in contents.items():
        with open(path, "rb") as file:
            same_bytes(file.read(), content, path)
    env.run(["umount", mounted])
    env.run(["fsck.ext4", "-fn", device])
    detach(env, device)
    daemon.stop()
    env.run(["fsck.ext4", "-fn", image.path])
    env.run(["mount", "-o", "loop,ro", image.path, mounted])
    for path, content in contents.items():
        with open(path, "rb") as file:
            same_bytes(file.read(), content, f"{path} in the image")
    on_disk = os.stat(image.path).st_blocks * 512
    check(on_disk < IMAGE_BYTES // 2, f"{on_disk} bytes on disk: what was trimmed is no hole")


# LVM: a logical volume is a block device whose limits are the device mapper's.


def lvm(env, *command):
    """Without udev, which nobody may run here, and with no other device looked at than the test's."""
    quiet = "activation{udev_sync=0 udev_rules=0 verify_udev_operations=1} devices{use_devicesfile=0}"
    return env.run([*command[:1], "--config", quiet, *command[1:]])


def volume_group(env):
    needs("lvcreate", "lvm2")
    try:
        os.close(os.open("/dev/mapper/control", os.O_RDWR))
    except OSError:  # the node may be there without the driver
        raise Skip("this kernel has no device mapper (module dm-mod)") from None
    device = env.loop(env.file(IMAGE_BYTES), IMAGE_BYTES, 512).path
    name = f"millrace{os.getpid()}"
    lvm(env, "pvcreate", "-q", device)
    lvm(env, "vgcreate", "-q", name, device)
    on_exit(env, "vgremove", "-f", name)
    return name


def done(client, command, offset=0, length=0):
    equal(client.call(command, offset, length), (0, b""), f"answer to command {command}")


@test()
def logical_volume_is_served_and_grows(env):
    group = volume_group(env)
    lvm(env, "lvcreate", "-q", "-Wn", "-Zn", "-L", "64M", "-n", "disk", group)
    path = f"/dev/{group}/disk"
    server = Server(env, {"disk": f"path = {path}"})
    client = env.keep(Wire(server.daemon.address))
    client.go("disk")
    data = random_bytes(5 * MIB + 7)
    client.write(1001, data)
    client.write(64 * MIB - 5, b"tail!")
    done(client, wire.CMD_FLUSH)
    same_bytes(client.read(1001, len(data)), data, "what was written")
    done(client, wire.CMD_TRIM, 2 * MIB, MIB)
    done(client, wire.CMD_WRITE_ZEROES, 4 * MIB, MIB)
    same_bytes(client.read(4 * MIB, MIB), bytes(MIB), "zeroes")
    lvm(env, "lvextend", "-q", "-L", "128M", path)
    server.reload()
    new = env.keep(Wire(server.daemon.address))
    new.go("disk")
    new.write(128 * MIB - 5, b"tail!")
    done(new, wire.CMD_FLUSH)
    server.daemon.stop()
    with open(path, "rb") as file:
        file.seek(128 * MIB - 5)
        same_bytes(file.read(), b"tail!", "the new end, in the volume")
        file.seek(64 * MIB - 5)
        same_bytes(file.read(5), b"tail!", "the old end, in the volume")
        file.seek(1001)
        same_bytes(file.read(MIB), data[:MIB], "the beginning, in the volume")


# TLS in the kernel.


def kernel_counts(name):
    """A counter of the kernel's TLS since it booted; a daemon that starts tries it, too."""
    try:
        with open("/proc/net/tls_stat", encoding="ascii") as file:
            return int(dict(line.split() for line in file)[name])
    except FileNotFoundError:
        raise Skip("no TLS in this kernel (module tls)") from None


def kernel_sends():
    """How many sessions' sending the kernel has taken over."""
    return kernel_counts("TlsTxSw")


def kernel_changes_keys():
    return tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 14)


def limited_to(version, *ciphers):
    names = "".join(f":+{cipher}" for cipher in ciphers)
    return f"priority = NORMAL:-VERS-ALL:+VERS-{version}:-CIPHER-ALL{names}:+ECDHE-PSK:+DHE-PSK"


CIPHERS = ("AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305")
# With a key there is no SHA-384, which AES-256 has in TLS 1.3.
SESSIONS = [(version, cipher, X509) for version in ("TLS1.2", "TLS1.3") for cipher in CIPHERS]
SESSIONS += [("TLS1.2", CIPHERS[0], PSK), ("TLS1.3", CIPHERS[0], PSK)]


@test(over=SESSIONS)
def tls_copies_both_ways(env, version, cipher, kind):
    kernel_sends()
    authority = Authority(env)
    daemon, path = serve(env, f"{authority.settings('required')}\n{limited_to(version, cipher)}")
    before = kernel_sends()
    copy_both_ways(env, uri(authority, daemon.address, kind), path)
    sends = kernel_sends() - before
    if version == "TLS1.2" or kernel_changes_keys():
        check(sends >= 3, f"the kernel sent for {sends} of three clients and more")
    else:
        equal(sends, 0, "sessions that the kernel sent for, whose keys it can't change")


@test()
def tls_is_left_alone_when_told(env):
    before = kernel_sends()
    authority = Authority(env)
    daemon, _ = serve(env, f"{authority.settings('required')}\n{limited_to('TLS1.2', CIPHERS[0])}\nkernel = no")
    env.run(["nbdinfo", uri(authority, daemon.address, X509)])
    equal(kernel_sends(), before, "sessions that the kernel sends for")
    check("the kernel encrypts" not in daemon.log(), "the log says that it does")


@test(over=[("TLSv1_2",), ("TLSv1_3",)])
def tls_of_a_client_that_reads_late_arrives_whole(env, version):
    """More than the socket takes waits in the daemon; the end of TLS comes behind it."""
    kernel_sends()
    if version == "TLSv1_3" and not kernel_changes_keys():
        raise Skip("this kernel can't change keys (Linux 6.14)")
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings("required"))
    before = kernel_sends()
    context = authority.context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    client = connect_tls(env, daemon, context)
    go(client)
    wanted = {client.request(wire.CMD_READ, i, 3 * MIB): i for i in range(12)}
    client.request(wire.CMD_DISC)
    time.sleep(1)
    while wanted:
        cookie, error, data = client.reply()
        equal(error, 0, "error of a read")
        offset = wanted.pop(cookie)
        same_bytes(data, CONTENT[offset : offset + 3 * MIB], f"read at {offset}")
    equal(client.sock.recv(1), b"", "what comes after DISC, in order")
    equal(kernel_sends() - before, 1, "sessions that the kernel sent for")


class GnuTlsSocket:
    """As much of a socket as Wire uses, inside a session whose keys can be changed."""

    def __init__(self, sock, peer):
        self.sock, self.peer = sock, peer
        while not peer.shake_hands():
            self.exchange()
        sock.sendall(peer.take())

    def exchange(self):
        self.sock.sendall(self.peer.take())
        received = self.sock.recv(65536)
        check(received != b"", "the connection has ended without the end of TLS")
        self.peer.incoming += received

    def sendall(self, data):
        self.sock.sendall(self.peer.encrypt(data))

    def recv_into(self, view):
        while (data := self.peer.decrypt(len(view))) is None:
            self.exchange()
        view[: len(data)] = data
        return len(data)

    def settimeout(self, seconds):
        self.sock.settimeout(seconds)

    def close(self):
        self.sock.close()


@test()
def tls_keys_are_changed_as_often_as_asked(env):
    """By the client for both sides, while replies are on their way."""
    sys.path.append(os.path.join(os.path.dirname(__file__), "../fuzz"))
    import tls_peer

    kernel_sends()
    if not kernel_changes_keys():
        raise Skip("this kernel can't change keys (Linux 6.14)")
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings("required"))
    before = kernel_sends()
    changed_before = kernel_counts("TlsTxRekeyOk")
    client = connect(env, daemon)
    equal(client.answer_kind(wire.OPT_STARTTLS), wire.REP_ACK, "answer to STARTTLS")
    credentials = tls_peer.Credentials(authority, IDENTITY)
    client.sock = GnuTlsSocket(client.sock, tls_peer.TlsPeer(credentials.kinds()[0], "TLS1.3"))
    client.sock.sock.sendall(client.sock.peer.update_keys())
    time.sleep(1.1)  # GnuTLS takes no more than one in a second
    go(client)
    for count in range(5):
        wanted = {client.request(wire.CMD_READ, i * 4096, 300_000): i * 4096 for i in range(20)}
        client.sock.sock.sendall(client.sock.peer.update_keys())
        time.sleep(1.1)
        while wanted:
            cookie, error, data = client.reply()
            equal(error, 0, "error of a read")
            offset = wanted.pop(cookie)
            same_bytes(data, CONTENT[offset : offset + 300_000], f"read at {offset} in round {count}")
        client.write(count, b"written with the new keys")
        same_bytes(client.read(count, 25), b"written with the new keys", "what was written")
        client.write(0, CONTENT[:4096])
    equal(kernel_sends() - before, 1, "sessions that the kernel sent for")
    equal(kernel_counts("TlsTxRekeyOk") - changed_before, 6, "changes of the kernel's keys")
