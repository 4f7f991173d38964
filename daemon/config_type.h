/* Types of settings: how a value gets from text into its field, and how it is described.
 * Each refuses what is not one whole value, with a line that says what is allowed. */
#ifndef DAEMON_CONFIG_TYPE_H
#define DAEMON_CONFIG_TYPE_H

#include "daemon/config_key.h"
#include "reactor/check.h"
#include <stdio.h>

struct config;

/* Where a value goes, and what to say of it. */
struct config_target {
	struct config *config;
	void *object; /* has the field: CONFIG, or the struct config_export that is being read */
	const char *where; /* begins a message: "FILE:LINE: [SECTION] KEY = VALUE" */
	FILE *errors;
};

struct config_type {
	bool repeatable; /* KEY = VALUE may stand more than once, and adds */
	/* Put TEXT into KEY's field.  Returns 0, or -EINVAL after one line to target->errors; then the field is
	 * unchanged. */
	int (*set)(const struct config_key *key, const struct config_target *target,
		   const char *text);
	/* Write what the field of OBJECT says: a line for each value, none if it is not set, LABEL and then the value. */
	void (*describe)(const struct config_key *key, const void *object, const char *label,
			 FILE *out);
};

extern const struct config_type config_type_number; /* unsigned, min to max */
extern const struct config_type
	config_type_own_number; /* the same, of an export; UINT_MAX: not set, what holds for all does */
extern const struct config_type
	config_type_bytes; /* uint64_t, min to max; K, M, G, T; 0 below min: not set */
extern const struct config_type config_type_bool;   /* bool */
extern const struct config_type config_type_word;   /* unsigned or an enum: the word's index */
extern const struct config_type config_type_string; /* char *, allocated; NULL: not set */
extern const struct config_type config_type_cores;  /* struct config's cores */
extern const struct config_type config_type_listen; /* struct config's listeners; repeatable */
extern const struct config_type config_type_ranges; /* struct access_list; repeatable */
extern const struct config_type config_type_names;  /* struct tls_names; repeatable */

#endif
