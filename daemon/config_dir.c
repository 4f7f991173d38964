/* A configuration is a file and, where that names a directory for exports, the files NAME.conf in there, in the order of their
 * names as bytes.  Each of them holds exports only: a tool that drops one in cannot change the daemon by it. */
#include "daemon/config.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_apply.h"
#include "daemon/config_file.h"

#define SUFFIX ".conf"

static char *resolve(const char *directory, const char *config_path);
static int read_directory(struct config *config, const char *directory, FILE *errors);
static int is_config(const struct dirent *entry);
static int compare_names(const struct dirent **left, const struct dirent **right);

int
config_read_file(struct config *config, const char *path, FILE *errors)
{
	int error = config_file_read(config, path, false, errors);
	char *directory;

	if (config->exports_dir) {
		directory = resolve(config->exports_dir, path);
		if (!directory)
			error = config_mistake(errors, path,
					       "no memory"); /* UNTESTED: no fault for malloc */
		else if (read_directory(config, directory, errors))
			error = -EINVAL;
		free(config->exports_dir);
		config->exports_dir = directory;
	}
	if (error)
		config->mistaken = true;
	return error;
}

/* A relative DIRECTORY is below that of the file at CONFIG_PATH.  Returns NULL without memory; else free it. */
static char *
resolve(const char *directory, const char *config_path)
{
	const char *slash = strrchr(config_path, '/');
	char *resolved;

	if (directory[0] == '/' || !slash)
		return strdup(directory);
	if (asprintf(&resolved, "%.*s/%s", (int)(slash - config_path), config_path, directory) < 0)
		return NULL;
	return resolved;
}

static int
read_directory(struct config *config, const char *directory, FILE *errors)
{
	struct dirent **entries;
	int count = scandir(directory, &entries, is_config, compare_names), error = 0;

	if (count < 0)
		return config_mistake(
			errors, config_origin(config, "server", "exports-dir", "exports-dir"),
			"cannot read the directory %s: %s; make it, or take exports-dir out",
			directory, strerror(errno));
	for (int i = 0; i < count; i++) {
		char *path;

		if (asprintf(&path, "%s/%s", directory, entries[i]->d_name) < 0) {
			error = config_mistake(errors, directory,
					       "no memory"); /* UNTESTED: no fault for malloc */
		} else {
			if (config_file_read(config, path, true, errors))
				error = -EINVAL;
			free(path);
		}
		free(entries[i]);
	}
	free(entries);
	return error;
}

/* Names that begin with a dot are those of editors and of tools that have not finished. */
static int
is_config(const struct dirent *entry)
{
	size_t bytes = strlen(entry->d_name), suffix_bytes = strlen(SUFFIX);

	return entry->d_name[0] != '.' && bytes > suffix_bytes &&
	       strcmp(entry->d_name + bytes - suffix_bytes, SUFFIX) == 0;
}

/* Not alphasort(3), whose order depends on the locale. */
static int
compare_names(const struct dirent **left, const struct dirent **right)
{
	return strcmp((*left)->d_name, (*right)->d_name);
}
