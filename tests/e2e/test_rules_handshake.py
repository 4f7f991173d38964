"""Rules 1 to 10, 17 and 18 of the protocol: from the greeting to the size of blocks.  A test's name begins with its rule.

What peers (RULES_PEER) fail here is theirs: nbdkit 1.32 tells no name in LIST and no sizes unasked of its plugin, lists and
chooses a context as often as it is asked for, keeps the choice after a SET that failed.
"""

import os
import signal
import struct

import wire
from harness import MIB, Failure, check, equal, random_bytes, same_bytes, test
from rules import ALLOCATION, PATTERN_AT, PEER, SIZE_BYTES, need_ours, need_style, served
from wire import OPT_ABORT, OPT_EXPORT_NAME, OPT_EXTENDED_HEADERS, OPT_GO, OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT
from wire import OPT_SET_META_CONTEXT, OPT_STRUCTURED_REPLY
from wire_replies import EXTENDED, SIMPLE, STRUCTURED, check_text

UNKNOWN_OPTIONS = (0, 4, 12, 0x7777, 0x80000000, 0xFFFFFFFF)  # 4 was PEEK_EXPORT
CONTEXT_STYLES = [(STRUCTURED,), (EXTENDED,)]


def is_error(kind):
    return bool(kind & wire.REP_ERR)


def pack_name(name):
    """The data of GO for a name of any bytes, with no information asked for."""
    return struct.pack(">I", len(name)) + name + struct.pack(">H", 0)


def need_names():
    """nbdkit serves one export, under every name."""
    if PEER == "nbdkit":
        need_ours("every name is its export's")


# 1. Strings are UTF-8, without NUL, of at most 4096 bytes.


@test(quick=True)
def rule_01_must_send_strings_as_text(env):
    with served(env) as here:
        client = here.greeted()
        for kind, data in client.ask(OPT_LIST)[:-1]:
            equal(kind, wire.REP_SERVER, "reply to LIST")
            (count,) = struct.unpack_from(">I", data)
            equal(check_text(data[4 : 4 + count], "a name"), "disk", "name")
            check_text(data[4 + count :], "a description")
        infos = client.ask_info(OPT_GO, "disk", (wire.INFO_NAME, wire.INFO_DESCRIPTION))
        for info in (wire.INFO_NAME, wire.INFO_DESCRIPTION):
            check_text(infos.get(info, b""), f"information {info}")


NO_NAMES = {
    "4097 bytes": b"x" * 4097,
    "16000 bytes": b"y" * 16000,
    "a NUL": b"disk\0",
    "a NUL first": b"\0disk",
    "an invalid byte": b"disk\xff",
    "an overlong slash": b"disk\xc0\xaf",
    "a surrogate": b"disk\xed\xa0\x80",
    "half a character": b"disk\xe2\x82",
}


@test(quick=True)
def rule_01_must_refuse_names_that_are_no_text(env):
    need_ours("every name is its export's, or too long a one ends the connection")
    with served(env) as here:
        client = here.greeted()
        for what, name in NO_NAMES.items():
            for option in (OPT_INFO, OPT_GO):
                check(is_error(client.answer_kind(option, pack_name(name))), f"option {option}, name with {what}")
        client.ask_info(OPT_GO, "disk")
        here.check_in_step(client)


# 2. An unknown client flag drops the connection.


@test(quick=True)
def rule_02_must_drop_on_unknown_client_flags(env):
    with served(env) as here:
        for bit in range(2, 32):
            client = here.connect()
            client.greet(wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES | 1 << bit)
            client.expect_closed()


@test()
def rule_02_may_serve_without_any_client_flag(env):
    """The flag of fixed newstyle SHOULD be set: without it EXPORT_NAME works all the same."""
    with served(env) as here:
        client = here.connect()
        client.greet(0)
        equal(client.export_name("disk", zeroes=True)[0], SIZE_BYTES, "size")
        here.check_in_step(client)


# 3. An unknown option is UNSUP, its payload consumed.


@test(quick=True)
def rule_03_must_answer_unknown_options_and_go_on(env):
    with served(env) as here:
        client = here.greeted()
        for option in UNKNOWN_OPTIONS:
            for data in (b"", b"x", bytes(4096), wire.pack_option(OPT_ABORT) * 60):
                replies = client.ask(option, data)
                equal([kind for kind, _ in replies], [wire.REP_ERR_UNSUP], f"option {option}, {len(data)} bytes")
        client.ask_info(OPT_GO, "disk")
        here.check_in_step(client)


@test(quick=True)
def rule_03_must_consume_long_payloads_too(env):
    need_ours("ends the connection at an option of 1 MiB")
    with served(env) as here:
        client = here.greeted()
        for count in (16384, 16385, 70_000, MIB):
            equal(client.answer_kind(0x7777, os.urandom(count)), wire.REP_ERR_UNSUP, f"{count} bytes")
        client.ask_info(OPT_GO, "disk")
        here.check_in_step(client)


# 4. EXPORT_NAME that can't be served ends the connection; 124 zeros unless NO_ZEROES, never after GO.


@test(quick=True)
def rule_04_must_end_after_an_unknown_export_name(env):
    need_names()
    with served(env) as here:
        for name in ("nothing", "disk2", "dis", "DISK", "disk/"):
            client = here.greeted()
            client.send(wire.pack_option(OPT_EXPORT_NAME, name.encode()))
            client.expect_closed()


@test(quick=True)
def rule_04_must_pad_with_124_zeros_unless_told_not_to(env):
    with served(env) as here:
        for flags, zeroes in ((wire.FLAG_FIXED_NEWSTYLE, True), (wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES, False)):
            client = here.connect()
            client.greet(flags)
            size, transmission = client.export_name("disk", zeroes)
            equal(size, SIZE_BYTES, "size")
            check(transmission & wire.TRANSMIT_HAS_FLAGS, "HAS_FLAGS")
            here.check_in_step(client)


@test(quick=True)
def rule_04_must_not_pad_after_go(env):
    with served(env) as here:
        client = here.connect()
        client.greet(wire.FLAG_FIXED_NEWSTYLE)
        client.ask_info(OPT_GO, "disk")
        here.check_in_step(client)  # a zero before the reply would be no magic


# 5. ABORT is acknowledged; with data, too.


@test(quick=True)
def rule_05_must_acknowledge_abort_then_end(env):
    with served(env) as here:
        for data in (b"", b"goodbye"):
            client = here.greeted()
            if data and PEER == "nbdkit":
                continue  # it answers with INVALID; the specification only says "gracefully"
            equal(client.ask(OPT_ABORT, data), [(wire.REP_ACK, b"")], f"answer to ABORT with {len(data)} bytes")
            client.expect_closed()


@test()
def rule_05_should_take_abort_without_waiting(env):
    with served(env) as here:
        for _ in range(50):
            client = here.greeted()
            client.send(wire.pack_option(OPT_ABORT))
            client.close()


# 6. Data on an option that takes none is INVALID.


@test(quick=True)
def rule_06_should_refuse_data_on_list_and_structured_reply(env):
    with served(env) as here:
        client = here.greeted()
        for option in (OPT_LIST, OPT_STRUCTURED_REPLY):
            for data in (b"\0", b"disk", bytes(300)):
                equal(client.answer_kind(option, data), wire.REP_ERR_INVALID, f"option {option}, {len(data)} bytes")
        client.ask_info(OPT_GO, "disk")
        here.check_in_step(client)  # a simple reply: nothing was negotiated


@test(quick=True)
def rule_06_should_refuse_data_on_extended_headers(env):
    need_style(EXTENDED)
    with served(env) as here:
        client = here.greeted()
        equal(client.answer_kind(OPT_EXTENDED_HEADERS, b"\0"), wire.REP_ERR_INVALID, "with a byte")
        client.ask_info(OPT_GO, "disk")
        here.check_in_step(client)


# 7. Unknown information is ignored; INFO_EXPORT is always told; INFO and GO say the same.


@test(quick=True)
def rule_07_must_ignore_unknown_information(env):
    with served(env) as here:
        client = here.greeted()
        for infos in ((), (0xFFFF,), (4, 0x1234, 0), tuple(range(200))):
            found = client.ask_info(OPT_INFO, "disk", infos)
            check(set(found) <= {0, 1, 2, 3}, f"information told: {sorted(found)}")
        client.ask_info(OPT_GO, "disk", (0x7FFF, 3, 0x8000))
        here.check_in_step(client)


@test(quick=True)
def rule_07_tells_an_information_once_that_was_asked_for_thousands_of_times(env):
    """Clients must not do that; what it costs the server is up to the server."""
    with served(env) as here:
        client = here.greeted()
        for option in (OPT_INFO, OPT_GO):
            found = client.ask_info(option, "disk", (wire.INFO_NAME, wire.INFO_BLOCK_SIZE, 0, 77) * 2000)  # fails on the second
            check({wire.INFO_NAME, wire.INFO_BLOCK_SIZE} <= set(found), f"information told: {sorted(found)}")
        here.check_in_step(client)


@test(over=[(SIMPLE,), (STRUCTURED,), (EXTENDED,)], quick=True)
def rule_07_must_tell_the_same_at_info_and_go(env, style):
    need_style(style)
    with served(env) as here:
        client = here.greeted(style)
        wanted = (wire.INFO_NAME, wire.INFO_DESCRIPTION, wire.INFO_BLOCK_SIZE)
        before = client.ask_info(OPT_INFO, "disk", wanted)
        equal(client.ask_info(OPT_GO, "disk", wanted), before, "what GO told, against INFO")
        here.check_in_step(client)


MALFORMED_INFO = {
    "no data": b"",
    "half a length": b"\0\0",
    "a name that is not there": struct.pack(">I", 4),
    "a name too long for its data": struct.pack(">IH", 0xFFFFFFFF, 0),
    "no number of informations": struct.pack(">I", 4) + b"disk",
    "fewer informations than said": struct.pack(">I4sHH", 4, b"disk", 2, 3),
    "more informations than said": struct.pack(">I4sHHH", 4, b"disk", 1, 3, 0),
    "half an information": struct.pack(">I4sHHB", 4, b"disk", 1, 3, 0),
}


@test(quick=True)
def rule_07_must_refuse_malformed_info_and_go(env):
    with served(env) as here:
        client = here.greeted()
        for what, data in MALFORMED_INFO.items():
            for option in (OPT_INFO, OPT_GO):
                equal(client.answer_kind(option, data), wire.REP_ERR_INVALID, f"option {option} with {what}")
        client.ask_info(OPT_GO, "disk")
        here.check_in_step(client)


@test(quick=True)
def rule_07_should_name_an_unknown_export_unknown(env):
    need_names()
    with served(env) as here:
        client = here.greeted()
        for option in (OPT_INFO, OPT_GO):
            data = wire.pack_info_request("nothing")
            equal(client.answer_kind(option, data), wire.REP_ERR_UNKNOWN, f"option {option}")
        client.ask_info(OPT_GO, "disk")


# 8. Never BLOCK_SIZE_REQD: nbd-client asks for no information and takes every error but UNSUP for fatal.


@test(over=[(SIMPLE,), (STRUCTURED,), (EXTENDED,)], quick=True)
def rule_08_must_not_require_that_sizes_are_asked_for(env, style):
    need_style(style)
    with served(env) as here:
        client = here.greeted(style)
        for option in (OPT_INFO, OPT_GO):
            client.ask_info(option, "disk", ())  # fails on any error
        here.check_in_step(client)


# 9. Meta contexts.


@test(over=CONTEXT_STYLES, quick=True)
def rule_09_must_list_all_contexts_without_a_query(env, style):
    need_style(style)
    with served(env) as here:
        client = here.greeted(style)
        every = client.ask_contexts(OPT_LIST_META_CONTEXT, "disk", ())
        check(ALLOCATION in every, f"contexts listed: {every}")


@test(over=CONTEXT_STYLES, quick=True)
def rule_09_must_take_base_for_a_wildcard_in_list_only(env, style):
    need_style(style)
    with served(env) as here:
        client = here.greeted(style)
        for queries in (("base:",), (ALLOCATION,), ("x-nothing:", "base:"), ("base:", ALLOCATION)):
            found = client.ask_contexts(OPT_LIST_META_CONTEXT, "disk", queries)
            equal(list(found), [ALLOCATION], f"LIST with {queries}")
        equal(client.ask_contexts(OPT_SET_META_CONTEXT, "disk", ("base:",)), {}, "SET with base:")


@test(over=CONTEXT_STYLES, quick=True)
def rule_09_must_ignore_unknown_contexts(env, style):
    need_style(style)
    unknown = ("x-millrace:", "x-a:b", "qemu:dirty-bitmap:none", "base:nothing", "base:allocatio", "base:allocation2", "bas:")
    with served(env) as here:
        client = here.greeted(style)
        for option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
            equal(client.ask_contexts(option, "disk", unknown), {}, f"option {option}")
        found = client.ask_contexts(OPT_SET_META_CONTEXT, "disk", (*unknown, ALLOCATION))
        equal(list(found), [ALLOCATION], "SET with a known one among them")


@test(over=CONTEXT_STYLES, quick=True)
def rule_09_must_choose_none_without_a_query(env, style):
    need_style(style)
    with served(env) as here:
        client = here.greeted(style)
        client.ask_contexts(OPT_SET_META_CONTEXT, "disk", (ALLOCATION,))
        equal(client.ask_contexts(OPT_SET_META_CONTEXT, "disk", ()), {}, "SET without a query")
        client.ask_info(OPT_GO, "disk")
        check_no_status(client)


def check_no_status(client):
    """BLOCK_STATUS is refused: no context is chosen."""
    client.contexts = ()
    equal(client.call(wire.CMD_BLOCK_STATUS, 0, 4096)[0], wire.EINVAL, "BLOCK_STATUS without a context")


@test(over=CONTEXT_STYLES, quick=True)
def rule_09_must_choose_a_context_once(env, style):
    need_style(style)
    with served(env) as here:
        client = here.greeted(style)
        found = client.ask_contexts(OPT_SET_META_CONTEXT, "disk", (ALLOCATION,) * 5)
        equal(list(found), [ALLOCATION], "SET with the same five times")
        client.ask_info(OPT_GO, "disk")
        client.status(0, MIB)


@test(over=CONTEXT_STYLES, quick=True)
def rule_09_must_forget_the_earlier_choice_even_when_set_fails(env, style):
    need_style(style)
    with served(env) as here:
        for data in (wire.pack_queries("nothing", (ALLOCATION,)), b"\0", wire.pack_queries("disk", ("bas:",))):
            if PEER == "nbdkit" and b"nothing" in data:
                continue
            client = here.greeted(style)
            client.ask_contexts(OPT_SET_META_CONTEXT, "disk", (ALLOCATION,))
            client.ask(OPT_SET_META_CONTEXT, data)
            client.ask_info(OPT_GO, "disk")
            check_no_status(client)


@test(over=CONTEXT_STYLES, quick=True)
def rule_09_list_does_not_touch_what_set_chose(env, style):
    need_style(style)
    with served(env) as here:
        client = here.greeted(style)
        client.ask_contexts(OPT_SET_META_CONTEXT, "disk", (ALLOCATION,))
        client.ask_contexts(OPT_LIST_META_CONTEXT, "disk", ("x-nothing:",))
        client.ask_info(OPT_GO, "disk")
        client.status(0, MIB)


MALFORMED_QUERIES = {
    "no data": b"",
    "half a length": b"\0\0\0",
    "a name that is not there": struct.pack(">I", 4),
    "a name past the option": struct.pack(">II", 5, 0) + b"",
    "no number of queries": struct.pack(">I4s", 4, b"disk"),
    "a query that is not there": struct.pack(">I4sI", 4, b"disk", 1),
    "a query past the option": struct.pack(">I4sII", 4, b"disk", 1, 6) + b"base:",
    "a query of 4 GiB": struct.pack(">I4sII", 4, b"disk", 1, 0xFFFFFFFF) + b"base:",
    "4 G queries": struct.pack(">I4sII", 4, b"disk", 0xFFFFFFFF, 5) + b"base:",
    "bytes after the last query": struct.pack(">I4sII", 4, b"disk", 1, 5) + b"base:x",
    "bytes and no query": struct.pack(">I4sI", 4, b"disk", 0) + b"x",
}


@test(over=CONTEXT_STYLES, quick=True)
def rule_09_must_refuse_queries_that_overrun_the_option(env, style):
    need_style(style)
    with served(env) as here:
        client = here.greeted(style)
        for what, data in MALFORMED_QUERIES.items():
            for option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
                if PEER and what in ("bytes after the last query", "bytes and no query"):
                    continue  # neither looks behind the last
                equal(client.answer_kind(option, data), wire.REP_ERR_INVALID, f"option {option} with {what}")
        client.ask_info(OPT_GO, "disk")
        here.check_in_step(client)


@test(quick=True)
def rule_09_should_refuse_contexts_before_structured_replies(env):
    with served(env) as here:
        client = here.greeted()
        data = wire.pack_queries("disk", (ALLOCATION,))
        equal(client.answer_kind(OPT_SET_META_CONTEXT, data), wire.REP_ERR_INVALID, "SET")
        kind = client.answer_kind(OPT_LIST_META_CONTEXT, data)
        check(kind in (wire.REP_ERR_INVALID, wire.REP_ACK), f"LIST: {kind:#x}")  # peers answer it
        client.ask_info(OPT_GO, "disk")
        check_no_status(client)
        here.check_in_step(client)


@test(over=CONTEXT_STYLES, quick=True)
def rule_09_should_name_an_unknown_export_unknown(env, style):
    need_style(style)
    need_names()
    with served(env) as here:
        client = here.greeted(style)
        data = wire.pack_queries("nothing", (ALLOCATION,))
        for option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
            equal(client.answer_kind(option, data), wire.REP_ERR_UNKNOWN, f"option {option}")


@test(over=CONTEXT_STYLES, quick=True)
def rule_09_must_not_use_contexts_chosen_for_another_export(env, style):
    """The client broke a rule: its GO names another export than its SET did."""
    need_ours("has one export")
    other = env.file(MIB, random_bytes(MIB))
    with served(env, lines=("[export other]", f"path = {other}")) as here:
        client = here.greeted(style)
        client.ask_contexts(OPT_SET_META_CONTEXT, "disk", (ALLOCATION,))
        client.ask_info(OPT_GO, "other")
        check_no_status(client)
        same_bytes(client.read(0, 512), random_bytes(MIB)[:512], "a read")


# 10. While shutting down, options are answered with ERR_SHUTDOWN.


@test(quick=True)
def rule_10_should_answer_options_with_shutdown(env):
    need_ours("ends its connections")
    with served(env) as here:
        client = here.greeted()
        here.check_bystander()
        here.daemon.send_signal(signal.SIGTERM)
        here.daemon.judged = True
        try:
            while not is_error(kind := client.answer_kind(OPT_LIST)):
                pass
        except (wire.Closed, ConnectionError):
            raise Failure("closed without ERR_SHUTDOWN") from None
        equal(kind, wire.REP_ERR_SHUTDOWN, "answer after SIGTERM")
        equal(here.daemon.wait_exit(), 0, "exit code")
        here.daemon.check_log()
        here.read_only = True  # the bystander has nobody to talk to


# 17. What sizes may be told.


def is_power_of_2(value):
    return value > 0 and value & (value - 1) == 0


@test(over=[(SIMPLE,), (STRUCTURED,), (EXTENDED,)], quick=True)
def rule_17_must_tell_sizes_within_their_bounds(env, style):
    need_style(style)
    with served(env) as here:
        client = here.greeted(style)
        found = client.ask_info(OPT_INFO, "disk", (wire.INFO_BLOCK_SIZE,))
        equal(len(found[wire.INFO_BLOCK_SIZE]), 12, "bytes of INFO_BLOCK_SIZE after its type")
        least, preferred, payload = struct.unpack(">III", found[wire.INFO_BLOCK_SIZE])
        check(is_power_of_2(least) and least <= 65536, f"minimum {least}")
        check(is_power_of_2(preferred) and preferred >= max(least, 512), f"preferred {preferred}")
        check(payload >= max(preferred, MIB), f"maximum payload {payload}")
        equal(payload % least, 0, "rest of the payload in blocks")
        equal(SIZE_BYTES % least, 0, "rest of the size in blocks")


# 18. Whoever did not ask gets 1, 4096 and 32 MiB.


@test(over=[(SIMPLE,), (STRUCTURED,), (EXTENDED,)], quick=[(SIMPLE,)])
def rule_18_should_serve_the_default_sizes_unasked(env, style):
    need_style(style)
    with served(env, size_bytes=64 * MIB) as here:
        client = here.transmitting(style)
        for offset, length in ((PATTERN_AT + 1, 1), (PATTERN_AT + 4096, 4096), (PATTERN_AT + 513, 77), (7, 32 * MIB)):
            data = random_bytes(length, offset)
            client.write(offset, data)
            same_bytes(client.read(offset, length), data, f"{length} bytes at {offset}")
