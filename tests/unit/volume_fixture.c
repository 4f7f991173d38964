/* Requests are submitted by messages to their cores, and waited for by looking. */
#include "tests/unit/volume_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void
volume_fixture_start(struct volume_fixture *fixture, const struct volume_options *options)
{
	struct reactor_config config = { .disk_slots = 64, .poll_slots = 16 };
	struct cpu_list cpus;

	cr_assert_eq(cpu_list_auto(&cpus), 0);
	if (cpus.count < VOLUME_FIXTURE_CORES)
		cpus.cpus[1] = cpus.cpus[0];
	cpus.count = VOLUME_FIXTURE_CORES;
	fixture->priority = PRIORITY_NORMAL;
	cr_assert_eq(call_pool_create(VOLUME_FIXTURE_HELPERS, &fixture->calls), 0);
	config.calls = fixture->calls;
	cr_assert_eq(
		cores_start(&fixture->cores, &cpus, &config, (size_t)16 << 20, (size_t)4 << 20), 0);
	cr_assert_eq(volume_open(options, &fixture->volume), 0);
	cr_assert_eq(volume_start(fixture->volume, &fixture->cores, 1, fixture->calls), 0);
}

void
volume_fixture_stop(struct volume_fixture *fixture)
{
	bool lost = fixture->volume->sync_failed;

	usleep(10000); /* the last messages */
	call_pool_destroy(fixture->calls);
	cores_stop(&fixture->cores);
	cr_assert_eq(volume_close(fixture->volume), lost ? -EIO : 0);
}

static void
on_done(struct volume_request *request, int error)
{
	struct trial *trial = container_of(request, struct trial, request);

	trial->error = error;
	atomic_store(&trial->finished, true);
}

static void
on_submit(struct message *message)
{
	struct trial *trial = container_of(message, struct trial, message);

	for (unsigned i = 0; i <= trial->behind; i++) {
		volume_submit(trial[i].volume, &trial[i].request);
		CHECK(!atomic_load(&trial[i].finished));
	}
}

static void
prepare(struct volume_fixture *fixture, struct trial *trial, unsigned core)
{
	struct volume_request *request = &trial->request;

	trial->volume = fixture->volume;
	atomic_store(&trial->finished, false);
	request->core = &fixture->cores.cores[core];
	request->priority = fixture->priority;
	request->done = on_done;
	request->buffer = NULL;
	if (request->command == VOLUME_COMMAND_READ || request->command == VOLUME_COMMAND_WRITE) {
		size_t buffer_bytes =
			volume_buffer_bytes(fixture->volume, request->command, request->offset,
					    (uint32_t)request->length);

		cr_assert_eq(posix_memalign(&request->buffer, 4096, buffer_bytes), 0);
		memset(request->buffer, 0xee, buffer_bytes);
	}
	trial->message.deliver = on_submit;
	trial->behind = 0;
}

void
trial_begin(struct volume_fixture *fixture, struct trial *trial, unsigned core,
	    const uint8_t *bytes)
{
	prepare(fixture, trial, core);
	if (bytes != NULL)
		memcpy(trial_payload(trial), bytes, trial->request.length);
	reactor_send(trial->request.core->reactor, &trial->message);
}

void
trials_begin(struct volume_fixture *fixture, struct trial *trials, unsigned count, unsigned core,
	     uint8_t fill)
{
	for (unsigned i = 0; i < count; i++) {
		prepare(fixture, &trials[i], core);
		if (trials[i].request.buffer != NULL)
			memset(trial_payload(&trials[i]), fill + (int)i, trials[i].request.length);
	}
	trials[0].behind = count - 1;
	reactor_send(trials[0].request.core->reactor, &trials[0].message);
}

bool
trial_finished(struct trial *trial)
{
	return atomic_load(&trial->finished);
}

int
trial_wait(struct trial *trial)
{
	for (unsigned i = 0; i < 200000 && !trial_finished(trial); i++)
		usleep(100);
	cr_assert(trial_finished(trial));
	return trial->error;
}

uint8_t *
trial_payload(struct trial *trial)
{
	return volume_payload(trial->volume, trial->request.buffer, trial->request.offset);
}

void
trial_end(struct trial *trial)
{
	free(trial->request.buffer);
}

int
volume_run_on(struct volume_fixture *fixture, unsigned core, enum volume_command command,
	      uint64_t offset, uint64_t length, uint8_t *bytes)
{
	struct trial trial = {
		.request = { .command = command, .offset = offset, .length = length },
	};
	int error;

	trial_begin(fixture, &trial, core, command == VOLUME_COMMAND_WRITE ? bytes : NULL);
	error = trial_wait(&trial);
	if (command == VOLUME_COMMAND_READ && error == 0)
		memcpy(bytes, trial_payload(&trial), length);
	trial_end(&trial);
	return error;
}

int
volume_run(struct volume_fixture *fixture, enum volume_command command, uint64_t offset,
	   uint64_t length, uint8_t *bytes)
{
	return volume_run_on(fixture, 0, command, offset, length, bytes);
}
