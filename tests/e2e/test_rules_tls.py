"""Rules 11 to 16 of the protocol: TLS.  What real clients, wrong certificates and garbage do is in test_tls.py."""

import ssl
import struct

import wire
from authority import Authority, start_tls
from harness import MIB, check, equal, random_bytes, same_bytes, test, two_cores
from wire import OPT_ABORT, OPT_EXPORT_NAME, OPT_EXTENDED_HEADERS, OPT_GO, OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT
from wire import OPT_SET_META_CONTEXT, OPT_STARTTLS, OPT_STRUCTURED_REPLY, Wire
from wire_replies import STRUCTURED

CONTENT = random_bytes(MIB)
EVERY_OPTION = (OPT_LIST, OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT)
EVERY_OPTION = (*EVERY_OPTION, OPT_EXTENDED_HEADERS, 4, 0x7777)


class Place:
    """A daemon with the exports "disk", and "secret" for clients within TLS only."""

    def __init__(self, env, mode):
        self.env = env
        self.authority = Authority(env) if mode != "off" else None
        path = env.file(MIB, CONTENT)
        secret = f"[export secret]\npath = {env.file(MIB, CONTENT)}\ntls-only = yes\n" if mode == "allowed" else ""
        self.daemon = env.serve(
            "--config",
            env.config(
                f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\n"
                f"{self.authority.settings(mode) if self.authority else ''}\n[export disk]\npath = {path}\n{secret}"
            ),
        )

    def greeted(self):
        client = self.env.keep(Wire(self.daemon.address))
        client.greet()
        return client

    def secured(self, context=None):
        client = self.greeted()
        start_tls(client, context or self.authority.context())
        return client


def data_of(option, name="disk"):
    """What the option needs, so that nothing but TLS is wrong with it."""
    if option in (OPT_INFO, OPT_GO):
        return wire.pack_info_request(name)
    if option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
        return wire.pack_queries(name, ("base:allocation",))
    return b""


def check_reads(client, name="disk"):
    client.ask_info(OPT_GO, name)
    same_bytes(client.read(1000, 5000), CONTENT[1000:6000], "data")


# 11. TLS 1.2 or later; one mode for a connection's life.


@test(over=[("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)], quick=True)
def rule_11_must_speak_tls_1_2_or_later(env, version, good):
    place = Place(env, "required")
    context = place.authority.context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion[version]
    try:
        client = place.secured(context)
    except (ssl.SSLError, ConnectionError):
        check(not good, f"{version} was refused")
        return
    check(good, f"{version} was accepted")
    check_reads(client)


@test(over=[("allowed",), ("required",)], quick=True)
def rule_11_must_keep_to_one_mode(env, mode):
    """Asked again and again, the answer is the same."""
    place = Place(env, mode)
    name = "secret" if mode == "allowed" else "disk"
    client = place.greeted()
    for _ in range(20):
        equal(client.answer_kind(OPT_INFO, wire.pack_info_request(name)), wire.REP_ERR_TLS_REQD, "INFO without TLS")
    start_tls(client, place.authority.context())
    for _ in range(20):
        equal(client.answer_kind(OPT_INFO, wire.pack_info_request(name)), wire.REP_ACK, "INFO within TLS")
    check_reads(client, name)


# 12. STARTTLS wipes what was negotiated; a second one is INVALID; a failed handshake ends the connection.


@test(quick=True)
def rule_12_must_forget_what_was_negotiated_before(env):
    place = Place(env, "allowed")
    client = place.greeted()
    client.negotiate(STRUCTURED)
    client.ask_contexts(OPT_SET_META_CONTEXT, "disk", ("base:allocation",))
    start_tls(client, place.authority.context())
    kind = client.answer_kind(OPT_SET_META_CONTEXT, data_of(OPT_SET_META_CONTEXT))
    equal(kind, wire.REP_ERR_INVALID, "SET_META_CONTEXT without structured replies")
    client.style, client.contexts = "simple", ()
    check_reads(client)  # in a simple reply
    equal(client.call(wire.CMD_BLOCK_STATUS, 0, 4096)[0], wire.EINVAL, "BLOCK_STATUS")


@test(over=[("allowed",), ("required",)], quick=True)
def rule_12_must_refuse_a_second_starttls(env, mode):
    place = Place(env, mode)
    client = place.secured()
    for _ in range(3):
        equal(client.answer_kind(OPT_STARTTLS), wire.REP_ERR_INVALID, "STARTTLS within TLS")
    check_reads(client)


@test(quick=True)
def rule_12_must_end_after_a_failed_handshake(env):
    place = Place(env, "allowed")
    for garbage in (b"\0" * 100, wire.pack_option(OPT_LIST) * 5, b"\x16\x03\x01\x00\x05hello" + bytes(50)):
        client = place.greeted()
        equal(client.answer_kind(OPT_STARTTLS), wire.REP_ACK, "STARTTLS")
        client.send(garbage)
        while client.has_more():  # an alert, perhaps
            client.sock.recv(4096)


# 13. Required: everything but STARTTLS and ABORT gets TLS_REQD; EXPORT_NAME ends the connection.


@test(quick=True)
def rule_13_must_require_tls_for_every_option(env):
    place = Place(env, "required")
    client = place.greeted()
    for option in EVERY_OPTION:
        for name in ("disk", "nothing"):
            equal(client.answer_kind(option, data_of(option, name)), wire.REP_ERR_TLS_REQD, f"option {option}")
    start_tls(client, place.authority.context())
    check_reads(client)


@test(quick=True)
def rule_13_must_acknowledge_abort_and_end_after_export_name(env):
    place = Place(env, "required")
    client = place.greeted()
    equal(client.ask(OPT_ABORT), [(wire.REP_ACK, b"")], "ABORT")
    client.expect_closed()
    client = place.greeted()
    client.send(wire.pack_option(OPT_EXPORT_NAME, b"disk"))
    client.expect_closed()


# 14. Allowed: TLS_REQD only for INFO and GO of exports that need it; they may be left out of LIST.


@test(quick=True)
def rule_14_must_require_tls_for_tls_only_exports_alone(env):
    place = Place(env, "allowed")
    client = place.greeted()
    for option in (OPT_INFO, OPT_GO):
        equal(client.answer_kind(option, data_of(option, "secret")), wire.REP_ERR_TLS_REQD, f"option {option}")
    for option in EVERY_OPTION:
        if option != OPT_GO:
            check(client.answer_kind(option, data_of(option)) != wire.REP_ERR_TLS_REQD, f"option {option}")
    client = place.greeted()
    check_reads(client)
    client = place.greeted()
    client.send(wire.pack_option(OPT_EXPORT_NAME, b"secret"))
    client.expect_closed()


@test(quick=True)
def rule_14_may_hide_tls_only_exports(env):
    place = Place(env, "allowed")
    equal(names(place.greeted()), {"disk"}, "exports without TLS")
    equal(names(place.secured()), {"disk", "secret"}, "exports within TLS")
    check_reads(place.secured(), "secret")


def names(client):
    found = set()
    for _, data in client.ask(OPT_LIST)[:-1]:
        (count,) = struct.unpack_from(">I", data)
        found.add(data[4 : 4 + count].decode())
    return found


# 15. Off: POLICY or UNSUP for STARTTLS, never TLS_REQD.


@test(quick=True)
def rule_15_must_refuse_starttls_when_it_is_off(env):
    place = Place(env, "off")
    client = place.greeted()
    kind = client.answer_kind(OPT_STARTTLS)
    check(kind in (wire.REP_ERR_POLICY, wire.REP_ERR_UNSUP), f"answer to STARTTLS: {kind:#x}")
    for option in EVERY_OPTION:
        for name in ("disk", "nothing"):
            if option != OPT_GO:
                check(client.answer_kind(option, data_of(option, name)) != wire.REP_ERR_TLS_REQD, f"option {option}")
    client = place.greeted()
    check_reads(client)


# 16. DISC under TLS closes TLS, then TCP.


@test(over=[("TLSv1_2",), ("TLSv1_3",)], quick=True)
def rule_16_must_close_tls_then_tcp_at_disc(env, version):
    place = Place(env, "required")
    context = place.authority.context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    client = place.secured(context)
    check_reads(client)
    client.disconnect()
    # Raises without a closure alert: wrap_socket was told to tell a ragged end from an orderly one.
    equal(client.sock.recv(1), b"", "what comes after DISC")
