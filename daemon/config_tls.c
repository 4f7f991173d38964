/* [tls] as a whole. */
#include "daemon/config_tls.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/config.h"
#include "daemon/config_apply.h"

static const char *const mode_key[] = { "mode", NULL };
static const char *const file_keys[] = { "certificate",	  "key",      "ca",
					 "verify-client", "psk-file", NULL };

/* Who names files wants TLS: without a mode it would be off, and nothing would say so. */
static int
check_mode(const struct config *config, FILE *errors)
{
	static const char *const keys[] = { "certificate", "key", "ca", "psk-file" };

	if (config_origin(config, "tls", "mode", NULL) != NULL)
		return 0;
	for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
		const char *where = config_origin(config, "tls", keys[i], NULL);

		if (where != NULL)
			return config_mistake(
				errors, where,
				"mode is not set; say mode = allowed or mode = required, or "
				"mode = off to leave this unused");
	}
	return 0;
}

static int
check_files(const struct config *config, FILE *errors)
{
	const struct tls_files *files = &config->tls;
	const char *mode = config_origin(config, "tls", "mode", "[tls]");

	if (files->certificate == NULL && files->psk_file == NULL)
		return config_mistake(errors, mode,
				      "neither certificate nor psk-file; TLS needs one of them");
	if ((files->certificate == NULL) != (files->key == NULL))
		return config_mistake(
			errors,
			config_origin(config, "tls", files->key ? "key" : "certificate", mode),
			"certificate and key belong together; the %s is missing",
			files->key == NULL ? "key" : "certificate");
	if (files->certificate != NULL && files->verify_client && files->ca == NULL)
		return config_mistake(errors, config_origin(config, "tls", "certificate", mode),
				      "no ca to verify clients' certificates with; name it, or say "
				      "verify-client = no to let in anybody");
	return 0;
}

/* is_off: TLS is, and not by a mistake that was reported. */
static int
check_export(const struct config *config, const struct config_export *export, bool is_off,
	     FILE *errors)
{
	const struct tls_files *files = &config->tls;
	bool named = export->allow_names.count > 0;

	if (is_off && (export->tls_only || named))
		return config_mistake(
			errors, config_export_origin(export, named ? "allow-names" : "tls-only"),
			"export \"%s\" has %s, but TLS is off; nobody could use it: "
			"set mode in [tls]",
			export->name, named ? "allow-names" : "tls-only");
	if (named && files->psk_file == NULL && !files->verify_client &&
	    !config_in_doubt(config, "tls", file_keys))
		return config_mistake(errors, config_export_origin(export, "allow-names"),
				      "export \"%s\" has allow-names, but with verify-client = no "
				      "clients prove no name; nobody could use it",
				      export->name);
	return 0;
}

int
config_tls_check(const struct config *config, FILE *errors)
{
	bool is_off = config->tls_mode == TLS_MODE_OFF && !config_in_doubt(config, "tls", mode_key);
	int error = 0;

	if (config->tls_mode != TLS_MODE_OFF && !config_in_doubt(config, "tls", file_keys))
		error = check_files(config, errors);
	if (is_off && check_mode(config, errors)) {
		error = -EINVAL;
		is_off = false;
	}
	for (size_t i = 0; i < config->export_count; i++) {
		if (check_export(config, &config->exports[i], is_off, errors))
			error = -EINVAL;
	}
	return error;
}

struct tls_files
config_tls_files(const struct config *config)
{
	struct tls_files files = config->tls;

	files.origins = (struct tls_origins){
		.ca = config_origin(config, "tls", "ca", NULL),
		.certificate = config_origin(config, "tls", "certificate", NULL),
		.key = config_origin(config, "tls", "key", NULL),
		.psk_file = config_origin(config, "tls", "psk-file", NULL),
		.priority = config_origin(config, "tls", "priority", NULL),
	};
	return files;
}

void
config_tls_fini(struct tls_files *files)
{
	free(files->ca);
	free(files->certificate);
	free(files->key);
	free(files->psk_file);
	free(files->priority);
	*files = (struct tls_files){ .ca = NULL };
}
