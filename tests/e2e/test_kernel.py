"""What needs a kernel with more than this machine's may have: its own NBD client, and LVM.  `ninja kernel-test` boots one."""

import os
import shutil
import subprocess

import wire
from harness import FILE, MIB, Skip
from harness import check, equal, random_bytes, same_bytes, test, two_cores, wait_until
from test_reload import Server
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
