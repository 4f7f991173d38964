/* Parsing and validating requests: every command at and over every bound. */
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "net/nbd_wire.h"

#define SIZE_BYTES 1000003ull

/* It has grown since the clients were told SIZE_BYTES. */
static struct volume volume = { .size_bytes = 2 * SIZE_BYTES, .block_bytes = 512, .trims = true };
static const struct export writable = { .name = "a", .volume = &volume };
static const struct export read_only = { .name = "b", .volume = &volume, .read_only = true };

static enum nbd_error
validate_in(const struct nbd_session *session, uint16_t command, uint16_t flags, uint64_t offset,
	    uint64_t length)
{
	struct nbd_header header = {
		.flags = flags, .command = command, .offset = offset, .length = length
	};
	const char *why = NULL;
	enum nbd_error error = nbd_header_validate(&header, session, &why);

	/* Who is refused is told why. */
	cr_assert_eq(error == NBD_SUCCESS, why == NULL);
	return error;
}

/* Of a client with simple replies. */
static enum nbd_error
validate(const struct export *export, uint16_t command, uint16_t flags, uint64_t offset,
	 uint64_t length)
{
	struct nbd_session session = {
		.export = export,
		.size_bytes = export->volume == &volume ? SIZE_BYTES : export->volume->size_bytes,
	};

	return validate_in(&session, command, flags, offset, length);
}

static const struct nbd_session structured = { .export = &writable,
					       .size_bytes = SIZE_BYTES,
					       .style = NBD_STYLE_STRUCTURED,
					       .allocation = true };
static const struct nbd_session extended = { .export = &writable,
					     .size_bytes = SIZE_BYTES,
					     .style = NBD_STYLE_EXTENDED,
					     .allocation = true };

Test(nbd_wire, header_is_read_in_network_order)
{
	const uint8_t bytes[28] = { 0x25, 0x60, 0x95, 0x13, 0x00, 0x01, 0x00, 0x02, 1, 2,
				    3,	  4,	5,    6,    7,	  8,	0,    0,    0, 9,
				    10,	  11,	12,   13,   0,	  0,	16,   0 };
	struct nbd_header header;

	cr_assert_eq(nbd_header_parse(bytes, NBD_STYLE_SIMPLE, &header), 0);
	cr_assert_eq(header.flags, 1);
	cr_assert_eq(header.command, 2);
	cr_assert_eq(header.cookie, 0x0102030405060708ull);
	cr_assert_eq(header.offset, 0x000000090a0b0c0dull);
	cr_assert_eq(header.length, 4096);
}

Test(nbd_wire, wrong_magic_is_refused_and_changes_nothing)
{
	uint8_t bytes[28] = { 0x25, 0x60, 0x95, 0x12 };
	struct nbd_header header = { .cookie = 77 };

	cr_assert_eq(nbd_header_parse(bytes, NBD_STYLE_SIMPLE, &header), -EBADMSG);
	cr_assert_eq(header.cookie, 77);
}

Test(nbd_wire, reads_end_with_the_export)
{
	cr_assert_eq(validate(&writable, NBD_CMD_READ, 0, SIZE_BYTES - 1, 1), NBD_SUCCESS);
	cr_assert_eq(validate(&writable, NBD_CMD_READ, 0, 0, SIZE_BYTES), NBD_SUCCESS);
	cr_assert_eq(validate(&writable, NBD_CMD_READ, 0, SIZE_BYTES - 1, 2), NBD_EINVAL);
	cr_assert_eq(validate(&writable, NBD_CMD_READ, 0, SIZE_BYTES, 1), NBD_EINVAL);
}

Test(nbd_wire, writes_past_the_end_have_no_space)
{
	cr_assert_eq(validate(&writable, NBD_CMD_WRITE, 0, SIZE_BYTES - 1, 1), NBD_SUCCESS);
	cr_assert_eq(validate(&writable, NBD_CMD_WRITE, 0, SIZE_BYTES - 1, 2), NBD_ENOSPC);
	cr_assert_eq(validate(&writable, NBD_CMD_WRITE, 0, SIZE_BYTES, 1), NBD_ENOSPC);
}

Test(nbd_wire, sum_of_offset_and_length_does_not_wrap)
{
	cr_assert_eq(validate(&writable, NBD_CMD_READ, 0, UINT64_MAX, 1), NBD_EINVAL);
	cr_assert_eq(validate(&writable, NBD_CMD_READ, 0, UINT64_MAX - 4095, 4096), NBD_EINVAL);
	cr_assert_eq(validate(&writable, NBD_CMD_WRITE, 0, UINT64_MAX - 4095, 4096), NBD_ENOSPC);
}

Test(nbd_wire, no_length_and_too_much_are_invalid)
{
	struct volume large = { .size_bytes = 1ull << 40, .block_bytes = 512 };
	struct export export = { .name = "large", .volume = &large };

	for (uint16_t command = NBD_CMD_READ; command <= NBD_CMD_WRITE; command++) {
		cr_assert_eq(validate(&export, command, 0, 0, 0), NBD_EINVAL);
		cr_assert_eq(validate(&export, command, 0, 0, EXPORT_PAYLOAD_BYTES_MAX),
			     NBD_SUCCESS);
		cr_assert_eq(validate(&export, command, 0, 0, EXPORT_PAYLOAD_BYTES_MAX + 1),
			     NBD_EINVAL);
		cr_assert_eq(validate(&export, command, 0, 0, UINT32_MAX), NBD_EINVAL);
	}
}

/* One chunk is no larger than what clients are told. */
Test(nbd_wire, reads_that_may_not_be_fragmented_have_a_limit_of_their_own)
{
	struct volume large = { .size_bytes = 1ull << 40, .block_bytes = 512 };
	struct export export = { .name = "large", .volume = &large };
	struct nbd_session session = { .export = &export,
				       .size_bytes = large.size_bytes,
				       .style = NBD_STYLE_STRUCTURED };
	struct nbd_header header = { .command = NBD_CMD_READ,
				     .flags = NBD_CMD_FLAG_DF,
				     .length = EXPORT_PAYLOAD_BYTES_TOLD };
	const char *why;

	cr_assert_eq(nbd_header_validate(&header, &session, &why), NBD_SUCCESS);
	header.length++;
	cr_assert_eq(nbd_header_validate(&header, &session, &why), NBD_EOVERFLOW);
	header.flags = 0;
	cr_assert_eq(nbd_header_validate(&header, &session, &why), NBD_SUCCESS);
}

Test(nbd_wire, trims_and_zeroes_may_be_as_long_as_the_export)
{
	struct volume large = { .size_bytes = 1ull << 40, .trims = true };
	struct export export = { .name = "large", .volume = &large };
	struct nbd_session session = { .export = &export,
				       .size_bytes = large.size_bytes,
				       .style = NBD_STYLE_EXTENDED };

	for (uint16_t command = NBD_CMD_TRIM; command <= NBD_CMD_WRITE_ZEROES; command++) {
		cr_assert_eq(validate(&export, command, 0, 0, UINT32_MAX), NBD_SUCCESS);
		cr_assert_eq(validate_in(&session, command, 0, 0, 1ull << 40), NBD_SUCCESS);
		cr_assert_eq(validate_in(&session, command, 0, 0, 0), NBD_EINVAL);
		cr_assert_eq(validate_in(&session, command, 0, 1, 1ull << 40),
			     command == NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC : NBD_EINVAL);
		cr_assert_eq(validate_in(&session, command, 0, 4096, UINT64_MAX),
			     command == NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC : NBD_EINVAL);
	}
}

Test(nbd_wire, whoever_writes_to_a_read_only_export_is_not_permitted)
{
	cr_assert_eq(validate(&read_only, NBD_CMD_WRITE, 0, 0, 1), NBD_EPERM);
	cr_assert_eq(validate(&read_only, NBD_CMD_TRIM, 0, 0, 1), NBD_EPERM);
	cr_assert_eq(validate(&read_only, NBD_CMD_WRITE_ZEROES, 0, 0, 1), NBD_EPERM);
	cr_assert_eq(validate(&read_only, NBD_CMD_READ, 0, 0, 1), NBD_SUCCESS);
	cr_assert_eq(validate(&read_only, NBD_CMD_CACHE, 0, 0, 1), NBD_SUCCESS);
	cr_assert_eq(validate(&read_only, NBD_CMD_FLUSH, 0, 0, 0), NBD_SUCCESS);
}

Test(nbd_wire, fua_is_legal_everywhere_and_no_flag_where_it_is_not_defined)
{
	static const struct {
		uint16_t command;
		uint16_t simple, structured, extended; /* flags beside FUA */
	} cases[] = {
		{ NBD_CMD_READ, 0, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_DF },
		{ NBD_CMD_WRITE, 0, 0, NBD_CMD_FLAG_PAYLOAD_LEN },
		{ NBD_CMD_DISC, 0, 0, 0 },
		{ NBD_CMD_FLUSH, 0, 0, 0 },
		{ NBD_CMD_TRIM, 0, 0, 0 },
		{ NBD_CMD_CACHE, 0, 0, 0 },
		{ NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
		  NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
		  NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO },
		{ NBD_CMD_BLOCK_STATUS, 0, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_FLAG_REQ_ONE },
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		uint16_t command = cases[i].command;

		cr_assert_eq(validate_in(&structured, command, NBD_CMD_FLAG_FUA, 0, 1),
			     NBD_SUCCESS);
		for (unsigned bit = 1; bit < 16; bit++) {
			uint16_t flag = (uint16_t)(1u << bit);
			bool known = command != NBD_CMD_BLOCK_STATUS;

			cr_assert_eq(validate(&writable, command, flag, 0, 1),
				     known && (flag & cases[i].simple) != 0 ? NBD_SUCCESS
									    : NBD_EINVAL);
			cr_assert_eq(validate_in(&structured, command, flag, 0, 1),
				     (flag & cases[i].structured) != 0 ? NBD_SUCCESS : NBD_EINVAL);
			cr_assert_eq(validate_in(&extended, command, flag, 0, 1),
				     (flag & cases[i].extended) != 0 ? NBD_SUCCESS : NBD_EINVAL);
		}
	}
}

Test(nbd_wire, a_payload_follows_its_flag_and_any_write)
{
	struct nbd_header header = { .command = NBD_CMD_WRITE, .length = 512 };

	cr_assert_eq(validate_in(&extended, NBD_CMD_WRITE, 0, 0, 512), NBD_SUCCESS);
	cr_assert_eq(nbd_header_payload_bytes(&header, NBD_STYLE_EXTENDED), 512);
	cr_assert_eq(nbd_header_payload_bytes(&header, NBD_STYLE_STRUCTURED), 512);
	header.flags = NBD_CMD_FLAG_PAYLOAD_LEN;
	cr_assert_eq(nbd_header_payload_bytes(&header, NBD_STYLE_EXTENDED), 512);
	header.command = NBD_CMD_READ;
	cr_assert_eq(nbd_header_payload_bytes(&header, NBD_STYLE_EXTENDED), 512);
	cr_assert_eq(nbd_header_payload_bytes(&header, NBD_STYLE_STRUCTURED), 0);
}

Test(nbd_wire, commands_that_are_not_offered_are_invalid)
{
	struct volume plain = { .size_bytes = 4096 };
	struct export export = { .name = "plain", .volume = &plain };

	for (unsigned command = 8; command <= UINT16_MAX; command++)
		cr_assert_eq(validate_in(&extended, (uint16_t)command, 0, 0, 1), NBD_EINVAL);
	cr_assert_eq(validate(&export, NBD_CMD_TRIM, 0, 0, 1), NBD_EINVAL);
	/* No context was negotiated. */
	cr_assert_eq(validate(&writable, NBD_CMD_BLOCK_STATUS, 0, 0, 1), NBD_EINVAL);
	cr_assert_eq(validate_in(&structured, NBD_CMD_BLOCK_STATUS, 0, 0, 1), NBD_SUCCESS);
}

Test(nbd_wire, extended_header_has_64_bits_of_length)
{
	const uint8_t bytes[32] = { 0x21, 0xe4, 0x1c, 0x71, 0,	1,  0,	4,  1,	2,  3,
				    4,	  5,	6,    7,    8,	9,  10, 11, 12, 13, 14,
				    15,	  16,	17,   18,   19, 20, 21, 22, 23, 24 };
	struct nbd_header header;

	cr_assert_eq(nbd_header_bytes(NBD_STYLE_EXTENDED), 32);
	cr_assert_eq(nbd_header_bytes(NBD_STYLE_STRUCTURED), 28);
	cr_assert_eq(nbd_header_parse(bytes, NBD_STYLE_EXTENDED, &header), 0);
	cr_assert_eq(header.flags, 1);
	cr_assert_eq(header.command, 4);
	cr_assert_eq(header.cookie, 0x0102030405060708ull);
	cr_assert_eq(header.offset, 0x090a0b0c0d0e0f10ull);
	cr_assert_eq(header.length, 0x1112131415161718ull);
	cr_assert_eq(nbd_header_parse(bytes, NBD_STYLE_STRUCTURED, &header), -EBADMSG);
}

Test(nbd_wire, status_payload_says_length_and_context)
{
	const uint8_t payload[12] = { 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 1 };
	const uint8_t stranger[12] = { 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 2 };
	struct nbd_header header = { .command = NBD_CMD_BLOCK_STATUS,
				     .flags = NBD_CMD_FLAG_PAYLOAD_LEN | NBD_CMD_FLAG_REQ_ONE,
				     .length = 12 };
	const char *why = NULL;

	cr_assert(nbd_header_has_status_payload(&header, NBD_STYLE_EXTENDED));
	cr_assert_not(nbd_header_has_status_payload(&header, NBD_STYLE_STRUCTURED));
	cr_assert_eq(nbd_status_payload_parse(stranger, &header, &why), NBD_EINVAL);
	cr_assert_not_null(why);
	cr_assert_eq(nbd_status_payload_parse(payload, &header, &why), NBD_SUCCESS);
	cr_assert_eq(header.length, 0x10000000002ull);
	cr_assert_eq(header.flags, NBD_CMD_FLAG_REQ_ONE);
	header.flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
	header.length = 16; /* of two contexts: there is only one */
	cr_assert_not(nbd_header_has_status_payload(&header, NBD_STYLE_EXTENDED));
	cr_assert_eq(validate_in(&extended, header.command, header.flags, 0, 16), NBD_EINVAL);
}

Test(nbd_wire, errors_of_the_system_become_those_of_the_protocol)
{
	static const struct {
		int error;
		enum nbd_error expected;
	} cases[] = {
		{ 0, NBD_SUCCESS },	 { -EIO, NBD_EIO },	   { -ENOSPC, NBD_ENOSPC },
		{ -EDQUOT, NBD_ENOSPC }, { -EFBIG, NBD_ENOSPC },   { -EROFS, NBD_EPERM },
		{ -EPERM, NBD_EPERM },	 { -ENOMEM, NBD_EIO },	   { -EINVAL, NBD_EINVAL },
		{ -ENODEV, NBD_EIO },	 { -EOPNOTSUPP, NBD_EIO },
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
		cr_assert_eq(nbd_error_from_errno(cases[i].error), cases[i].expected, "errno %d",
			     -cases[i].error);
}
