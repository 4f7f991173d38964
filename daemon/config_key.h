/* The settings by name: the sections of a configuration file and the keys of each, one line per key in the tables of
 * daemon/config_key.c.  The reader of files, its messages and config_describe go by these tables, so a key that is added
 * there is read, listed where another is unknown, and described.  A key's value has a type, daemon/config_type.h. */
#ifndef DAEMON_CONFIG_KEY_H
#define DAEMON_CONFIG_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_SECTIONS_MAX 8
#define CONFIG_KEYS_MAX	    32 /* of a section */

struct config_type;

struct config_key {
	const char *name;
	const struct config_type *type;
	size_t offset;	   /* of its field, in what the section sets */
	uint64_t min, max; /* of numbers and bytes; of text: at least so many bytes, 0 or 1 */
	const char *const *words; /* of words, up to NULL: the value is the index of one */
	/* What config_describe puts behind the value, or behind 0; or NULL. */
	const char *note, *note_of_zero;
};

struct config_section {
	const char *name;
	bool of_export; /* [export NAME]: its keys set a struct config_export, those of others the struct config */
	const struct config_key *keys;
	unsigned key_count; /* at most CONFIG_KEYS_MAX */
};

extern const struct config_section config_sections[];
extern const unsigned config_section_count; /* at most CONFIG_SECTIONS_MAX */

/* The key NAME of SECTION, or NULL. */
const struct config_key *config_key_find(const struct config_section *section, const char *name);

/* Write the names of SECTION's keys into TEXT of TEXT_BYTES, cut if they do not fit: "a, b, c". */
void config_key_list(const struct config_section *section, char *text, size_t text_bytes);

/* As above, those of all sections: "[a], [b] CONJUNCTION [export NAME]". */
void config_section_list(const char *conjunction, char *text, size_t text_bytes);

#endif
