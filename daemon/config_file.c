/* The configuration file.  inih takes key = value lines apart; the reader that feeds it the lines
 * keeps the rest: line numbers, which the handler of inih 55 is not told, and sections, whose names
 * inih cuts at 49 bytes and which it does not report when they are empty.  So inih sees key = value
 * lines and blank ones only.
 * A mistake is written out and counted, and reading goes on, to find them all. */
#include "daemon/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/config_apply.h"
#include "daemon/config_key.h"
#include "daemon/config_type.h"

#define LINE_BYTES_MAX	  8192
#define LINE_BUFFER_BYTES (LINE_BYTES_MAX + 2) /* the line, its newline, NUL */
#define MISTAKES_MAX	  100		       /* then it is hardly a configuration file */
#define SPACES		  " \t\v\f\r"
#define QUOTE_BYTES	  40   /* of a line that is too long, for its message */
#define VALUE_QUOTE_BYTES 200  /* of a value: the log's lines have room for what is wrong, too */
#define LIST_BYTES	  1024 /* of keys or sections, for messages */
#define BYTE_ORDER_MARK	  "\xef\xbb\xbf"

/* A file being read. */
struct file {
	struct config *config;
	const char *path;
	bool exports_only;
	FILE *stream;
	FILE *errors;
	unsigned mistakes;
	bool finished; /* nothing more is read: the end, or going on makes no sense */

	unsigned line;
	char text[LINE_BUFFER_BYTES]; /* the line, without its newline */

	const struct config_section *section; /* or NULL: before the first, or in a wrong one */
	bool section_wrong;		      /* it was reported: what it holds is not looked at */
	char title[LINE_BUFFER_BYTES];	      /* what stands between its brackets */
	unsigned section_line;
	/* Where each key was set, or 0; of an export: in this one. */
	unsigned key_lines[CONFIG_SECTIONS_MAX][CONFIG_KEYS_MAX];
	struct config_export export; /* that is read, until its section ends */
};

static FILE *open_stream(const char *path, bool exports_only, const char **why);
/* Reading lines. */
static char *read_line(char *text, int text_bytes, void *context);
static bool take_line(struct file *file, size_t *bytes);
static bool classify_line(struct file *file, size_t bytes);
/* Sections. */
static void begin_section(struct file *file, const char *text);
static const struct config_section *find_section(const char *title, size_t bytes);
static void begin_export(struct file *file, const char *name);
static void end_section(struct file *file);
/* Keys. */
static int handle_pair(void *context, const char *section, const char *name, const char *value);
static int set_pair(struct file *file, const char *name, const char *value, const char *where);
static struct config_origins *origins_of(struct file *file);
/* Mistakes of a line; those of a value are written by config_mistake. */
static void count_mistake(struct file *file);
static void line_wrong(struct file *file, const char *text, const char *format, ...)
	PRINTF_LIKE(3, 4);

int
config_file_read(struct config *config, const char *path, bool exports_only, FILE *errors)
{
	struct file *file = calloc(1, sizeof(*file));
	const char *why;
	int error = -EINVAL;

	if (!file)
		return config_mistake(errors, path, "no memory"); /* UNTESTED: as below */
	file->config = config;
	file->path = path;
	file->exports_only = exports_only;
	file->errors = errors;
	file->stream = open_stream(path, exports_only, &why);
	if (!file->stream) {
		config_mistake(errors, path, "cannot open: %s", why);
		goto err_after_file;
	}
	/* inih's settings are the library's globals; no other part of the daemon uses it. */
	ini_use_stack = false;
	ini_allow_realloc = false;
	ini_initial_alloc = LINE_BUFFER_BYTES;
	ini_max_line = LINE_BUFFER_BYTES;
	ini_allow_multiline = false;
	ini_allow_inline_comments = false;
	ini_stop_on_first_error = false;
	if (ini_parse_stream(read_line, file, handle_pair, file) != 0)
		line_wrong(file, "(inih)", "no memory"); /* UNTESTED: no fault for malloc */
	end_section(file);
	if (file->mistakes == 0)
		error = 0;
	fclose(file->stream);
err_after_file:
	free(file);
	return error;
}

/* Open the file at PATH without waiting for who would write to a FIFO: at a reload, nobody may ever come.  Returns NULL, with *why, on
 * failure.  The configuration itself may come through a pipe; among the exports a FIFO is a mistake. */
static FILE *
open_stream(const char *path, bool exports_only, const char **why)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	FILE *stream = NULL;
	struct stat status;

	if (fd >= 0 && exports_only && fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode)) {
		*why = "is a FIFO, where a file is expected; remove it";
		(void)close(fd);
		return NULL;
	}
	if (fd >= 0 && fcntl(fd, F_SETFL, 0) == 0)
		stream = fdopen(fd, "r");
	if (!stream) {
		*why = strerror(errno);
		if (fd >= 0)
			(void)close(fd);
	}
	return stream;
}

/* inih's ini_reader.  Gives it the next line if that is key = value, or else a blank one. */
static char *
read_line(char *text, int text_bytes, void *context)
{
	struct file *file = context;
	size_t bytes;

	CHECK(text_bytes >= LINE_BUFFER_BYTES);
	if (!take_line(file, &bytes))
		return NULL;
	return strcpy(text, classify_line(file, bytes) ? file->text : "");
}

/* Read the next line into file->text; *bytes: its length, without the newline.
 * Returns false when there is none. */
static bool
take_line(struct file *file, size_t *bytes)
{
	size_t used = 0;
	int byte = EOF;

	if (file->finished)
		return false;
	file->line++;
	while (used <= LINE_BYTES_MAX && (byte = getc(file->stream)) != EOF && byte != '\n')
		file->text[used++] = (char)byte;
	file->text[used] = '\0';
	*bytes = used;
	if (used > LINE_BYTES_MAX) {
		file->text[QUOTE_BYTES] = '\0';
		line_wrong(file, file->text,
			   "the line is too long; at most 8192 bytes; what follows was not read");
		file->finished = true;
		return false;
	}
	if (byte != EOF)
		return true;
	file->finished = true;
	if (!ferror(file->stream))
		return used > 0;
	file->mistakes++;
	config_mistake(file->errors, file->path, "cannot read: %s", strerror(errno));
	return false;
}

/* Returns true if the line in file->text is key = value. */
static bool
classify_line(struct file *file, size_t bytes)
{
	char *text = file->text;
	size_t key_bytes;

	if (strlen(text) != bytes) {
		line_wrong(file, text, "a NUL byte follows; expected a text file");
		return false;
	}
	if (file->line == 1 && strncmp(text, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)) == 0)
		text += strlen(BYTE_ORDER_MARK);
	text += strspn(text, SPACES);
	if (*text == '\0' || *text == '#' || *text == ';')
		return false;
	if (*text == '[') {
		end_section(file);
		begin_section(file, text);
		return false;
	}
	/* inih would take "key: value" too. */
	key_bytes = strcspn(text, "=:");
	if (key_bytes > 0 && text[key_bytes] == '=')
		return true;
	line_wrong(file, text,
		   "not understood; expected [SECTION], KEY = VALUE, or a comment after #");
	return false;
}

/* TEXT: the line from its bracket on. */
static void
begin_section(struct file *file, const char *text)
{
	const char *title = text + 1 + strspn(text + 1, SPACES);
	const char *end = strchr(title, ']');
	const char *name;
	char allowed[LIST_BYTES];
	size_t bytes, name_bytes;

	file->section = NULL;
	file->section_wrong = true;
	file->section_line = file->line;
	if (!end || end[1 + strspn(end + 1, SPACES)] != '\0') {
		line_wrong(file, text, "%s",
			   end ? "nothing may follow the ] of a section"
			       : "the ] of the section is missing");
		return;
	}
	bytes = (size_t)(end - title);
	while (bytes > 0 && strchr(SPACES, title[bytes - 1]))
		bytes--;
	memcpy(file->title, title, bytes);
	file->title[bytes] = '\0';
	title = file->title;
	name_bytes = strcspn(title, SPACES);
	name = title + name_bytes + strspn(title + name_bytes, SPACES);
	file->section = find_section(title, name_bytes);
	/* Only an export has a name behind. */
	if (!file->section || (*name && !file->section->of_export)) {
		config_section_list("and", allowed, sizeof(allowed));
		line_wrong(file, text, "unknown section; allowed are %s", allowed);
		file->section = NULL;
		return;
	}
	if (file->exports_only && !file->section->of_export) {
		line_wrong(file, text, "only [export NAME] may stand in a file of exports-dir");
		file->section = NULL;
		return;
	}
	file->section_wrong = false;
	if (file->section->of_export)
		begin_export(file, name);
}

/* The section whose name are the first BYTES of TITLE, or NULL. */
static const struct config_section *
find_section(const char *title, size_t bytes)
{
	for (unsigned i = 0; i < config_section_count; i++) {
		const struct config_section *section = &config_sections[i];

		if (strlen(section->name) == bytes && memcmp(section->name, title, bytes) == 0)
			return section;
	}
	return NULL;
}

static void
begin_export(struct file *file, const char *name)
{
	unsigned *key_lines = file->key_lines[file->section - config_sections];

	config_export_init(&file->export);
	file->export.name = strdup(name);
	if (asprintf(&file->export.origin, "%s:%u", file->path, file->line) < 0)
		file->export.origin = NULL; /* UNTESTED: no fault for malloc */
	memset(key_lines, 0, sizeof(file->key_lines[0]));
}

/* An export is complete, and goes into the config, when its section ends. */
static void
end_section(struct file *file)
{
	struct config_export *export = &file->export;
	char *where;

	if (!file->section || !file->section->of_export)
		return;
	file->section = NULL;
	if (asprintf(&where, "%s:%u: [%s]", file->path, file->section_line, file->title) < 0)
		where = NULL;
	if (!where || !export->name || !export->origin)
		line_wrong(file, "", "no memory"); /* UNTESTED: no fault for malloc */
	else if (config_apply_export(file->config, export, where, file->errors))
		count_mistake(file);
	free(where);
	config_export_fini(export);
}

/* inih's ini_handler; it is told 1, done, for mistakes too: they are counted here.
 * section: always "". */
static int
handle_pair(void *context, const char *section, const char *name, const char *value)
{
	struct file *file = context;
	char *where, allowed[LIST_BYTES];

	(void)section;
	if (file->section_wrong)
		return 1;
	if (!file->section) {
		config_section_list("or", allowed, sizeof(allowed));
		line_wrong(file, file->text, "a setting before the first section; begin with %s",
			   allowed);
		return 1;
	}
	if (asprintf(&where, "%s:%u: [%s] %s = %.*s%s", file->path, file->line, file->title, name,
		     VALUE_QUOTE_BYTES, value,
		     strlen(value) > VALUE_QUOTE_BYTES ? "..." : "") < 0) {
		line_wrong(file, name, "no memory"); /* UNTESTED: no fault for malloc */
		return 1;
	}
	if (set_pair(file, name, value, where)) {
		config_origins_doubt(origins_of(file), file->section,
				     config_key_find(file->section, name));
		count_mistake(file);
	}
	free(where);
	return 1;
}

static int
set_pair(struct file *file, const char *name, const char *value, const char *where)
{
	const struct config_section *section = file->section;
	const struct config_key *key = config_key_find(section, name);
	struct config_target target = {
		.config = file->config,
		.object = section->of_export ? (void *)&file->export : file->config,
		.where = where,
		.errors = file->errors,
	};
	unsigned *line;

	if (!key) {
		char keys[LIST_BYTES];

		config_key_list(section, keys, sizeof(keys));
		return config_mistake(file->errors, where, "unknown key; [%s] has %s",
				      section->name, keys);
	}
	line = &file->key_lines[section - config_sections][key - section->keys];
	if (*line && !key->type->repeatable)
		return config_mistake(file->errors, where,
				      "line %u has set it already; keep one of them", *line);
	*line = file->line;
	config_origins_set(origins_of(file), section, key, where);
	return key->type->set(key, &target, value);
}

/* Of the section that is read. */
static struct config_origins *
origins_of(struct file *file)
{
	return file->section->of_export ? &file->export.origins
					: &file->config->origins[file->section - config_sections];
}

static void
count_mistake(struct file *file)
{
	if (++file->mistakes < MISTAKES_MAX || file->finished)
		return;
	file->finished = true;
	config_mistake(file->errors, file->path,
		       "too many mistakes; what follows line %u was not read", file->line);
}

/* Report what is wrong, FORMAT as printf(3), with the line that was just read, TEXT of it.  In a section it may have been meant for any
 * of its keys. */
static void
line_wrong(struct file *file, const char *text, const char *format, ...)
{
	char *where, *what;
	va_list arguments;

	if (file->section)
		config_origins_doubt(origins_of(file), file->section, NULL);
	va_start(arguments, format);
	if (vasprintf(&what, format, arguments) < 0)
		what = NULL; /* UNTESTED: no fault for malloc */
	va_end(arguments);

	if (asprintf(&where, "%s:%u: %s", file->path, file->line, text) < 0)
		where = NULL; /* UNTESTED: no fault for malloc */
	config_mistake(file->errors, where ? where : file->path, "%s", what ? what : "no memory");
	count_mistake(file);
	free(where);
	free(what);
}
