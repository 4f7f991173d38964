/* millraced: options, signals, and nothing else. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "build/config.h"
#include "daemon/config.h"
#include "daemon/options.h"
#include "daemon/server.h"
#include "reactor/log.h"

/* What a crowd of clients needed goes back to the system a second after they left or fell idle, also if nothing else happens
 * then.  Read by jemalloc where it is linked.  Source: jemalloc(3), TUNING. */
extern const char *malloc_conf;
const char *malloc_conf = "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0";

/* Serve until SIGTERM or SIGINT.  Returns the exit status. */
static int
serve(const struct config *config)
{
	struct server *server;
	sigset_t stop_signals;
	int received;

	sigemptyset(&stop_signals);
	sigaddset(&stop_signals, SIGTERM);
	sigaddset(&stop_signals, SIGINT);
	/* Before any thread starts: all inherit it, so the signals wait for this one. */
	pthread_sigmask(SIG_BLOCK, &stop_signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	if (server_start(config, &server) < 0)
		return EXIT_FAILURE;
	log_info("ready");
	while (sigwait(&stop_signals, &received) != 0)
		;
	log_info("%s: answering what is in flight, then stopping", strsignal(received));
	if (server_stop(server) < 0)
		return EXIT_FAILURE;
	log_info("stopped");
	return EXIT_SUCCESS;
}

static int
run(struct config *config, int argc, char **argv)
{
	struct options options;
	int error = options_parse(argc, argv, config, &options, stderr);

	if (error < 0 && !config->mistaken)
		return EXIT_FAILURE; /* the options' form: no setting was looked at */
	if (options.help) {
		options_print_help(stdout);
		return EXIT_SUCCESS;
	}
	if (options.version) {
		printf("millraced %s\n", MILLRACE_VERSION);
		return EXIT_SUCCESS;
	}
	/* On after a mistake, so that one run finds all that there are. */
	if (config_finish(config, stderr) < 0)
		error = -EINVAL;
	if (options.check && server_check(config, stdout) < 0)
		error = -EINVAL;
	if (error < 0)
		return EXIT_FAILURE;
	return options.check ? EXIT_SUCCESS : serve(config);
}

int
main(int argc, char **argv)
{
	struct config config;
	int status;

	config_init(&config);
	status = run(&config, argc, argv);
	config_fini(&config);
	return status;
}
