"""millrace-bench inside TLS: against our daemon, nbdkit and qemu-nbd, and what it says when TLS does not come about."""

import os
import re
import shutil
import urllib.parse

from authority import EXPIRED, IDENTITY, Authority
from harness import FILE, MIB, TCP, UNIX, Skip, start_process
from harness import check, equal, test, wait_for_listener
from test_bench import bench, run

X509 = "x509"
PSK = "psk"
OURS = "millraced"
NBDKIT = "nbdkit"
QEMU = "qemu-nbd"


def query(authority, kind):
    return f"tls-psk-file={authority.psk}" if kind == PSK else f"tls-certificates={authority.directory}"


def uri_of(address, words, user=""):
    """nbds:// or nbds+unix:// of ADDRESS with WORDS in its query."""
    plain = address.uri("disk")
    scheme, rest = plain.split("://")
    join = "&" if "?" in rest else "?"
    return f"{scheme.replace('nbd', 'nbds')}://{user}{rest}{join}{words}"


def serve(env, settings, transport=TCP):
    image = env.image(FILE, 8 * MIB)
    config = f"[server]\nlisten = {env.listen_text(transport)}\n{settings}\n[export disk]\npath = {image.path}\n"
    return env.serve("--config", env.config(config))


def serve_peer(env, program, authority, kind):
    """PROGRAM with TLS on a Unix socket; returns its URI."""
    if not shutil.which(program):
        raise Skip(f"{program} is not installed")
    path, image = env.socket_path(), env.image(FILE, 8 * MIB)
    if program == NBDKIT:
        keys = ["--tls-psk", authority.psk] if kind == PSK else ["--tls-certificates", authority.directory]
        verify = [] if kind == PSK else ["--tls-verify-peer"]
        command = ["nbdkit", "--foreground", "--unix", path, "--tls=require", *keys, *verify, "file", image.path]
    else:
        verify = "" if kind == PSK else ",verify-peer=yes"
        secret = f"tls-creds-{kind},id=tls,endpoint=server,dir={authority.directory}{verify}"
        command = ["qemu-nbd", "--object", secret, "--tls-creds", "tls", "--socket", path, "--shared=0", "--persistent"]
        command += ["--export-name", "disk", "-f", "raw", image.path]
    with open(env.path("peer.log"), "wb") as log:
        env.processes.append(start_process(command, stdout=log, stderr=log))
    wait_for_listener(path, program)
    user = f"{IDENTITY}@" if kind == PSK else ""
    return f"nbds+unix://{user}/disk?socket={urllib.parse.quote(path)}&{query(authority, kind)}"


def check_loads(env, uri):
    result = run(env, uri, "--depth", 8, "--connections", 3, "--rw", "randrw", "--bs", "4k:80,64k:20")
    check(result["all"]["requests"] > 100, f"only {result['all']['requests']} requests")
    equal(result["errors"], 0, "errors")
    lines = bench(env, "verify", uri, "--quiet", "--time", 0.3, "--rounds", 2, "--connections", 3).out
    match = re.search(r"^(\d+) blocks written, (\d+) read: (\d+) right$", lines, re.M)
    check(match and int(match[1]) > 100 and match[2] == match[3], lines)


@test(over=[(X509, TCP), (PSK, TCP), (X509, UNIX), (PSK, UNIX)], quick=[(X509, TCP), (PSK, UNIX)])
def our_daemon_is_loaded_and_its_data_checked(env, kind, transport):
    authority = Authority(env)
    daemon = serve(env, authority.settings("required"), transport)
    check_loads(env, uri_of(daemon.address, query(authority, kind), f"{IDENTITY}@" if kind == PSK else ""))
    daemon.stop()
    log = daemon.log()
    check("without ending TLS" not in log and "warning" not in log, f"it did not take leave in order:\n{log}")


@test(over=[(program, kind) for program in (NBDKIT, QEMU) for kind in (X509, PSK)], quick=[(NBDKIT, X509), (QEMU, PSK)])
def other_servers_are_loaded_and_their_data_checked(env, program, kind):
    check_loads(env, serve_peer(env, program, Authority(env), kind))


@test(quick=True)
def many_connections_inside_tls(env):
    authority = Authority(env)
    daemon = serve(env, authority.settings("required"))
    uri = uri_of(daemon.address, query(authority, X509))
    equal(run(env, uri, "--depth", 2, "--connections", 100, "--requests", 2000, "--time", 30)["all"]["requests"], 2000, "requests")


def check_fails(env, uri, *texts):
    said = bench(env, "run", uri, "--quiet", fails=True).err
    for text in texts:
        check(text in said, f"{text!r} is not said of {uri}: {said!r}")


@test(quick=True)
def a_server_without_tls_and_one_that_requires_it(env):
    authority = Authority(env)
    plain = serve(env, "")
    uri = uri_of(plain.address, query(authority, X509))
    check_fails(env, uri, uri, "the server refuses TLS (error ")
    secure = serve(env, authority.settings("required"))
    check_fails(env, secure.uri(), secure.uri(), "refuses clients without TLS; use nbds://")


@test(quick=True)
def a_server_that_does_not_prove_who_it_is(env):
    authority, stranger = Authority(env), Authority(env)
    stranger.issue("client", "client.example")
    shutil.copy(authority.path("client-cert.pem"), stranger.path("client-cert.pem"))
    shutil.copy(authority.path("client-key.pem"), stranger.path("client-key.pem"))
    daemon = serve(env, authority.settings("required"))
    words = query(stranger, X509)
    check_fails(env, uri_of(daemon.address, words), "TLS: its certificate was refused", "NOT trusted")
    run(env, uri_of(daemon.address, f"{words}&tls-verify-peer=false"), "--requests", 10)
    right = query(authority, X509)
    check_fails(env, uri_of(daemon.address, f"{right}&tls-hostname=other.example"), "was refused", "does not match")
    run(env, uri_of(daemon.address, f"{right}&tls-hostname=localhost"), "--requests", 10)


@test(quick=True)
def a_client_that_the_server_does_not_want(env):
    authority = Authority(env)
    daemon = serve(env, authority.settings("required"))
    bare = env.path("bare")
    os.mkdir(bare)
    shutil.copy(authority.path("ca-cert.pem"), bare)
    check_fails(env, uri_of(daemon.address, f"tls-certificates={bare}"), "TLS: the server says: Certificate is required")
    authority.issue("client", "client.example", EXPIRED)
    check_fails(env, uri_of(daemon.address, query(authority, X509)), "TLS: the server says: ")
    stranger = Authority(env)
    check_fails(env, uri_of(daemon.address, query(stranger, PSK)), "TLS: ")


@test(quick=True)
def credentials_that_are_not_there_are_named(env):
    authority = Authority(env)
    daemon = serve(env, authority.settings("required"))
    check_fails(env, uri_of(daemon.address, "tls-certificates=/nowhere"), "/nowhere/ca-cert.pem: No such file")
    check_fails(env, uri_of(daemon.address, f"{query(authority, X509)}&{query(authority, PSK)}"), "say one of them")
    check_fails(env, uri_of(daemon.address, query(authority, PSK), "mallory@"), f"{authority.psk}: has no key of mallory")
    os.unlink(authority.path("client-key.pem"))
    check_fails(env, uri_of(daemon.address, query(authority, X509)), f"{authority.path('client-key.pem')}: No such file")
