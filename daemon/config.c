/* The settings' defaults, what the command line adds to them, and the check of the whole.
 * The configuration file is read in daemon/config_file.c. */
#include "daemon/config.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_apply.h"
#include "daemon/config_key.h"
#include "daemon/config_tls.h"
#include "daemon/config_type.h"
#include "daemon/core_choice.h"

#define LISTEN_DEFAULT "127.0.0.1:10809" /* 10809: assigned to NBD by IANA */
/* The sanitizers trace the process themselves, and start programs. */
#ifdef MILLRACE_DEBUG
#define DEBUG_BUILD true
#else
#define DEBUG_BUILD false
#endif

#define LABEL_BYTES	 17   /* to where the values stand */
#define CORES_TEXT_BYTES 1600 /* the longest list: CPU_LIST_MAX times "65535," */

static_assert(CORES_TEXT_BYTES > CPU_LIST_MAX * 6, "every list of cores fits");

static int apply_option(struct config *config, const char *option,
			int (*apply)(struct config *config, const char *text, const char *where,
				     FILE *errors),
			const char *text, FILE *errors);
static int set_volume(const char *text, struct config_export *export, const char *where,
		      FILE *errors);
static int finish_cores(struct config *config, FILE *errors);
static void describe_keys(const struct config_section *section, const void *object,
			  const char *indent, FILE *out);

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
		.seccomp = !DEBUG_BUILD,
		.core_dumps = DEBUG_BUILD,
		.requests_per_connection = 128,
		.handshake_s = 10,
		.dead_peer_s = 60,
		.log_level = LOG_LEVEL_INFO,
		.tls = { .verify_client = true, .kernel = true },
	};
}

void
config_fini(struct config *config)
{
	for (size_t i = 0; i < config->export_count; i++)
		config_export_fini(&config->exports[i]);
	free(config->exports);
	free(config->user);
	config->user = NULL;
	free(config->exports_dir);
	config->exports_dir = NULL;
	config_tls_fini(&config->tls);
	access_rules_clear(&config->access);
	for (size_t i = 0; i < config->listen_count; i++)
		free(config->listen_origins[i]);
	config->listen_count = 0;
	for (unsigned i = 0; i < CONFIG_SECTIONS_MAX; i++)
		config_origins_clear(&config->origins[i]);
	config->exports = NULL;
	config->export_count = 0;
}

int
config_add_export(struct config *config, const char *text, FILE *errors)
{
	struct config_export export;
	const char *equals = strchr(text, '=');
	char *where;
	int error = -EINVAL;

	if (asprintf(&where, "--export %s", text) < 0)
		return config_mistake(errors, "--export",
				      "no memory"); /* UNTESTED: no fault for malloc */
	config_export_init(&export);
	if (!equals) {
		config_mistake(errors, where,
			       "no \"=\"; expected NAME=PATH, or =PATH for the default export");
		goto err_after_export;
	}
	export.name = strndup(text, (size_t)(equals - text));
	export.origin = strdup("--export");
	if (!export.name || !export.origin)
		config_mistake(errors, where, "no memory"); /* UNTESTED: as above */
	else if (set_volume(equals + 1, &export, where, errors) == 0)
		error = config_apply_export(config, &export, where, errors);
err_after_export:
	config_export_fini(&export);
	free(where);
	if (error)
		config->mistaken = true;
	return error;
}

int
config_add_listen(struct config *config, const char *text, FILE *errors)
{
	return apply_option(config, "--listen", config_apply_listen, text, errors);
}

int
config_set_cores(struct config *config, const char *text, FILE *errors)
{
	int error = apply_option(config, "--cores", config_apply_cores, text, errors);

	/* They belong to the cores that are replaced; beside a list they would be a mistake. */
	if (error == 0)
		config->skip_core_0 = config->skip_smt = false;
	return error;
}

int
config_finish(struct config *config, FILE *errors)
{
	int error = finish_cores(config, errors);

	if (config_tls_check(config, errors))
		error = -EINVAL;
	for (size_t i = 0; i < config->export_count; i++)
		config->exports[i].tls_only |= config->exports[i].allow_names.count > 0;
	config->listen_default = config->listen_count == 0;
	if (config->listen_default &&
	    config_apply_listen(config, LISTEN_DEFAULT, "the default listener", errors))
		error = -EINVAL;
	if (config->export_count == 0 && !config->mistaken)
		error = config_mistake(errors, "no export",
				       "add [export NAME] with path = FILE to the configuration, "
				       "or give --export NAME=FILE");
	if (error)
		config->mistaken = true;
	return error;
}

struct volume_options
config_volume_options(const struct config_export *export)
{
	return (struct volume_options){
		.kind = export->type,
		.path = export->path,
		.size_bytes = export->size_bytes,
		.fault = export->fault,
		.read_only = export->read_only,
		.cache = export->cache,
		.create = export->create,
	};
}

bool
config_volume_in_doubt(const struct config_export *export)
{
	/* Those that set what is above. */
	static const char *const keys[] = { "type",  "path",  "size",	   "create",
					    "fault", "cache", "read-only", NULL };

	return config_export_in_doubt(export, keys);
}

bool
config_may_share_image(const struct config_export *left, const struct config_export *right)
{
	static const char *const path[] = { "path", NULL };
	static const char *const read_only[] = { "read-only", NULL };

	if (config_export_in_doubt(left, path) || config_export_in_doubt(right, path))
		return true;
	return (left->read_only || config_export_in_doubt(left, read_only)) &&
	       (right->read_only || config_export_in_doubt(right, read_only));
}

void
config_describe(const struct config *config, FILE *out)
{
	for (unsigned i = 0; i < config_section_count; i++) {
		const struct config_section *section = &config_sections[i];

		if (!section->of_export)
			describe_keys(section, config, "", out);
		for (size_t j = 0; section->of_export && j < config->export_count; j++) {
			const struct config_export *export = &config->exports[j];

			fprintf(out, "%-*s\"%s\"%s\n", LABEL_BYTES, section->name, export->name,
				export->name[0] ? "" : " (the default export)");
			describe_keys(section, export, "  ", out);
		}
	}
}

static int
apply_option(struct config *config, const char *option,
	     int (*apply)(struct config *config, const char *text, const char *where, FILE *errors),
	     const char *text, FILE *errors)
{
	char *where;
	int error;

	if (asprintf(&where, "%s %s", option, text) < 0)
		return config_mistake(errors, option,
				      "no memory"); /* UNTESTED: no fault for malloc */
	error = apply(config, text, where, errors);
	free(where);
	if (error)
		config->mistaken = true;
	return error;
}

/* TEXT, of --export: a path, or memory:SIZE or null:SIZE. */
static int
set_volume(const char *text, struct config_export *export, const char *where, FILE *errors)
{
	static const enum volume_kind sized[] = { VOLUME_KIND_MEMORY, VOLUME_KIND_NULL };

	for (size_t i = 0; i < ARRAY_COUNT(sized); i++) {
		const char *name = volume_kind_names[sized[i]];

		if (strncmp(text, name, strlen(name)) != 0 || text[strlen(name)] != ':')
			continue;
		export->type = sized[i];
		return config_apply_size(text + strlen(name) + 1, export, where, errors);
	}
	export->path = strdup(text);
	return export->path ? 0
			    : config_mistake(errors, where, "no memory"); /* UNTESTED: as above */
}

/* Where this process ran when it first asked: where the kernel found room for it.  The same at each reload, which compares. */
static unsigned
first_cpu(void)
{
	static int cpu = -1;

	if (cpu < 0)
		cpu = sched_getcpu();
	return cpu < 0 ? 0 : (unsigned)cpu;
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
	cpu_list_format(&allowed, allowed_text, sizeof(allowed_text));
	if (config->cores_auto) {
		if (core_choice_make("", &allowed, first_cpu(), config->skip_core_0,
				     config->skip_smt, &config->cores))
			return 0;
		config->cores = allowed; /* something to go on with, to find more */
		return config_mistake(
			errors, config_origin(config, "reactor", "skip-core-0", "skip-core-0"),
			"no core is left, this process may use only %s; take "
			"skip-core-0 out, or allow it more",
			allowed_text);
	}
	if (config->skip_core_0 || config->skip_smt)
		return config_mistake(
			errors,
			config_origin(config, "reactor",
				      config->skip_core_0 ? "skip-core-0" : "skip-smt",
				      "skip-core-0 and skip-smt"),
			"is for cores = auto only; leave the cores out of the list "
			"instead");
	error = cpu_list_allowed(&config->cores, &allowed);
	if (error)
		return config_mistake(errors, "cores", "cannot ask which cores are allowed: %s",
				      strerror(-error));
	missing = cpu_list_first_missing(&config->cores, &allowed);
	if (missing < 0)
		return 0;
	cpu_list_format(&config->cores, wanted_text, sizeof(wanted_text));
	return config_mistake(errors, config_origin(config, "reactor", "cores", "cores"),
			      "core %d of %s does not exist or is outside this process's affinity "
			      "mask; allowed: %s",
			      missing, wanted_text, allowed_text);
}

/* The fields of OBJECT that SECTION's keys set. */
static void
describe_keys(const struct config_section *section, const void *object, const char *indent,
	      FILE *out)
{
	for (unsigned i = 0; i < section->key_count; i++) {
		const struct config_key *key = &section->keys[i];
		char label[LABEL_BYTES + CONFIG_KEYS_MAX];

		/* A name that is too long for its column still has a space behind it. */
		snprintf(label, sizeof(label), "%s%-*s ", indent,
			 LABEL_BYTES - 1 - (int)strlen(indent), key->name);
		key->type->describe(key, object, label, out);
	}
}
