/* The handshake, bytes in and bytes out. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/handshake.h"
#include "net/nbd.h"
#include "tests/unit/seed.h"

static struct volume volume = { .size_bytes = 10000003, .block_bytes = 512 };
static struct volume volume_4k = { .size_bytes = 1 << 20, .block_bytes = 8192, .read_only = true };
static struct export exports[] = {
	{ .name = "disk", .description = "A disk", .volume = &volume },
	{ .name = "rom", .volume = &volume_4k, .read_only = true },
};
static const struct export_table table = { .exports = exports, .count = ARRAY_COUNT(exports) };

/* A handshake with what a client has sent and not yet been taken. */
struct trial {
	struct handshake handshake;
	struct byte_buffer sent;
	size_t taken;
};

static void
trial_init(struct trial *trial)
{
	handshake_init(&trial->handshake, &table);
	byte_buffer_clear(&trial->handshake.reply);
	byte_buffer_init(&trial->sent);
	trial->taken = 0;
}

static void
trial_fini(struct trial *trial)
{
	handshake_fini(&trial->handshake);
	byte_buffer_fini(&trial->sent);
}

/* Take steps until the machine wants more, answers, or ends. */
static enum handshake_result
trial_run(struct trial *trial)
{
	enum handshake_result result;

	byte_buffer_clear(&trial->handshake.reply);
	do {
		size_t consumed, left = trial->sent.used - trial->taken;

		result = handshake_step(&trial->handshake, trial->sent.bytes + trial->taken, left,
					&consumed);
		cr_assert_leq(consumed, left);
		trial->taken += consumed;
	} while (result == HANDSHAKE_REPLY && trial->handshake.reply.used == 0);
	return result;
}

static void
send_flags(struct trial *trial, uint32_t flags)
{
	byte_buffer_add_u32(&trial->sent, flags);
}

static void
send_option(struct trial *trial, uint32_t option, const void *data, size_t bytes)
{
	byte_buffer_add_u64(&trial->sent, NBD_OPTION_MAGIC);
	byte_buffer_add_u32(&trial->sent, option);
	byte_buffer_add_u32(&trial->sent, (uint32_t)bytes);
	byte_buffer_add(&trial->sent, data, bytes);
}

/* INFO or GO for NAME, with INFO_COUNT infos. */
static void
send_info(struct trial *trial, uint32_t option, const char *name, const uint16_t *infos,
	  uint16_t info_count)
{
	struct byte_buffer data;

	byte_buffer_init(&data);
	byte_buffer_add_u32(&data, (uint32_t)strlen(name));
	byte_buffer_add(&data, name, strlen(name));
	byte_buffer_add_u16(&data, info_count);
	for (uint16_t i = 0; i < info_count; i++)
		byte_buffer_add_u16(&data, infos[i]);
	send_option(trial, option, data.bytes, data.used);
	byte_buffer_fini(&data);
}

static uint64_t
number_at(const struct byte_buffer *buffer, size_t offset, unsigned bytes)
{
	uint64_t number = 0;

	cr_assert_leq(offset + bytes, buffer->used);
	for (unsigned i = 0; i < bytes; i++)
		number = number << 8 | buffer->bytes[offset + i];
	return number;
}

/* Check the reply at OFFSET.  Returns the offset of the next one. */
static size_t
assert_reply(const struct trial *trial, size_t offset, uint32_t option, uint32_t reply)
{
	const struct byte_buffer *buffer = &trial->handshake.reply;

	cr_assert_eq(number_at(buffer, offset, 8), NBD_OPTION_REPLY_MAGIC);
	cr_assert_eq(number_at(buffer, offset + 8, 4), option);
	cr_assert_eq(number_at(buffer, offset + 12, 4), reply);
	return offset + 20 + number_at(buffer, offset + 16, 4);
}

static void
assert_only_reply(const struct trial *trial, uint32_t option, uint32_t reply)
{
	cr_assert_eq(assert_reply(trial, 0, option, reply), trial->handshake.reply.used);
}

Test(handshake, greeting_offers_fixed_newstyle_without_zeroes)
{
	struct handshake handshake;

	handshake_init(&handshake, &table);
	cr_assert_eq(handshake.reply.used, 18);
	cr_assert_eq(number_at(&handshake.reply, 0, 8), NBD_MAGIC);
	cr_assert_eq(number_at(&handshake.reply, 8, 8), NBD_OPTION_MAGIC);
	cr_assert_eq(number_at(&handshake.reply, 16, 2), 3);
	handshake_fini(&handshake);
}

Test(handshake, unknown_client_flags_end_it)
{
	for (unsigned bit = 2; bit < 32; bit++) {
		struct trial trial;

		trial_init(&trial);
		send_flags(&trial, 1u << bit);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_DROP);
		cr_assert_not_null(trial.handshake.why);
		trial_fini(&trial);
	}
}

Test(handshake, wrong_option_magic_ends_it)
{
	struct trial trial;

	trial_init(&trial);
	send_flags(&trial, 3);
	byte_buffer_add_zeros(&trial.sent, 16);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_DROP);
	trial_fini(&trial);
}

Test(handshake, unknown_option_is_refused_and_the_next_is_read)
{
	struct trial trial;

	trial_init(&trial);
	send_flags(&trial, 3);
	send_option(&trial, 4711, "some data", 9);
	send_option(&trial, NBD_OPT_ABORT, NULL, 0);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	assert_only_reply(&trial, 4711, NBD_REP_ERR_UNSUP);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_CLOSE);
	assert_only_reply(&trial, NBD_OPT_ABORT, NBD_REP_ACK);
	trial_fini(&trial);
}

Test(handshake, one_option_is_answered_at_a_time)
{
	struct trial trial;

	trial_init(&trial);
	send_flags(&trial, 3);
	for (unsigned i = 0; i < 100; i++)
		send_option(&trial, NBD_OPT_LIST, NULL, 0);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	cr_assert_eq(trial.taken, 4 + 16);
	trial_fini(&trial);
}

Test(handshake, list_names_every_export_and_its_description)
{
	struct trial trial;
	const struct byte_buffer *reply = &trial.handshake.reply;
	size_t next;

	trial_init(&trial);
	send_flags(&trial, 3);
	send_option(&trial, NBD_OPT_LIST, NULL, 0);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	next = assert_reply(&trial, 0, NBD_OPT_LIST, NBD_REP_SERVER);
	cr_assert_eq(next, 20 + 4 + 4 + 6);
	cr_assert_arr_eq(reply->bytes + 24, "diskA disk", 10);
	next = assert_reply(&trial, next, NBD_OPT_LIST, NBD_REP_SERVER);
	next = assert_reply(&trial, next, NBD_OPT_LIST, NBD_REP_ACK);
	cr_assert_eq(next, reply->used);
	trial_fini(&trial);
}

Test(handshake, long_list_comes_in_parts_and_is_whole)
{
	static struct export many[3000];
	static char names[ARRAY_COUNT(many)][16];
	const struct export_table all = { .exports = many, .count = ARRAY_COUNT(many) };
	struct trial trial;
	const struct byte_buffer *reply = &trial.handshake.reply;
	unsigned listed = 0, parts = 0;
	bool acknowledged = false;

	for (unsigned i = 0; i < ARRAY_COUNT(many); i++) {
		snprintf(names[i], sizeof(names[i]), "export-%05u", i);
		many[i] = (struct export){ .name = names[i], .volume = &volume };
	}
	trial_init(&trial);
	trial.handshake.exports = &all;
	send_flags(&trial, 3);
	send_option(&trial, NBD_OPT_LIST, NULL, 0);
	send_option(&trial, NBD_OPT_ABORT, NULL, 0); /* must wait */
	while (!acknowledged) {
		size_t next = 0;

		cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
		cr_assert_lt(reply->used, HANDSHAKE_LIST_BYTES + 100);
		while (next < reply->used) {
			acknowledged = number_at(reply, next + 12, 4) == NBD_REP_ACK;
			if (!acknowledged)
				cr_assert_arr_eq(reply->bytes + next + 24, names[listed++], 12);
			next = assert_reply(&trial, next, NBD_OPT_LIST,
					    acknowledged ? NBD_REP_ACK : NBD_REP_SERVER);
		}
		cr_assert_eq(handshake_goes_on(&trial.handshake), !acknowledged);
		parts++;
	}
	cr_assert_eq(listed, ARRAY_COUNT(many));
	cr_assert_gt(parts, 3);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_CLOSE);
	assert_only_reply(&trial, NBD_OPT_ABORT, NBD_REP_ACK);
	trial_fini(&trial);
}

Test(handshake, list_with_data_is_invalid)
{
	struct trial trial;

	trial_init(&trial);
	send_flags(&trial, 3);
	send_option(&trial, NBD_OPT_LIST, "x", 1);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	assert_only_reply(&trial, NBD_OPT_LIST, NBD_REP_ERR_INVALID);
	trial_fini(&trial);
}

Test(handshake, export_name_pads_with_zeros_unless_refused)
{
	for (uint32_t flags = 1; flags <= 3; flags += 2) {
		struct trial trial;

		trial_init(&trial);
		send_flags(&trial, flags);
		send_option(&trial, NBD_OPT_EXPORT_NAME, "disk", 4);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_TRANSMISSION);
		cr_assert_eq(trial.handshake.session.export, &exports[0]);
		cr_assert_eq(trial.handshake.reply.used, flags == 1 ? 10 + 124 : 10);
		cr_assert_eq(number_at(&trial.handshake.reply, 0, 8), 10000003);
		cr_assert_eq(trial.handshake.session.size_bytes, 10000003);
		trial_fini(&trial);
	}
}

Test(handshake, export_name_of_no_export_ends_it)
{
	struct trial trial;

	trial_init(&trial);
	send_flags(&trial, 3);
	send_option(&trial, NBD_OPT_EXPORT_NAME, "nothing", 7);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_DROP);
	trial_fini(&trial);
}

Test(handshake, go_tells_what_was_asked_for)
{
	static const uint16_t infos[] = { NBD_INFO_BLOCK_SIZE, 999, NBD_INFO_DESCRIPTION,
					  NBD_INFO_NAME, NBD_INFO_EXPORT };
	struct trial trial;
	const struct byte_buffer *reply = &trial.handshake.reply;
	size_t at, next;

	trial_init(&trial);
	send_flags(&trial, 1);
	send_info(&trial, NBD_OPT_GO, "rom", infos, ARRAY_COUNT(infos));
	cr_assert_eq(trial_run(&trial), HANDSHAKE_TRANSMISSION);
	cr_assert_eq(trial.handshake.session.export, &exports[1]);
	at = assert_reply(&trial, 0, NBD_OPT_GO, NBD_REP_INFO);
	cr_assert_eq(at, 32);
	cr_assert_eq(number_at(reply, 20, 2), NBD_INFO_EXPORT);
	cr_assert_eq(number_at(reply, 22, 8), 1 << 20);
	cr_assert_eq(trial.handshake.session.size_bytes, 1 << 20);
	cr_assert(number_at(reply, 30, 2) & NBD_FLAG_READ_ONLY);
	next = assert_reply(&trial, at, NBD_OPT_GO, NBD_REP_INFO);
	cr_assert_eq(number_at(reply, at + 20, 2), NBD_INFO_BLOCK_SIZE);
	cr_assert_eq(number_at(reply, at + 22, 4), 1);
	cr_assert_eq(number_at(reply, at + 26, 4), 8192);
	cr_assert_eq(number_at(reply, at + 30, 4), 32u << 20);
	/* It has no description; 999 is unknown. */
	at = assert_reply(&trial, next, NBD_OPT_GO, NBD_REP_INFO);
	cr_assert_eq(number_at(reply, next + 20, 2), NBD_INFO_NAME);
	cr_assert_arr_eq(reply->bytes + next + 22, "rom", 3);
	cr_assert_eq(assert_reply(&trial, at, NBD_OPT_GO, NBD_REP_ACK), reply->used);
	trial_fini(&trial);
}

Test(handshake, each_info_is_told_once_however_often_it_is_asked_for)
{
	static const uint16_t kinds[] = {
		NBD_INFO_NAME, NBD_INFO_BLOCK_SIZE, NBD_INFO_EXPORT, 4, 31, 32, 33, 0x8001
	};
	uint16_t infos[8000];
	struct trial trial;
	size_t at;

	for (unsigned i = 0; i < ARRAY_COUNT(infos); i++)
		infos[i] = kinds[i % ARRAY_COUNT(kinds)];
	trial_init(&trial);
	send_flags(&trial, 1);
	send_info(&trial, NBD_OPT_INFO, "rom", infos, ARRAY_COUNT(infos));
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	at = assert_reply(&trial, 0, NBD_OPT_INFO, NBD_REP_INFO);
	at = assert_reply(&trial, at, NBD_OPT_INFO, NBD_REP_INFO);
	at = assert_reply(&trial, at, NBD_OPT_INFO, NBD_REP_INFO);
	cr_assert_eq(assert_reply(&trial, at, NBD_OPT_INFO, NBD_REP_ACK),
		     trial.handshake.reply.used);
	trial_fini(&trial);
}

Test(handshake, info_does_not_begin_transmission)
{
	struct trial trial;

	trial_init(&trial);
	send_flags(&trial, 3);
	send_info(&trial, NBD_OPT_INFO, "disk", NULL, 0);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	cr_assert_null(trial.handshake.session.export);
	trial_fini(&trial);
}

/* Between INFO and GO. */
Test(handshake, size_is_that_of_the_last_answer)
{
	struct volume growing = { .size_bytes = 4096, .block_bytes = 512 };
	struct export export = { .name = "growing", .volume = &growing };
	const struct export_table one = { .exports = &export, .count = 1 };
	struct trial trial;

	trial_init(&trial);
	trial.handshake.exports = &one;
	send_flags(&trial, 3);
	send_info(&trial, NBD_OPT_INFO, "growing", NULL, 0);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	cr_assert_eq(number_at(&trial.handshake.reply, 22, 8), 4096);
	growing.size_bytes = 8192;
	send_info(&trial, NBD_OPT_GO, "growing", NULL, 0);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_TRANSMISSION);
	cr_assert_eq(number_at(&trial.handshake.reply, 22, 8), 8192);
	cr_assert_eq(trial.handshake.session.size_bytes, 8192);
	trial_fini(&trial);
}

Test(handshake, unknown_export_is_answered_and_it_goes_on)
{
	struct trial trial;

	trial_init(&trial);
	send_flags(&trial, 3);
	send_info(&trial, NBD_OPT_GO, "nothing", NULL, 0);
	send_info(&trial, NBD_OPT_GO, "disk", NULL, 0);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	assert_only_reply(&trial, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_TRANSMISSION);
	trial_fini(&trial);
}

Test(handshake, lengths_that_do_not_add_up_are_invalid)
{
	static const struct {
		const char *data;
		size_t bytes;
	} cases[] = {
		{ "", 0 },
		{ "\0\0\0", 3 },
		{ "\0\0\0\4dis", 7 },
		{ "\377\377\377\377disk\0\0", 10 },
		{ "\0\0\0\4disk", 8 },
		{ "\0\0\0\4disk\0", 9 },
		{ "\0\0\0\4disk\0\1", 10 },
		{ "\0\0\0\4disk\0\0x", 11 },
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct trial trial;

		trial_init(&trial);
		send_flags(&trial, 3);
		send_option(&trial, NBD_OPT_GO, cases[i].data, cases[i].bytes);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY, "case %zu", i);
		assert_only_reply(&trial, NBD_OPT_GO, NBD_REP_ERR_INVALID);
		trial_fini(&trial);
	}
}

Test(handshake, option_that_is_too_long_is_skipped_and_refused)
{
	static const struct {
		uint32_t option, reply;
	} cases[] = {
		{ NBD_OPT_GO, NBD_REP_ERR_TOO_BIG },
		{ NBD_OPT_LIST, NBD_REP_ERR_INVALID },
		{ 4711, NBD_REP_ERR_UNSUP },
	};
	static const uint8_t data[3 * HANDSHAKE_DATA_BYTES_MAX];

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct trial trial;

		trial_init(&trial);
		send_flags(&trial, 3);
		send_option(&trial, cases[i].option, data, sizeof(data));
		send_option(&trial, NBD_OPT_ABORT, NULL, 0);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
		assert_only_reply(&trial, cases[i].option, cases[i].reply);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_CLOSE);
		trial_fini(&trial);
	}
}

/* LIST_META_CONTEXT or SET_META_CONTEXT about export NAME, with queries up to a NULL. */
static void
send_queries(struct trial *trial, uint32_t option, const char *name, const char *const *queries)
{
	struct byte_buffer data;
	uint32_t count = 0;

	while (queries[count] != NULL)
		count++;
	byte_buffer_init(&data);
	byte_buffer_add_u32(&data, (uint32_t)strlen(name));
	byte_buffer_add(&data, name, strlen(name));
	byte_buffer_add_u32(&data, count);
	for (uint32_t i = 0; i < count; i++) {
		byte_buffer_add_u32(&data, (uint32_t)strlen(queries[i]));
		byte_buffer_add(&data, queries[i], strlen(queries[i]));
	}
	send_option(trial, option, data.bytes, data.used);
	byte_buffer_fini(&data);
}

/* A trial whose client has negotiated with OPTION, which takes no data. */
static void
trial_init_after(struct trial *trial, uint32_t option)
{
	trial_init(trial);
	send_flags(trial, 3);
	send_option(trial, option, NULL, 0);
	cr_assert_eq(trial_run(trial), HANDSHAKE_REPLY);
	assert_only_reply(trial, option, NBD_REP_ACK);
}

static void
enter(struct trial *trial, const char *name)
{
	send_info(trial, NBD_OPT_GO, name, NULL, 0);
	cr_assert_eq(trial_run(trial), HANDSHAKE_TRANSMISSION);
}

Test(handshake, style_is_simple_unless_negotiated)
{
	struct trial trial;

	trial_init(&trial);
	send_flags(&trial, 3);
	enter(&trial, "disk");
	cr_assert_eq(trial.handshake.session.style, NBD_STYLE_SIMPLE);
	trial_fini(&trial);
	trial_init_after(&trial, NBD_OPT_STRUCTURED_REPLY);
	enter(&trial, "disk");
	cr_assert_eq(trial.handshake.session.style, NBD_STYLE_STRUCTURED);
	trial_fini(&trial);
	trial_init_after(&trial, NBD_OPT_EXTENDED_HEADERS);
	enter(&trial, "disk");
	cr_assert_eq(trial.handshake.session.style, NBD_STYLE_EXTENDED);
	trial_fini(&trial);
}

Test(handshake, options_without_data_are_invalid_with_it_and_change_nothing)
{
	static const uint32_t options[] = { NBD_OPT_STRUCTURED_REPLY, NBD_OPT_EXTENDED_HEADERS };

	for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
		struct trial trial;

		trial_init(&trial);
		send_flags(&trial, 3);
		send_option(&trial, options[i], "x", 1);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
		assert_only_reply(&trial, options[i], NBD_REP_ERR_INVALID);
		enter(&trial, "disk");
		cr_assert_eq(trial.handshake.session.style, NBD_STYLE_SIMPLE);
		trial_fini(&trial);
	}
}

Test(handshake, extended_headers_rule_over_structured_replies)
{
	struct trial trial;

	trial_init_after(&trial, NBD_OPT_STRUCTURED_REPLY);
	send_option(&trial, NBD_OPT_EXTENDED_HEADERS, NULL, 0);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	assert_only_reply(&trial, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ACK);
	send_option(&trial, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	assert_only_reply(&trial, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_EXT_HEADER_REQD);
	enter(&trial, "disk");
	cr_assert_eq(trial.handshake.session.style, NBD_STYLE_EXTENDED);
	trial_fini(&trial);
}

Test(handshake, export_name_after_extended_headers_ends_it)
{
	struct trial trial;

	trial_init_after(&trial, NBD_OPT_EXTENDED_HEADERS);
	send_option(&trial, NBD_OPT_EXPORT_NAME, "disk", 4);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_DROP);
	trial_fini(&trial);
}

Test(handshake, reset_forgets_styles_and_contexts)
{
	static const char *const queries[] = { "base:allocation", NULL };
	struct trial trial;

	trial_init_after(&trial, NBD_OPT_EXTENDED_HEADERS);
	send_queries(&trial, NBD_OPT_SET_META_CONTEXT, "disk", queries);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	handshake_reset(&trial.handshake);
	enter(&trial, "disk");
	cr_assert_eq(trial.handshake.session.style, NBD_STYLE_SIMPLE);
	cr_assert_not(trial.handshake.session.allocation);
	trial_fini(&trial);
}

/* Contexts of the export "disk": whether OPTION with these queries names base:allocation. */
static bool
finds_allocation(uint32_t option, const char *const *queries)
{
	struct trial trial;
	const struct byte_buffer *reply = &trial.handshake.reply;
	size_t next = 0;
	bool found;

	trial_init_after(&trial, NBD_OPT_STRUCTURED_REPLY);
	send_queries(&trial, option, "disk", queries);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	found = number_at(reply, 12, 4) == NBD_REP_META_CONTEXT;
	if (found) {
		next = assert_reply(&trial, 0, option, NBD_REP_META_CONTEXT);
		cr_assert_eq(next, 20 + 4 + 15);
		cr_assert_eq(number_at(reply, 20, 4), option == NBD_OPT_SET_META_CONTEXT ? 1 : 0);
		cr_assert_arr_eq(reply->bytes + 24, "base:allocation", 15);
	}
	cr_assert_eq(assert_reply(&trial, next, option, NBD_REP_ACK), reply->used);
	enter(&trial, "disk");
	cr_assert_eq(trial.handshake.session.allocation,
		     found && option == NBD_OPT_SET_META_CONTEXT);
	trial_fini(&trial);
	return found;
}

Test(handshake, contexts_are_found_by_queries)
{
	static const char *const exact[] = { "qemu:dirty-bitmap:x", "base:allocation",
					     "base:allocation", NULL };
	static const char *const wildcard[] = { "base:", NULL };
	static const char *const unknown[] = { "base:allocations", "base", "x-y:", ":", "", NULL };
	static const char *const none[] = { NULL };

	cr_assert(finds_allocation(NBD_OPT_LIST_META_CONTEXT, exact));
	cr_assert(finds_allocation(NBD_OPT_SET_META_CONTEXT, exact));
	cr_assert(finds_allocation(NBD_OPT_LIST_META_CONTEXT, wildcard));
	cr_assert_not(finds_allocation(NBD_OPT_SET_META_CONTEXT, wildcard));
	cr_assert_not(finds_allocation(NBD_OPT_LIST_META_CONTEXT, unknown));
	cr_assert_not(finds_allocation(NBD_OPT_SET_META_CONTEXT, unknown));
	cr_assert(finds_allocation(NBD_OPT_LIST_META_CONTEXT, none));
	cr_assert_not(finds_allocation(NBD_OPT_SET_META_CONTEXT, none));
}

Test(handshake, contexts_hold_for_their_export_alone)
{
	static const char *const queries[] = { "base:allocation", NULL };
	struct trial trial;

	trial_init_after(&trial, NBD_OPT_STRUCTURED_REPLY);
	send_queries(&trial, NBD_OPT_SET_META_CONTEXT, "rom", queries);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	enter(&trial, "disk");
	cr_assert_not(trial.handshake.session.allocation);
	trial_fini(&trial);
}

Test(handshake, contexts_need_structured_replies_to_be_set)
{
	static const char *const queries[] = { "base:allocation", NULL };
	struct trial trial;

	trial_init(&trial);
	send_flags(&trial, 3);
	send_queries(&trial, NBD_OPT_SET_META_CONTEXT, "disk", queries);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
	assert_only_reply(&trial, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
	enter(&trial, "disk");
	cr_assert_not(trial.handshake.session.allocation);
	trial_fini(&trial);
}

Test(handshake, failed_set_of_contexts_replaces_the_one_before)
{
	static const char *const queries[] = { "base:allocation", NULL };
	static const uint8_t too_long[HANDSHAKE_DATA_BYTES_MAX + 1];
	static const struct {
		const char *data;
		size_t bytes;
		uint32_t error;
	} cases[] = {
		{ "", 0, NBD_REP_ERR_INVALID },
		{ "\0\0\0\4disk", 8, NBD_REP_ERR_INVALID },
		{ "\0\0\0\4disk\0\0\0\1", 12, NBD_REP_ERR_INVALID },
		{ "\0\0\0\4disk\0\0\0\1\0\0\0\5base", 20, NBD_REP_ERR_INVALID },
		{ "\0\0\0\4disk\377\377\377\377\0\0\0\0", 16, NBD_REP_ERR_INVALID },
		{ "\0\0\0\4disk\0\0\0\0x", 13, NBD_REP_ERR_INVALID },
		{ "\0\0\0\4dusk\0\0\0\0", 12, NBD_REP_ERR_UNKNOWN },
		{ (const char *)too_long, sizeof(too_long), NBD_REP_ERR_TOO_BIG },
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct trial trial;

		trial_init_after(&trial, NBD_OPT_STRUCTURED_REPLY);
		send_queries(&trial, NBD_OPT_SET_META_CONTEXT, "disk", queries);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
		send_option(&trial, NBD_OPT_SET_META_CONTEXT, cases[i].data, cases[i].bytes);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
		assert_only_reply(&trial, NBD_OPT_SET_META_CONTEXT, cases[i].error);
		enter(&trial, "disk");
		cr_assert_not(trial.handshake.session.allocation, "case %zu", i);
		trial_fini(&trial);
	}
}

Test(handshake, strings_of_4096_bytes_fit_and_longer_ones_do_not)
{
	static char text[NBD_STRING_BYTES_MAX + 2];
	const char *queries[] = { text, NULL };

	for (unsigned excess = 0; excess < 2; excess++) {
		struct trial trial;

		trial_init_after(&trial, NBD_OPT_STRUCTURED_REPLY);
		memset(text, 'x', NBD_STRING_BYTES_MAX + excess);
		send_queries(&trial, NBD_OPT_LIST_META_CONTEXT, "disk", queries);
		send_queries(&trial, NBD_OPT_LIST_META_CONTEXT, text, queries);
		send_info(&trial, NBD_OPT_INFO, text, NULL, 0);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
		assert_only_reply(&trial, NBD_OPT_LIST_META_CONTEXT,
				  excess == 0 ? NBD_REP_ACK : NBD_REP_ERR_TOO_BIG);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
		assert_only_reply(&trial, NBD_OPT_LIST_META_CONTEXT,
				  excess == 0 ? NBD_REP_ERR_UNKNOWN : NBD_REP_ERR_TOO_BIG);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_REPLY);
		assert_only_reply(&trial, NBD_OPT_INFO,
				  excess == 0 ? NBD_REP_ERR_UNKNOWN : NBD_REP_ERR_TOO_BIG);
		trial_fini(&trial);
	}
}

Test(handshake, options_while_the_server_stops_are_told_so)
{
	static const uint32_t options[] = { NBD_OPT_GO, NBD_OPT_LIST, NBD_OPT_STRUCTURED_REPLY,
					    4711 };
	struct trial trial;

	for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
		trial_init(&trial);
		send_flags(&trial, 3);
		handshake_shut_down(&trial.handshake);
		send_option(&trial, options[i], NULL, 0);
		cr_assert_eq(trial_run(&trial), HANDSHAKE_CLOSE);
		assert_only_reply(&trial, options[i], NBD_REP_ERR_SHUTDOWN);
		trial_fini(&trial);
	}
	trial_init(&trial);
	send_flags(&trial, 3);
	handshake_shut_down(&trial.handshake);
	send_option(&trial, NBD_OPT_ABORT, NULL, 0);
	cr_assert_eq(trial_run(&trial), HANDSHAKE_CLOSE);
	assert_only_reply(&trial, NBD_OPT_ABORT, NBD_REP_ACK);
	trial_fini(&trial);
}

Test(handshake, byte_by_byte_gives_the_same)
{
	static const uint16_t infos[] = { NBD_INFO_BLOCK_SIZE };
	struct trial whole, slow;
	size_t taken = 0;
	enum handshake_result result = HANDSHAKE_MORE;

	trial_init(&whole);
	send_flags(&whole, 3);
	send_info(&whole, NBD_OPT_GO, "disk", infos, 1);
	cr_assert_eq(trial_run(&whole), HANDSHAKE_TRANSMISSION);
	trial_init(&slow);
	for (size_t fed = 1; fed <= whole.sent.used; fed++) {
		size_t consumed;

		cr_assert(result == HANDSHAKE_MORE || result == HANDSHAKE_REPLY);
		result = handshake_step(&slow.handshake, whole.sent.bytes + taken, fed - taken,
					&consumed);
		taken += consumed;
	}
	cr_assert_eq(result, HANDSHAKE_TRANSMISSION);
	cr_assert_eq(slow.handshake.reply.used, whole.handshake.reply.used);
	cr_assert_arr_eq(slow.handshake.reply.bytes, whole.handshake.reply.bytes,
			 whole.handshake.reply.used);
	trial_fini(&whole);
	trial_fini(&slow);
}

/* Mostly valid messages with random damage. */
Test(handshake, random_bytes_never_take_more_than_there_are)
{
	unsigned seed = (unsigned)test_seed();

	for (unsigned i = 0; i < 20000; i++) {
		struct trial trial;
		enum handshake_result result;
		unsigned steps = 0;

		trial_init(&trial);
		send_flags(&trial, 3);
		for (unsigned n = (unsigned)rand_r(&seed) % 4; n > 0; n--)
			send_info(&trial, (unsigned)rand_r(&seed) % 13, "disk", NULL, 0);
		for (unsigned n = (unsigned)rand_r(&seed) % 4; n > 0; n--)
			trial.sent.bytes[(unsigned)rand_r(&seed) % trial.sent.used] ^=
				(uint8_t)(1u << rand_r(&seed) % 8);
		do
			result = trial_run(&trial);
		while (result == HANDSHAKE_REPLY && ++steps < 10);
		cr_assert_lt(steps, 10);
		trial_fini(&trial);
	}
}
