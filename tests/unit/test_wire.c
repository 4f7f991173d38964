/* A client's requests as bytes, and every reply that a server may and may not send. */
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "bench/load/wire.h"

static uint8_t bytes[64];
static size_t byte_count;
static struct wire_reply reply;
static const char *why;

static void
put(uint64_t value, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		bytes[byte_count++] = (uint8_t)(value >> (8 * (count - 1 - i)));
}

static void
put_zeros(unsigned count)
{
	memset(bytes + byte_count, 0, count);
	byte_count += count;
}

/* A chunk of TYPE for the request 7, in STYLE, up to its payload of PAYLOAD_BYTES. */
static void
put_chunk(enum nbd_style style, uint16_t flags, uint16_t type, uint64_t payload_bytes)
{
	byte_count = 0;
	put(style == NBD_STYLE_EXTENDED ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC, 4);
	put(flags, 2);
	put(type, 2);
	put(7, 8);
	if (style == NBD_STYLE_EXTENDED)
		put(4096, 8);
	put(payload_bytes, style == NBD_STYLE_EXTENDED ? 8 : 4);
}

static int
parse(enum nbd_style style)
{
	reply = (struct wire_reply){ .length = 0 };
	return wire_parse_reply(style, bytes, byte_count, &reply, &why);
}

/* All of `bytes` is one head, and no part of it is. */
static void
check_head(enum nbd_style style, enum wire_kind kind)
{
	size_t whole = byte_count;

	for (byte_count = 0; byte_count < whole; byte_count++)
		cr_assert_eq(parse(style), 0, "%zu bytes", byte_count);
	cr_assert_eq(parse(style), (int)whole);
	cr_assert_eq(reply.kind, kind);
	cr_assert_eq(reply.cookie, 7);
}

static void
check_wrong(enum nbd_style style, const char *text)
{
	cr_assert_eq(parse(style), -EBADMSG);
	cr_assert_not_null(strstr(why, text), "%s", why);
}

static const enum nbd_style chunk_styles[] = { NBD_STYLE_STRUCTURED, NBD_STYLE_EXTENDED };

Test(wire, a_request_has_the_form_of_its_style)
{
	const struct nbd_header write = {
		.command = NBD_CMD_WRITE, .cookie = 9, .offset = 512, .length = 1024
	};
	struct nbd_header read;

	for (unsigned i = 0; i < 3; i++) {
		enum nbd_style style = (enum nbd_style)i;

		cr_assert_eq(wire_put_request(bytes, style, &write), nbd_header_bytes(style));
		cr_assert_eq(nbd_header_parse(bytes, style, &read), 0);
		cr_assert_eq(read.command, NBD_CMD_WRITE);
		cr_assert_eq(read.flags,
			     style == NBD_STYLE_EXTENDED ? NBD_CMD_FLAG_PAYLOAD_LEN : 0);
		cr_assert_eq(read.cookie, 9);
		cr_assert_eq(read.offset, 512);
		cr_assert_eq(read.length, 1024);
	}
}

Test(wire, a_simple_reply_is_for_both_of_the_older_styles)
{
	for (unsigned i = 0; i < 2; i++) {
		byte_count = 0;
		put(NBD_SIMPLE_REPLY_MAGIC, 4);
		put(NBD_EIO, 4);
		put(7, 8);
		check_head((enum nbd_style)i, WIRE_KIND_SIMPLE);
		cr_assert(reply.last);
		cr_assert_eq(reply.error, NBD_EIO);
	}
	put_zeros(16);
	check_wrong(NBD_STYLE_EXTENDED, "no reply");
}

Test(wire, data_and_holes_say_where_they_belong)
{
	for (unsigned i = 0; i < 2; i++) {
		put_chunk(chunk_styles[i], 0, NBD_CHUNK_OFFSET_DATA, 8 + 100);
		put(512, 8);
		check_head(chunk_styles[i], WIRE_KIND_DATA);
		cr_assert_not(reply.last);
		cr_assert_eq(reply.offset, 512);
		cr_assert_eq(reply.length, 100);

		put_chunk(chunk_styles[i], NBD_REPLY_FLAG_DONE, NBD_CHUNK_OFFSET_HOLE, 12);
		put(1024, 8);
		put(65536, 4);
		check_head(chunk_styles[i], WIRE_KIND_HOLE);
		cr_assert(reply.last);
		cr_assert_eq(reply.offset, 1024);
		cr_assert_eq(reply.length, 65536);
	}
}

Test(wire, an_error_has_its_message)
{
	for (unsigned i = 0; i < 2; i++) {
		put_chunk(chunk_styles[i], NBD_REPLY_FLAG_DONE, NBD_CHUNK_ERROR_OFFSET, 6 + 2 + 8);
		put(NBD_ENOSPC, 4);
		put(2, 2);
		put(('n' << 8) + 'o', 2);
		put(512, 8);
		check_head(chunk_styles[i], WIRE_KIND_ERROR);
		cr_assert_eq(reply.error, NBD_ENOSPC);
		cr_assert_eq(reply.message_bytes, 2);
		cr_assert_eq(memcmp(reply.message, "no", 2), 0);
	}
}

Test(wire, errors_of_unknown_types_are_errors)
{
	put_chunk(NBD_STYLE_STRUCTURED, NBD_REPLY_FLAG_DONE, (1 << 15) + 99, 6);
	put(NBD_EPERM, 4);
	put(0, 2);
	check_head(NBD_STYLE_STRUCTURED, WIRE_KIND_ERROR);
}

Test(wire, the_end_has_nothing_in_it)
{
	put_chunk(NBD_STYLE_STRUCTURED, NBD_REPLY_FLAG_DONE, NBD_CHUNK_NONE, 0);
	check_head(NBD_STYLE_STRUCTURED, WIRE_KIND_END);
	put_chunk(NBD_STYLE_STRUCTURED, 0, NBD_CHUNK_NONE, 0);
	check_wrong(NBD_STYLE_STRUCTURED, "not the last");
	put_chunk(NBD_STYLE_STRUCTURED, NBD_REPLY_FLAG_DONE, NBD_CHUNK_NONE, 1);
	check_wrong(NBD_STYLE_STRUCTURED, "with a payload");
}

Test(wire, what_no_server_may_send_is_wrong)
{
	static const struct {
		uint16_t type;
		uint64_t payload_bytes;
		const char *text;
	} wrongs[] = {
		{ NBD_CHUNK_OFFSET_DATA, 8, "without any" },
		{ NBD_CHUNK_OFFSET_DATA, 0, "without any" },
		{ NBD_CHUNK_OFFSET_DATA, 1ull << 32, "without any" },
		{ NBD_CHUNK_OFFSET_HOLE, 11, "hole of the wrong form" },
		{ NBD_CHUNK_OFFSET_HOLE, 13, "hole of the wrong form" },
		{ NBD_CHUNK_BLOCK_STATUS, 12, "not asked for" },
		{ NBD_CHUNK_ERROR, 5, "error of the wrong length" },
		{ NBD_CHUNK_ERROR, 5000, "error of the wrong length" },
	};

	for (unsigned i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
		put_chunk(NBD_STYLE_EXTENDED, NBD_REPLY_FLAG_DONE, wrongs[i].type,
			  wrongs[i].payload_bytes);
		check_wrong(NBD_STYLE_EXTENDED, wrongs[i].text);
	}
	put_chunk(NBD_STYLE_STRUCTURED, NBD_REPLY_FLAG_DONE, NBD_CHUNK_ERROR, 6);
	put(0, 6);
	check_wrong(NBD_STYLE_STRUCTURED, "error of the wrong form");
	put_chunk(NBD_STYLE_STRUCTURED, NBD_REPLY_FLAG_DONE, NBD_CHUNK_ERROR, 6);
	put(5, 4);
	put(1, 2);
	check_wrong(NBD_STYLE_STRUCTURED, "error of the wrong form");
	put_chunk(NBD_STYLE_STRUCTURED, NBD_REPLY_FLAG_DONE, NBD_CHUNK_OFFSET_HOLE, 12);
	put_zeros(12);
	check_wrong(NBD_STYLE_STRUCTURED, "no length");
	check_wrong(NBD_STYLE_SIMPLE, "no simple reply");
	check_wrong(NBD_STYLE_EXTENDED, "no reply");
}
