"""What the daemon has given up by the time that a client reaches it."""

import os
import pwd
import re

from harness import MIB, Skip
from harness import check, equal, read_text, test, two_cores

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


@test()
def filter_and_dumps_can_be_had_back(env):
    daemon = env.serve("--config", config(env, "seccomp = no\ncore-dumps = yes"))
    for status in thread_statuses(daemon):
        equal(status["Seccomp"].strip(), "0", f"filter of {status['Name'].strip()}")


@test(quick=True)
def unknown_user_is_named_by_check_and_start(env):
    path = config(env, "user = no-such-user")
    for more in ([], ["--check"]):
        daemon = env.launch(["--config", path, *more])
        daemon.judged = True
        check(daemon.wait_exit() == 1, "it starts")
        check("user = no-such-user: no such user" in daemon.log(), f"it does not say why: {daemon.log()}")


@test()
def only_root_can_change_the_user(env):
    if os.geteuid() != 0:
        raise Skip("needs root to be somebody else first")
    path = config(env, f"user = {USER}")
    os.chmod(re.search(r"path = (.*)", read_text(path))[1], 0o666)
    daemon = env.launch(["--config", path], prefix=("setpriv", "--reuid=1", "--clear-groups"))
    daemon.judged = True
    check(daemon.wait_exit() == 1, "it starts")
    check("only root can change to it" in daemon.log(), f"it does not say why: {daemon.log()}")
