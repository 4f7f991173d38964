/* Each part is looked at whatever came of the others, to find all mistakes in one go. */
#include "daemon/inspection.h"

#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/config.h"
#include "daemon/config_tls.h"
#include "daemon/core_choice.h"
#include "daemon/image.h"
#include "daemon/limits.h"
#include "daemon/privileges.h"
#include "disk/volume.h"
#include "net/listener.h"
#include "reactor/log.h"

#define RUN_DIRECTORY "/run/"

static int check_tls(const struct config *config);
static int check_listeners(const struct config *config);
static bool is_made_at_start(const struct address *address);
static int check_exports(const struct config *config, FILE *out);
static int check_other_names(const struct config *config, const struct image *images, size_t index);

int
inspection_run(const struct config *config, FILE *out)
{
	int error;

	config_describe(config, out);
	core_choice_describe("", &config->cores, out);
	limits_describe(config, out);
	error = limits_check(config);
	if (privileges_check(config) < 0)
		error = -EPERM;
	if (check_tls(config) < 0)
		error = -EINVAL;
	if (check_listeners(config) < 0)
		error = -EINVAL;
	return check_exports(config, out) < 0 ? -EINVAL : error;
}

static int
check_tls(const struct config *config)
{
	struct tls_files files = config_tls_files(config);
	struct tls_credentials *credentials;
	int error;

	if (config->tls_mode == TLS_MODE_OFF)
		return 0;
	error = tls_credentials_load(&files, &credentials);
	if (error == 0)
		tls_credentials_put(credentials);
	return error;
}

static int
check_listeners(const struct config *config)
{
	int error = 0;

	for (size_t i = 0; i < config->listen_count; i++) {
		const char *origin =
			config->listen_origins[i] ? config->listen_origins[i] : "listen";

		if (is_made_at_start(&config->listen[i])) {
			log_warning("%s: its directory is not there; RuntimeDirectory= of a unit "
				    "makes it, otherwise make it before "
				    "the start",
				    origin);
			continue;
		}
		if (listener_check(&config->listen[i]) == 0)
			continue;
		log_error("%s: cannot be listened on", origin);
		error = -EINVAL;
	}
	return error;
}

/* Below /run directories come with the services they belong to, and go with them: there may be one when this one's unit runs.
 * Source: systemd.exec(5), RuntimeDirectory= and RUNTIME_DIRECTORY. */
static bool
is_made_at_start(const struct address *address)
{
	const struct sockaddr_un *name = (const struct sockaddr_un *)&address->storage;
	char path[sizeof(name->sun_path) + 1];
	struct stat status;

	if (address->storage.ss_family != AF_UNIX || getenv("RUNTIME_DIRECTORY") != NULL ||
	    strncmp(name->sun_path, RUN_DIRECTORY, strlen(RUN_DIRECTORY)) != 0)
		return false;
	snprintf(path, sizeof(path), "%s", name->sun_path);
	return stat(dirname(path), &status) != 0 && errno == ENOENT;
}

static int
check_exports(const struct config *config, FILE *out)
{
	/* Each is looked at once: an inspection is part of every reload of the unit. */
	struct image *images = calloc(config->export_count + 1, sizeof(*images));
	int error = 0;

	if (!images)
		return -ENOMEM; /* UNTESTED: no fault for malloc */
	for (size_t i = 0; i < config->export_count; i++) {
		const struct config_export *export = &config->exports[i];
		struct volume_options options = config_volume_options(export);
		/* What is opened then may be another volume than was meant, or in another way. */
		bool in_doubt = config_volume_in_doubt(export);
		uint64_t size_bytes;
		int result = in_doubt ? 0 : volume_check(&options, &size_bytes);

		image_find(export->path, &images[i]);
		if (result == 0)
			result = check_other_names(config, images, i);
		if (result < 0) {
			log_error("%s: export \"%s\" cannot be served",
				  config_export_origin(export, "path"), export->name);
			error = result;
			continue;
		}
		if (in_doubt)
			continue;
		fprintf(out, "export \"%s\": %llu bytes\n", export->name,
			(unsigned long long)size_bytes);
	}
	free(images);
	return error;
}

/* The image of the export at INDEX may be another one's before it, by a link or another way to write its path: one of them would find the
 * other's lock.  The same path twice is found when it is read. */
static int
check_other_names(const struct config *config, const struct image *images, size_t index)
{
	const struct config_export *export = &config->exports[index];

	for (size_t i = 0; i < index; i++) {
		const struct config_export *other = &config->exports[i];

		if (config_may_share_image(export, other) ||
		    !image_is_same(&images[index], &images[i]))
			continue;
		log_error(
			"%s: is the same image as %s of export \"%s\" (%s); give each its own, or "
			"make both read-only",
			export->path, other->path, other->name, other->origin);
		return -EBUSY;
	}
	return 0;
}
