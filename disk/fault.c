/* Volumes that go wrong, for tests: another volume (a file, or memory) behind a layer that fails, tears, splits and delays requests
 * as fault_settings.h says.  What is not disturbed is the other volume's business, and so are its own failures.
 *
 * Each core makes its own choices, from a generator of its own, in the order of its requests.  A request that is passed on is
 * copied into one of a fixed number per core; when these are in use, requests wait for them in order. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/fault_settings.h"
#include "disk/volume.h"
#include "disk/volume_kinds.h"
#include "reactor/log.h"

#define REQUESTS_PER_CORE 256u
#define SECTOR_BYTES	  512u

/* A request on its way through.  Owned by its core. */
struct fault_request {
	struct volume_request inner;
	struct volume_request *outer;
	struct fault_core *home;
	struct timer timer;
	uint64_t rest_bytes; /* of a split one, still to be passed on */
	int error;	     /* it fails with, done or not; 0: it does not */
	bool skip;	     /* it fails without being done */
	struct list_node node;
};

struct fault_core {
	struct fault_volume *fault;
	uint64_t random;
	struct list_node unused;  /* struct fault_request */
	struct list_node waiting; /* struct volume_request, by op.node */
	struct fault_request *requests;
} __attribute__((aligned(64)));

struct fault_volume {
	struct volume volume;
	struct volume *inner;
	struct fault_settings settings;
	struct fault_core *cores; /* [core_count] */
	unsigned core_count;
};

static struct fault_volume *
fault_of(struct volume *volume)
{
	return container_of(volume, struct fault_volume, volume);
}

/* ---- opening ---- */

static struct volume_options
inner_options(const struct volume_options *options)
{
	struct volume_options inner = *options;

	inner.kind = options->path != NULL ? VOLUME_KIND_FILE : VOLUME_KIND_MEMORY;
	inner.fault = NULL;
	return inner;
}

static int
fault_check(const struct volume_options *options, uint64_t *size_bytes)
{
	struct volume_options inner = inner_options(options);

	return volume_check(&inner, size_bytes);
}

static int
fault_open(const struct volume_options *options, struct volume **result)
{
	struct volume_options inner_opts = inner_options(options);
	struct fault_volume *fault = calloc(1, sizeof(*fault));
	char mistake[VOLUME_MISTAKE_BYTES];
	int error = -ENOMEM;

	if (fault == NULL)
		return error;
	CHECK(fault_settings_parse(options->fault, &fault->settings, mistake, sizeof(mistake)) ==
	      0);
	error = volume_open(&inner_opts, &fault->inner);
	if (error < 0)
		goto err_after_fault;
	if (asprintf(&fault->volume.path, "fault in %s", fault->inner->path) < 0) {
		error = -ENOMEM;
		goto err_after_inner;
	}
	fault->volume.ops = &fault_volume_ops;
	fault->volume.size_bytes = fault->inner->size_bytes;
	fault->volume.block_bytes = fault->inner->block_bytes;
	fault->volume.read_only = fault->inner->read_only;
	fault->volume.trims = fault->inner->trims;
	fault->volume.prefetches = fault->inner->prefetches;
	log_warning("%s: requests will fail on purpose: %s", fault->volume.path, options->fault);
	*result = &fault->volume;
	return 0;

err_after_inner:
	(void)volume_close(fault->inner);
err_after_fault:
	free(fault);
	return error;
}

static void fault_expired(struct timer *timer);

static int
fault_core_init(struct fault_core *home, struct fault_volume *fault, unsigned index)
{
	home->fault = fault;
	/* Odd, and different for each core: xorshift must not begin with 0. */
	home->random = (fault->settings.seed * 2 + 1) * (2 * (uint64_t)index + 1) | 1;
	list_init(&home->unused);
	list_init(&home->waiting);
	home->requests = calloc(REQUESTS_PER_CORE, sizeof(home->requests[0]));
	if (home->requests == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < REQUESTS_PER_CORE; i++) {
		struct fault_request *request = &home->requests[i];

		request->home = home;
		timer_init(&request->timer, fault_expired);
		list_init(&request->node);
		list_append(&home->unused, &request->node);
	}
	return 0;
}

static int
fault_start(struct volume *volume, struct cores *cores, unsigned home_index,
	    struct call_pool *calls)
{
	struct fault_volume *fault = fault_of(volume);
	void *memory;

	if (posix_memalign(&memory, _Alignof(struct fault_core),
			   cores->count * sizeof(struct fault_core)) != 0)
		return -ENOMEM;
	fault->cores = memory;
	for (; fault->core_count < cores->count; fault->core_count++) {
		unsigned i = fault->core_count;
		int error = fault_core_init(&fault->cores[i], fault, i);

		if (error < 0)
			return error;
	}
	return volume_start(fault->inner, cores, home_index, calls);
}

static int
fault_close(struct volume *volume)
{
	struct fault_volume *fault = fault_of(volume);
	int error;

	fault->inner->export_name = volume->export_name;
	error = volume_close(fault->inner);

	for (unsigned i = 0; i < fault->core_count; i++)
		free(fault->cores[i].requests);
	free(fault->cores);
	free(volume->path);
	free(fault);
	return error;
}

/* ---- choices ---- */

/* Marsaglia's xorshift64*, of which the upper half is returned. */
static uint32_t
next_random(struct fault_core *home)
{
	home->random ^= home->random >> 12;
	home->random ^= home->random << 25;
	home->random ^= home->random >> 27;
	return (uint32_t)(home->random * 0x2545f4914f6cdd1d >> 32);
}

static bool
hits(struct fault_core *home, uint64_t probability)
{
	return next_random(home) < probability;
}

/* A number below LIMIT, which is at least 1. */
static uint64_t
random_below(struct fault_core *home, uint64_t limit)
{
	uint64_t high = next_random(home);

	return (high << 32 | next_random(home)) % limit;
}

static bool
in_range(const struct fault_settings *settings, const struct volume_request *request)
{
	return request->command == VOLUME_COMMAND_FLUSH ||
	       (request->offset < settings->range_end &&
		request->offset + request->length > settings->range_start);
}

static bool
moves_data(const struct volume_request *request)
{
	return request->command == VOLUME_COMMAND_READ || request->command == VOLUME_COMMAND_WRITE;
}

/* Where in REQUEST, as an offset of the volume, it may be cut so that its first part is done as the whole would be: a random multiple
 * of UNIT within it; its end if there is none. */
static uint64_t
choose_cut(struct fault_core *home, const struct volume_request *request, uint32_t unit)
{
	uint64_t end = request->offset + request->length;
	uint64_t first = (request->offset / unit + 1) * unit;
	uint64_t count = first < end ? (end - first + unit - 1) / unit : 0;

	return count > 0 ? first + random_below(home, count) * unit : end;
}

/* Decide what becomes of REQUEST, all of whose bytes are to be passed on.  Returns how long it waits first, in milliseconds. */
static uint64_t
choose(struct fault_core *home, struct fault_request *request)
{
	const struct fault_settings *settings = &home->fault->settings;
	struct volume_request *inner = &request->inner;
	uint32_t block_bytes = home->fault->volume.block_bytes;
	uint32_t unit = block_bytes > SECTOR_BYTES ? block_bytes : SECTOR_BYTES;
	uint64_t end = inner->offset + inner->length;

	if (!in_range(settings, inner))
		return 0;
	if (hits(home, settings->fails[inner->command])) {
		request->error = settings->error;
		request->skip = true;
	} else if (inner->command == VOLUME_COMMAND_WRITE && hits(home, settings->torn)) {
		uint64_t cut = choose_cut(home, inner, unit);

		request->error = settings->error;
		request->skip = cut == end;
		inner->length = cut - inner->offset;
	} else if (moves_data(inner) && hits(home, settings->split)) {
		/* A write of parts of blocks has room for one read-modify-write behind its payload, where a second part
		 * is: only one of whole blocks is split. */
		if (inner->command == VOLUME_COMMAND_READ ||
		    ((inner->offset | inner->length) & (block_bytes - 1)) == 0) {
			uint64_t cut = choose_cut(home, inner, unit);

			request->rest_bytes = end - cut;
			inner->length = cut - inner->offset;
		}
	}
	if (settings->delay_ms == 0 || !hits(home, settings->delays))
		return 0;
	return random_below(home, (uint64_t)settings->delay_ms + 1);
}

/* ---- requests ---- */

static void pass_on(struct fault_request *request);
static void begin(struct fault_core *home, struct volume_request *outer);

/* REQUEST is over: end its original, and let the next one that waits begin. */
static void
end_request(struct fault_request *request, int error)
{
	struct fault_core *home = request->home;
	struct volume_request *outer = request->outer;
	struct list_node *node;

	outer->extent_count = request->inner.extent_count;
	list_prepend(&home->unused, &request->node);
	node = list_take_first(&home->waiting);
	if (node != NULL)
		begin(home, container_of(node, struct volume_request, op.node));
	if (error < 0 && outer->command == VOLUME_COMMAND_WRITE && outer->durable)
		volume_synced_write_failed(outer, error);
	volume_finish(outer, error);
}

static void
inner_done(struct volume_request *inner, int error)
{
	struct fault_request *request = container_of(inner, struct fault_request, inner);

	if (error < 0) {
		end_request(request, error);
		return;
	}
	if (request->rest_bytes == 0) {
		end_request(request, request->error);
		return;
	}
	/* The second part: the cut is at a multiple of the block, so its buffer begins where its blocks are. */
	inner->buffer = volume_payload(inner->volume, inner->buffer, inner->offset) + inner->length;
	inner->offset += inner->length;
	inner->length = request->rest_bytes;
	request->rest_bytes = 0;
	pass_on(request);
}

/* Not from within submit: through the reactor. */
static void
skipped(struct op *op, long result)
{
	struct volume_request *inner = container_of(op, struct volume_request, op);

	end_request(container_of(inner, struct fault_request, inner), (int)result);
}

static void
pass_on(struct fault_request *request)
{
	struct volume_request *inner = &request->inner;

	if (request->skip) {
		op_init(&inner->op, skipped);
		inner->op.priority = inner->priority;
		reactor_complete(inner->core->reactor, &inner->op, request->error);
		return;
	}
	volume_submit(request->home->fault->inner, inner);
}

static void
fault_expired(struct timer *timer)
{
	pass_on(container_of(timer, struct fault_request, timer));
}

static void
begin(struct fault_core *home, struct volume_request *outer)
{
	struct fault_request *request =
		container_of(list_take_first(&home->unused), struct fault_request, node);
	uint64_t delay_ms;

	request->outer = outer;
	request->inner = *outer;
	request->inner.done = inner_done;
	request->rest_bytes = 0;
	request->error = 0;
	request->skip = false;
	delay_ms = choose(home, request);
	if (delay_ms > 0)
		reactor_timer_start(outer->core->reactor, &request->timer, delay_ms * 1000000);
	else
		pass_on(request);
}

static void
fault_submit(struct volume *volume, struct volume_request *outer)
{
	struct fault_core *home = &fault_of(volume)->cores[outer->core->index];

	op_init(&outer->op, NULL);
	if (list_empty(&home->unused))
		list_append(&home->waiting, &outer->op.node);
	else
		begin(home, outer);
}

static int
fault_refresh(struct volume *volume, uint64_t *found_bytes)
{
	struct fault_volume *fault = fault_of(volume);
	int error = volume_refresh(fault->inner, found_bytes);

	__atomic_store_n(&volume->size_bytes, volume_size(fault->inner), __ATOMIC_RELEASE);
	return error;
}

static int
fault_lock(struct volume *volume, bool locked)
{
	return volume_lock(fault_of(volume)->inner, locked);
}

const struct volume_ops fault_volume_ops = {
	.kind = "fault",
	.open = fault_open,
	.check = fault_check,
	.start = fault_start,
	.submit = fault_submit,
	/* No peek: what is not asked for can't go wrong. */
	.refresh = fault_refresh,
	.lock = fault_lock,
	.close = fault_close,
};
