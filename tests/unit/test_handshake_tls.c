/* STARTTLS in the handshake, and what clients without TLS, or with the wrong name, are told. */
#include <criterion/criterion.h>
#include <string.h>

#include "net/handshake.h"
#include "net/nbd.h"

#define NOTHING 0u /* no reply */

static struct volume volume = { .size_bytes = 1 << 20, .block_bytes = 512 };
static char *names_of_alice[] = { (char *)"alice" };
static struct tls_names alice = { .names = names_of_alice, .count = 1 };
static struct tls_names nobody;
static struct export exports[] = {
	{ .name = "open", .volume = &volume },
	{ .name = "tls", .volume = &volume, .tls_only = true },
	{ .name = "named", .volume = &volume, .allow_names = &alice },
};
static const struct export_table table = { .exports = exports, .count = ARRAY_COUNT(exports) };

static void
begin_with_flags(struct handshake *handshake, enum tls_mode mode, uint8_t client_flags)
{
	const uint8_t flags[4] = { 0, 0, 0, client_flags };
	size_t consumed;

	handshake_init(handshake, &table);
	handshake->tls_mode = mode;
	byte_buffer_clear(&handshake->reply);
	cr_assert_eq(handshake_step(handshake, flags, sizeof(flags), &consumed), HANDSHAKE_REPLY);
}

static void
begin(struct handshake *handshake, enum tls_mode mode)
{
	begin_with_flags(handshake, mode, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
}

/* What comes of OPTION with DATA; *reply: the last reply's type, or NOTHING. */
static enum handshake_result
ask(struct handshake *handshake, uint32_t option, const char *data, size_t bytes, uint32_t *reply)
{
	struct byte_buffer sent;
	enum handshake_result result;
	size_t consumed, at = 0;

	byte_buffer_clear(&handshake->reply);
	byte_buffer_init(&sent);
	byte_buffer_add_u64(&sent, NBD_OPTION_MAGIC);
	byte_buffer_add_u32(&sent, option);
	byte_buffer_add_u32(&sent, (uint32_t)bytes);
	byte_buffer_add(&sent, data, bytes);
	result = handshake_step(handshake, sent.bytes, sent.used, &consumed);
	byte_buffer_fini(&sent);
	*reply = NOTHING;
	while (result != HANDSHAKE_DROP && at < handshake->reply.used) {
		uint32_t type, length;

		memcpy(&type, handshake->reply.bytes + at + 12, 4);
		memcpy(&length, handshake->reply.bytes + at + 16, 4);
		*reply = be32toh(type);
		at += 20 + be32toh(length);
	}
	return result;
}

static uint32_t
ask_info(struct handshake *handshake, uint32_t option, const char *name)
{
	char data[64] = { 0, 0, 0, (char)strlen(name) };
	uint32_t reply;

	memcpy(data + 4, name, strlen(name));
	(void)ask(handshake, option, data, 6 + strlen(name), &reply);
	return reply;
}

static unsigned
count_listed(struct handshake *handshake)
{
	size_t at = 0;
	unsigned count = 0;
	uint32_t reply;

	cr_assert_eq(ask(handshake, NBD_OPT_LIST, NULL, 0, &reply), HANDSHAKE_REPLY);
	while (at < handshake->reply.used) {
		uint32_t length;

		memcpy(&length, handshake->reply.bytes + at + 16, 4);
		at += 20 + be32toh(length);
		count++;
	}
	return count - 1;
}

Test(handshake_tls, off_refuses_it_and_never_asks_for_it)
{
	struct handshake handshake;
	uint32_t reply;

	begin(&handshake, TLS_MODE_OFF);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, NULL, 0, &reply), HANDSHAKE_REPLY);
	cr_assert_eq(reply, NBD_REP_ERR_POLICY);
	cr_assert_eq(ask_info(&handshake, NBD_OPT_GO, "open"), NBD_REP_ACK);
	handshake_fini(&handshake);
}

Test(handshake_tls, client_that_does_not_speak_fixed_newstyle_has_none)
{
	struct handshake handshake;
	uint32_t reply;

	begin_with_flags(&handshake, TLS_MODE_ALLOWED, NBD_FLAG_NO_ZEROES);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, NULL, 0, &reply), HANDSHAKE_REPLY);
	cr_assert_eq(reply, NBD_REP_ERR_POLICY);
	cr_assert_eq(ask_info(&handshake, NBD_OPT_INFO, "tls"), NBD_REP_ERR_UNKNOWN);
	cr_assert_eq(ask_info(&handshake, NBD_OPT_GO, "open"), NBD_REP_ACK);
	handshake_fini(&handshake);

	begin_with_flags(&handshake, TLS_MODE_REQUIRED, 0);
	cr_assert_eq(ask(&handshake, NBD_OPT_LIST, NULL, 0, &reply), HANDSHAKE_DROP);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, NULL, 0, &reply), HANDSHAKE_REPLY);
	cr_assert_eq(reply, NBD_REP_ERR_POLICY);
	handshake_fini(&handshake);
}

Test(handshake_tls, required_answers_everything_else_with_that)
{
	static const uint32_t options[] = { NBD_OPT_LIST, NBD_OPT_INFO, NBD_OPT_GO, 8, 9, 4711 };
	struct handshake handshake;
	uint32_t reply;

	begin(&handshake, TLS_MODE_REQUIRED);
	for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
		cr_assert_eq(ask(&handshake, options[i], "x", 1, &reply), HANDSHAKE_REPLY);
		cr_assert_eq(reply, NBD_REP_ERR_TLS_REQD);
	}
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, NULL, 0, &reply), HANDSHAKE_TLS);
	cr_assert_eq(reply, NBD_REP_ACK);
	handshake_secured(&handshake, &nobody);
	cr_assert_eq(ask_info(&handshake, NBD_OPT_GO, "open"), NBD_REP_ACK);
	handshake_fini(&handshake);

	begin(&handshake, TLS_MODE_REQUIRED);
	cr_assert_eq(ask(&handshake, NBD_OPT_ABORT, NULL, 0, &reply), HANDSHAKE_CLOSE);
	cr_assert_eq(ask(&handshake, NBD_OPT_EXPORT_NAME, "open", 4, &reply), HANDSHAKE_DROP);
	handshake_fini(&handshake);
}

Test(handshake_tls, it_takes_no_data_and_comes_once)
{
	struct handshake handshake;
	uint32_t reply;

	begin(&handshake, TLS_MODE_ALLOWED);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, "x", 1, &reply), HANDSHAKE_REPLY);
	cr_assert_eq(reply, NBD_REP_ERR_INVALID);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, NULL, 0, &reply), HANDSHAKE_TLS);
	handshake_secured(&handshake, &nobody);
	cr_assert_eq(ask(&handshake, NBD_OPT_STARTTLS, NULL, 0, &reply), HANDSHAKE_REPLY);
	cr_assert_eq(reply, NBD_REP_ERR_INVALID);
	handshake_fini(&handshake);
}

Test(handshake_tls, it_forgets_what_was_negotiated_before)
{
	struct handshake handshake;

	begin(&handshake, TLS_MODE_ALLOWED);
	handshake.session.style = NBD_STYLE_EXTENDED;
	handshake_secured(&handshake, &nobody);
	cr_assert_eq(handshake.session.style, NBD_STYLE_SIMPLE);
	handshake_fini(&handshake);
}

Test(handshake_tls, exports_that_need_it_are_hidden_without_it)
{
	struct handshake handshake;
	uint32_t reply;

	begin(&handshake, TLS_MODE_ALLOWED);
	cr_assert_eq(count_listed(&handshake), 1);
	cr_assert_eq(ask_info(&handshake, NBD_OPT_INFO, "tls"), NBD_REP_ERR_TLS_REQD);
	cr_assert_eq(ask_info(&handshake, NBD_OPT_GO, "named"), NBD_REP_ERR_TLS_REQD);
	cr_assert_str_eq(handshake.refused, "asked for without TLS, which this export needs");
	cr_assert_eq(ask_info(&handshake, NBD_OPT_GO, "none"), NBD_REP_ERR_UNKNOWN);
	cr_assert_str_eq(handshake.refused, "there is no such export");
	cr_assert_eq(handshake.refused_name_bytes, 4);
	cr_assert_eq(ask(&handshake, NBD_OPT_EXPORT_NAME, "tls", 3, &reply), HANDSHAKE_DROP);
	handshake_secured(&handshake, &alice);
	cr_assert_eq(count_listed(&handshake), 3);
	cr_assert_eq(ask_info(&handshake, NBD_OPT_GO, "tls"), NBD_REP_ACK);
	handshake_fini(&handshake);
}

Test(handshake_tls, names_that_may_not_use_an_export_do_not_see_it)
{
	struct handshake handshake;

	begin(&handshake, TLS_MODE_ALLOWED);
	handshake_secured(&handshake, &nobody);
	cr_assert_eq(count_listed(&handshake), 2);
	cr_assert_null(handshake.refused);
	cr_assert_eq(ask_info(&handshake, NBD_OPT_INFO, "named"), NBD_REP_ERR_UNKNOWN);
	cr_assert_str_eq(handshake.refused,
			 "denied to this certificate or key (allow-names of the export)");
	handshake_secured(&handshake, &alice);
	cr_assert_eq(ask_info(&handshake, NBD_OPT_INFO, "named"), NBD_REP_ACK);
	handshake_fini(&handshake);
}
