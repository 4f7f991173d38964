"""The log: lines for people and for programs, and what they are about; and that nobody waits for who reads it."""

import contextlib
import datetime
import json
import os
import re
import signal
import socket
import time

import nbd

import wire
from authority import Authority
from harness import MIB
from harness import check, equal, start_process, test, two_cores, wait_for_listener, wait_until, write_text
from wire import Wire

LINES_THAT_FILL_A_PIPE = 3000


def configuration(image, settings):
    return f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\n{settings}\n[export disk]\npath = {image}\n"


def objects(daemon):
    """The lines that are JSON."""
    found = []
    for line in daemon.log_lines():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def about(daemon, words):
    """The first object whose message has WORDS, when it is there."""
    return wait_until(lambda: next((line for line in objects(daemon) if words in line["message"]), None), 10, words)


def refused_write(uri):
    """A write past the end; the server logs it.  Returns the client's port."""
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    handle.connect_uri(uri)
    try:
        handle.pwrite(b"x" * 512, MIB)
    except nbd.Error:
        pass
    handle.shutdown()


@test(quick=True)
def json_lines_say_what_they_are_about(env):
    daemon = env.launch(["--config", env.config(configuration(env.file(MIB), "log-format = json\nlog-level = debug"))])
    address = about(daemon, "listening on ")["message"].split("listening on ")[1].split()[0]
    ready = about(daemon, "ready")
    equal(sorted(ready), ["level", "message", "time"], "what a line about nothing says")
    at = datetime.datetime.fromisoformat(ready["time"].replace("Z", "+00:00"))
    check(abs(time.time() - at.timestamp()) < 60, f"the time: {ready['time']}")
    refused_write(f"nbd://{address}/disk")
    refusal = about(daemon, "refused")
    equal(refusal["level"], "warning", "the level")
    equal(refusal["export"], "disk", "the export")
    check(refusal["client"].startswith("127.0.0.1:"), f"the client: {refusal['client']}")
    check(str(refusal["core"]) in two_cores().split(","), f"the core: {refusal['core']}")
    arrival = about(daemon, "connected on core")
    equal((arrival["client"], arrival["export"]), (refusal["client"], "disk"), "who has arrived")
    daemon.stop()
    for line in daemon.log_lines():
        json.loads(line)


@test()
def format_changes_with_a_reload(env):
    image = env.file(MIB)
    path = env.config(configuration(image, ""))
    daemon = env.serve("--config", path)
    write_text(path, configuration(image, "log-format = json"))
    daemon.send_signal(signal.SIGHUP)
    about(daemon, "reloaded: serving 1 exports")
    write_text(path, configuration(image, "log-format = text"))
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "info: reloaded: serving 1 exports" in daemon.log_lines(), 10, "text again")


@test()
def formats_that_are_none_are_refused(env):
    path = env.config(configuration(env.file(MIB), "log-format = xml"))
    said = env.run([env.binary, "--check", "--config", path], expect=1).err
    check("[server] log-format = xml: expected text or json" in said, said)


@test(quick=True)
def without_standard_error_nothing_is_logged_into_an_image(env):
    image, listener = env.file(MIB, bytes(MIB)), env.path("socket")
    path = env.config(f"[server]\nlisten = unix:{listener}\n[export disk]\npath = {image}\ncache = host\n")
    closed = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    daemon = env.launch(["--config", path, "--cores", two_cores()], prefix=closed)
    handle = wait_until(lambda: connected(f"nbd+unix:///disk?socket={listener}"), 10, "it listens")
    equal(handle.pread(MIB, 0), bytes(MIB), "the image")
    handle.shutdown()
    daemon.stop()
    with open(image, "rb") as file:
        equal(file.read(), bytes(MIB), "the image after it")


def connected(uri):
    """A handle, or None while nobody listens at URI."""
    handle = nbd.NBD()
    with contextlib.suppress(nbd.Error):
        handle.connect_uri(uri)
        return handle
    return None


@test()
def names_of_clients_stay_inside_their_line(env):
    """The name of an export that there is not, with all that ends a text or a line."""
    settings = "log-format = json\nlog-level = debug"
    daemon = env.launch(["--config", env.config(configuration(env.file(MIB), settings)), "--export", 'q"\\=memory:1M'])
    address = about(daemon, "listening on ")["message"].split("listening on ")[1].split()[0]
    about(daemon, "ready")
    handle = nbd.NBD()
    handle.set_export_name('q"\\')
    host, port = address.split(":")
    handle.connect_tcp(host, port)
    handle.shutdown()
    equal(about(daemon, "connected on core")["export"], 'q"\\', "the export")


@test(quick=True)
def who_does_not_get_an_export_is_logged(env):
    """A name that is not there, a long one, and one that would be another line; and TLS that is missing."""
    authority = Authority(env)
    text = f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\n{authority.settings()}\n"
    text += f"[export disk]\npath = {env.file(MIB)}\n[export secret]\npath = {env.file(MIB)}\ntls-only = yes\n"
    daemon = env.serve("--config", env.config(text))
    for name in ("gone", "n" * 4096, "two\nlines", "secret"):
        client = env.keep(Wire(daemon.address))
        client.greet()
        client.ask(wire.OPT_GO, wire.pack_info_request(name))
        client.close()
    who = r"warning: client 127\.0\.0\.1:\d+: "
    for rest in ("gone: there is no such export", f"{'n' * 100}\\.\\.\\.: there is no such export", "two.lines: there is no such export",
                 "secret: asked for without TLS, which this export needs"):
        wait_until(lambda: [line for line in daemon.log_lines() if re.fullmatch(who + rest, line)], 5, rest)


@test(quick=True)
def who_has_no_tls_where_it_is_required_is_logged(env):
    authority = Authority(env)
    text = f"[server]\nlisten = 127.0.0.1:0\n{authority.settings(mode='required')}\n[export disk]\npath = {env.file(MIB)}\n"
    daemon = env.serve("--config", env.config(text))
    client = env.keep(Wire(daemon.address))
    client.greet()
    client.ask(wire.OPT_GO, wire.pack_info_request("disk"))
    daemon.logged("warning: client 127.0.0.1:", "asked for something without TLS, which is required here")


def start_with_pipe(env):
    """A daemon that logs into a pipe: the pipe's ends, the path of the socket it will listen on, the process."""
    reader, writer = os.pipe()
    path = env.socket_path()
    config = env.config(
        configuration(env.file(MIB), "log-level = debug").replace("127.0.0.1:0", f"unix:{path}")
    )
    process = start_process([env.binary, "--config", config], stdout=writer, stderr=writer)
    env.processes.append(process)
    return reader, writer, path, process


@test()
def nobody_waits_for_the_logs_reader(env):
    """Standard error is a pipe that nobody reads; clients cause more lines than it holds."""
    reader, writer, path, process = start_with_pipe(env)
    os.close(writer)
    uri = f"nbd+unix:///disk?socket={path}"
    try:
        wait_for_listener(path, "it")
        handle = nbd.NBD()
        handle.connect_uri(uri)
        for _ in range(LINES_THAT_FILL_A_PIPE):
            other = nbd.NBD()
            other.connect_uri(uri)
            other.shutdown()
        began = time.monotonic()
        handle.pwrite(b"y" * 4096, 0)
        handle.flush()
        equal(handle.pread(4096, 0), b"y" * 4096, "what was written")
        check(time.monotonic() - began < 5, "clients wait for the log")
        process.send_signal(signal.SIGHUP)
        os.set_blocking(reader, False)
        said = b""

        def lost_is_told():
            nonlocal said
            with contextlib.suppress(BlockingIOError):
                said += os.read(reader, 1 << 20)
            return b"lines of the log were lost here" in said

        wait_until(lost_is_told, 10, "the log says that lines were lost")
        handle.shutdown()
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: process.poll() is not None or lost_is_told() and process.poll() is not None, 15, "it stops")
        equal(process.returncode, 0, "exit code")
    finally:
        os.close(reader)


@test()
def daemon_stops_though_nobody_reads_its_log(env):
    reader, writer, path, process = start_with_pipe(env)
    try:
        wait_for_listener(path, "it")
        wait_until(lambda: fill(writer), 5, "the pipe is full")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        process.send_signal(signal.SIGTERM)
        equal(process.wait(15), 0, "exit code")
    finally:
        os.close(reader)
        os.close(writer)


def fill(writer):
    """The daemon shares this end, so only for a moment without waiting."""
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"." * 4096)
    except BlockingIOError:
        return True
    finally:
        os.set_blocking(writer, True)
