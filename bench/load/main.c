/* millrace-bench: puts a load on an NBD server, and tells the truth about it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/command.h"
#include "bench/load/interrupt.h"
#include "build/config.h"
#include "reactor/log.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "run", command_run },
	{ "verify", command_verify },
	{ "ramp", command_ramp },
	{ "compare", command_compare },
};

static void
print_help(FILE *out)
{
	fputs("Usage: millrace-bench run URI [OPTION]...      how fast is it?\n"
	      "       millrace-bench verify URI [OPTION]...   is my data right?\n"
	      "       millrace-bench ramp URI [OPTION]...     how much can it take?\n"
	      "       millrace-bench compare A.json B.json    two results side by side\n"
	      "A URI is nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH or\n"
	      "nbd+vsock://CID[:PORT]/EXPORT; inside TLS nbds://, nbds+unix:// or nbds+vsock://, "
	      "with\n"
	      "tls-certificates=DIR or tls-psk-file=FILE as libnbd has them.\n"
	      "Each has --help.\n",
	      out);
}

int
main(int argc, char **argv)
{
	if (!log_hold_standard_files())
		return EXIT_FAILURE; /* UNTESTED: without a /dev/null */
	if (argc < 2) {
		print_help(stderr);
		return EXIT_FAILURE;
	}
	signal(SIGPIPE, SIG_IGN);
	interrupt_watch();
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	}
	if (strcmp(argv[1], "--compare") == 0)
		return command_compare(argc - 1, argv + 1);
	if (strcmp(argv[1], "--version") == 0)
		return puts("millrace-bench " MILLRACE_VERSION) < 0;
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		print_help(stdout);
		return EXIT_SUCCESS;
	}
	fprintf(stderr, "%s: unknown; there are run, verify, ramp and compare\n", argv[1]);
	return EXIT_FAILURE;
}
