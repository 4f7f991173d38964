/* The configuration file.  inih takes key = value lines apart; the reader that feeds it the lines
 * keeps the rest: line numbers, which the handler of inih 55 is not told, and sections, whose names
 * inih cuts at 49 bytes and which it does not report when they are empty.  So inih sees key = value
 * lines and blank ones only.
 * A mistake is written out and counted, and reading goes on, to find them all. */
#include "daemon/config.h"

#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_apply.h"
#include "daemon/config_value.h"

#define LINE_BYTES_MAX	  8192
#define LINE_BUFFER_BYTES (LINE_BYTES_MAX + 2) /* the line, its newline, NUL */
#define MISTAKES_MAX	  100		       /* then it is hardly a configuration file */
#define SPACES		  " \t\v\f\r"
#define QUOTE_BYTES	  40 /* of a line that is too long, for its message */
#define BYTE_ORDER_MARK	  "\xef\xbb\xbf"

enum section {
	SECTION_NONE,  /* before the first one */
	SECTION_WRONG, /* what it holds is not looked at: the section was reported */
	SECTION_REACTOR,
	SECTION_SERVER,
	SECTION_EXPORT,
};

enum key {
	KEY_CORES,
	KEY_QUEUE_DEPTH,
	KEY_POLL_US,
	KEY_SOCKET_BATCH,
	KEY_STALL_MS,
	KEY_BUFFER_MEMORY,
	KEY_LISTEN,
	KEY_MAX_CONNECTIONS,
	KEY_TYPE,
	KEY_PATH,
	KEY_SIZE,
	KEY_READ_ONLY,
	KEY_PRIORITY,
	KEY_DESCRIPTION,
	KEY_COUNT,
};

/* A file being read. */
struct file {
	struct config *config;
	const char *path;
	FILE *stream;
	FILE *errors;
	unsigned mistakes;
	bool finished; /* nothing more is read: the end, or going on makes no sense */

	unsigned line;
	char text[LINE_BUFFER_BYTES]; /* the line, without its newline */

	enum section section;
	char title[LINE_BUFFER_BYTES]; /* what stands between its brackets */
	unsigned section_line;
	unsigned key_lines[KEY_COUNT]; /* where each was set, or 0; of an export: in this one */
	struct config_export export;   /* of SECTION_EXPORT, until its section ends */
};

/* Reading lines. */
static char *read_line(char *text, int text_bytes, void *context);
static bool take_line(struct file *file, size_t *bytes);
static bool classify_line(struct file *file, size_t bytes);
/* Sections. */
static void begin_section(struct file *file, const char *text);
static void begin_export(struct file *file, const char *name);
static void end_section(struct file *file);
/* Keys.  Each set_ function returns 0, or -EINVAL after a line about WHERE to file->errors. */
static int handle_pair(void *context, const char *section, const char *name, const char *value);
static int set_pair(struct file *file, const char *name, const char *value, const char *where);
static int set_key(struct file *file, enum key key, const char *value, const char *where);
static int set_number(struct file *file, const char *value, unsigned min, unsigned max,
		      unsigned *number, const char *where);
static int set_bytes(struct file *file, const char *value, const char *where);
static int set_bool(struct file *file, const char *value, bool *result, const char *where);
static int set_type(struct file *file, const char *value, enum volume_kind *result,
		    const char *where);
static int set_priority(struct file *file, const char *value, enum priority *result,
			const char *where);
static int set_string(struct file *file, const char *value, char **string, const char *where);
/* Mistakes of a line; those of a value are written by config_mistake. */
static void count_mistake(struct file *file);
static void line_wrong(struct file *file, const char *text, const char *what);

static const char *const section_names[] = {
	[SECTION_REACTOR] = "reactor",
	[SECTION_SERVER] = "server",
	[SECTION_EXPORT] = "export",
};

static const struct {
	enum section section;
	const char *name;
	bool repeatable;
} keys[KEY_COUNT] = {
	[KEY_CORES] = { SECTION_REACTOR, "cores", false },
	[KEY_QUEUE_DEPTH] = { SECTION_REACTOR, "queue-depth", false },
	[KEY_POLL_US] = { SECTION_REACTOR, "poll-us", false },
	[KEY_SOCKET_BATCH] = { SECTION_REACTOR, "socket-batch", false },
	[KEY_STALL_MS] = { SECTION_REACTOR, "stall-ms", false },
	[KEY_BUFFER_MEMORY] = { SECTION_REACTOR, "buffer-memory", false },
	[KEY_LISTEN] = { SECTION_SERVER, "listen", true },
	[KEY_MAX_CONNECTIONS] = { SECTION_SERVER, "max-connections", false },
	[KEY_TYPE] = { SECTION_EXPORT, "type", false },
	[KEY_PATH] = { SECTION_EXPORT, "path", false },
	[KEY_SIZE] = { SECTION_EXPORT, "size", false },
	[KEY_READ_ONLY] = { SECTION_EXPORT, "read-only", false },
	[KEY_PRIORITY] = { SECTION_EXPORT, "priority", false },
	[KEY_DESCRIPTION] = { SECTION_EXPORT, "description", false },
};

/* What each section may hold, for messages. */
static const char *const section_keys[] = {
	[SECTION_REACTOR] = "cores, queue-depth, poll-us, socket-batch, stall-ms, buffer-memory",
	[SECTION_SERVER] = "listen, max-connections",
	[SECTION_EXPORT] = "type, path, size, read-only, priority, description",
};

int
config_read_file(struct config *config, const char *path, FILE *errors)
{
	struct file *file = calloc(1, sizeof(*file));
	int error = -EINVAL;

	if (!file)
		return config_mistake(errors, path, "no memory"); /* UNTESTED: as below */
	file->config = config;
	file->path = path;
	file->errors = errors;
	file->stream = fopen(path, "re");
	if (!file->stream) {
		config_mistake(errors, path, "cannot open: %s", strerror(errno));
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
	size_t bytes;

	file->section = SECTION_WRONG;
	file->section_line = file->line;
	if (!end || end[1 + strspn(end + 1, SPACES)] != '\0') {
		line_wrong(file, text,
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
	bytes = strcspn(title, SPACES);
	if (strcmp(title, section_names[SECTION_REACTOR]) == 0)
		file->section = SECTION_REACTOR;
	else if (strcmp(title, section_names[SECTION_SERVER]) == 0)
		file->section = SECTION_SERVER;
	else if (bytes == strlen(section_names[SECTION_EXPORT]) &&
		 strncmp(title, section_names[SECTION_EXPORT], bytes) == 0)
		begin_export(file, title + bytes + strspn(title + bytes, SPACES));
	else
		line_wrong(file, text,
			   "unknown section; allowed are [reactor], [server] and [export NAME]");
}

static void
begin_export(struct file *file, const char *name)
{
	struct config_export export = { .name = strdup(name), .priority = PRIORITY_NORMAL };

	if (asprintf(&export.origin, "%s:%u", file->path, file->line) < 0)
		export.origin = NULL;
	for (unsigned key = 0; key < KEY_COUNT; key++) {
		if (keys[key].section == SECTION_EXPORT)
			file->key_lines[key] = 0;
	}
	file->export = export;
	file->section = SECTION_EXPORT;
}

/* An export is complete, and goes into the config, when its section ends. */
static void
end_section(struct file *file)
{
	struct config_export *export = &file->export;
	char *where;

	if (file->section != SECTION_EXPORT)
		return;
	file->section = SECTION_NONE;
	if (asprintf(&where, "%s:%u: [%s]", file->path, file->section_line, file->title) < 0)
		where = NULL;
	if (!where || !export->name || !export->origin)
		line_wrong(file, "", "no memory"); /* UNTESTED: no fault for malloc */
	else if (config_apply_export(file->config, export, where, file->errors))
		count_mistake(file);
	free(where);
	free(export->name);
	free(export->path);
	free(export->description);
	free(export->origin);
	file->export = (struct config_export){ 0 };
}

/* inih's ini_handler; it is told 1, done, for mistakes too: they are counted here.
 * section: always "". */
static int
handle_pair(void *context, const char *section, const char *name, const char *value)
{
	struct file *file = context;
	char *where;

	(void)section;
	if (file->section == SECTION_WRONG)
		return 1;
	if (file->section == SECTION_NONE) {
		line_wrong(file, name,
			   "a setting before the first section; begin with [reactor], [server] or "
			   "[export NAME]");
		return 1;
	}
	if (asprintf(&where, "%s:%u: [%s] %s = %s", file->path, file->line, file->title, name,
		     value) < 0) {
		line_wrong(file, name, "no memory"); /* UNTESTED: no fault for malloc */
		return 1;
	}
	if (set_pair(file, name, value, where))
		count_mistake(file);
	free(where);
	return 1;
}

static int
set_pair(struct file *file, const char *name, const char *value, const char *where)
{
	unsigned key = 0;

	while (key < KEY_COUNT &&
	       (keys[key].section != file->section || strcmp(keys[key].name, name) != 0))
		key++;
	if (key == KEY_COUNT)
		return config_mistake(file->errors, where, "unknown key; [%s] has %s",
				      section_names[file->section], section_keys[file->section]);
	if (file->key_lines[key] && !keys[key].repeatable)
		return config_mistake(file->errors, where,
				      "line %u has set it already; keep one of them",
				      file->key_lines[key]);
	file->key_lines[key] = file->line;
	return set_key(file, (enum key)key, value, where);
}

static int
set_key(struct file *file, enum key key, const char *value, const char *where)
{
	struct config *config = file->config;

	switch (key) {
	case KEY_CORES:
		return config_apply_cores(config, value, where, file->errors);
	case KEY_QUEUE_DEPTH:
		return set_number(file, value, CONFIG_QUEUE_DEPTH_MIN, CONFIG_QUEUE_DEPTH_MAX,
				  &config->queue_depth, where);
	case KEY_POLL_US:
		return set_number(file, value, 0, CONFIG_POLL_US_MAX, &config->poll_us, where);
	case KEY_SOCKET_BATCH:
		return set_number(file, value, 0, CONFIG_SOCKET_BATCH_MAX, &config->socket_batch,
				  where);
	case KEY_STALL_MS:
		return set_number(file, value, CONFIG_STALL_MS_MIN, CONFIG_STALL_MS_MAX,
				  &config->stall_ms, where);
	case KEY_BUFFER_MEMORY:
		return set_bytes(file, value, where);
	case KEY_LISTEN:
		return config_apply_listen(config, value, where, file->errors);
	case KEY_MAX_CONNECTIONS:
		return set_number(file, value, 1, CONFIG_CONNECTIONS_MAX, &config->connections_max,
				  where);
	case KEY_TYPE:
		return set_type(file, value, &file->export.type, where);
	case KEY_PATH:
		return set_string(file, value, &file->export.path, where);
	case KEY_SIZE:
		return config_apply_size(value, &file->export.size_bytes, where, file->errors);
	case KEY_READ_ONLY:
		return set_bool(file, value, &file->export.read_only, where);
	case KEY_PRIORITY:
		return set_priority(file, value, &file->export.priority, where);
	case KEY_DESCRIPTION:
		return set_string(file, value, &file->export.description, where);
	case KEY_COUNT:
		break;
	}
	CHECK(key != KEY_COUNT);
	return -EINVAL;
}

static int
set_number(struct file *file, const char *value, unsigned min, unsigned max, unsigned *number,
	   const char *where)
{
	if (config_value_number(value, min, max, number))
		return 0;
	return config_mistake(file->errors, where, "expected a number from %u to %u", min, max);
}

/* buffer-memory, the only key in bytes. */
static int
set_bytes(struct file *file, const char *value, const char *where)
{
	if (config_value_bytes(value, CONFIG_BUFFER_MEMORY_MIN, CONFIG_BUFFER_MEMORY_MAX,
			       &file->config->buffer_memory_bytes))
		return 0;
	return config_mistake(file->errors, where,
			      "expected bytes from %uM to %uG; K, M and G are powers of 1024",
			      (unsigned)(CONFIG_BUFFER_MEMORY_MIN >> 20),
			      (unsigned)(CONFIG_BUFFER_MEMORY_MAX >> 30));
}

static int
set_bool(struct file *file, const char *value, bool *result, const char *where)
{
	if (config_value_bool(value, result))
		return 0;
	return config_mistake(file->errors, where,
			      "expected yes or no (or true, false, on, off, 1, 0)");
}

static int
set_type(struct file *file, const char *value, enum volume_kind *result, const char *where)
{
	if (volume_kind_find(value, result))
		return 0;
	return config_mistake(file->errors, where, "expected file, memory or null");
}

static int
set_priority(struct file *file, const char *value, enum priority *result, const char *where)
{
	if (config_value_priority(value, result))
		return 0;
	return config_mistake(file->errors, where, "expected latency, normal or background");
}

static int
set_string(struct file *file, const char *value, char **string, const char *where)
{
	*string = strdup(value);
	if (*string)
		return 0;
	return config_mistake(file->errors, where, "no memory"); /* UNTESTED: no fault for malloc */
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

/* Report WHAT is wrong with the line that was just read, TEXT of it. */
static void
line_wrong(struct file *file, const char *text, const char *what)
{
	char *where;

	if (asprintf(&where, "%s:%u: %s", file->path, file->line, text) < 0)
		where = NULL; /* UNTESTED: no fault for malloc */
	config_mistake(file->errors, where ? where : file->path, "%s", what);
	count_mistake(file);
	free(where);
}
