/* Opening, sharing and closing volumes. */
#include "daemon/volume_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/log.h"

void
volume_set_init(struct volume_set *set)
{
	*set = (struct volume_set){ .cores = NULL };
	list_init(&set->entries);
}

/* Volumes are spread over the cores that order their read-modify-writes. */
static int
start(struct volume_set *set, struct volume *volume)
{
	unsigned home_index = set->started_count++ % set->cores->count;

	return volume_start(volume, set->cores, home_index, set->calls);
}

int
volume_set_start(struct volume_set *set, struct cores *cores, struct call_pool *calls)
{
	struct list_node *node;
	int error = 0;

	set->cores = cores;
	set->calls = calls;
	list_for_each(node, &set->entries) {
		if (error == 0)
			error = start(set, container_of(node, struct volume_entry, node)->volume);
	}
	return error;
}

/* A volume whose content is gone when it is closed: another export with the same options is another volume. */
static bool
has_own_content(const struct volume_options *options)
{
	return options->path == NULL && options->kind != VOLUME_KIND_NULL;
}

/* A volume that is open for writing serves those who only read, too.  One that is open with another cache serves as well: both at one
 * time would write over each other's bytes. */
static bool
does_for(const struct volume_options *open, const struct volume_options *wanted)
{
	struct volume_options with_access = *wanted;

	if (wanted->read_only && !open->read_only)
		with_access.read_only = false;
	with_access.cache = open->cache;
	return volume_options_equal(open, &with_access);
}

/* Whether an export of the configuration OFFER has ENTRY, and leaves nothing of it for another with
 * OPTIONS.  Only readers share what was open for writing before: alone each would meet its lock. */
static bool
is_taken(const struct volume_entry *entry, unsigned offer, const struct volume_options *options)
{
	bool for_readers = !entry->options.read_only && entry->last_reads && options->read_only;

	return entry->last_offer == offer && !for_readers;
}

static bool
may_share(const struct volume_entry *entry, unsigned offer, const char *name,
	  const struct volume_options *options)
{
	return !entry->unlocked && !is_taken(entry, offer, options) &&
	       does_for(&entry->options, options) &&
	       (!has_own_content(options) || strcmp(entry->name, name) == 0);
}

static struct volume_entry *
find(struct volume_set *set, unsigned offer, const char *name, const struct volume_options *options)
{
	struct volume_entry *other = NULL;
	struct list_node *node;

	list_for_each(node, &set->entries) {
		struct volume_entry *entry = container_of(node, struct volume_entry, node);

		if (!may_share(entry, offer, name, options))
			continue;
		if (entry->options.cache == options->cache)
			return entry;
		other = entry;
	}
	return other;
}

/* Whether ENTRY is open for reading only, with whatever cache, and OPTIONS say how to open the same for writing. */
static bool
reads_the_same(const struct volume_entry *entry, const struct volume_options *options)
{
	struct volume_options reading = *options;

	reading.read_only = true;
	reading.cache = entry->options.cache;
	return !options->read_only && volume_options_equal(&entry->options, &reading);
}

/* Whether ENTRY is such a reader, of another configuration than OFFER, which wants to open it for writing as OPTIONS say. */
static bool
is_reader(const struct volume_entry *entry, unsigned offer, const struct volume_options *options)
{
	return reads_the_same(entry, options) && !entry->unlocked && entry->last_offer != offer;
}

static void
lock_again(struct volume_entry *reader)
{
	reader->writer = NULL;
	reader->unlocked = volume_lock(reader->volume, true) < 0;
}

/* WRITER is closed: whom it was opened beside has the image for itself again. */
static void
lock_readers_again(const struct volume_entry *writer)
{
	struct list_node *node;

	list_for_each(node, &writer->set->entries) {
		struct volume_entry *reader = container_of(node, struct volume_entry, node);

		if (reader->writer == writer)
			lock_again(reader);
	}
}

/* The export whose volume, of another configuration or kept from one, is of the image at OPTIONS'
 * path and keeps it from being opened; NULL: none.  One that this configuration has taken may just
 * as well make way itself, which is what the lock's own message says. */
static const char *
find_holder(const struct volume_set *set, unsigned offer, const struct volume_options *options)
{
	const struct list_node *node;
	struct image image;

	image_find(options->path, &image);
	list_for_each(node, &set->entries) {
		const struct volume_entry *entry = container_of(node, struct volume_entry, node);
		bool both_read = entry->options.read_only && options->read_only;

		if (!entry->unlocked && !both_read && !is_taken(entry, offer, options) &&
		    image_is_same(&entry->image, &image))
			return entry->name;
	}
	return NULL;
}

/* Open WRITER's volume beside those who read it, whose locks would be in the way.  They keep to reading, and from now on under the
 * writer's lock.  If any reads through the page cache WRITER writes there, too: direct writes to a device leave in it what is read meanwhile. */
static int
open_beside_readers(struct volume_entry *writer, unsigned offer)
{
	struct list_node *node;
	int error = 0;

	list_for_each(node, &writer->set->entries) {
		struct volume_entry *reader = container_of(node, struct volume_entry, node);

		if (reads_the_same(reader, &writer->options) &&
		    reader->options.cache == VOLUME_CACHE_HOST)
			writer->options.cache = VOLUME_CACHE_HOST;
		if (error < 0 || !is_reader(reader, offer, &writer->options))
			continue;
		error = volume_lock(reader->volume, false);
		reader->unlocked = true;
		reader->writer = writer;
	}
	if (error < 0)
		return error;
	writer->options.holder = find_holder(writer->set, offer, &writer->options);
	error = volume_open(&writer->options, &writer->volume);
	writer->options.holder = NULL; /* it may be gone before this one */
	return error;
}

/* Memory is not carried over from one size to another: whoever expected that is told. */
static void
warn_of_new_content(const struct volume_set *set, const char *name,
		    const struct volume_options *options)
{
	const struct list_node *node;

	list_for_each(node, &set->entries) {
		const struct volume_entry *entry = container_of(node, struct volume_entry, node);

		if (has_own_content(options) && has_own_content(&entry->options) &&
		    strcmp(entry->name, name) == 0)
			log_warning("export \"%s\" has another size or other faults now: it begins "
				    "empty, and what was in its memory is only for connections "
				    "from before",
				    name);
	}
}

static int
open_entry(struct volume_set *set, unsigned offer, const char *name,
	   const struct volume_options *options, struct volume_entry **result)
{
	struct volume_entry *entry = calloc(1, sizeof(*entry));
	int error = -ENOMEM;

	if (entry == NULL)
		return error;
	entry->set = set;
	entry->name = strdup(name);
	if (entry->name == NULL || volume_options_copy(options, &entry->options) < 0)
		goto err_after_name;
	warn_of_new_content(set, name, options);
	error = open_beside_readers(entry, offer);
	if (error < 0)
		goto err_after_options;
	image_find(options->path, &entry->image);
	entry->volume->export_name = entry->name;
	if (set->cores != NULL)
		error = start(set, entry->volume);
	if (error < 0)
		goto err_after_open;
	list_init(&entry->node);
	list_append(&set->entries, &entry->node);
	*result = entry;
	return 0;

err_after_open:
	(void)volume_close(entry->volume);
err_after_options:
	lock_readers_again(entry);
	volume_options_clear(&entry->options);
err_after_name:
	free(entry->name);
	free(entry);
	return error;
}

int
volume_set_acquire(struct volume_set *set, unsigned offer, const char *name,
		   const struct volume_options *options, struct volume_entry **result)
{
	struct volume_entry *entry = find(set, offer, name, options);
	int error = 0;

	if (entry == NULL)
		error = open_entry(set, offer, name, options, &entry);
	if (error < 0)
		return error;
	if (entry->options.cache != options->cache)
		log_warning("export \"%s\": %s is open with cache = %s, which stays; to change it, "
			    "reload without this export and, when its clients have gone, with it, "
			    "or restart the daemon",
			    name, entry->volume->path, volume_cache_names[entry->options.cache]);
	entry->users++;
	entry->last_offer = offer;
	entry->last_reads = options->read_only;
	*result = entry;
	return 0;
}

int
volume_set_release(struct volume_entry *entry)
{
	int error;

	if (--entry->users > 0)
		return 0;
	error = volume_close(entry->volume);
	list_remove(&entry->node);
	lock_readers_again(entry);
	volume_options_clear(&entry->options);
	free(entry->name);
	free(entry);
	return error;
}
