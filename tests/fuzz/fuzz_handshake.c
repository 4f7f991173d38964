/* The handshake: any bytes of a client, cut anywhere.
 *
 * The input's first byte chooses the cuts, the rest is what the client sends.  It is given to one machine whole and to another in
 * pieces: both must answer the same and end the same, take what they are given in a buffer of HANDSHAKE_INPUT_BYTES_MIN, and
 * answer in well-formed replies. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/handshake.h"
#include "net/nbd.h"
#include "tests/fuzz/fuzz.h"

#define GREETING_BYTES 18u
#define REPLIES_MAX    (1u << 20) /* bytes kept for comparison */

/* How one run of the machine went. */
struct outcome {
	enum handshake_result result; /* the last */
	struct nbd_session session;
	const char *why;
	size_t consumed_bytes;
	struct byte_buffer replies;
};

static struct volume volume = { .size_bytes = 1 << 20, .block_bytes = 4096 };
static struct export exports[] = {
	{ .name = "disk", .description = "a disk", .volume = &volume },
	{ .name = "", .volume = &volume, .read_only = true },
	{ .name = "\xc3\xa4", .volume = &volume },
};
static const struct export_table table = { .exports = exports, .count = 3 };

static bool
is_over(enum handshake_result result)
{
	return result != HANDSHAKE_MORE && result != HANDSHAKE_REPLY;
}

/* Keep what HANDSHAKE wants sent. */
static void
take_replies(struct handshake *handshake, struct outcome *outcome)
{
	struct byte_buffer *reply = &handshake->reply;

	if (reply->used + outcome->replies.used <= REPLIES_MAX)
		byte_buffer_add(&outcome->replies, reply->bytes, reply->used);
	byte_buffer_clear(reply);
}

/* Feed what the client sent, at most PIECE more bytes at a time, as a connection with an input buffer of that size does. */
static void
run(const uint8_t *bytes, size_t count, size_t piece, struct outcome *outcome)
{
	struct handshake handshake;
	size_t start = 0, end = 0, consumed;

	*outcome = (struct outcome){ .result = HANDSHAKE_MORE };
	byte_buffer_init(&outcome->replies);
	handshake_init(&handshake, &table);
	take_replies(&handshake, outcome);
	while (!is_over(outcome->result)) {
		if (outcome->result == HANDSHAKE_MORE) {
			size_t room = HANDSHAKE_INPUT_BYTES_MIN - (end - start);
			size_t more = piece < room ? piece : room;

			FUZZ_CHECK(room > 0); /* or it would wait for ever */
			if (end == count)
				break;
			end += more < count - end ? more : count - end;
		}
		outcome->result = handshake_step(&handshake, bytes + start, end - start, &consumed);
		FUZZ_CHECK(consumed <= end - start);
		start += consumed;
		take_replies(&handshake, outcome);
	}
	outcome->session = handshake.session;
	outcome->why = handshake.why;
	outcome->consumed_bytes = start;
	handshake_fini(&handshake);
}

/* Replies are a greeting and whole option replies, but for the answer to EXPORT_NAME, which is the last. */
static void
check_replies(const struct outcome *outcome)
{
	const uint8_t *bytes = outcome->replies.bytes;
	size_t left = outcome->replies.used, whole;
	struct nbd_wire_option_reply wire;

	FUZZ_CHECK(left >= GREETING_BYTES);
	bytes += GREETING_BYTES;
	left -= GREETING_BYTES;
	while (left >= sizeof(wire)) {
		memcpy(&wire, bytes, sizeof(wire));
		if (be64toh(wire.magic) != NBD_OPTION_REPLY_MAGIC)
			break;
		whole = sizeof(wire) + be32toh(wire.data_bytes);
		FUZZ_CHECK(whole <= left);
		bytes += whole;
		left -= whole;
	}
	FUZZ_CHECK(left == 0 || (outcome->result == HANDSHAKE_TRANSMISSION &&
				 (left == 10 || left == 10 + NBD_EXPORT_NAME_PAD_BYTES)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct outcome whole, cut;

	if (count == 0)
		return 0;
	run(bytes + 1, count - 1, count, &whole);
	run(bytes + 1, count - 1, 1u + bytes[0], &cut);
	if (whole.replies.used < REPLIES_MAX / 2) {
		check_replies(&whole);
		FUZZ_CHECK(whole.replies.used == cut.replies.used);
		FUZZ_CHECK(memcmp(whole.replies.bytes, cut.replies.bytes, whole.replies.used) == 0);
	}
	FUZZ_CHECK(is_over(whole.result) == is_over(cut.result));
	if (is_over(whole.result)) {
		FUZZ_CHECK(whole.result == cut.result && whole.why == cut.why);
		FUZZ_CHECK(whole.consumed_bytes == cut.consumed_bytes);
		FUZZ_CHECK(whole.session.export == cut.session.export &&
			   whole.session.style == cut.session.style);
		FUZZ_CHECK((whole.result == HANDSHAKE_TRANSMISSION) ==
			   (whole.session.export != NULL));
		FUZZ_CHECK(whole.result != HANDSHAKE_DROP || whole.why != NULL);
	}
	byte_buffer_fini(&whole.replies);
	byte_buffer_fini(&cut.replies);
	return 0;
}
