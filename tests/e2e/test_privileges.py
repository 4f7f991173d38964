"""What the daemon has given up by the time that a client reaches it."""

import os
import pwd
import re
import shutil
import signal
import tempfile

from authority import Authority
from harness import MIB, Skip
from harness import check, equal, read_text, test, two_cores, wait_until, write_text

USER = "nobody"


def thread_statuses(daemon):
    """The status of each thread, as proc(5) has it."""
    for tid in os.listdir(f"/proc/{daemon.pid}/task"):
        yield dict(line.split(":", 1) for line in read_text(f"/proc/{daemon.pid}/task/{tid}/status").splitlines())


def need_filter(env):
    if env.quick:
        raise Skip("the sanitizers need what the filter takes away")


def config(env, server):
    image = env.file(MIB)
    return env.config(
        f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\n{server}\n[export disk]\npath = {image}\n"
    )


@test(quick=True)
def root_becomes_the_user_in_every_thread(env):
    """What only root may open is open by then."""
    if os.geteuid() != 0:
        raise Skip("needs root to give up")
    path = config(env, f"user = {USER}")
    os.chmod(re.search(r"path = (.*)", read_text(path))[1], 0o600)
    daemon = env.serve("--config", path)
    user = pwd.getpwnam(USER)
    for status in thread_statuses(daemon):
        equal(status["Uid"].split(), [str(user.pw_uid)] * 4, f"uid of {status['Name'].strip()}")
        equal(status["Gid"].split(), [str(user.pw_gid)] * 4, f"gid of {status['Name'].strip()}")
        check("0" not in status["Groups"].split(), f"groups of {status['Name'].strip()}: {status['Groups']}")
        for name in ("CapEff", "CapPrm", "CapInh"):
            equal(int(status[name], 16), 0, f"{name} of {status['Name'].strip()}")
    equal(env.run(["nbdinfo", "--size", daemon.uri()]).out.strip(), str(MIB), "size")


@test(quick=True)
def root_that_stays_is_told_how_to_give_it_up(env):
    if os.geteuid() != 0:
        raise Skip("needs root")
    check("info: runs as root; user = NAME" in env.serve("--config", config(env, "")).log(), "not said")


@test()
def filter_and_dumps_are_set_for_every_thread(env):
    need_filter(env)
    daemon = env.serve("--config", config(env, ""))
    for status in thread_statuses(daemon):
        equal((status["Seccomp"].strip(), status["NoNewPrivs"].strip()), ("2", "1"), f"filter of {status['Name'].strip()}")
    if os.geteuid() == 0:
        daemon.stop()
        daemon = env.serve("--config", config(env, f"user = {USER}\ncore-dumps = no"))
        # Source: proc(5): what is below belongs to root if the process cannot be dumped.
        equal(os.stat(f"/proc/{daemon.pid}/maps").st_uid, 0, "whose its memory is")
        daemon.stop()
        # A change of user takes dumps away, too (PR_SET_DUMPABLE in prctl(2)): they are to be had all the same.
        daemon = env.serve("--config", config(env, f"user = {USER}\ncore-dumps = yes"))
        equal(os.stat(f"/proc/{daemon.pid}/maps").st_uid, pwd.getpwnam(USER).pw_uid, "whose its memory is, with dumps")


@test()
def filter_and_dumps_can_be_had_back(env):
    daemon = env.serve("--config", config(env, "seccomp = no\ncore-dumps = yes"))
    for status in thread_statuses(daemon):
        equal(status["Seccomp"].strip(), "0", f"filter of {status['Name'].strip()}")


IN_DIRECTORY = 'program=$(realpath "$2"); cd "$1" && ulimit -c unlimited && shift 2 && exec "$program" "$@"'


def dump_of_a_crash(env, settings):
    """What a daemon that has loaded a key leaves when it crashes: whether the kernel made a dump, and the directory for it."""
    directory = tempfile.mkdtemp(dir=env.directory)
    made = Authority(env)
    path = config(env, f"{settings}\n{made.settings()}")
    daemon = env.serve("--config", path, prefix=("bash", "-c", IN_DIRECTORY, "crash", directory))
    daemon.judged = True
    os.kill(daemon.pid, signal.SIGSEGV)
    _, status = os.waitpid(daemon.pid, 0)
    check(os.WIFSIGNALED(status), f"it ended with {status}")
    with open(made.path("keys.psk"), encoding="ascii") as file:
        key = bytes.fromhex(file.readline().strip().split(":")[1])
    return os.WCOREDUMP(status), key, directory


@test()
def crash_leaves_no_keys_behind(env):
    """No dump at all.  With core-dumps = yes there is one, and the key in it: there was something to keep back."""
    need_filter(env)
    dumped, _, directory = dump_of_a_crash(env, "")
    check(not dumped and not os.listdir(directory), f"a dump was made: {os.listdir(directory)}")
    dumped, key, directory = dump_of_a_crash(env, "core-dumps = yes")
    check(dumped, "no dump was made though core-dumps = yes")
    for name in os.listdir(directory):  # elsewhere, where the kernel is told so
        with open(f"{directory}/{name}", "rb") as file:
            check(key in file.read(), "the dump has no key: this test looks for the wrong thing")


@test(quick=True)
def unknown_user_is_named_by_check_and_start(env):
    path = config(env, "user = no-such-user")
    for more in ([], ["--check"]):
        daemon = env.launch(["--config", path, *more])
        daemon.judged = True
        check(daemon.wait_exit() == 1, "it starts")
        check("user = no-such-user: no such user" in daemon.log(), f"it does not say why: {daemon.log()}")


@test()
def keys_that_root_alone_may_read_are_named_before_a_reload_fails(env):
    """They can be read at the start, as root; the fix that is named works."""
    if os.geteuid() != 0:
        raise Skip("needs root to give up")
    user = pwd.getpwnam(USER)
    # Where that user gets to, too, wherever the tests run.
    directory = tempfile.mkdtemp(prefix="millrace-e2e-")
    env.stack.callback(shutil.rmtree, directory, ignore_errors=True)
    os.chmod(directory, 0o755)
    made = Authority(env)
    for name in os.listdir(made.directory):
        shutil.copy(made.path(name), directory)
        os.chmod(f"{directory}/{name}", 0o644)
    key = f"{directory}/server-key.pem"
    os.chmod(key, 0o600)
    os.chown(f"{directory}/keys.psk", -1, user.pw_gid)
    os.chmod(f"{directory}/keys.psk", 0o640)
    image = shutil.copy(env.file(MIB), directory)
    os.chown(image, user.pw_uid, user.pw_gid)
    path = f"{directory}/millrace.conf"
    text = read_text(config(env, f"user = {USER}\n{made.settings().replace(made.directory, directory)}"))
    write_text(path, re.sub(r"path = .*", f"path = {image}", text))
    daemon = env.serve("--config", path)
    said = [line for line in daemon.log_lines() if "every reload will fail" in line]
    equal(len(said), 1, f"warnings: {said}")
    check(key in said[0] and f"chgrp {user.pw_gid} {key}, chmod 640 {key}" in said[0], said[0])
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "not reloaded" in daemon.log(), 10, "the reload fails")
    refusal = next(line for line in daemon.log_lines() if f"[tls] key = {key}: cannot be opened" in line)
    check(f"gid {user.pw_gid}" in refusal and "chmod 640" in refusal, refusal)
    os.chown(key, -1, user.pw_gid)
    os.chmod(key, 0o640)
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded: serving 1 exports" in daemon.log(), 10, "the reload works")
    daemon.stop()
    check("every reload will fail" not in env.serve("--config", path).log(), "a warning about nothing")


@test()
def only_root_can_change_the_user(env):
    if os.geteuid() != 0:
        raise Skip("needs root to be somebody else first")
    path = config(env, f"user = {USER}")
    os.chmod(re.search(r"path = (.*)", read_text(path))[1], 0o666)
    for more in ([], ["--check"]):
        daemon = env.launch(["--config", path, *more], prefix=("setpriv", "--reuid=1", "--clear-groups"))
        daemon.judged = True
        check(daemon.wait_exit() == 1, "it starts, or --check finds nothing")
        words = f"[server] user = {USER}: only root can change to it"
        check(words in daemon.log(), f"it does not say why: {daemon.log()}")
