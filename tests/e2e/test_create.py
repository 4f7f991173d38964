"""create = : images that are made because they are missing."""

import contextlib
import os
import signal
import time

import nbd

from harness import MIB
from harness import Skip, check, equal, is_sanitized, same_bytes, test, two_cores, wait_until

LISTEN = "[server]\nlisten = 127.0.0.1:0\n"


def config_text(path, create, size):
    return f"{LISTEN}[export disk]\npath = {path}\ncreate = {create}\nsize = {size}\n"


@test(over=(("sparse",), ("falloc",), ("written",)), quick=(("falloc",),))
def missing_image_is_made_once(env, create):
    path = env.path("new")
    config = env.config(config_text(path, create, 8 * MIB + 512))
    check_only = env.run([env.binary, "--config", config, "--check"])
    check(f"{8 * MIB + 512} bytes" in check_only.out, check_only.out)
    check(not os.path.exists(path), "--check has made it")
    daemon = env.serve("--config", config, "--cores", two_cores())
    handle = nbd.NBD()
    handle.connect_uri(daemon.uri())
    equal(handle.get_size(), 8 * MIB + 512, "size")
    same_bytes(handle.pread(MIB, 8 * MIB + 512 - MIB), bytes(MIB), "what is in it")
    handle.pwrite(b"kept" * 128, 0)
    handle.shutdown()
    daemon.stop()
    handle = nbd.NBD()
    handle.connect_uri(env.serve("--config", config, "--cores", two_cores()).uri())
    same_bytes(handle.pread(512, 0), b"kept" * 128, "what was written before the second start")
    handle.shutdown()


@test(quick=True)
def a_reload_makes_it_under_the_filter_of_system_calls(env):
    first, second = env.file(MIB), env.path("new")
    text = f"{LISTEN}[export first]\npath = {first}\n"
    config = env.config(text)
    daemon = env.serve("--config", config)
    with open(config, "a", encoding="utf-8") as file:
        file.write(f"[export second]\npath = {second}\ncreate = falloc\nsize = 2M\n")
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded: " in daemon.log(), 10, "the reload")
    check("not reloaded" not in daemon.log(), "it was not reloaded")
    equal(os.stat(second).st_size, 2 * MIB, "its size")


@test(quick=True)
def what_cannot_be_made_is_said_with_sizes(env):
    path = env.path("new")
    for create, size, words in (
        ("falloc", "1024T", (f"{1 << 50} bytes", "free; make room")),
        ("sparse", "1024T", (f"{1 << 50} bytes", "too large for its file system")),
    ):
        result = env.run([env.binary, "--config", env.config(config_text(path, create, size))], expect=None)
        check(result.code != 0, f"create = {create}, size = {size} was served")
        for word in (path, *words):
            check(word in result.err, f"{word!r} is not in {result.err}")
        check(not os.path.exists(path), "something is there all the same")
    result = env.run([env.binary, "--config", env.config(config_text(f"{path}/x", "sparse", "1M"))], expect=None)
    check("there is no such directory" in result.err, result.err)


@test(quick=True)
def link_to_what_does_not_exist_is_named(env):
    path, target = env.path("link"), env.path("target")
    os.symlink(target, path)
    config = env.config(config_text(path, "sparse", "1M"))
    for more in ((), ("--check",)):
        result = env.run([env.binary, "--config", config, *more], expect=1)
        check(f"{path}: cannot be created: it is a symbolic link" in result.err, result.err)
    check(not os.path.exists(target), "something is there all the same")


@test(quick=True)
def killed_while_it_is_made_leaves_nothing(env):
    directory = env.path("directory")
    os.mkdir(directory)
    path = os.path.join(directory, "new")
    daemon = env.launch(["--config", env.config(config_text(path, "written", "1G"))])
    # Its file has no name, but it is open.
    fds = f"/proc/{daemon.pid}/fd"

    def under_way():
        with contextlib.suppress(FileNotFoundError):
            return any(os.readlink(f"{fds}/{name}").startswith(directory) for name in os.listdir(fds))
        return False

    deadline = time.monotonic() + 10
    while not under_way():
        check(time.monotonic() < deadline, "it is not made")
    daemon.kill()
    equal(os.listdir(directory), [], "what is left")


@test()
def told_to_stop_while_it_is_made_it_stops(env):
    """On a disk that takes 2 s for each of 16 parts of it."""
    if is_sanitized(env.binary):
        raise Skip("the address sanitizer must be the first: nothing can be preloaded")
    library = os.path.join(os.path.dirname(env.binary), "release/tests/e2e/slow_sync.so")
    directory = env.path("directory")
    os.mkdir(directory)
    config = env.config(config_text(os.path.join(directory, "new"), "written", "4G"))
    daemon = env.launch(["--config", config], variables={"LD_PRELOAD": library, "SLOW_SYNC_MS": "2000"})
    wait_until(lambda: any(name.startswith(directory) for name in daemon.open_files()), 10, "it is being made")
    daemon.judged = True
    daemon.send_signal(signal.SIGTERM)
    equal(daemon.wait_exit(), 0, "exit status")
    check("not created: told to stop meanwhile" in daemon.log(), daemon.log())
    equal(os.listdir(directory), [], "what is left")
