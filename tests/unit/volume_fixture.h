/* A volume on two real cores, and requests to it that a test waits for. */
#ifndef TESTS_UNIT_VOLUME_FIXTURE_H
#define TESTS_UNIT_VOLUME_FIXTURE_H

#include "disk/volume.h"
#include <stdatomic.h>

#define VOLUME_FIXTURE_CORES 2
/* Of its pool, at most: enough for two of one volume at a time. */
#define VOLUME_FIXTURE_HELPERS (2 * CALL_SHARE_DIVISOR)

struct volume_fixture {
	struct cores cores;
	struct call_pool *calls;
	struct volume *volume;
	enum priority priority; /* of the requests: normal at first */
};

/* Open and start the volume of OPTIONS; close it, which must succeed. */
void volume_fixture_start(struct volume_fixture *fixture, const struct volume_options *options);
void volume_fixture_stop(struct volume_fixture *fixture);

/* A request, which stays where it is until it is ended. */
struct trial {
	struct volume_request request;
	/* Private. */
	struct message message;
	struct volume *volume;
	unsigned behind; /* trials that are submitted with this one */
	int error;
	atomic_bool finished;
};

/* Submit TRIAL, whose request has its command, range and options set, on CORE.  READ and WRITE get a buffer here; BYTES, unless it is
 * NULL, are copied into it. */
void trial_begin(struct volume_fixture *fixture, struct trial *trial, unsigned core,
		 const uint8_t *bytes);

/* The same for COUNT TRIALS, all submitted by one message; the payload of each is filled with FILL and more, one by one. */
void trials_begin(struct volume_fixture *fixture, struct trial *trials, unsigned count,
		  unsigned core, uint8_t fill);

/* Whether TRIAL is done; wait until it is, and return its error.  Its payload is there until trial_end. */
bool trial_finished(struct trial *trial);
int trial_wait(struct trial *trial);
uint8_t *trial_payload(struct trial *trial);
void trial_end(struct trial *trial);

/* All of that for a request on core 0, or CORE.  BYTES: what is written, or where what is read goes. */
int volume_run(struct volume_fixture *fixture, enum volume_command command, uint64_t offset,
	       uint64_t length, uint8_t *bytes);
int volume_run_on(struct volume_fixture *fixture, unsigned core, enum volume_command command,
		  uint64_t offset, uint64_t length, uint8_t *bytes);

#endif
