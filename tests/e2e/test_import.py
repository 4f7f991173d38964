"""millrace-import-nbd-server: real nbd-servers, and Millrace with what was made of their configurations; clients must see the same."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket

from authority import Authority
from harness import MIB, Skip
from harness import check, equal, random_bytes, read_text, test, two_cores, wait_until, write_text

TOOL = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../packaging/millrace-import-nbd-server")


def convert(env, path, expect=0):
    result = env.run(["/usr/bin/python3", TOOL, path], expect=expect)
    return result.out, result.err.splitlines()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Theirs:
    """nbd-server itself, until end().  It goes to the background, because in the foreground it serves one client only."""

    def __init__(self, env, path, listens):
        """LISTENS: returns whether it does."""
        if not shutil.which("nbd-server"):
            raise Skip("no nbd-server")
        self.pid_path = env.path("pid")
        env.stack.callback(self.end)
        env.run(["nbd-server", "-C", path, "-p", self.pid_path])
        wait_until(lambda: os.path.exists(self.pid_path) and listens(), 10, "nbd-server listens")

    def end(self):
        if os.path.exists(self.pid_path):
            pid = int(read_text(self.pid_path))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not os.path.exists(f"/proc/{pid}") or is_zombie(pid), 10, "nbd-server has ended")
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.pid_path)


def is_zombie(pid):
    """Ended, and not yet waited for by whoever has inherited it."""
    with contextlib.suppress(OSError):
        return read_text(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[0] == "Z"
    return True


def serve_ours(env, text):
    return env.serve("--config", env.config(f"[reactor]\ncores = {two_cores()}\n{text}"))


def info(env, uri):
    """What nbdinfo says of an export, of what is the same whoever serves it; None: it is not let in.
    Not with --json, which asks with NBD_OPT_INFO: nbd-server tells it a size of 0."""
    size = env.run(["nbdinfo", "--size", uri], expect=None)
    if size.code != 0:
        return None
    return int(size.out), env.run(["nbdinfo", "--is", "read-only", uri], expect=None).code == 0


def listed(env, uri):
    return sorted(export["export-name"] for export in json.loads(env.run(["nbdinfo", "--list", "--json", uri]).out)["exports"])


def content(env, uri):
    copy = env.path("copy")
    env.run(["nbdcopy", uri, copy])
    with open(copy, "rb") as file:
        return file.read()


def connects(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@test()
def exports_are_the_same(env):
    """An included directory, who may use what, what is read-only; each export's size and content."""
    port = free_port()
    directory = env.path("conf.d")
    os.mkdir(directory)
    images = [env.file(number * MIB, random_bytes(number * MIB, number)) for number in range(1, 5)]
    images.append(env.file(MIB + 512, random_bytes(MIB + 512, 7)))
    nobody, here = env.path("nobody"), env.path("here")
    write_text(nobody, "# nobody\n")
    write_text(here, "10.0.0.0/8\n127.0.0.1 # this machine\n")
    write_text(
        f"{directory}/more.conf",
        f"[third export]\n\texportname = {images[2]}\n\tauthfile = {here}\n\ttrim = true\n[fourth]\nexportname = {images[3]}\nauthfile = {nobody}\n",
    )
    path = env.config(
        f"[generic]\n\t# as Debian has it\n\tallowlist = true\n\tlistenaddr = 127.0.0.1\n\tport = {port}\n\tincludedir = {directory}\n"
        f"[first]\n\texportname = {images[0]}\n\tflush = true\n\tfua = true\n"
        f"[second]\n\texportname={images[1]}\n\treadonly = true\n\tfilesize = {2 * MIB}\n"
        f"[odd]\nexportname = {images[4]}\n"
    )
    theirs = Theirs(env, path, lambda: connects(port))
    names = ("first", "second", "third export", "fourth", "odd")
    uris = {name: f"nbd://127.0.0.1:{port}/{name.replace(' ', '%20')}" for name in names}
    before = {name: info(env, uri) for name, uri in uris.items()}
    contents = {name: content(env, uri) for name, uri in uris.items() if before[name]}
    theirs.end()
    text, said = convert(env, path)
    serve_ours(env, text)
    after = {name: info(env, uri) for name, uri in uris.items()}
    equal([name for name in names if before[name] is None], ["fourth"], "exports that nbd-server does not serve here")
    equal(after, before, "what clients see")
    for name, was in contents.items():
        check(content(env, uris[name]) == was, f"the content of {name}")
    equal(listed(env, f"nbd://127.0.0.1:{port}/"), sorted(contents), "what is listed")
    check(all("has become allow" in line for line in said), f"what is said: {said}")


@test()
def unix_socket_is_the_same(env):
    image, path = env.file(MIB, random_bytes(MIB)), env.socket_path()
    config = env.config(f"[generic]\nunixsock = {path}\nallowlist = true\n[disk]\nexportname = {image}\n")
    uri = f"nbd+unix:///disk?socket={path}"
    theirs = Theirs(env, config, lambda: os.path.exists(path))
    before = info(env, uri)
    theirs.end()
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
    daemon = serve_ours(env, convert(env, config)[0])
    equal(info(env, uri), before, "what clients see")
    equal([address.text for address in daemon.addresses], [f"unix:{path}"], "where it listens")


# The second is what nbd-server(5) says its default is.
TLS_PRIORITIES = {"default": "", "said": "tlsprio = NORMAL:-VERS-TLS-ALL:+VERS-TLS1.2:%SERVER_PRECEDENCE\n"}


@test(over=[(priority,) for priority in TLS_PRIORITIES])
def tls_is_the_same(env, priority):
    """With clients' certificates; one export for all, one only inside TLS."""
    authority, port = Authority(env), free_port()
    images = [env.file(MIB), env.file(2 * MIB)]
    config = env.config(
        f"[generic]\nallowlist = true\nlistenaddr = 127.0.0.1\nport = {port}\n"
        f"certfile = {authority.path('server-cert.pem')}\nkeyfile = {authority.path('server-key.pem')}\n"
        f"cacertfile = {authority.path('ca-cert.pem')}\n{TLS_PRIORITIES[priority]}"
        f"[open]\nexportname = {images[0]}\n[closed]\nexportname = {images[1]}\nforce_tls = true\n"
    )
    uris = [f"nbd://127.0.0.1:{port}/{name}" for name in ("open", "closed")]
    uris += [f"nbds://127.0.0.1:{port}/{name}?tls-certificates={authority.directory}" for name in ("open", "closed")]
    theirs = Theirs(env, config, lambda: connects(port))
    before = [info(env, uri) for uri in uris]
    theirs.end()
    serve_ours(env, convert(env, config)[0])
    equal([info(env, uri) for uri in uris], before, "what clients see")
    equal([seen is None for seen in before], [False, True, False, False], "which clients nbd-server has let in")


@test(quick=True)
def what_cannot_be_taken_over_is_named_and_left_out(env):
    image = env.file(MIB)
    path = env.config(
        f"[generic]\nport = nbd\nuser = nbd\nmystery = 1\n"
        f"[good]\nexportname = {image}\nprerun = /bin/true\n"
        f"[cow]\nexportname = {image}\ncopyonwrite = true\n"
        f"[none]\nreadonly = true\n"
        f"[each]\nexportname = /srv/%s\n"
        f"[short]\nexportname = {image}\nfilesize = 4096\n"
        f"[a]b]\nexportname = {image}\n"
        f"[maybe]\nexportname = {env.file(MIB)}\nreadonly = perhaps\n"
        f"[again]\nexportname = {os.path.dirname(image)}/./{os.path.basename(image)}\n"
    )
    text, said = convert(env, path, expect=2)
    equal([line for line in text.splitlines() if line.startswith("[")], ["[server]", "[export good]", "[export maybe]"], "sections")
    check("listen = 0.0.0.0:10809\nlisten = [::]:10809\n" in text, text)
    expected = {
        3: "user = nbd: Millrace's unit runs as millrace",
        4: "mystery: unknown",
        7: "prerun: no command is run",
        10: "not taken over: export [cow]: copyonwrite",
        11: "not taken over: export [none] has no exportname",
        14: "not taken over: export [each]: a file for each client address",
        17: f"not taken over: export [short]: filesize = 4096: {image} has {MIB} bytes",
        18: "not taken over: export [a]b]: this name",
        22: "not taken over: readonly = perhaps: expected true or false",
        24: "not taken over: export [again]: [good] has this image, too",
    }
    for line, words in expected.items():
        wrong = [entry for entry in said if entry.startswith(f"{path}:{line}: ")]
        check(len(wrong) == 1 and words in wrong[0], f"line {line}: {wrong} in {said}")
    check(len(said) == len(expected) + 1, f"more is said: {said}")  # the list of exports


@test(quick=True)
def odd_numbers_and_lists_are_named(env):
    """Digits that Python knows and nobody else, and an address that is not there."""
    image = env.file(MIB)
    path = env.config(
        f"[generic]\nallowlist = true\nport = \u00b2\nlistenaddr = 127.0.0.1, ,::1,\n"
        f"[sized]\nexportname = {image}\nfilesize = \u00b2\n"
    )
    text, said = convert(env, path, expect=2)
    check("[server]\nlisten = 127.0.0.1:10809\nlisten = [::1]:10809\n" in text, text)
    for line, words in ((3, "no such service"), (4, "nothing between two commas"), (7, "no number of bytes")):
        check(any(entry.startswith(f"{path}:{line}: not taken over: ") and words in entry for entry in said), f"{said}")


@test(quick=True)
def rules_that_cannot_be_read_are_not_taken_for_none(env):
    """Else everybody would get in.  A link to itself is as closed to root as another's directory is to others."""
    rules = env.path("rules")
    os.symlink(rules, rules)
    path = env.config(f"[generic]\n[disk]\nexportname = {env.file(MIB)}\nauthfile = {rules}\n")
    text, said = convert(env, path, expect=1)
    equal(text, "", "what is written")
    check(rules in said[-1], f"{said}")


@test(quick=True)
def what_is_no_configuration_is_refused(env):
    check("no section [generic]" in "".join(convert(env, env.config("[disk]\nexportname = /x\n"), expect=1)[1]), "not said")
    convert(env, env.path("missing"), expect=1)
    taken = env.config("x")
    result = env.run(["/usr/bin/python3", TOOL, "--output", taken, env.config("[generic]\n")], expect=1)
    check(taken in result.err, result.err)
    check("unrecognized" in env.run(["/usr/bin/python3", TOOL, "--no-such-option"], expect=1).err, "a wrong option")


MOVING = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../doc/moving.md")
EXAMPLE = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../etc/millrace.conf")
# Values and other programs in the second column.
WORDS = {"none", "writeback", "unmap", "off", "allowed", "required", "nbd-client"}
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z0-9][A-Za-z0-9-]*")


def rows_of(heading):
    """The table below it: pairs of what is in backquotes in the two columns."""
    part = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", read_text(MOVING), re.MULTILINE | re.DOTALL)[1]
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", part, re.MULTILINE)
    return [tuple(re.findall(r"`([^`]*)`", column) for column in row) for row in rows if not row[0].startswith("---")]


@test(over=(("From qemu-nbd", "qemu-nbd"), ("From nbdkit", "nbdkit")))
def table_of_options_is_that_of_the_program(env, heading, program):
    """Every option of its --help is in the table of doc/moving.md, and no other; what is said of Millrace exists."""
    if not shutil.which(program):
        raise Skip(f"no {program}")
    theirs = env.run([program, "--help"]).out
    if program == "qemu-nbd":  # an option begins its line, and two spaces end it
        theirs = "\n".join(line.strip().split("  ")[0] for line in theirs.splitlines() if line.startswith("  -") or line.startswith("      --"))
    found = OPTION.findall(theirs)
    rows = rows_of(heading)
    named = [word for left, _ in rows for text in left for word in OPTION.findall(text)]
    equal(sorted(set(named)), sorted(set(found)), f"options of {program}")
    equal(len(named), len(set(named)), f"options of {program} that are named twice")
    ours, help_text = read_text(EXAMPLE), env.run([env.binary, "--help"]).out
    for _, right in rows:
        for text in right:
            key = re.fullmatch(r"([a-z-]+)(?: = .*)?", text)
            if text.startswith("--"):
                check(text.split()[0] in help_text, f"{text} is no option of millraced")
            elif key and key[1] not in WORDS:
                check(re.search(rf"^#?{key[1]} = ", ours, re.MULTILINE), f"{text} is no setting")
