/* The command line of millraced. */
#ifndef DAEMON_OPTIONS_H
#define DAEMON_OPTIONS_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stdio.h>

struct config;

struct options {
	const char *config_path; /* --config, in argv; or NULL */
	bool check;
	bool help;
	bool version;
};

/* Read ARGV, and the file that its --config names, into CONFIG, which config_init has prepared.
 * The command line comes on top of the file, wherever --config stands: --export adds, --cores and
 * --listen replace what the file says, whose listeners are not looked at then.  With --help or
 * --version only the form of the options is checked: CONFIG stays as it is.  ARGV's order may change.  Every mistake is written to ERRORS, a line each.
 * Returns 0 or -EINVAL: the form of the options is wrong, and CONFIG is as it was; or settings are, and config->mistaken
 * is set.  config_finish comes next, which may find more.  Uses getopt_long(3): one thread at a time. */
int options_parse(int argc, char **argv, struct config *config, struct options *options,
		  FILE *errors) MUST_USE;

/* Write the usage to OUT. */
void options_print_help(FILE *out);

#endif
