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

static int read_volume(char *text, struct config_export *export, const char *where, FILE *errors);
static int finish_cores(struct config *config, FILE *errors);
static void describe_reactor(const struct config *config, FILE *out);
static void describe_server(const struct config *config, FILE *out);
static void describe_export(const struct config_export *export, FILE *out);
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
	for (size_t i = 0; i < config->export_count; i++) {
		free(config->exports[i].name);
		free(config->exports[i].path);
		free(config->exports[i].description);
		free(config->exports[i].origin);
	}
	free(config->exports);
	config->exports = NULL;
	config->export_count = 0;
}

int
config_add_export(struct config *config, const char *text, FILE *errors)
{
	char origin[] = "--export";
	struct config_export export;
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
	export = (struct config_export){ .name = name,
					 .priority = PRIORITY_NORMAL,
					 .origin = origin };
	error = read_volume(equals + 1, &export, where, errors);
	if (error == 0)
		error = config_apply_export(config, &export, where, errors);
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

struct volume_options
config_volume_options(const struct config_export *export)
{
	return (struct volume_options){
		.kind = export->type,
		.path = export->path,
		.size_bytes = export->size_bytes,
		.read_only = export->read_only,
	};
}

void
config_describe(const struct config *config, FILE *out)
{
	describe_reactor(config, out);
	describe_server(config, out);
	for (size_t i = 0; i < config->export_count; i++)
		describe_export(&config->exports[i], out);
}

/* TEXT, of --export: a path, or memory:SIZE or null:SIZE. */
static int
read_volume(char *text, struct config_export *export, const char *where, FILE *errors)
{
	static const enum volume_kind sized[] = { VOLUME_KIND_MEMORY, VOLUME_KIND_NULL };

	for (size_t i = 0; i < ARRAY_COUNT(sized); i++) {
		size_t name_bytes = strlen(volume_kind_name(sized[i]));

		if (strncmp(text, volume_kind_name(sized[i]), name_bytes) != 0 ||
		    text[name_bytes] != ':')
			continue;
		export->type = sized[i];
		return config_apply_size(text + name_bytes + 1, &export->size_bytes, where, errors);
	}
	export->path = text;
	return 0;
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
}

static void
describe_export(const struct config_export *export, FILE *out)
{
	fprintf(out, "export           \"%s\"%s\n", export->name,
		export->name[0] ? "" : " (the default export)");
	fprintf(out, "  type           %s\n", volume_kind_name(export->type));
	if (export->path)
		fprintf(out, "  path           %s\n", export->path);
	if (export->size_bytes > 0) {
		char size[32];

		format_bytes(export->size_bytes, size, sizeof(size));
		fprintf(out, "  size           %s\n", size);
	}
	fprintf(out, "  read-only      %s\n", export->read_only ? "yes" : "no");
	fprintf(out, "  priority       %s\n", config_priority_name(export->priority));
	if (export->description)
		fprintf(out, "  description    %s\n", export->description);
}

/* As the configuration takes it: in the largest unit that leaves a whole number. */
static void
format_bytes(uint64_t bytes, char *text, size_t text_bytes)
{
	static const char units[] = { 'K', 'M', 'G', 'T' };
	size_t unit = 0;

	if (bytes == 0 || bytes % 1024) {
		snprintf(text, text_bytes, "%" PRIu64, bytes);
		return;
	}
	for (bytes /= 1024; bytes % 1024 == 0 && unit + 1 < sizeof(units); unit++)
		bytes /= 1024;
	snprintf(text, text_bytes, "%" PRIu64 "%c", bytes, units[unit]);
}
