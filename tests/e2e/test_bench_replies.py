"""millrace-bench with each style of replies: against our daemon and others, holes, errors, and servers that break the rules."""

import re
import shutil
import socket
import struct

from harness import FILE, MIB, TCP, Skip, start_process
from harness import check, equal, test, wait_for_listener
from test_bench import BadServer, bench, greet, run

SIMPLE = "simple"
STRUCTURED = "structured"
EXTENDED = "extended"
NAMES = {SIMPLE: "simple replies", STRUCTURED: "structured replies", EXTENDED: "extended headers"}


def serve_nbdkit(env, *arguments):
    if not shutil.which("nbdkit"):
        raise Skip("nbdkit is not installed")
    path = env.socket_path()
    with open(env.path("nbdkit.log"), "wb") as log:
        command = ["nbdkit", "--foreground", "--unix", path, *arguments]
        env.processes.append(start_process(command, stdout=log, stderr=log))
    wait_for_listener(path, "nbdkit")
    return f"nbd+unix:///disk?socket={path}"


@test(over=[(style,) for style in NAMES], quick=True)
def each_style_is_loaded_and_checked(env, style):
    daemon = env.serve_image(env.image(FILE, 8 * MIB), TCP)
    mix = "read=50,write=30,trim=5,zeroes=10,flush=5"
    load = ("--replies", style, "--mix", mix, "--bs", "512:20,4k:70,64k:10", "--connections", 3)
    result = run(env, daemon.uri(), *load)
    equal(result["replies"], NAMES[style], "replies")
    equal(result["errors"], 0, "errors")
    equal(len(result["kinds"]), 5, "kinds")
    lines = bench(env, "verify", daemon.uri(), "--replies", style, "--quiet", "--time", 0.3, "--rounds", 2).out
    match = re.search(r"^(\d+) blocks written, (\d+) read: (\d+) right$", lines, re.M)
    check(match and int(match[1]) > 100 and match[2] == match[3], lines)


@test(quick=True)
def the_best_that_a_server_has_is_taken_unless_one_is_asked_for(env):
    daemon = env.serve_image(env.image(FILE, MIB), TCP)
    equal(run(env, daemon.uri(), "--requests", 10)["replies"], NAMES[EXTENDED], "replies of ours")
    structured = serve_nbdkit(env, "memory", "1M")
    equal(run(env, structured, "--requests", 10)["replies"], NAMES[STRUCTURED], "replies of nbdkit")
    simple = serve_nbdkit(env, "--no-sr", "memory", "1M")
    equal(run(env, simple, "--requests", 10)["replies"], NAMES[SIMPLE], "replies of a simple server")
    said = bench(env, "run", simple, "--replies", STRUCTURED, fails=True).err
    check("the server refuses structured replies" in said and simple in said, said)
    said = bench(env, "run", structured, "--replies", EXTENDED, fails=True).err
    check("the server refuses extended headers" in said, said)


@test(over=[(STRUCTURED,), (EXTENDED,)], quick=True)
def holes_are_counted_and_are_zeros(env, style):
    """In blocks of 128 KiB, which our daemon does not send where there is nothing."""
    image, state = env.image(FILE, 8 * MIB), env.path("state")
    daemon = env.serve_image(image, TCP)
    load = ("--replies", style, "--bs", "128k")
    result = run(env, daemon.uri(), *load, "--requests", 500)
    equal(result["hole_bytes"], 500 * 128 * 1024, "bytes in holes")
    text = bench(env, "run", daemon.uri(), "--quiet", *load, "--requests", 500).out
    check("62.5 MiB of what was read were holes" in text, text)
    bench(env, "run", daemon.uri(), "--rw", "write", "--bs", "1m", "--requests", 8, "--quiet")
    verified = ("verify", daemon.uri(), *load, "--quiet", "--depth", 4, "--state", state)
    lines = bench(env, *verified, "--time", 0.3, "--rounds", 1).out
    check(re.search(r"read: \d+ right$", lines, re.M), lines)
    equal(run(env, daemon.uri(), "--replies", style, "--bs", "4k", "--requests", 500)["hole_bytes"], 0, "bytes in holes where all is written")
    # What was written is not there any more: told as a hole, found as a loss.
    bench(env, "run", daemon.uri(), "--mix", "trim=1", "--bs", "1m", "--rw", "write", "--requests", 8, "--quiet")
    lines = bench(env, *verified, "--check", fails=True).out
    check(re.search(r"are lost: found write 0", lines), lines)


@test(quick=True)
def what_a_server_says_of_an_error_is_shown(env):
    image = env.image(FILE, MIB)
    fault = f"[export disk]\ntype = fault\npath = {image.path}\nfault = read-error=1\n"
    daemon = env.serve("--config", env.config(f"[server]\nlisten = 127.0.0.1:0\n{fault}"))
    for style in NAMES:
        load = ("run", daemon.uri(), "--quiet", "--replies", style, "--requests", 20)
        said = bench(env, *load, "--json", env.path("json"), fails=True).out
        check("20 requests failed; the first with NBD error 5" in said, said)
        has_message = re.search(r"NBD error 5: \w+", said) is not None
        equal(has_message, style != SIMPLE, f"a message with {style} replies in {said!r}")
    said = bench(env, "verify", daemon.uri(), "--quiet", "--time", 0.2, "--rounds", 1, fails=True).out
    check(re.search(r"a read of 4096 bytes at offset \d+ failed with NBD error 5: \w+", said), said)


# Servers that break the rules of structured replies.

DONE, NONE, DATA, HOLE, ERROR = 1, 0, 1, 2, 0x8001


def chunk(request, kind, payload=b"", flags=DONE):
    return struct.pack(">IHH", 0x668E33EF, flags, kind) + request[8:16] + struct.pack(">I", len(payload)) + payload


def offset_of(request):
    return request[16:24]


def data(request, start, length, flags=0):
    offset = int.from_bytes(offset_of(request), "big") + start
    return chunk(request, DATA, offset.to_bytes(8, "big") + bytes(length), flags)


BAD = {
    "sent something that is no reply": lambda request: b"garbage." * 4,
    "answered a read with a simple reply": lambda request: b"\x67\x44\x66\x98" + bytes(4) + request[8:16] + bytes(4096),
    "sent a chunk that was not asked for": lambda request: chunk(request, 5, bytes(12)),
    "sent data that was not asked for": lambda request: data(request, 1, 4096, DONE),
    "sent data twice": lambda request: data(request, 0, 4096) + data(request, 0, 4096, DONE),
    "left out a part of what was to be read": lambda request: data(request, 512, 3584) + chunk(request, NONE),
    "answered a request that was not made": lambda request: data(request, 0, 4096, DONE) * 2,
    "sent a hole of no length": lambda request: chunk(request, HOLE, offset_of(request) + bytes(4)),
    "sent an error of the wrong form": lambda request: chunk(request, ERROR, b"\0\0\0\5\0\7x"),
    "sent a chunk of no type with a payload": lambda request: chunk(request, NONE, b"x"),
}


@test(over=[(text,) for text in BAD], quick=True)
def a_server_that_breaks_the_rules_is_found_out(env, text):
    def answer(connection):
        greet(connection, 8)
        connection.sendall(BAD[text](connection.recv(28)))

    with BadServer(answer) as server:
        load = ("run", server.uri, "--quiet", "--timeout", 1, "--time", 5, "--depth", 1)
        said = bench(env, *load, fails=True).out
        pattern = rf"PARTIAL, after 0\.\d\d s: {re.escape(server.uri)}: the server {text}"
        check(re.search(pattern, said), said)


@test(quick=True)
def an_answer_in_many_pieces_is_one(env):
    """Data back to front, a hole between, and the end in a chunk of its own."""

    def answer(connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        greet(connection, 8)
        while request := connection.recv(28):
            offset = int.from_bytes(offset_of(request), "big")
            hole = (offset + 1024).to_bytes(8, "big") + (1024).to_bytes(4, "big")
            reply = data(request, 2048, 2048) + chunk(request, HOLE, hole, 0) + data(request, 0, 1024) + chunk(request, NONE)
            for start in range(0, len(reply), 700):
                connection.sendall(reply[start : start + 700])

    with BadServer(answer) as server:
        result = run(env, server.uri, "--depth", 1, "--requests", 20, "--time", 20)
        equal(result["all"]["requests"], 20, "requests")
        equal(result["hole_bytes"], 20 * 1024, "bytes in holes")
