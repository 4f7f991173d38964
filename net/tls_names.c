/* Lists of names. */
#include "net/tls_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int
tls_names_add(struct tls_names *names, const void *name, size_t bytes)
{
	char *copy, **grown;

	if (bytes == 0 || memchr(name, '\0', bytes) != NULL)
		return 0;
	copy = strndup(name, bytes);
	grown = reallocarray(names->names, names->count + 1, sizeof(*grown));
	if (grown != NULL)
		names->names = grown;
	if (copy == NULL || grown == NULL) {
		free(copy); /* UNTESTED: no fault for malloc */
		return -ENOMEM;
	}
	names->names[names->count++] = copy;
	return 0;
}

void
tls_names_clear(struct tls_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->names[i]);
	free(names->names);
	*names = (struct tls_names){ .count = 0 };
}

bool
tls_names_meet(const struct tls_names *some, const struct tls_names *others)
{
	for (size_t i = 0; i < some->count; i++) {
		for (size_t j = 0; j < others->count; j++) {
			if (strcmp(some->names[i], others->names[j]) == 0)
				return true;
		}
	}
	return false;
}
