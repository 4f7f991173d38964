/* One datagram for each line, by libsystemd, which makes its socket once and a file for what is too long for one. */
#include "daemon/log_journal.h"

/* The lines of this file would be no help. */
#define SD_JOURNAL_SUPPRESS_LOCATION

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

/* Room for a text of the longest kind; fields that find none are left out. */
#define FIELDS_BYTES_MAX 16384

/* What is sent: fields "KEY=value", one after another in text. */
struct fields {
	struct iovec parts[LOG_FIELDS_MAX + 2];
	int count;
	size_t used_bytes;
	char text[FIELDS_BYTES_MAX];
};

static const int priorities[] = {
	[LOG_LEVEL_ERROR] = LOG_ERR,
	[LOG_LEVEL_WARNING] = LOG_WARNING,
	[LOG_LEVEL_INFO] = LOG_INFO,
	[LOG_LEVEL_DEBUG] = LOG_DEBUG,
};

bool
log_journal_is_stderr(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat status;

	return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
	       fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device &&
	       status.st_ino == inode;
}

/* "KEY=value", or with NUMBER where VALUE is NULL. */
static void
add(struct fields *fields, const char *key, const char *value, uint64_t number)
{
	char *field = fields->text + fields->used_bytes;
	size_t room = sizeof(fields->text) - fields->used_bytes;
	int length = value != NULL ? snprintf(field, room, "%s=%s", key, value)
				   : snprintf(field, room, "%s=%" PRIu64, key, number);

	if (length < 0 || (size_t)length >= room)
		return;
	/* A key of the journal has capital letters.  Source: systemd.journal-fields(7). */
	for (char *letter = field; *letter != '='; letter++)
		*letter = (char)toupper((unsigned char)*letter);
	fields->parts[fields->count++] = (struct iovec){ field, (size_t)length };
	fields->used_bytes += (size_t)length;
}

void
log_journal_write(const struct log_entry *entry)
{
	struct fields fields;

	fields.count = 0;
	fields.used_bytes = 0;
	add(&fields, "message", entry->text, 0);
	add(&fields, "priority", NULL, (uint64_t)priorities[entry->level]);
	for (unsigned i = 0; i < entry->fields.count; i++) {
		const struct log_field *field = &entry->fields.fields[i];

		add(&fields, field->key, field->value, field->number);
	}
	if (sd_journal_sendv(fields.parts, fields.count) < 0)
		log_write_text(entry);
}
