"""Mistakes of the administrator: a clear error that names the object, an exit that is not zero, within seconds."""

import contextlib
import os
import re
import shutil
import socket
import stat
import tempfile
import time

import nbd

from harness import MIB, Skip
from harness import check, equal, is_sanitized, random_bytes, read_text, same_bytes, test, two_cores, write_text

EXIT_SECONDS = 15
EXIT_SECONDS_SLOW = 30  # under the sanitizers
AIO_MAX = "/proc/sys/fs/aio-max-nr"
AIO_USED = "/proc/sys/fs/aio-nr"


def expect_refusal(env, arguments, *mentions, prefix=()):
    """The daemon with ARGUMENTS ends by itself, not with 0, and its log has each of MENTIONS (a tuple: any of)."""
    daemon = env.launch(arguments, prefix)
    daemon.judged = True
    code = daemon.wait_exit(EXIT_SECONDS_SLOW if env.quick else EXIT_SECONDS)
    daemon.check_log()
    log = daemon.log()
    check(0 < code < 128, f"exit code {code}; expected a small positive one; it said: {log}")
    for mention in mentions:
        words = mention if isinstance(mention, tuple) else (mention,)
        check(any(word in log for word in words), f"its message does not name {' or '.join(words)}: {log}")
    return log


def good_config(env, reactor="", server="listen = 127.0.0.1:0", export=""):
    path = env.file(MIB)
    return f"[reactor]\n{reactor}\n[server]\n{server}\n[export disk]\npath = {path}\n{export}\n"


def refuse_config(env, text, *mentions):
    path = env.config(text)
    return expect_refusal(env, ["--config", path], path, *mentions)


# Mistakes in the file: (which part, its text, what the message must name besides the file).  The line is 2 in
# [reactor], 4 in [server], 7 in [export].
FILE_MISTAKES = {
    "unknown key in reactor": ("reactor", "queue-dept = 5", (":2", "queue-dept")),
    "unknown key in server": ("server", "listens = 127.0.0.1:0", (":4", "listens")),
    "unknown key in export": ("export", "readonly = yes", (":7", "readonly")),
    "queue depth of 0": ("reactor", "queue-depth = 0", (":2", "queue-depth", "16")),
    "queue depth too large": ("reactor", "queue-depth = 99999999", (":2", "queue-depth", "16384")),
    "queue depth of 2^64": ("reactor", "queue-depth = 18446744073709551872", (":2", "queue-depth")),
    "queue depth negative": ("reactor", "queue-depth = -1", (":2", "queue-depth")),
    "queue depth not a number": ("reactor", "queue-depth = many", (":2", "queue-depth", "many")),
    "poll time too long": ("reactor", "poll-us = 10001", (":2", "poll-us", "10000")),
    "buffer memory too small": ("reactor", "buffer-memory = 1M", (":2", "buffer-memory", "64")),
    "buffer memory without sense": ("reactor", "buffer-memory = 128X", (":2", "buffer-memory", "128X")),
    "cores not a list": ("reactor", "cores = 0-", (":2", "cores")),
    "core twice": ("reactor", "cores = 0,0", (":2", "cores")),
    "no connections": ("server", "max-connections = 0", (":4", "max-connections")),
    "too many connections": ("server", "max-connections = 20001", (":4", "max-connections", "20000")),
    "listen without a port": ("server", "listen = 127.0.0.1", (":4", "listen", "127.0.0.1")),
    "listen on port 65536": ("server", "listen = 127.0.0.1:65536", (":4", "listen", "65536")),
    "listen on nothing": ("server", "listen =", (":4", "listen")),
    "read-only perhaps": ("export", "read-only = perhaps", (":7", "read-only", "perhaps")),
}


@test(quick=True)
def mistake_in_the_file_is_named_with_its_line(env):
    for name, (part, text, mentions) in FILE_MISTAKES.items():
        log = refuse_config(env, good_config(env, **{part: text}), *mentions)
        check("--check" not in log and len(log.splitlines()) <= 3, f"{name}: more said than needed: {log}")


@test(quick=True)
def all_mistakes_in_a_file_are_found_at_once(env):
    text = good_config(env, reactor="queue-dept = 5", server="max-connections = 0", export="readonly = yes")
    refuse_config(env, text, ":2", "queue-dept", ":4", "max-connections", ":7", "readonly")


@test(quick=True)
def unknown_section_is_named(env):
    refuse_config(env, good_config(env) + "[exprot other]\npath = /nowhere\n", "exprot")


@test()
def line_that_is_no_setting_is_named(env):
    refuse_config(env, good_config(env, reactor="cores auto"), ":2")


@test()
def export_without_a_path_is_named(env):
    refuse_config(env, good_config(env) + "[export bare]\nread-only = yes\n", "bare", "path")


@test(quick=True)
def export_given_twice_is_named(env):
    refuse_config(env, good_config(env) + f"[export disk]\npath = {env.file(MIB)}\n", "disk")
    first, second = env.file(MIB), env.file(MIB)
    arguments = ["--export", f"vol={first}", "--export", f"vol={second}", "--listen", "127.0.0.1:0"]
    expect_refusal(env, arguments, "vol")


@test()
def garbage_as_configuration_is_refused(env):
    path = env.file(65536, random_bytes(65536), "garbage.conf")
    log = expect_refusal(env, ["--config", path], path)
    check(log.isprintable() or "\x1b" not in log, "the message repeats control characters")


@test(quick=True)
def missing_configuration_is_named(env):
    path = env.path("absent.conf")
    expect_refusal(env, ["--config", path], path, "No such file")
    expect_refusal(env, ["--config", env.directory], env.directory)


@test(quick=True)
def wrong_command_lines_are_refused(env):
    image = env.file(MIB)
    listen = ["--listen", "127.0.0.1:0"]
    expect_refusal(env, [], ("--export", "export"))
    expect_refusal(env, listen, "export")
    expect_refusal(env, ["--frobnicate"], "--frobnicate")
    expect_refusal(env, ["--export", f"disk={image}", "stray", *listen], "stray")
    expect_refusal(env, ["--export", "disk", *listen], "--export", "disk")
    expect_refusal(env, ["--export", "disk=", *listen], "--export")
    expect_refusal(env, ["--export", f"disk={image}", "--listen", "nonsense"], "--listen", "nonsense")
    expect_refusal(env, ["--export", f"disk={image}", "--listen"], "--listen")
    expect_refusal(env, ["--export", f"disk={image}", *listen, "--cores", "0-x"], "--cores", "0-x")


# Images.


def refuse_image(env, path, *mentions, prefix=()):
    arguments = ["--export", f"disk={path}", "--listen", "127.0.0.1:0"]
    expect_refusal(env, arguments, str(path), *mentions, prefix=prefix)
    expect_refusal(env, [*arguments, "--check"], str(path), *mentions, prefix=prefix)


@test(quick=True)
def missing_image_is_named(env):
    refuse_image(env, env.path("absent.img"), "No such file", "truncate -s")
    refuse_image(env, "/dev/millrace-absent", "No such file", "PrivateDevices=no")


@test(quick=True)
def directory_as_image_is_named(env):
    refuse_image(env, env.directory, "directory")


@test()
def empty_image_is_named(env):
    refuse_image(env, env.file(0), "empty")


@test()
def pipe_or_character_device_as_image_is_named(env):
    pipe = env.path("pipe")
    os.mkfifo(pipe)
    refuse_image(env, pipe)
    refuse_image(env, "/dev/null")


@test(quick=True)
def unreadable_image_is_named(env):
    path = env.file(MIB)
    os.chmod(path, 0)
    prefix = ()
    if os.geteuid() == 0:
        # Root may read everything, unless it gives that up.
        prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
        if env.run([*prefix, "true"], expect=None).code != 0:
            raise Skip("root reads everything, and setpriv can't take that away")
    refuse_image(env, path, "Permission denied", prefix=prefix)


@test()
def image_without_write_permission_is_not_served_for_writing(env):
    path = env.file(MIB)
    os.chmod(path, stat.S_IRUSR)
    prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    refuse_image(env, path, "read-only", prefix=prefix)


@test()
def second_daemon_on_the_same_image_is_refused_and_harms_nothing(env):
    content = random_bytes(MIB)
    path = env.file(MIB, content)
    daemon = env.serve("--export", f"disk={path}", "--listen", "127.0.0.1:0")
    expect_refusal(env, ["--export", f"disk={path}", "--listen", "127.0.0.1:0"], path, "in use")
    handle = nbd.NBD()
    handle.connect_uri(daemon.uri())
    same_bytes(handle.pread(MIB, 0), content, "the image, through the first daemon")
    handle.shutdown()


# The machine.


@test(quick=True)
def port_in_use_is_named(env):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ["--export", f"disk={env.file(MIB)}", "--listen", address]
        expect_refusal(env, arguments, address, ("in use",))


@test()
def second_listener_that_fails_ends_the_daemon(env):
    """It must not serve on half of what it was told to; the first one's socket goes again."""
    path = env.socket_path()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        image = env.file(MIB)
        arguments = ["--export", f"disk={image}", "--listen", f"unix:{path}", "--listen", address]
        expect_refusal(env, arguments, address)
    check(not os.path.exists(path), "the Unix socket is left over")


@test()
def unix_socket_in_use_is_named_and_its_owner_left_alone(env):
    path = env.socket_path()
    listen = ["--listen", f"unix:{path}"]
    daemon = env.serve("--export", f"disk={env.file(MIB)}", *listen)
    expect_refusal(env, ["--export", f"disk={env.file(MIB)}", *listen], path, ("in use",))
    equal(env.run(["nbdinfo", "--size", daemon.uri()]).out.strip(), str(MIB), "size from the owner")


@test(quick=True)
def dead_unix_socket_of_another_user_is_not_said_to_be_in_use(env):
    """In a directory like /tmp only its owner may remove it; without write permission nobody can see that it is dead."""
    if os.geteuid() != 0:
        raise Skip("needs root to leave a socket to somebody else")
    directory = tempfile.mkdtemp(prefix="millrace-e2e-")
    env.stack.callback(shutil.rmtree, directory, ignore_errors=True)
    os.chmod(directory, 0o1777)
    path = os.path.join(directory, "sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    arguments = ["--export", "disk=null:1M", "--listen", f"unix:{path}"]
    prefix = ("setpriv", "--reuid=65534", "--clear-groups")
    for mode, said in (
        (0o777, "a socket that nobody listens on is there and cannot be removed: Operation not permitted; remove it"),
        (0o755, "a socket is there that this user may not connect to: Permission denied; remove it"),
    ):
        os.chmod(path, mode)
        log = expect_refusal(env, arguments, f"listen unix:{path}: {said}", prefix=prefix)
        check("another program" not in log, f"another program is blamed: {log}")
    check(os.path.exists(path), "the socket is gone")
    env.serve(*arguments)  # as its owner


@test()
def file_in_the_way_of_a_unix_socket_is_not_removed(env):
    path = env.file(100, b"precious")
    expect_refusal(env, ["--export", f"disk={env.file(MIB)}", "--listen", f"unix:{path}"], path)
    check(os.path.getsize(path) == 100, "the file is gone")


@test()
def address_that_is_not_ours_is_named(env):
    # 192.0.2.0/24 is for documentation, no machine has it.
    expect_refusal(env, ["--export", f"disk={env.file(MIB)}", "--listen", "192.0.2.1:10809"], "192.0.2.1:10809")


@test(quick=True)
def core_that_does_not_exist_is_named(env):
    arguments = ["--export", f"disk={env.file(MIB)}", "--listen", "127.0.0.1:0", "--cores"]
    for cores in ("4000", "0,4000"):
        expect_refusal(env, [*arguments, cores], "4000")


def slots_used():
    """How many there are for good: the kernel gives slots back a while after a process has ended."""
    used, before = int(read_text(AIO_USED)), None
    while used != before:
        time.sleep(0.2)
        used, before = int(read_text(AIO_USED)), used
    return used


@contextlib.contextmanager
def aio_slots_left(count):
    """The limit is the whole machine's: it is low for as short as can be."""
    if os.geteuid() != 0:
        raise Skip("needs root to change fs.aio-max-nr")
    before = read_text(AIO_MAX)
    try:
        write_text(AIO_MAX, str(slots_used() + count))
    except OSError as error:
        raise Skip(f"{AIO_MAX} can't be changed here: {error}") from None
    try:
        yield
    finally:
        write_text(AIO_MAX, before)


@test(quick=True, alone=True)
def too_few_aio_slots_name_the_sysctl_and_a_value(env):
    with aio_slots_left(1):
        log = expect_refusal(
            env,
            ["--export", f"disk={env.file(MIB)}", "--listen", "127.0.0.1:0"],
            "fs.aio-max-nr",
        )
    check(any(int(word) > 100 for word in digits_of(log)), f"no value to set: {log}")


@test()
def kernel_without_aio_poll_names_the_version(env):
    if is_sanitized(env.binary):
        raise Skip("the address sanitizer must be the first: nothing can be preloaded")
    library = os.path.join(os.path.dirname(env.binary), "release/tests/e2e/no_aio_poll.so")
    check(os.path.exists(library), f"no {library}; build it first")
    arguments = ["--export", f"disk={env.file(MIB)}", "--listen", "127.0.0.1:0"]
    log = expect_refusal(
        env, arguments, "cannot poll with AIO: Linux 4.18 or later is needed", prefix=["env", f"LD_PRELOAD={library}"]
    )
    equal(log.count("error:"), 1, f"errors in {log}")


@test(quick=True, alone=True)
def few_aio_slots_are_shared_and_named(env):
    """Half of what all cores need: it starts, says so once, and serves."""
    with aio_slots_left(600 * len(os.sched_getaffinity(0))):
        daemon = env.serve("--export", f"disk={env.file(MIB)}", "--listen", "127.0.0.1:0")
    check(daemon.log().count("warning: fs.aio-max-nr") == 1, f"not said once: {daemon.log()}")
    check("queue-depth" in daemon.log(), f"what there is less of is not named: {daemon.log()}")
    handle = nbd.NBD()
    handle.connect_uri(daemon.uri())
    handle.pwrite(b"x" * 4096, 0)
    same_bytes(handle.pread(4096, 0), b"x" * 4096, "what was written")
    handle.shutdown()


# A command whose program finds processes in /proc, and nothing else: as with ProcSubset=pid of a unit, or in a container.
HIDDEN = ("unshare", "--mount", "sh", "-c", 'mount -t proc -o subset=pid proc /proc && exec "$0" "$@"')


def need_hiding(env):
    if os.geteuid() != 0:
        raise Skip("needs root to hide /proc/sys")
    if env.run([*HIDDEN, "test", "!", "-e", AIO_MAX], expect=None).code != 0:
        raise Skip("/proc/sys can't be hidden here")


@test(quick=True)
def all_aio_slots_are_there_where_their_limit_cannot_be_read(env):
    need_hiding(env)
    arguments = ["--export", "disk=null:1M", "--listen", "127.0.0.1:0", "--cores", two_cores()]
    daemon = env.serve(*arguments, prefix=HIDDEN)
    check("slots" not in daemon.log(), f"it says to have fewer: {daemon.log()}")
    described = env.run([*HIDDEN, env.binary, *arguments, "--check"]).out
    check("(fs.aio-max-nr unknown" in described, f"not described as unknown: {described}")
    check("of how many is unknown" in described, f"memory is described as known: {described}")


@test(quick=True, alone=True)
def few_aio_slots_whose_limit_cannot_be_read_are_used_and_named(env):
    need_hiding(env)
    arguments = ["--export", "disk=null:1M", "--listen", "127.0.0.1:0", "--cores", two_cores()]
    said = "fs.aio-max-nr is too small, and cannot be read here"
    with aio_slots_left(1):
        log = expect_refusal(env, arguments, f"error: {said}", "set it on the host to", prefix=HIDDEN)
    check("sysctl" not in log, f"the fix is one for another place: {log}")
    with aio_slots_left(1200):
        daemon = env.serve(*arguments, prefix=HIDDEN)
    equal(daemon.log().count(f"warning: {said}: a core has only"), 1, f"warnings in {daemon.log()}")


def digits_of(text):
    return "".join(letter if letter.isdigit() else " " for letter in text).split()


# What the configuration needs of the machine's limits.


@test(quick=True)
def too_few_files_name_both_numbers_and_the_fix(env):
    arguments = ["--export", f"disk={env.file(MIB)}", "--listen", "127.0.0.1:0", "--cores", "0"]
    needed = 1024 + 1 + 1 + 4 + 2 * 32 + 64
    words = (f"need {needed} open files", "RLIMIT_NOFILE is 1000", f"LimitNOFILE={needed}", "max-connections = 1024")
    for more in ([], ["--check"]):
        expect_refusal(env, [*arguments, *more], *words, prefix=("prlimit", "--nofile=1000"))


@test(quick=True)
def more_memory_than_there_is_is_refused(env):
    with open("/proc/meminfo", encoding="utf-8") as file:
        total = int(file.readline().split()[1]) >> 10
    if total >= 65536:
        raise Skip("this machine has more memory than can be asked for")
    path = env.config(good_config(env, reactor="buffer-memory = 64G\ncores = 0"))
    expect_refusal(env, ["--config", path], "need 65600 MiB", f"there are {total} MiB", "lower buffer-memory")


@test(quick=True)
def locked_memory_needs_its_limit(env):
    path = env.config(good_config(env, reactor="lock-memory = yes\ncores = 0"))
    prefix = ["prlimit", "--memlock=65536"]
    if os.geteuid() == 0:
        # Root may lock without limit, unless it gives that up.
        prefix += ["setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"]
        if env.run([*prefix, "true"], expect=None).code != 0:
            raise Skip("root locks without limit, and setpriv can't take that away")
    words = ("192 MiB", "RLIMIT_MEMLOCK is 64 KiB", "LimitMEMLOCK=infinity")
    expect_refusal(env, ["--config", path, "--check"], *words, prefix=prefix)


@test()
def locked_memory_is_locked(env):
    if os.geteuid() != 0 or env.quick:
        raise Skip("needs root, and is without effect under the sanitizers")
    daemon = env.serve("--config", env.config(good_config(env, reactor="lock-memory = yes")))
    locked = re.search(r"^VmLck:\s+(\d+) kB", read_text(f"/proc/{daemon.pid}/status"), re.MULTILINE)
    check(int(locked[1]) >= 128 << 10, f"VmLck is {locked[1]} KiB")
