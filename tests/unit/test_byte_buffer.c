/* The growing run of bytes. */
#include <criterion/criterion.h>
#include <string.h>

#include "net/byte_buffer.h"

Test(byte_buffer, integers_are_in_network_order)
{
	static const uint8_t expected[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 };
	struct byte_buffer buffer;

	byte_buffer_init(&buffer);
	byte_buffer_add_u16(&buffer, 0x0102);
	byte_buffer_add_u32(&buffer, 0x03040506);
	byte_buffer_add_u64(&buffer, 0x0708090a0b0c0d0eull);
	cr_assert_eq(buffer.used, sizeof(expected));
	cr_assert_arr_eq(buffer.bytes, expected, sizeof(expected));
	byte_buffer_fini(&buffer);
}

Test(byte_buffer, content_survives_growth)
{
	struct byte_buffer buffer;

	byte_buffer_init(&buffer);
	for (unsigned i = 0; i < 100000; i++)
		byte_buffer_add_u16(&buffer, (uint16_t)i);
	cr_assert_not(byte_buffer_failed(&buffer));
	cr_assert_eq(buffer.used, 200000);
	for (unsigned i = 0; i < 100000; i++)
		cr_assert_eq((buffer.bytes[2 * i] << 8) + buffer.bytes[2 * i + 1], (uint16_t)i);
	byte_buffer_fini(&buffer);
}

Test(byte_buffer, zeros_are_zeros_in_used_memory_too)
{
	struct byte_buffer buffer;
	uint8_t ones[124];

	memset(ones, 0xff, sizeof(ones));
	byte_buffer_init(&buffer);
	byte_buffer_add(&buffer, ones, sizeof(ones));
	byte_buffer_clear(&buffer);
	byte_buffer_add_zeros(&buffer, sizeof(ones));
	for (size_t i = 0; i < sizeof(ones); i++)
		cr_assert_eq(buffer.bytes[i], 0);
	byte_buffer_fini(&buffer);
}

Test(byte_buffer, nothing_needs_no_memory)
{
	struct byte_buffer buffer;

	byte_buffer_init(&buffer);
	byte_buffer_add(&buffer, NULL, 0);
	cr_assert_eq(buffer.used, 0);
	cr_assert_null(buffer.bytes);
	byte_buffer_fini(&buffer);
}
