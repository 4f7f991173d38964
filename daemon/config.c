/* The settings' defaults, what the command line adds to them, and the check of the whole.
 * The configuration file is read in daemon/config_file.c. */
#include "daemon/config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_apply.h"
#include "daemon/config_value.h"

#define LISTEN_DEFAULT	 "127.0.0.1:10809" /* 10809: assigned to NBD by IANA */
#define CORES_TEXT_BYTES 1600		   /* the longest list: CPU_LIST_MAX times "65535," */

static_assert(CORES_TEXT_BYTES > CPU_LIST_MAX * 6, "every list of cores fits");

static int finish_cores(struct config *config, FILE *errors);
static void describe_reactor(const struct config *config, FILE *out);
static void describe_server(const struct config *config, FILE *out);
static void describe_export(const struct config_export *export, FILE *out);
static void describe_ranges(const char *label, const struct access_list *list, FILE *out);
static void format_bytes(uint64_t bytes, char *text, size_t text_bytes);

void
config_init(struct config *config)
{
	*config = (struct config){
		.cores_auto = true,
		.queue_depth = 256,
		.poll_us = 200,
		.stall_ms = 500,
		.buffer_memory_bytes = (uint64_t)128 << 20,
		.connections_max = 1024,
	};
}

void
config_fini(struct config *config)
{
	for (size_t i = 0; i < config->export_count; i++)
		config_export_clear(&config->exports[i]);
	free(config->exports);
	access_list_clear(&config->access.allow);
	access_list_clear(&config->access.deny);
	config->exports = NULL;
	config->export_count = 0;
}

int
config_add_export(struct config *config, const char *text, FILE *errors)
{
	char origin[] = "--export";
	char *where, *name, *equals;
	int error = -EINVAL;

	name = strdup(text);
	if (!name)
		return config_mistake(errors, origin,
				      "no memory"); /* UNTESTED: no fault for malloc */
	if (asprintf(&where, "%s %s", origin, text) < 0) {
		config_mistake(errors, origin, "no memory"); /* UNTESTED: no fault for malloc */
		goto err_after_name;
	}
	equals = strchr(name, '=');
	if (!equals) {
		config_mistake(errors, where,
			       "no \"=\"; expected NAME=PATH, or =PATH for the default export");
		goto err_after_where;
	}
	*equals = '\0';
	error = config_apply_export(config,
				    &(struct config_export){ .name = name,
							     .path = equals + 1,
							     .priority = PRIORITY_NORMAL,
							     .origin = origin },
				    where, errors);
err_after_where:
	free(where);
err_after_name:
	free(name);
	return error;
}

int
config_add_listen(struct config *config, const char *text, FILE *errors)
{
	char *where;
	int error;

	if (asprintf(&where, "--listen %s", text) < 0)
		return config_mistake(errors, "--listen",
				      "no memory"); /* UNTESTED: no fault for malloc */
	error = config_apply_listen(config, text, where, errors);
	free(where);
	return error;
}

int
config_set_cores(struct config *config, const char *text, FILE *errors)
{
	char *where;
	int error;

	if (asprintf(&where, "--cores %s", text) < 0)
		return config_mistake(errors, "--cores",
				      "no memory"); /* UNTESTED: no fault for malloc */
	error = config_apply_cores(config, text, where, errors);
	free(where);
	return error;
}

int
config_finish(struct config *config, FILE *errors)
{
	int error = finish_cores(config, errors);

	if (config->listen_count == 0 &&
	    config_apply_listen(config, LISTEN_DEFAULT, "the default listener", errors))
		error = -EINVAL;
	if (config->export_count == 0)
		error = config_mistake(errors, "no export",
				       "add [export NAME] with path = FILE to the configuration, "
				       "or give --export NAME=FILE");
	return error;
}

void
config_describe(const struct config *config, FILE *out)
{
	describe_reactor(config, out);
	describe_server(config, out);
	for (size_t i = 0; i < config->export_count; i++)
		describe_export(&config->exports[i], out);
}

static int
finish_cores(struct config *config, FILE *errors)
{
	char wanted_text[CORES_TEXT_BYTES], allowed_text[CORES_TEXT_BYTES];
	struct cpu_list allowed;
	int missing, error;

	error = cpu_list_auto(&allowed);
	if (error)
		return config_mistake(errors, "cores", "cannot ask which cores are allowed: %s",
				      strerror(-error));
	if (config->cores_auto) {
		config->cores = allowed;
		return 0;
	}
	missing = cpu_list_first_missing(&config->cores, &allowed);
	if (missing < 0)
		return 0;
	cpu_list_format(&config->cores, wanted_text, sizeof(wanted_text));
	cpu_list_format(&allowed, allowed_text, sizeof(allowed_text));
	return config_mistake(errors, "cores",
			      "core %d of %s does not exist or is outside this process's affinity "
			      "mask; allowed: %s",
			      missing, wanted_text, allowed_text);
}

static void
describe_reactor(const struct config *config, FILE *out)
{
	char cores[CORES_TEXT_BYTES], each[32], total[32];

	cpu_list_format(&config->cores, cores, sizeof(cores));
	format_bytes(config->buffer_memory_bytes, each, sizeof(each));
	format_bytes(config->buffer_memory_bytes * config->cores.count, total, sizeof(total));
	fprintf(out, "cores            %s%s\n", cores, config->cores_auto ? " (auto)" : "");
	fprintf(out, "queue-depth      %u disk requests per core\n", config->queue_depth);
	fprintf(out, "poll-us          %u%s\n", config->poll_us,
		config->poll_us ? "" : " (sleep at once)");
	fprintf(out, "socket-batch     %u%s\n", config->socket_batch,
		config->socket_batch ? "" : " (never)");
	fprintf(out, "stall-ms         %u\n", config->stall_ms);
	fprintf(out, "buffer-memory    %s per core, %s in total\n", each, total);
}

static void
describe_server(const struct config *config, FILE *out)
{
	for (size_t i = 0; i < config->listen_count; i++) {
		char text[ADDRESS_TEXT_BYTES];

		address_format(&config->listen[i], text, sizeof(text));
		fprintf(out, "listen           %s\n", text);
	}
	fprintf(out, "max-connections  %u\n", config->connections_max);
	describe_ranges("allow            ", &config->access.allow, out);
	describe_ranges("deny             ", &config->access.deny, out);
}

static void
describe_export(const struct config_export *export, FILE *out)
{
	fprintf(out, "export           \"%s\"%s\n", export->name,
		export->name[0] ? "" : " (the default export)");
	fprintf(out, "  path           %s\n", export->path);
	fprintf(out, "  read-only      %s\n", export->read_only ? "yes" : "no");
	describe_ranges("  read-only-for  ", &export->read_only_for, out);
	fprintf(out, "  priority       %s\n", config_priority_name(export->priority));
	describe_ranges("  allow          ", &export->access.allow, out);
	describe_ranges("  deny           ", &export->access.deny, out);
	if (export->description)
		fprintf(out, "  description    %s\n", export->description);
}

/* All of LIST on a line behind LABEL; nothing if it is empty. */
static void
describe_ranges(const char *label, const struct access_list *list, FILE *out)
{
	for (size_t i = 0; i < list->count; i++) {
		char text[ACCESS_RANGE_TEXT_BYTES];

		access_range_format(&list->ranges[i], text);
		fprintf(out, "%s%s", i == 0 ? label : ", ", text);
	}
	if (list->count > 0)
		fputc('\n', out);
}

/* As the configuration takes it: in the largest unit that leaves a whole number. */
static void
format_bytes(uint64_t bytes, char *text, size_t text_bytes)
{
	static const char units[] = { 'K', 'M', 'G' };
	size_t unit = 0;

	if (bytes == 0 || bytes % 1024) {
		snprintf(text, text_bytes, "%" PRIu64, bytes);
		return;
	}
	for (bytes /= 1024; bytes % 1024 == 0 && unit + 1 < sizeof(units); unit++)
		bytes /= 1024;
	snprintf(text, text_bytes, "%" PRIu64 "%c", bytes, units[unit]);
}
