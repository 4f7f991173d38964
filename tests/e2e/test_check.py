"""--check and what it finds: every mistake, whichever file it is in, with its line, in one go."""

import os
import re

from authority import EXPIRED, Authority
from harness import MIB
from harness import check, equal, random_bytes, read_text, same_bytes, test, two_cores, write_text
from test_bad_input import EXIT_SECONDS, EXIT_SECONDS_SLOW, expect_refusal


def check_config(env, path, *more):
    """--check must accept the file, with MORE arguments; returns what it says."""
    daemon = env.launch(["--config", path, *more, "--check"])
    daemon.judged = True
    code = daemon.wait_exit(EXIT_SECONDS_SLOW if env.quick else EXIT_SECONDS)
    daemon.check_log()
    equal(code, 0, f"exit code of --check, which said: {daemon.log()}")
    return daemon.log()


@test(quick=True)
def check_accepts_a_good_file_and_describes_it(env):
    image = env.file(3 * MIB)
    text = "[reactor]\nqueue-depth = 128\n[server]\nlisten = 127.0.0.1:0\nmax-connections = 77\n"
    path = env.config(text + f"[export disk]\npath = {image}\ndescription = of mine\n")
    said = check_config(env, path)
    for word in ("disk", image, str(3 * MIB), "127.0.0.1", "128", "77"):
        check(word in said, f"{word} is not in what --check says: {said}")


@test(quick=True)
def check_finds_mistakes_of_every_kind_in_one_go(env):
    """In the file's form, on the command line, on this machine, and in what an export names."""
    absent, empty = env.path("absent.img"), env.file(0, name="empty.img")
    path = env.config(f"[reactor]\npoll-us = x\n[export a]\npath = {absent}\n[export b]\npath = {empty}\n")
    arguments = ["--config", path, "--listen", "nonsense", "--cores", "4000", "--check"]
    expect_refusal(env, arguments, f"{path}:2", "nonsense", "4000", absent, "No such file", empty, "empty")


# What is right by itself, but not beside other settings or on this machine: (the file's text, its mistakes).  {image} is one.
LATER_MISTAKES = {
    "cores and user": (
        "[reactor]\ncores = 4000\n[server]\nuser = nobody-at-all\n[export a]\npath = {image}\n",
        (":2: [reactor] cores = 4000: core 4000", ":4: [server] user = nobody-at-all: no such user"),
    ),
    "what a list of cores does not need": ("[reactor]\ncores = 0\nskip-smt = yes\n", (":3: [reactor] skip-smt = yes: ",)),
    "memory": ("[reactor]\nbuffer-memory = 64G\n[export a]\npath = {image}\n", (":2: [reactor] buffer-memory = 64G: ",)),
    "a directory of exports": ("[server]\nexports-dir = gone\n", (":2: [server] exports-dir = gone: cannot read",)),
    "TLS without a certificate": ("[tls]\nmode = required\n", (":2: [tls] mode = required: neither",)),
    "TLS without a key": ("[tls]\nmode = allowed\ncertificate = /x\nca = /x\n", (":3: [tls] certificate = /x: ",)),
    "TLS without a mode": ("[tls]\ncertificate = /x\nkey = /x\nca = /x\n", (":2: [tls] certificate = /x: mode is not set",)),
    "keys without a mode": ("[tls]\nkernel = no\npsk-file = /x\n", (":3: [tls] psk-file = /x: mode is not set",)),
    "files of TLS": (
        "[tls]\nmode = allowed\ncertificate = /x1\nkey = /x2\nca = /x3\npsk-file = /x4\npriority = HUH\n[export a]\npath = {image}\n",
        (
            ":3: [tls] certificate = /x1: cannot be opened: No such",
            ":4: [tls] key = /x2: cannot be opened: No such",
            ":5: [tls] ca = /x3: cannot be opened: No such",
            ":6: [tls] psk-file = /x4: cannot be opened: No such",
            ":7: [tls] priority = HUH: ",
        ),
    ),
    "exports that need TLS": (
        "[export a]\npath = {image}\ntls-only = yes\n[export b]\ntype = null\nsize = 1M\nallow-names = b\n",
        (":3: [export a] tls-only = yes: ", ":7: [export b] allow-names = b: "),
    ),
    "images": (
        "[export a]\npath = /gone\n[export b]\ncache = host\npath = /dev/null\n[export c]\nsize = 1M\npath = {image}\n",
        (":2: [export a] path = /gone: ", ":5: [export b] path = /dev/null: ", ":7: [export c] size = 1M: "),
    ),
    "one image twice": ("[export a]\npath = {image}\n[export b]\npath = {image}\n", (":4: [export b] path = {image}: ",)),
    "one image by two paths": (
        "[export a]\npath = {image}\n[export b]\nread-only = yes\npath = /.{image}\n",
        (":5: [export b] path = /.{image}: ", "is the same image as {image} of export \"a\""),
    ),
}


@test(over=[(what,) for what in LATER_MISTAKES], quick=True)
def mistakes_beside_others_or_on_this_machine_have_their_line(env, what):
    text, mentions = LATER_MISTAKES[what]
    image = env.file(MIB)
    path = env.config(text.format(image=image))
    found = [mention.format(image=image) for mention in mentions]
    expect_refusal(env, ["--config", path, "--check"], *[path + words if words[0] == ":" else words for words in found])


# One mistake each, which leaves open what was meant: (the file's text, what is said of it).
LONE_MISTAKES = {
    "type": ("[export a]\ntype = memroy\nsize = 1M\n", ":2: [export a] type = memroy: expected file"),
    "size": ("[export a]\npath = {new}\ncreate = falloc\nsize = 10GB\n", ":4: [export a] size = 10GB: expected bytes"),
    "create": ("[export a]\npath = {new}\ncreate = spars\nsize = 1M\n", ":3: [export a] create = spars: expected no"),
    "create without a size": ("[export a]\npath = {new}\ncreate = spars\n", ":3: [export a] create = spars: expected no"),
    "size twice": ("[export a]\npath = {new}\nsize = 1M\nsize = 2M\n", ":4: [export a] size = 2M: line 3 has set it already"),
    "unknown key": ("[export a]\npth = {image}\n", ":2: [export a] pth = {image}: unknown key"),
    "no setting": ("[export a]\npath {image}\n", ":2: path {image}: not understood"),
    "one image twice": (
        "[export a]\npath = {image}\nread-only = yse\n[export b]\nread-only = yes\npath = {image}\n",
        ":3: [export a] read-only = yse: expected yes or no",
    ),
    "one image by two paths": (
        "[export a]\npath = {image}\nread-only = yes\n[export b]\nread-only = yse\npath = /.{image}\n",
        ":5: [export b] read-only = yse: expected yes or no",
    ),
    "mode": (
        "[tls]\nmode = requird\ncertificate = /x\n[export a]\ntype = null\nsize = 1M\ntls-only = yes\n",
        ":2: [tls] mode = requird: expected off",
    ),
    "unknown key of TLS": (
        "[tls]\nmod = required\npsk-file = /x\n[export a]\ntype = null\nsize = 1M\nallow-names = b\n",
        ":2: [tls] mod = required: unknown key",
    ),
    "certificate": ("[tls]\nmode = required\ncertificate =\nkey = /x\n[export a]\ntype = null\nsize = 1M\n", ":3: [tls] certificate = : "),
}


@test(over=[(what,) for what in LONE_MISTAKES], quick=True)
def mistake_has_no_false_one_in_its_wake(env, what):
    text, mention = LONE_MISTAKES[what]
    words = {"image": env.file(MIB), "new": env.path("new.img")}
    path = env.config(text.format(**words))
    log = expect_refusal(env, ["--config", path, "--check"], path + mention.format(**words))
    said = [line for line in log.splitlines() if line.startswith(("error: ", f"{path}:"))]
    equal(len(said), 1, f"mistakes in {log}")


@test(quick=True)
def tls_that_is_off_may_keep_its_files(env):
    path = env.config("[tls]\nmode = off\ncertificate = /x\nkey = /x\nca = /x\npsk-file = /x\n[export a]\ntype = null\nsize = 1M\n")
    check_config(env, path)


@test(over=[("cores",), ("listen",)], quick=True)
def what_the_command_line_replaces_is_no_mistake_beside_it(env, what):
    """Neither what auto leaves out, nor a host that no machine knows (RFC 6761, section 6.4)."""
    text, option, value = {
        "cores": ("[reactor]\nskip-core-0 = yes\nskip-smt = yes\n", "--cores", two_cores()),
        "listen": ("[server]\nlisten = millrace.invalid:10809\n", "--listen", "127.0.0.1:0"),
    }[what]
    said = check_config(env, env.config(f"{text}[export a]\ntype = null\nsize = 1M\n"), option, value)
    check("millrace.invalid" not in said, f"said all the same: {said}")


@test(quick=True)
def check_goes_on_when_no_core_is_left(env):
    path = env.config("[reactor]\npoll-us = x\nskip-core-0 = yes\n[export a]\npath = /gone\n")
    words = (f"{path}:2: [reactor] poll-us = x: ", f"{path}:3: [reactor] skip-core-0 = yes: no core is left", "/gone: ")
    expect_refusal(env, ["--config", path, "--check"], *words, prefix=("taskset", "-c", "0"))


@test(quick=True)
def check_does_not_look_for_an_export_that_a_mistake_has_cost(env):
    path = env.config("[export a]\n")
    log = expect_refusal(env, ["--config", path, "--check"], f"{path}:1", "no path")
    check("no export" not in log, f"said too: {log}")


@test()
def check_does_not_listen_or_touch_the_image(env):
    """It works while the daemon runs with the same file."""
    content = random_bytes(MIB)
    image = env.file(MIB, content)
    socket_path = env.socket_path()
    path = env.config(f"[server]\nlisten = unix:{socket_path}\n[export disk]\npath = {image}\nread-only = yes\n")
    daemon = env.serve("--config", path)
    check_config(env, path)
    equal(env.run(["nbdinfo", "--size", daemon.uri()]).out.strip(), str(MIB), "size from the running daemon")
    with open(image, "rb") as file:
        same_bytes(file.read(), content, "the image")


FORMATS = {"qcow2": b"QFI\xfb\0\0\0\3", "VMDK": b"KDMV\1\0\0\0", "VHDX": b"vhdxfile"}


@test(over=(("none",), ("host",)), quick=True)
def image_that_is_not_raw_is_served_with_a_warning(env, cache):
    """Not refused: a raw disk may hold anything.  Of what only begins in part like one nothing is said."""
    images = [(name, env.file(MIB, head)) for name, head in FORMATS.items()]
    images.append(("qcow2", env.file(512, FORMATS["qcow2"])))
    others = [env.file(MIB), env.file(MIB, random_bytes(MIB)), env.file(MIB, b"QFI\xfa"), env.file(3, b"QFI")]
    others.append(env.file(MIB, b"\0" + FORMATS["qcow2"]))
    text = "[server]\nlisten = 127.0.0.1:0\n"
    for index, path in enumerate([*(image for _, image in images), *others]):
        text += f"[export {index}]\npath = {path}\ncache = {cache}\n"
    path = env.config(text)
    log = check_config(env, path)
    daemon = env.serve("--config", path)
    for said in (log, daemon.log()):
        for name, image in images:
            words = f"warning: {image}: looks like a {name} image: its bytes are served as they are; qemu-img"
            equal(said.count(words), 1, f"{words!r} in {said}")
        equal(said.count("looks like"), len(images), f"warnings in {said}")
    equal(env.run(["nbdinfo", "--size", daemon.uri("0")]).out.strip(), str(MIB), "size of what is served")


@test(quick=True)
def check_looks_at_each_image_once_however_many_there_are(env):
    """It is part of each reload of the unit.  That two names are one image is found all the same."""
    count, trace = 150, env.path("trace")
    exports = "".join(f"[export {index}]\npath = {env.file(512)}\n" for index in range(count))
    path = env.config(f"[server]\nlisten = 127.0.0.1:0\nmax-connections = 16\n{exports}")
    # The sanitizers look for leaks as strace does, and only one can.
    command = ["env", "ASAN_OPTIONS=detect_leaks=0", "strace", "-f", "-o", trace, "-e", "trace=/stat", env.binary]
    env.run([*command, "--config", path, "--check"])
    with open(trace, encoding="utf-8") as file:
        calls = sum('-image"' in line for line in file)
    check(count <= calls <= 10 * count, f"{calls} looks at {count} images")


def exports_directory(env):
    """exports.d beside the files that env.config makes."""
    directory = os.path.join(env.directory, "exports.d")
    os.mkdir(directory)
    return directory


@test(quick=True)
def exports_in_a_directory_are_served_and_mistakes_in_them_named(env):
    directory = exports_directory(env)
    path = env.config("[server]\nlisten = 127.0.0.1:0\nexports-dir = exports.d\n")
    image = env.file(MIB)
    write_text(os.path.join(directory, "b.conf"), f"[export b]\npath = {image}\n")
    write_text(os.path.join(directory, "ignored.conf.bak"), "nonsense\n")
    daemon = env.serve("--config", path)
    equal(env.run(["nbdinfo", "--size", daemon.uri("b")]).out.strip(), str(MIB), "size of the export in the directory")
    write_text(os.path.join(directory, "a.conf"), f"[export b]\npath = {image}\n[reactor]\npoll-us = 1\n")
    expect_refusal(
        env,
        ["--config", path, "--check"],
        f"{directory}/a.conf:3: [reactor]: only [export NAME]",
        f'{directory}/b.conf:1: [export b]: export "b" of {directory}/a.conf:1 has this name already',
    )


@test(quick=True)
def missing_directory_of_exports_is_named(env):
    path = env.config("[server]\nexports-dir = gone\n")
    expect_refusal(env, ["--config", path], f"{env.directory}/gone", "No such file")


def example_config():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return read_text(os.path.join(root, "etc", "millrace.conf"))


@test(quick=True)
def example_configuration_is_accepted(env):
    """etc/millrace.conf, with an export in the directory that it names."""
    write_text(os.path.join(exports_directory(env), "a.conf"), f"[export a]\npath = {env.file(MIB)}\n")
    check_config(env, env.config(example_config()))


@test()
def settings_that_the_example_shows_in_comments_are_accepted(env):
    """Each setting or section that is commented out works when its # is removed, with what it shows."""
    exports_directory(env)
    lines = []
    for line in example_config().splitlines():
        if re.match(r"#([a-z-]+ = |\[)", line):
            line = line[1:]
        if line.split("=")[0].strip() == "path":
            line = f"path = {env.file(MIB)}"
        if line.split("=")[0].strip() == "user":
            line = "user = root"  # this machine need not have the one that is shown
        if line.split("=")[0].strip() == "allow-names":
            continue  # it needs TLS, and that certificates: test_tls.py
        lines.append(line)
    check_config(env, env.config("\n".join(lines) + "\n"))


# Everything at once: lines, each with what is said of it, or None.  {words} are paths of the test's.
MANY_MISTAKES = (
    ("[reactor]", None),
    ("cores = 0-x", "not a list of cores"),
    ("queue-depth = 5", "expected a number from 16 to 16384"),
    ("poll-us = soon", "expected a number from 0 to 10000"),
    ("buffer-memory = 1M", "expected bytes from 64M to 64G"),
    ("lock-memory = maybe", "expected yes or no"),
    ("frobnicate = 1", "unknown key; [reactor] has cores"),
    ("[server]", None),
    ("listen = 127.0.0.1:1, [::1]:1", "several addresses in one; give each a listen of its own"),
    ("listen = 10809", "no port from 0 to 65535 at the end; expected HOST:PORT"),
    ("listen = unix:{gone}/sock", "cannot be listened on"),
    ("listen = unix:{image}", "cannot be listened on"),
    ("listen = 0.0.0.0:1", None),
    ("listen = 127.0.0.1:1", "{main}:13: [server] listen = 0.0.0.0:1 listens there already"),
    ("allow = 10.0.0.1/8", "10.0.0.1/8: the address has bits"),
    ("log-level = loud", "expected error, warning, info or debug"),
    ("user = nobody-at-all", "no such user; create it"),
    ("exports-dir = exports.d", None),
    ("exports-dir = others.d", "line 18 has set it already"),
    ("[tls]", None),
    ("mode = allowed", None),
    ("certificate = {certificate}", "certificate 1 of 1 has expired at 2020-02-01"),
    ("key = {key}", "holds secret keys, but its mode is 0644"),
    ("ca = {gone}", "cannot be opened: No such file"),
    ("psk-file = {psk}", "line 2"),
    ("priority = HUH", 'GnuTLS does not take it from "HUH" on'),
    ("[export absent]", None),
    ("path = {gone}", 'export "absent" cannot be served'),
    ("[export bare]", None),
    ("type = memory", "a volume of type memory or null needs a size"),
    ("[export mine]", None),
    ("path = {image}", None),
    ("read-only = perhaps", "expected yes or no"),
    ("[export twin]", None),
    ("path = /.{image}", 'export "twin" cannot be served'),
    ("[export wrong]", None),
    ("fault = read-error=2", "fault: read-error=2: expected a probability"),
    ("type = fault", None),
    ("size = 1M", None),
)
MANY_IN_A_FILE = (
    ("[export device]", None),
    ("path = /dev/null", 'export "device" cannot be served'),
    ("limit-iops = -1", "expected a number from 0 to 1000000000"),
    ("allow-names = ,", "no name; expected one or more"),
    ("[export large]", None),
    ("type = null", None),
    ("size = 10M", None),
    ("size = 10GB", "line 7 has set it already"),
)


def write_with_mistakes(path, lines, words):
    """Returns what must be said: the text by (file, line)."""
    section, said = "", {}
    for number, (line, mistake) in enumerate(lines, 1):
        line = line.format(**words)
        section = line if line[0] == "[" else section
        if mistake:
            said[path, number] = f"{path}:{number}: {section} {line}: " + mistake.format(**words)
    write_text(path, "".join(line.format(**words) + "\n" for line, _ in lines))
    return said


@test(quick=True)
def many_mistakes_of_every_kind_have_their_lines(env):
    """Each once, with its file, line, key and value, and of lines that are right nothing."""
    authority = Authority(env)
    authority.issue("server", "localhost", EXPIRED)
    os.chmod(authority.path("server-key.pem"), 0o644)
    write_text(authority.psk, "alice:0123456789abcdef0123456789abcdef\nbob\n")
    path, directory = env.path("millrace.conf"), exports_directory(env)
    words = {
        "main": path,
        "gone": env.path("gone"),
        "image": env.file(MIB),
        "certificate": authority.path("server-cert.pem"),
        "key": authority.path("server-key.pem"),
        "psk": authority.psk,
    }
    said = write_with_mistakes(path, MANY_MISTAKES, words)
    said.update(write_with_mistakes(os.path.join(directory, "one.conf"), MANY_IN_A_FILE, words))
    log = expect_refusal(env, ["--config", path, "--check"], *said.values())
    found = re.findall(r"^(?:error: )?([^: ]+\.conf):(\d+): ", log, re.MULTILINE)
    equal(sorted((file, int(line)) for file, line in found), sorted(said), f"lines with mistakes in {log}")


@test(quick=True)
def socket_in_a_directory_that_comes_with_the_unit_is_no_mistake(env):
    """Below /run what is missing may be what RuntimeDirectory= makes; in the unit itself it is there, or a mistake."""
    listen = "unix:/run/millrace-e2e-none/sock"
    path = env.config(f"[server]\nlisten = {listen}\n[export a]\ntype = null\nsize = 1M\n")
    check("RuntimeDirectory=" in check_config(env, path), "nothing is said of the directory")
    prefix = ("env", "RUNTIME_DIRECTORY=/run/millrace")
    expect_refusal(env, ["--config", path, "--check"], f"{path}:2: [server] listen = {listen}: cannot", prefix=prefix)
    expect_refusal(env, ["--config", path], f"{path}:2: [server] listen = {listen}: cannot")
