"""Sessions of NBD as lists of messages, valid ones and spoiled ones, from a random number generator.

All that is random comes from the generator: the same seed makes the same bytes.
"""

import struct

import wire
from wire_replies import EXTENDED, SIMPLE, STRUCTURED

EXPORTS = ("disk", "memory", "locked", "faulty", "cached", "", "nothing")
CONTEXTS = ("base:allocation", "base:", "base:nothing", "x-millrace:", "", "qemu:dirty-bitmap:a")
OPTIONS = (1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 4, 0x7777, 0xFFFFFFFF)
EXPORT_BYTES = 8 << 20
EDGES_32 = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
EDGES_64 = (*EDGES_32, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 512)
CLIENT_HELLO = bytes.fromhex("16030100450100004103030000000000000000000000000000000000000000000000000000000000000000000002130101000016")


def option(number, data=b""):
    return wire.pack_option(number, data)


def random_option(rng):
    """An option as a client may send it, or nearly so."""
    number = rng.choice(OPTIONS)
    if number in (wire.OPT_INFO, wire.OPT_GO):
        number = wire.OPT_INFO  # GO is for the end
        infos = [rng.choice((0, 1, 2, 3, 4, 0xFFFF)) for _ in range(rng.randrange(5))]
        return option(number, wire.pack_info_request(rng.choice(EXPORTS), infos))
    if number in (wire.OPT_LIST_META_CONTEXT, wire.OPT_SET_META_CONTEXT):
        queries = [rng.choice(CONTEXTS) for _ in range(rng.randrange(4))]
        return option(number, wire.pack_queries(rng.choice(EXPORTS), queries))
    if number in (wire.OPT_EXPORT_NAME, wire.OPT_ABORT, wire.OPT_STARTTLS):
        number = wire.OPT_LIST  # the others end what this is for
    data = rng.randbytes(rng.choice((0, 0, 0, 1, 5, 300))) if number in (4, 0x7777, 0xFFFFFFFF) else b""
    return option(number, data)


def random_request(rng, style):
    command = rng.choice((0, 0, 0, 1, 1, 3, 4, 5, 6, 7, 8, 99))
    offset = rng.choice((0, 512, 4096, 12345, rng.randrange(EXPORT_BYTES), EXPORT_BYTES - 1, rng.choice(EDGES_64)))
    length = rng.choice((1, 512, 4096, 5000, 70_000, 262_144, rng.randrange(1, 3 << 20), rng.choice(EDGES_32)))
    flags = rng.choice((0, 0, 0, 1, 2, 4, 8, 16, 3, 17, 0x8000))
    payload = b""
    if command == wire.CMD_WRITE:
        length = min(length, 200_000)
        payload = rng.randbytes(1024) * (length // 1024 + 1)
        payload = payload[:length]
        flags |= wire.CMD_FLAG_PAYLOAD_LEN if style == EXTENDED else 0
    pack = wire.pack_extended_request if style == EXTENDED else wire.pack_request
    return pack(command, offset, length, flags, rng.getrandbits(64)) + payload


def handshake(rng, style, export):
    """To the end of the negotiation."""
    messages = [struct.pack(">I", rng.choice((3, 3, 1)))]
    messages += [random_option(rng) for _ in range(rng.randrange(4))]
    if style == STRUCTURED:
        messages.append(option(wire.OPT_STRUCTURED_REPLY))
    if style == EXTENDED:
        messages.append(option(wire.OPT_EXTENDED_HEADERS))
    if style != SIMPLE and rng.random() < 0.7:
        messages.append(option(wire.OPT_SET_META_CONTEXT, wire.pack_queries(export, ("base:allocation",))))
    if style == SIMPLE and rng.random() < 0.2:
        messages.append(option(wire.OPT_EXPORT_NAME, export.encode()))
    else:
        messages.append(option(wire.OPT_GO, wire.pack_info_request(export, (3,))))
    return messages


def valid_session(rng):
    style = rng.choice((SIMPLE, STRUCTURED, EXTENDED))
    messages = handshake(rng, style, rng.choice(EXPORTS[:5]))
    messages += [random_request(rng, style) for _ in range(rng.randrange(1, 12))]
    if rng.random() < 0.5:
        pack = wire.pack_extended_request if style == EXTENDED else wire.pack_request
        messages.append(pack(wire.CMD_DISC))
    return messages


# Spoiling.


def flip_bits(rng, message):
    spoiled = bytearray(message)
    for _ in range(rng.choice((1, 1, 2, 8))):
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
    return bytes(spoiled)


def put_edge(rng, message):
    """One of the header's fields, or what looks like one, gets an extreme value."""
    form, edges = rng.choice(((">I", EDGES_32), (">Q", EDGES_64), (">H", (0, 1, 0x7FFF, 0xFFFF))))
    count = struct.calcsize(form)
    if len(message) < count:
        return message
    at = rng.randrange(min(len(message), 48) - count + 1) // 2 * 2
    return message[:at] + struct.pack(form, rng.choice(edges)) + message[at + count :]


def cut(rng, message):
    return message[: rng.randrange(len(message))]


def lengthen(rng, message):
    at = rng.randrange(len(message) + 1)
    return message[:at] + rng.randbytes(rng.choice((1, 3, 64, 5000))) + message[at:]


SPOILERS = (flip_bits, put_edge, cut, lengthen)


def spoil(rng, messages):
    """The session with some of it wrong: bytes, fields, lengths, order, number."""
    messages = list(messages)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not messages:
            break
        index = rng.randrange(len(messages))
        choice = rng.randrange(8)
        if choice < 4:
            if messages[index]:
                messages[index] = SPOILERS[choice](rng, messages[index])
        elif choice == 4:
            del messages[index]
        elif choice == 5:
            messages.insert(rng.randrange(len(messages) + 1), messages[index])
        elif choice == 6:
            rng.shuffle(messages)
        else:
            messages[index : index + 1] = [messages[index]] * rng.choice((2, 20, 200))
    return messages


def pieces(rng, data):
    """DATA as it is handed to the socket: whole, byte by byte, or cut anywhere."""
    way = rng.randrange(3)
    if way == 0 or not data:
        return [data]
    if way == 1:
        return [data[at : at + 1] for at in range(min(len(data), 400))] + [data[400:]]
    found, at = [], 0
    while at < len(data):
        count = rng.choice((1, 2, 7, 16, 27, 28, 29, 1000, 20_000, 200_000))
        found.append(data[at : at + count])
        at += count
    return found


def recorded_session(style):
    """A short session that uses everything, always the same."""
    messages = [struct.pack(">I", 3), option(wire.OPT_LIST), option(0x7777, b"abc")]
    messages += [option(wire.OPT_INFO, wire.pack_info_request("disk", (1, 2, 3)))]
    if style == STRUCTURED:
        messages.append(option(wire.OPT_STRUCTURED_REPLY))
    if style == EXTENDED:
        messages.append(option(wire.OPT_EXTENDED_HEADERS))
    if style != SIMPLE:
        messages.append(option(wire.OPT_LIST_META_CONTEXT, wire.pack_queries("disk", ())))
        messages.append(option(wire.OPT_SET_META_CONTEXT, wire.pack_queries("disk", ("base:allocation",))))
    messages.append(option(wire.OPT_GO, wire.pack_info_request("disk", (3,))))
    pack = wire.pack_extended_request if style == EXTENDED else wire.pack_request
    payload = wire.CMD_FLAG_PAYLOAD_LEN if style == EXTENDED else 0
    messages.append(pack(wire.CMD_WRITE, 100, 50, payload, 1) + b"w" * 50)
    messages += [pack(command, 4096, 5000, 0, 2 + command) for command in (0, 4, 5, 6, 7, 77)]
    messages += [pack(wire.CMD_FLUSH, cookie=99), pack(wire.CMD_DISC)]
    return b"".join(messages)
