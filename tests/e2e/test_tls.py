"""TLS: with real clients, with a client that breaks the rules, and with credentials that are wrong."""

import os
import re
import shutil
import signal
import socket
import ssl
import struct
import threading
import time

import wire
from authority import EXPIRED, FUTURE, IDENTITY, Authority, start_tls
from harness import FILE, MIB, TCP, UNIX, Failure
from harness import check, equal, random_bytes, same_bytes, test, two_cores, wait_until
from test_bad_input import expect_refusal
from wire import Wire

X509 = "x509"
PSK = "psk"
CONTENT = random_bytes(4 * MIB + 5)
IMAGE_BYTES = len(CONTENT) // 512 * 512


def serve(env, tls, exports=None, server="", transport=TCP):
    """A daemon with TLS as its [tls] section: (daemon, path of its image)."""
    path = env.file(IMAGE_BYTES, CONTENT)
    config = env.config(
        f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = {env.listen_text(transport)}\n{server}\n{tls}\n"
        + (exports or f"[export disk]\npath = {path}\n")
    )
    return env.serve("--config", config), path


def connect(env, daemon):
    client = env.keep(Wire(daemon.address))
    client.greet()
    return client


def connect_tls(env, daemon, context):
    client = connect(env, daemon)
    start_tls(client, context)
    return client


def go(client, name="disk"):
    return struct.unpack(">QH", client.ask_info(wire.OPT_GO, name)[wire.INFO_EXPORT])


def expect_end(client):
    """The connection ends without data, in whatever way TLS or TCP tells it."""
    try:
        client.expect_closed()
    except ssl.SSLError:
        pass


def expect_no_handshake(env, daemon, context):
    """With TLS 1.3 a client learns only when it reads that its certificate was refused."""
    try:
        client = connect_tls(env, daemon, context)
        client.sock.recv(1)
    except (ssl.SSLError, ConnectionError):
        return
    raise Failure("the server goes on")


def check_serves(env, daemon, context):
    client = connect_tls(env, daemon, context)
    go(client)
    same_bytes(client.read(4000, 70000), CONTENT[4000:74000], "data for a good client")
    client.disconnect()
    equal(client.sock.recv(1), b"", "what comes after DISC")


def uri(authority, address, kind):
    if kind == PSK:
        query = f"tls-psk-file={authority.psk}"
        who = f"{IDENTITY}@"
    else:
        query = f"tls-certificates={authority.directory}"
        who = ""
    if address.path:
        return f"nbds+unix://{who}/disk?socket={address.path}&{query}"
    return f"nbds://{who}{address.text}/disk?{query}"


# Real clients.


def copy_both_ways(env, where, path):
    """Three clients of libnbd's, inside TLS, of the export at WHERE whose image is PATH."""
    check("with TLS" in env.run(["nbdinfo", where]).out, "nbdinfo does not say that it uses TLS")
    copy = env.path("copy")
    env.run(["nbdcopy", where, copy])
    same_bytes(read_bytes(copy), CONTENT[:IMAGE_BYTES], "copy by nbdcopy")
    upload = env.file(IMAGE_BYTES, random_bytes(IMAGE_BYTES, 2))
    env.run(["nbdcopy", "--flush", upload, where])
    same_bytes(read_bytes(path), read_bytes(upload), "image after nbdcopy")


@test(over=[(X509, TCP), (PSK, TCP), (PSK, UNIX)], quick=[(X509, TCP), (PSK, TCP)])
def libnbd_copies_both_ways(env, kind, transport):
    authority = Authority(env)
    daemon, path = serve(env, authority.settings("required"), transport=transport)
    copy_both_ways(env, uri(authority, daemon.address, kind), path)


@test(over=[(X509,), (PSK,)], quick=[(X509,), (PSK,)])
def qemu_img_copies_both_ways(env, kind):
    authority = Authority(env)
    daemon, path = serve(env, authority.settings("required"))
    user = f",username={IDENTITY}" if kind == PSK else ""
    secret = f"tls-creds-{kind},id=tls,dir={authority.directory},endpoint=client{user}"
    address = daemon.address
    target = f"driver=nbd,host={address.host},port={address.port},export=disk,tls-creds=tls"
    copy = env.path("copy")
    qemu = ["qemu-img", "convert", "--object", secret]
    env.run([*qemu, "--image-opts", target, "-O", "raw", copy])
    same_bytes(read_bytes(copy), CONTENT[:IMAGE_BYTES], "copy by qemu-img")
    upload = env.file(IMAGE_BYTES, random_bytes(IMAGE_BYTES, 3))
    env.run([*qemu, "-n", "-f", "raw", "--target-image-opts", upload, target])
    same_bytes(read_bytes(path), read_bytes(upload), "image after qemu-img")


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


@test(over=[("TLSv1_2",), ("TLSv1_3",)], quick=True)
def data_is_right_at_any_size_and_in_both_versions(env, version):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings())
    context = authority.context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    client = connect_tls(env, daemon, context)
    equal(client.sock.version().replace(".", "_"), version, "version of TLS")
    size, _ = go(client)
    equal(size, IMAGE_BYTES, "size")
    for length in (1, 512, 4096, 16367, 16368, 16369, 16384, 65536, 262144, 3 * MIB + 7):
        same_bytes(client.read(3, length), CONTENT[3 : 3 + length], f"read of {length} bytes")
        client.write(5, CONTENT[9 : 9 + length])
        same_bytes(client.read(5, length), CONTENT[9 : 9 + length], f"what was written, {length} bytes")
        client.write(3, CONTENT[3 : 8 + length])
    # Many at once: replies share records and sends.
    wanted = {client.request(wire.CMD_READ, 4096 * i, 4096): 4096 * i for i in range(200)}
    while wanted:
        cookie, error, data = client.reply()
        equal(error, 0, "error of a read")
        offset = wanted.pop(cookie)
        same_bytes(data, CONTENT[offset : offset + 4096], f"read at {offset}")


@test(quick=True, seconds=90)
def many_connections_at_once(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings("required"))
    context = authority.context()
    failures = []

    def one(number):
        try:
            client = connect_tls(env, daemon, context)
            go(client)
            for i in range(20):
                offset = (number * 131 + i * 4099) % MIB
                same_bytes(client.read(offset, 30000), CONTENT[offset : offset + 30000], "a read")
            client.disconnect()
            equal(client.sock.recv(1), b"", "what comes after DISC")
        except Exception as error:  # told below, by the main thread
            failures.append(f"{number}: {error!r}")

    threads = [threading.Thread(target=one, args=[number]) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(failures, [], "failed connections")


@test(quick=True)
def idle_connections_are_parked_and_go_on(env):
    """Or end, parked, with the daemon: the first."""
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings("required"))
    clients = [connect_tls(env, daemon, authority.context()) for _ in range(50)]
    for client in clients:
        go(client)
        client.read(0, 262144)
    busy_bytes = daemon.rss_bytes()
    time.sleep(2.5)
    daemon.check_idle(ticks=5)
    for client in clients[1:]:
        same_bytes(client.read(77, 100000), CONTENT[77:100077], "a read after it was idle")
    # The sanitizers keep what is freed.
    grown = daemon.rss_bytes() - busy_bytes
    check(grown < 8 * MIB or "sanitize" in env.binary, f"{grown} bytes more after it was idle")
    daemon.stop()
    expect_end(clients[0])


# Who gets in, and to what.


@test(quick=True)
def certificates_that_are_not_right_are_refused(env):
    authority, stranger = Authority(env), Authority(env)
    authority.issue("old", "old.example", EXPIRED)
    daemon, _ = serve(env, authority.settings())
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(authority.path("ca-cert.pem"))
    trusting.load_cert_chain(stranger.path("client-cert.pem"), stranger.path("client-key.pem"))
    expect_no_handshake(env, daemon, trusting)
    expect_no_handshake(env, daemon, authority.context("old"))
    expect_no_handshake(env, daemon, authority.context(None))
    equal(len(daemon.logged("connection closed", count=3)), 3, "log lines, one for each")
    check("certificate was refused" in daemon.log(), daemon.log())
    check("expired" in daemon.log(), "the expired certificate is not called that")
    unknowing = stranger.context()  # does not know the server
    unknowing.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 OpenSSL's alert comes in a form that GnuTLS can't read
    expect_no_handshake(env, daemon, unknowing)
    wait_until(lambda: re.search("the client says: .*CA", daemon.log()), 5, "the client's alert in the log")
    check_serves(env, daemon, authority.context())


@test(over=[("TLSv1_2",), ("TLSv1_3",)], quick=True)
def a_certificate_that_is_for_servers_alone_lets_no_client_in(env, version):
    """Whoever has the certificate of some web server may not be a client with it.  Source: RFC 5280, section 4.2.1.12."""
    authority = Authority(env)
    authority.issue("web", "web.example", purposes="tls_www_server\n")
    authority.issue("user", "user.example", purposes="tls_www_client\n")
    authority.issue("any", "any.example", purposes="")
    daemon, _ = serve(env, authority.settings())
    for name, good in (("web", False), ("user", True), ("any", True)):
        context = authority.context(name)
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
        (check_serves if good else expect_no_handshake)(env, daemon, context)
    daemon.logged("certificate was refused", count=1)


@test(quick=True)
def wrong_pre_shared_keys_are_refused(env):
    authority, stranger = Authority(env), Authority(env)
    daemon, _ = serve(env, authority.settings("required"))
    wrong_key = uri(stranger, daemon.address, PSK)
    env.run(["nbdinfo", wrong_key], expect=1)
    wrong_name = uri(authority, daemon.address, PSK).replace(f"{IDENTITY}@", "mallory@")
    env.run(["nbdinfo", wrong_name], expect=1)
    env.run(["nbdinfo", uri(authority, daemon.address, PSK)])


@test(quick=True)
def anybody_gets_in_where_clients_are_not_verified(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings("required", "verify-client = no"))
    check_serves(env, daemon, authority.context(None))


@test(quick=True)
def names_decide_who_uses_an_export(env):
    authority = Authority(env)
    authority.issue("guest", "guest.example")
    image = env.file(MIB)
    exports = (
        f"[export open]\npath = {image}\nread-only = yes\n"
        f"[export keys]\ntype = null\nsize = 1M\nallow-names = {IDENTITY}\n"
        "[export named]\ntype = null\nsize = 1M\nallow-names = nobody, client\n"
        "[export other]\ntype = null\nsize = 1M\nallow-names = guest.example\n"
    )
    daemon, _ = serve(env, authority.settings(), exports)
    for who, listed in (("client", {"open", "named"}), ("guest", {"open", "other"})):
        client = connect_tls(env, daemon, authority.context(who))
        equal(list_names(client), listed, f"what {who} sees")
        for name in {"keys", "named", "other"} - listed:
            for option in (wire.OPT_INFO, wire.OPT_GO):
                refused = client.answer_kind(option, wire.pack_info_request(name))
                equal(refused, wire.REP_ERR_UNKNOWN, f"answer for {who} asking for {name}")
        go(client, (listed - {"open"}).pop())
    daemon.logged("allow-names")
    plain = connect(env, daemon)
    equal(list_names(plain), {"open"}, "what a client without TLS sees")
    refused = plain.answer_kind(wire.OPT_GO, wire.pack_info_request("named"))
    equal(refused, wire.REP_ERR_TLS_REQD, "answer without TLS")
    keyed = uri(authority, daemon.address, PSK)
    env.run(["nbdinfo", keyed.replace("/disk", "/keys")])
    env.run(["nbdinfo", keyed.replace("/disk", "/named")], expect=1)


def list_names(client):
    replies = client.ask(wire.OPT_LIST)
    equal(replies[-1][0], wire.REP_ACK, "end of the list")
    return {data[4 : 4 + struct.unpack_from(">I", data)[0]].decode() for _, data in replies[:-1]}


# The rules of STARTTLS.


@test(quick=True)
def tls_off_refuses_starttls_and_goes_on(env):
    daemon, _ = serve(env, "")
    client = connect(env, daemon)
    kind = client.answer_kind(wire.OPT_STARTTLS)
    check(kind in (wire.REP_ERR_POLICY, wire.REP_ERR_UNSUP), f"answer {kind:#x}")
    go(client)
    same_bytes(client.read(0, 5000), CONTENT[:5000], "data")


@test(quick=True)
def required_tls_answers_everything_else_with_that(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings("required"))
    client = connect(env, daemon)
    request = wire.pack_info_request("disk")
    options = [(wire.OPT_LIST, b""), (wire.OPT_INFO, request), (wire.OPT_GO, request), (8, b""), (77, b"x" * 70000)]
    for option, data in options:
        equal(client.answer_kind(option, data), wire.REP_ERR_TLS_REQD, f"answer to option {option}")
    start_tls(client, authority.context())  # after all that
    go(client)
    leaving = connect(env, daemon)
    equal(leaving.answer_kind(wire.OPT_ABORT), wire.REP_ACK, "answer to ABORT")
    leaving.expect_closed()
    old = connect(env, daemon)
    old.send(wire.pack_option(wire.OPT_EXPORT_NAME, b"disk"))
    old.expect_closed()


@test(quick=True)
def allowed_tls_is_needed_for_tls_only_exports_alone(env):
    authority = Authority(env)
    image, secret = env.file(MIB), env.file(2 * MIB)
    exports = f"[export open]\npath = {image}\n[export secret]\npath = {secret}\ntls-only = yes\n"
    daemon, _ = serve(env, authority.settings(), exports)
    plain = connect(env, daemon)
    equal(list_names(plain), {"open"}, "what is listed without TLS")
    for option in (wire.OPT_INFO, wire.OPT_GO):
        kind = plain.answer_kind(option, wire.pack_info_request("secret"))
        equal(kind, wire.REP_ERR_TLS_REQD, f"answer to option {option}")
        kind = plain.answer_kind(option, wire.pack_info_request("nothing"))
        equal(kind, wire.REP_ERR_UNKNOWN, f"answer to option {option} for what does not exist")
    go(plain, "open")
    old = connect(env, daemon)
    old.send(wire.pack_option(wire.OPT_EXPORT_NAME, b"secret"))
    old.expect_closed()
    inside = connect_tls(env, daemon, authority.context())
    equal(list_names(inside), {"open", "secret"}, "what is listed inside TLS")
    equal(go(inside, "secret")[0], 2 * MIB, "size")


@test(quick=True)
def starttls_comes_once_and_without_data(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings())
    client = connect(env, daemon)
    equal(client.answer_kind(wire.OPT_STARTTLS, b"x"), wire.REP_ERR_INVALID, "answer to STARTTLS with data")
    start_tls(client, authority.context())
    equal(client.answer_kind(wire.OPT_STARTTLS), wire.REP_ERR_INVALID, "answer to a second STARTTLS")
    go(client)


@test(quick=True)
def what_is_sent_behind_starttls_counts_for_nothing(env):
    """Somebody between client and server could put it there, and have it done in the client's name."""
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings())
    client = connect(env, daemon)
    client.send(wire.pack_option(wire.OPT_STARTTLS) + wire.pack_option(wire.OPT_LIST))
    client.expect_closed()
    wait_until(lambda: "behind STARTTLS" in daemon.log(), 5, "a log line about it")
    check_serves(env, daemon, authority.context())


# What clients do to TLS.


@test(quick=True)
def garbage_instead_of_tls_ends_the_connection(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings())
    bystander = connect_tls(env, daemon, authority.context())
    go(bystander)
    record = b"\x16\x03\x01\x40\x00" + random_bytes(16384, 4)
    for garbage in (wire.pack_option(wire.OPT_LIST), random_bytes(100, 5), record, b"\0" * 100000):
        client = connect(env, daemon)
        equal(client.answer_kind(wire.OPT_STARTTLS), wire.REP_ACK, "answer to STARTTLS")
        try:
            client.send(garbage)
            while client.sock.recv(65536):  # an alert, perhaps
                pass
        except ConnectionError:
            pass
    equal(len(daemon.logged("connection closed", count=4)), 4, "log lines about it")
    same_bytes(bystander.read(1, 99), CONTENT[1:100], "data for another")


@test(quick=True)
def garbage_in_the_middle_ends_the_connection(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings())
    client = connect_tls(env, daemon, authority.context())
    go(client)
    raw = socket.socket(fileno=os.dup(client.sock.fileno()))
    raw.sendall(b"\x17\x03\x03\x00\x40" + random_bytes(64, 6))
    expect_end(client)
    raw.close()
    wait_until(lambda: re.search("TLS: .*connection closed", daemon.log()), 5, "a log line about it")
    check_serves(env, daemon, authority.context())


@test(quick=True)
def stalled_handshake_hits_the_deadline(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings(), server="handshake-s = 1")
    began = time.monotonic()
    client = connect(env, daemon)
    equal(client.answer_kind(wire.OPT_STARTTLS), wire.REP_ACK, "answer to STARTTLS")
    client.send(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a ClientHello
    client.expect_closed()
    check(0.9 < time.monotonic() - began < 5, "not at the deadline")
    daemon.logged("did not finish the handshake")


class Drip:
    """OpenSSL on a socket that takes a byte at a time."""

    def __init__(self, sock, context):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def push(self):
        for byte in self.outgoing.read():
            self.sock.sendall(bytes([byte]))

    def step(self, function, *arguments):
        while True:
            try:
                result = function(*arguments)
                self.push()
                return result
            except ssl.SSLWantReadError:
                self.push()
                data = self.sock.recv(1)
                check(data, "closed")
                self.incoming.write(data)

    def sendall(self, data):
        self.step(self.tls.write, data)

    def recv_into(self, view):
        return self.step(self.tls.read, len(view), view)

    def close(self):
        self.sock.close()


@test(quick=True)
def byte_at_a_time_both_ways(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings())
    client = connect(env, daemon)
    equal(client.answer_kind(wire.OPT_STARTTLS), wire.REP_ACK, "answer to STARTTLS")
    client.sock = Drip(client.sock, authority.context())
    client.sock.step(client.sock.tls.do_handshake)
    go(client)
    same_bytes(client.read(100, 20000), CONTENT[100:20100], "data")
    client.write(100, CONTENT[:20000])
    same_bytes(client.read(100, 20000), CONTENT[:20000], "what was written")


@test(quick=True)
def client_that_never_reads_stalls_only_itself(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings())
    lazy = connect_tls(env, daemon, authority.context())
    go(lazy)
    offsets = {lazy.request(wire.CMD_READ, 4099 * i, MIB): 4099 * i for i in range(100)}
    check_serves(env, daemon, authority.context())
    time.sleep(1)
    before = daemon.rss_bytes()
    time.sleep(1)
    check(daemon.rss_bytes() < before + 8 * MIB, "memory grows for a client that does not read")
    while offsets:
        cookie, error, data = lazy.reply()
        equal(error, 0, f"error of request {cookie}")
        offset = offsets.pop(cookie)
        same_bytes(data, CONTENT[offset : offset + MIB], f"read at {offset}")


@test(quick=True, seconds=120)
def disconnect_at_every_point(env):
    """After each prefix of what a good client sends; memory and descriptors come back to their level."""
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings())
    context = authority.context()
    check_serves(env, daemon, context)
    sent = ClientSends(env, daemon, context).all
    step = env.size(23, 211)

    def run_through():
        for count in range(1, len(sent), step):
            client = connect(env, daemon)
            client.answer_kind(wire.OPT_STARTTLS)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            cut_short(client.sock, tls, incoming, outgoing, count)
            client.close()

    run_through()
    wait_until(lambda: daemon.fd_count() < 60, 10, "descriptors are closed")
    fds, before = daemon.fd_count(), daemon.rss_bytes()
    run_through()
    run_through()
    wait_until(lambda: daemon.fd_count() <= fds, 10, "descriptors are closed again")
    grown = daemon.rss_bytes() - before
    # The sanitizers keep what is freed.
    check(grown < 8 * MIB or "sanitize" in env.binary, f"memory grew by {grown} bytes")
    check_serves(env, daemon, context)


class ClientSends:
    """All that a client sends from its ClientHello to a request."""

    def __init__(self, env, daemon, context):
        client = connect(env, daemon)
        client.answer_kind(wire.OPT_STARTTLS)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        self.all = cut_short(client.sock, tls, incoming, outgoing, 1 << 30)
        client.close()


def cut_short(sock, tls, incoming, outgoing, count):
    """Be a good client until COUNT bytes are sent.  Returns what was sent."""
    sent = b""
    request = wire.pack_option(wire.OPT_GO, wire.pack_info_request("disk"))
    steps = [tls.do_handshake, lambda: tls.write(request), lambda: tls.read(1)]
    while steps:
        try:
            steps[0]()
            steps.pop(0)
            wants_more = False
        except ssl.SSLWantReadError:
            wants_more = True
        data = outgoing.read()[: count - len(sent)]
        sock.sendall(data)
        sent += data
        if len(sent) == count:
            break
        if wants_more:
            incoming.write(sock.recv(65536))
    return sent


@test(quick=True)
def end_of_tls_is_told_and_truncation_is_noticed(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings())
    client = connect_tls(env, daemon, authority.context())
    go(client)
    client.request(wire.CMD_READ, 0, MIB)
    client.disconnect()
    equal(len(client.receive(16 + MIB)), 16 + MIB, "the reply to what came before DISC")
    # suppress_ragged_eofs is off: without close_notify this would raise.
    equal(client.sock.recv(1), b"", "the end")
    check("closed the connection" not in daemon.log(), "the end in order is logged as another")
    rude = connect_tls(env, daemon, authority.context())
    go(rude)
    rude.close()
    daemon.logged("without ending TLS")
    polite = connect_tls(env, daemon, authority.context())
    go(polite)
    polite.sock.unwrap()
    time.sleep(0.2)
    equal(daemon.log().count("closed the connection"), 1, "log lines about truncation")


# Sends of one's own at once, or in a batch with others': later than what has come already.
SOCKET_BATCHES = ("0", "1")


def end_in_one_packet(client):
    """The goodbye of NBD, and the end of TLS right behind it."""
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    client.disconnect()
    client.sock.setblocking(False)
    try:
        client.sock.unwrap()
    except ssl.SSLWantReadError:
        pass
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    client.sock.setblocking(True)


@test(over=[(batch,) for batch in SOCKET_BATCHES], quick=[("1",)])
def client_that_ends_tls_with_its_goodbye_is_told_the_end(env, batch):
    authority = Authority(env)
    config = f"{authority.settings()}\n[reactor]\nsocket-batch = {batch}\n"
    daemon, _ = serve(env, config)
    for _ in range(20):
        client = connect_tls(env, daemon, authority.context())
        go(client)
        end_in_one_packet(client)
        try:
            client.sock.recv(1)
        except ssl.SSLZeroReturnError:
            continue
        raise Failure("TCP has ended without the end of TLS")


@test(over=[(batch,) for batch in SOCKET_BATCHES], quick=[("1",)])
def client_that_ends_tls_and_closes_is_not_waited_for(env, batch):
    authority = Authority(env)
    config = f"{authority.settings()}\n[reactor]\nsocket-batch = {batch}\n"
    daemon, _ = serve(env, config, transport=UNIX)
    before = daemon.fd_count()
    for _ in range(20):
        client = connect_tls(env, daemon, authority.context())
        go(client)
        client.disconnect()
        client.sock.setblocking(False)
        try:
            client.sock.unwrap()
        except ssl.SSLWantReadError:
            pass
        client.close()
    wait_until(lambda: daemon.fd_count() <= before, 4, "the end of all connections")


# Reading the credentials again.


@test(quick=True)
def sighup_takes_new_certificates_without_dropping_anyone(env):
    authority = Authority(env)
    daemon, _ = serve(env, authority.settings())
    context = authority.context()
    old = connect_tls(env, daemon, context)
    go(old)
    first = old.sock.getpeercert(True)
    authority.issue("server", "localhost")
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded:" in daemon.log(), 5, "a log line about it")
    fresh = connect_tls(env, daemon, context)
    check(fresh.sock.getpeercert(True) != first, "the old certificate is still used")
    go(fresh)
    same_bytes(old.read(0, 100000), CONTENT[:100000], "data on the old connection")

    os.chmod(authority.path("server-key.pem"), 0o644)
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "not reloaded:" in daemon.log(), 5, "a log line about the bad key")
    check("chmod 600" in daemon.log(), daemon.log())
    check_serves(env, daemon, context)
    same_bytes(old.read(0, 100000), CONTENT[:100000], "data on the old connection")


@test(quick=True)
def sighup_without_tls_does_nothing(env):
    daemon, _ = serve(env, "")
    daemon.send_signal(signal.SIGHUP)
    client = connect(env, daemon)
    go(client)
    same_bytes(client.read(0, 5000), CONTENT[:5000], "data")


# Credentials that are wrong: (what is done to the files, what the message names).


def break_missing(authority):
    os.unlink(authority.path("server-key.pem"))


def break_mode(authority):
    os.chmod(authority.path("server-key.pem"), 0o644)


def break_psk_mode(authority):
    os.chmod(authority.psk, 0o604)


def break_expired(authority):
    authority.issue("server", "localhost", EXPIRED)


def break_purpose(authority):
    authority.issue("server", "localhost", purposes="tls_www_client\n")


def break_future(authority):
    authority.issue("server", "localhost", FUTURE)


def break_other_key(authority):
    shutil.copyfile(authority.path("client-key.pem"), authority.path("server-key.pem"))


def break_no_pem(authority):
    authority.write("server-cert.pem", "not a certificate\n")


def break_no_ca(authority):
    authority.write("ca-cert.pem", "")


def break_psk(authority):
    authority.write("keys.psk", "alice:0123456789abcdef0123456789abcdef\nbob\n")


BROKEN = {
    "key missing": (break_missing, ("server-key.pem", "No such file")),
    "key open to others": (break_mode, ("server-key.pem", "0644", "chmod 600")),
    "psk file open to others": (break_psk_mode, ("keys.psk", "0604", "chmod 600")),
    "certificate expired": (break_expired, ("server-cert.pem", "expired", "2020-02-01")),
    "certificate of the future": (break_future, ("server-cert.pem", "not valid before", "2090-01-01")),
    "certificate for clients only": (break_purpose, ("server-cert.pem", "other purposes than TLS servers")),
    "key of another certificate": (break_other_key, ("server-cert.pem", "server-key.pem")),
    "no certificate": (break_no_pem, ("server-cert.pem", "PEM")),
    "no authority": (break_no_ca, ("ca-cert.pem", "PEM")),
    "psk file broken": (break_psk, ("keys.psk", "line 2")),
}


@test(over=[(what,) for what in BROKEN], quick=True)
def broken_credentials_are_told_at_start_and_by_check(env, what):
    damage, mentions = BROKEN[what]
    authority = Authority(env)
    damage(authority)
    config = env.config(
        f"[server]\nlisten = 127.0.0.1:0\n{authority.settings()}[export disk]\ntype = null\nsize = 1M\n"
    )
    expect_refusal(env, ["--config", config], *mentions)
    expect_refusal(env, ["--config", config, "--check"], *mentions)


@test(quick=True)
def expired_certificate_behind_the_servers_own_is_a_warning(env):
    """Such as an old root, which no client needs; at the start and at a reload."""
    authority = Authority(env)
    authority.issue("old", "old.example", EXPIRED)
    whole = read_bytes(authority.path("server-cert.pem")) + read_bytes(authority.path("old-cert.pem"))
    authority.write("server-cert.pem", whole.decode())
    daemon, _ = serve(env, authority.settings())
    words = f"{authority.path('server-cert.pem')}: certificate 2 of 2 has expired at 2020-02-01"
    equal(daemon.log().count(words), 1, f"warnings in {daemon.log()}")
    check_serves(env, daemon, authority.context())
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded:" in daemon.log(), 5, "a log line about it")
    check("not reloaded" not in daemon.log(), daemon.log())
    check_serves(env, daemon, authority.context())


SETTINGS = {
    "nothing to begin with": ("[tls]\nmode = required\n", ("neither certificate nor psk-file",)),
    "certificate without key": ("[tls]\nmode = allowed\ncertificate = /x\nca = /x\n", ("the key is missing",)),
    "files without a mode": ("[tls]\ncertificate = /x\nkey = /x\nca = /x\n", ("mode is not set", "mode = required")),
    "no authority to verify with": ("[tls]\nmode = allowed\ncertificate = /x\nkey = /x\n", ("verify-client = no",)),
    "unknown mode": ("[tls]\nmode = on\n", ("off, allowed or required",)),
    "old version": ("{tls}priority = NORMAL:+VERS-TLS1.1\n", ("TLS1.1", "TLS 1.2 or later")),
    "no priority string": ("{tls}priority = NORMAL:+NONSENSE\n", ("+NONSENSE",)),
    "names without TLS": ("[export a]\ntype = null\nsize = 1M\nallow-names = x\n", ("allow-names", "TLS is off")),
    "tls-only without TLS": ("[export a]\ntype = null\nsize = 1M\ntls-only = yes\n", ("tls-only", "TLS is off")),
}


@test(over=[(what,) for what in SETTINGS], quick=True)
def broken_settings_are_told(env, what):
    text, mentions = SETTINGS[what]
    authority = Authority(env)
    text = text.format(tls=authority.settings())
    config = env.config(f"[server]\nlisten = 127.0.0.1:0\n{text}\n[export disk]\ntype = null\nsize = 1M\n")
    expect_refusal(env, ["--config", config, "--check"], *mentions)
