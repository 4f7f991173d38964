/* Parsing and validating requests: every command at and over every bound. */
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "net/nbd_wire.h"

#define SIZE_BYTES 1000003ull

static struct volume volume = { .size_bytes = SIZE_BYTES, .block_bytes = 512 };
static const struct export writable = { .name = "a", .volume = &volume };
static const struct export read_only = { .name = "b", .volume = &volume, .read_only = true };

static enum nbd_error
validate(const struct export *export, uint16_t command, uint16_t flags, uint64_t offset,
	 uint32_t length)
{
	struct nbd_header header = {
		.flags = flags, .command = command, .offset = offset, .length = length
	};

	return nbd_header_validate(&header, export);
}

Test(nbd_wire, header_is_read_in_network_order)
{
	const uint8_t bytes[28] = { 0x25, 0x60, 0x95, 0x13, 0x00, 0x01, 0x00, 0x02, 1, 2,
				    3,	  4,	5,    6,    7,	  8,	0,    0,    0, 9,
				    10,	  11,	12,   13,   0,	  0,	16,   0 };
	struct nbd_header header;

	cr_assert_eq(nbd_header_parse(bytes, &header), 0);
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

	cr_assert_eq(nbd_header_parse(bytes, &header), -EBADMSG);
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

Test(nbd_wire, writes_to_a_read_only_export_are_not_permitted)
{
	cr_assert_eq(validate(&read_only, NBD_CMD_WRITE, 0, 0, 1), NBD_EPERM);
	cr_assert_eq(validate(&read_only, NBD_CMD_READ, 0, 0, 1), NBD_SUCCESS);
	cr_assert_eq(validate(&read_only, NBD_CMD_FLUSH, 0, 0, 0), NBD_SUCCESS);
}

Test(nbd_wire, fua_is_legal_everywhere_and_no_other_flag_is)
{
	static const uint16_t commands[] = { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_FLUSH,
					     NBD_CMD_DISC };

	for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
		cr_assert_eq(validate(&writable, commands[i], NBD_CMD_FLAG_FUA, 0, 1), NBD_SUCCESS);
		for (unsigned bit = 1; bit < 16; bit++)
			cr_assert_eq(validate(&writable, commands[i], (uint16_t)(1u << bit), 0, 1),
				     NBD_EINVAL);
	}
}

Test(nbd_wire, unknown_commands_are_invalid)
{
	for (unsigned command = 4; command <= UINT16_MAX; command++)
		cr_assert_eq(validate(&writable, (uint16_t)command, 0, 0, 1), NBD_EINVAL);
}

Test(nbd_wire, errors_of_the_system_become_those_of_the_protocol)
{
	static const struct {
		int error;
		enum nbd_error expected;
	} cases[] = {
		{ 0, NBD_SUCCESS },	 { -EIO, NBD_EIO },	  { -ENOSPC, NBD_ENOSPC },
		{ -EDQUOT, NBD_ENOSPC }, { -EFBIG, NBD_ENOSPC },  { -EROFS, NBD_EPERM },
		{ -EPERM, NBD_EPERM },	 { -ENOMEM, NBD_ENOMEM }, { -EINVAL, NBD_EINVAL },
		{ -ENODEV, NBD_EIO },	 { -EREMOTEIO, NBD_EIO },
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
		cr_assert_eq(nbd_error_from_errno(cases[i].error), cases[i].expected, "errno %d",
			     -cases[i].error);
}

Test(nbd_wire, simple_reply_is_written_in_network_order)
{
	static const uint8_t expected[16] = { 0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28,
					      1,    2,	  3,	4,    5, 6, 7, 8 };
	struct nbd_wire_simple_reply reply;

	nbd_simple_reply_format(&reply, 0x0102030405060708ull, NBD_ENOSPC);
	cr_assert_arr_eq(&reply, expected, sizeof(expected));
}
