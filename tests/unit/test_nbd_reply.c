/* Replies byte by byte, in each style. */
#include <criterion/criterion.h>
#include <string.h>

#include "net/nbd_reply.h"

static const struct nbd_header header = {
	.command = NBD_CMD_READ, .cookie = 0x0102030405060708ull, .offset = 0x1000, .length = 0x2000
};

/* What is written must be EXPECTED, and nothing behind it. */
static void
assert_bytes(const uint8_t *out, unsigned bytes, const uint8_t *expected, size_t expected_bytes)
{
	cr_assert_eq(bytes, expected_bytes);
	cr_assert_arr_eq(out, expected, expected_bytes);
	for (size_t i = expected_bytes; i < NBD_REPLY_BYTES_MAX; i++)
		cr_assert_eq(out[i], 0xee, "byte %zu", i);
}

#define ASSERT_REPLY(call, ...)                                      \
	do {                                                         \
		static const uint8_t expected[] = { __VA_ARGS__ };   \
		uint8_t out[NBD_REPLY_BYTES_MAX];                    \
                                                                     \
		memset(out, 0xee, sizeof(out));                      \
		assert_bytes(out, call, expected, sizeof(expected)); \
	} while (0)

#define SIMPLE	   0x67, 0x44, 0x66, 0x98
#define STRUCTURED 0x66, 0x8e, 0x33, 0xef
#define EXTENDED   0x6e, 0x8a, 0x27, 0x8c
#define COOKIE	   1, 2, 3, 4, 5, 6, 7, 8
#define OFFSET	   0, 0, 0, 0, 0, 0, 0x10, 0

Test(nbd_reply, done_is_a_simple_reply_or_an_empty_chunk)
{
	ASSERT_REPLY(nbd_reply_done(out, NBD_STYLE_SIMPLE, &header), SIMPLE, 0, 0, 0, 0, COOKIE);
	ASSERT_REPLY(nbd_reply_done(out, NBD_STYLE_STRUCTURED, &header), STRUCTURED, 0, 1, 0, 0,
		     COOKIE, 0, 0, 0, 0);
	ASSERT_REPLY(nbd_reply_done(out, NBD_STYLE_EXTENDED, &header), EXTENDED, 0, 1, 0, 0, COOKIE,
		     OFFSET, 0, 0, 0, 0, 0, 0, 0, 0);
}

Test(nbd_reply, error_has_its_message_unless_it_is_simple)
{
	ASSERT_REPLY(nbd_reply_error(out, NBD_STYLE_SIMPLE, &header, NBD_ENOSPC, "full"), SIMPLE, 0,
		     0, 0, 28, COOKIE);
	ASSERT_REPLY(nbd_reply_error(out, NBD_STYLE_STRUCTURED, &header, NBD_ENOSPC, "full"),
		     STRUCTURED, 0, 1, 0x80, 1, COOKIE, 0, 0, 0, 10, 0, 0, 0, 28, 0, 4, 'f', 'u',
		     'l', 'l');
	ASSERT_REPLY(nbd_reply_error(out, NBD_STYLE_EXTENDED, &header, NBD_ENOSPC, "full"),
		     EXTENDED, 0, 1, 0x80, 1, COOKIE, OFFSET, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 28,
		     0, 4, 'f', 'u', 'l', 'l');
}

Test(nbd_reply, error_at_an_offset_names_it_behind_the_message)
{
	ASSERT_REPLY(nbd_reply_error_at(out, NBD_STYLE_SIMPLE, &header, NBD_EIO, 0x1234, "bad"),
		     SIMPLE, 0, 0, 0, 5, COOKIE);
	ASSERT_REPLY(nbd_reply_error_at(out, NBD_STYLE_STRUCTURED, &header, NBD_EIO, 0x1234, "bad"),
		     STRUCTURED, 0, 1, 0x80, 2, COOKIE, 0, 0, 0, 17, 0, 0, 0, 5, 0, 3, 'b', 'a',
		     'd', 0, 0, 0, 0, 0, 0, 0x12, 0x34);
	ASSERT_REPLY(nbd_reply_error_at(out, NBD_STYLE_EXTENDED, &header, NBD_EIO, 0x1234, "bad"),
		     EXTENDED, 0, 1, 0x80, 2, COOKIE, OFFSET, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 5,
		     0, 3, 'b', 'a', 'd', 0, 0, 0, 0, 0, 0, 0x12, 0x34);
}

Test(nbd_reply, long_message_is_cut)
{
	char message[1000];
	uint8_t out[NBD_REPLY_BYTES_MAX + 1];
	unsigned bytes;

	memset(message, 'x', sizeof(message) - 1);
	message[sizeof(message) - 1] = 0;
	out[NBD_REPLY_BYTES_MAX] = 0x5a;
	bytes = nbd_reply_error_at(out, NBD_STYLE_EXTENDED, &header, NBD_EIO, 1, message);
	cr_assert_eq(bytes, 32 + 6 + NBD_REPLY_MESSAGE_BYTES_MAX + 8);
	cr_assert_eq(out[31], 6 + NBD_REPLY_MESSAGE_BYTES_MAX + 8);
	cr_assert_eq(out[37], NBD_REPLY_MESSAGE_BYTES_MAX);
	cr_assert_eq(out[NBD_REPLY_BYTES_MAX], 0x5a);
}

Test(nbd_reply, data_says_where_it_is_and_whether_more_follows)
{
	ASSERT_REPLY(nbd_reply_data(out, NBD_STYLE_SIMPLE, &header, 0x1000, 0x2000, true), SIMPLE,
		     0, 0, 0, 0, COOKIE);
	ASSERT_REPLY(nbd_reply_data(out, NBD_STYLE_STRUCTURED, &header, 0x1000, 0x2000, true),
		     STRUCTURED, 0, 1, 0, 1, COOKIE, 0, 0, 0x20, 8, OFFSET);
	ASSERT_REPLY(nbd_reply_data(out, NBD_STYLE_STRUCTURED, &header, 0x1800, 0x200, false),
		     STRUCTURED, 0, 0, 0, 1, COOKIE, 0, 0, 2, 8, 0, 0, 0, 0, 0, 0, 0x18, 0);
	ASSERT_REPLY(nbd_reply_data(out, NBD_STYLE_EXTENDED, &header, 0x1800, 0x200, false),
		     EXTENDED, 0, 0, 0, 1, COOKIE, OFFSET, 0, 0, 0, 0, 0, 0, 2, 8, 0, 0, 0, 0, 0, 0,
		     0x18, 0);
}

Test(nbd_reply, hole_has_an_offset_and_a_length)
{
	ASSERT_REPLY(nbd_reply_hole(out, NBD_STYLE_STRUCTURED, &header, 0x1800, 0x200, true),
		     STRUCTURED, 0, 1, 0, 2, COOKIE, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0x18, 0, 0, 0,
		     2, 0);
	ASSERT_REPLY(nbd_reply_hole(out, NBD_STYLE_EXTENDED, &header, 0x1800, 0x200, false),
		     EXTENDED, 0, 0, 0, 2, COOKIE, OFFSET, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0,
		     0, 0x18, 0, 0, 0, 2, 0);
}

Test(nbd_reply, status_announces_its_descriptors)
{
	ASSERT_REPLY(nbd_reply_status(out, NBD_STYLE_STRUCTURED, &header, 3), STRUCTURED, 0, 1, 0,
		     5, COOKIE, 0, 0, 0, 28, 0, 0, 0, 1);
	ASSERT_REPLY(nbd_reply_status(out, NBD_STYLE_EXTENDED, &header, 3), EXTENDED, 0, 1, 0, 6,
		     COOKIE, OFFSET, 0, 0, 0, 0, 0, 0, 0, 56, 0, 0, 0, 1, 0, 0, 0, 3);
}

Test(nbd_reply, extents_become_descriptors_in_place)
{
	static const uint8_t compact[16] = { 0,	   0,	 0x10, 0,    0, 0, 0, 3,
					     0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0 };
	static const uint8_t wide[32] = { 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 3,
					  1, 0, 0, 0, 0, 0, 0,	  0, 0, 0, 0, 0, 0, 0, 0, 2 };
	struct volume_extent extents[2] = { { 0x1000, VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO },
					    { UINT32_MAX, 0 } };
	struct volume_extent large[2] = { extents[0], { 1ull << 56, VOLUME_EXTENT_ZERO } };

	cr_assert_eq(nbd_reply_descriptors(extents, 2, NBD_STYLE_STRUCTURED), sizeof(compact));
	cr_assert_arr_eq((const uint8_t *)extents, compact, sizeof(compact));
	cr_assert_eq(nbd_reply_descriptors(large, 2, NBD_STYLE_EXTENDED), sizeof(wide));
	cr_assert_arr_eq((const uint8_t *)large, wide, sizeof(wide));
}
