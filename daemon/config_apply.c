/* The checks of settings that have more than one source.  What gets into a config through here is
 * valid on its own, or an export whose mistakes were reported; config_finish looks at what depends
 * on the machine or on several settings. */
#include "daemon/config_apply.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/config_key.h"
#include "daemon/config_type.h"
#include "daemon/config_value.h"

static bool looks_like_several(const char *text);
static void write_visible(FILE *out, const char *text);
static int check_export(const struct config *config, const struct config_export *export,
			const char *where, FILE *errors);
static const char *origin_or(const struct config_export *export, const char *key,
			     const char *where);
static bool is_same_image(const struct config_export *left, const struct config_export *right);
static int check_text(const char *what, const char *text, const char *where, FILE *errors);

int
config_mistake(FILE *errors, const char *where, const char *format, ...)
{
	char *what;
	va_list arguments;
	int bytes;

	va_start(arguments, format);
	bytes = vasprintf(&what, format, arguments);
	va_end(arguments);
	write_visible(errors, where);
	write_visible(errors, ": ");
	write_visible(errors, bytes < 0 ? "no memory to say what is wrong" : what);
	fputc('\n', errors);
	if (bytes >= 0)
		free(what);
	return -EINVAL;
}

void
config_export_init(struct config_export *export)
{
	*export = (struct config_export){ .priority = PRIORITY_NORMAL,
					  .slow_ms = CONFIG_SLOW_MS_UNSET,
					  .burst_ms = 100 };
}

void
config_export_fini(struct config_export *export)
{
	free(export->name);
	free(export->path);
	free(export->fault);
	free(export->description);
	free(export->origin);
	config_origins_clear(&export->origins);
	access_rules_clear(&export->access);
	access_list_clear(&export->read_only_for);
	tls_names_clear(&export->allow_names);
	*export = (struct config_export){ 0 };
}

int
config_apply_cores(struct config *config, const char *text, const char *where, FILE *errors)
{
	const struct config_section *section = &config_sections[0];
	int error = 0;

	if (strcmp(text, "auto") == 0)
		config->cores.count = 0;
	else
		error = cpu_list_parse(text, &config->cores);
	if (error == -ERANGE)
		return config_mistake(errors, where,
				      "a core above 65535, or more than %d cores; expected auto or "
				      "a list such as 0-3,8",
				      CPU_LIST_MAX);
	if (error)
		return config_mistake(errors, where,
				      "not a list of cores, or a core is in it twice; expected "
				      "auto or a list such as 0-3,8");
	config->cores_auto = config->cores.count == 0;
	config_origins_set(&config->origins[0], section, config_key_find(section, "cores"), where);
	return 0;
}

int
config_apply_listen(struct config *config, const char *text, const char *where, FILE *errors)
{
	struct address address;
	const char *why;

	if (looks_like_several(text))
		return config_mistake(errors, where,
				      "several addresses in one; give each a listen of its own");
	if (address_parse(text, &address, &why))
		return config_mistake(errors, where, "%s", why);
	if (config->listen_count == CONFIG_LISTEN_MAX)
		return config_mistake(errors, where, "too many addresses; at most %d",
				      CONFIG_LISTEN_MAX);
	for (size_t i = 0; i < config->listen_count; i++) {
		if (address_collides(&config->listen[i], &address))
			return config_mistake(
				errors, where, "%s listens there already; keep one of them",
				config->listen_origins[i] ? config->listen_origins[i] : "another");
	}
	config->listen_origins[config->listen_count] = strdup(where);
	config->listen[config->listen_count++] = address;
	return 0;
}

int
config_apply_export(struct config *config, struct config_export *export, const char *where,
		    FILE *errors)
{
	struct config_export *exports;

	if (check_export(config, export, where, errors))
		return -EINVAL;
	exports = reallocarray(config->exports, config->export_count + 1, sizeof(*exports));
	if (!exports)
		return config_mistake(errors, where,
				      "no memory"); /* UNTESTED: no fault for malloc */
	config->exports = exports;
	exports[config->export_count++] = *export;
	*export = (struct config_export){ 0 };
	return 0;
}

int
config_apply_size(const char *text, struct config_export *export, const char *where, FILE *errors)
{
	const struct config_section *section = &config_sections[config_section_count - 1];
	const struct config_key *key = config_key_find(section, "size");
	struct config_target target = { .object = export, .where = where, .errors = errors };

	CHECK(section->of_export && key != NULL);
	return key->type->set(key, &target, text);
}

/* Whether something behind a comma or a space in TEXT looks like another address.  A Unix socket's path may have either in it, and
 * colons: there only what is hardly part of a path counts. */
static bool
looks_like_several(const char *text)
{
	static const char separators[] = ",; \t";
	bool is_path = strncmp(text, "unix:", 5) == 0;

	for (text += strcspn(text, separators); *text; text += strcspn(text, separators)) {
		text += strspn(text, separators);
		if (strncmp(text, "unix:", 5) == 0 || strncmp(text, "vsock:", 6) == 0 ||
		    text[0] == '[' || (!is_path && strchr(text, ':')))
			return true;
	}
	return false;
}

/* Write TEXT with "?" for control characters: what is quoted from a file can neither begin a line
 * nor drive a terminal. */
static void
write_visible(FILE *out, const char *text)
{
	for (; *text; text++) {
		unsigned char byte = (unsigned char)*text;

		fputc(byte < 0x20 || byte == 0x7f ? '?' : byte, out);
	}
}

static const char *
origin_or(const struct config_export *export, const char *key, const char *where)
{
	const char *origin = config_export_origin(export, key);

	return origin == export->origin ? where : origin;
}

static bool
is_same_image(const struct config_export *left, const struct config_export *right)
{
	return left->path && right->path && strcmp(left->path, right->path) == 0 &&
	       !config_may_share_image(left, right);
}

static int
check_export(const struct config *config, const struct config_export *export, const char *where,
	     FILE *errors)
{
	struct volume_options options = config_volume_options(export);
	struct volume_mistake mistake;
	const char *where_text = where;

	if (check_text("name", export->name, where, errors))
		return -EINVAL;
	/* Its whole value is not quoted if it is too long. */
	if (export->description && strlen(export->description) <= CONFIG_TEXT_BYTES_MAX)
		where_text = origin_or(export, "description", where);
	if (export->description &&
	    check_text("description", export->description, where_text, errors))
		return -EINVAL;
	if (!config_volume_in_doubt(export) && volume_options_mistake(&options, &mistake))
		return config_mistake(errors,
				      mistake.key ? origin_or(export, mistake.key, where) : where,
				      "%s", mistake.text);
	for (size_t i = 0; i < config->export_count; i++) {
		const struct config_export *other = &config->exports[i];

		if (strcmp(other->name, export->name) == 0)
			return config_mistake(errors, where,
					      "export \"%s\" of %s has this name already; give "
					      "each export a name of its own",
					      other->name, other->origin);
		if (is_same_image(other, export))
			return config_mistake(errors, origin_or(export, "path", where),
					      "export \"%s\" of %s has this image already; give "
					      "each its own, or make both read-only",
					      other->name, other->origin);
	}
	return 0;
}

static int
check_text(const char *what, const char *text, const char *where, FILE *errors)
{
	size_t bytes = strlen(text);

	if (bytes > CONFIG_TEXT_BYTES_MAX)
		return config_mistake(errors, where, "the %s has %zu bytes; at most %d", what,
				      bytes, CONFIG_TEXT_BYTES_MAX);
	if (!config_value_utf8(text))
		return config_mistake(errors, where,
				      "the %s is not UTF-8; save it in that encoding", what);
	return 0;
}
