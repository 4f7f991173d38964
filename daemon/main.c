/* millraced: options, signals, and nothing else. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "build/config.h"
#include "daemon/config.h"
#include "daemon/inspection.h"
#include "daemon/log_output.h"
#include "daemon/log_thread.h"
#include "daemon/notify.h"
#include "daemon/options.h"
#include "daemon/server.h"
#include "reactor/log.h"

/* What a crowd of clients needed goes back to the system a second after they left or fell idle, also if nothing else happens
 * then.  Read by jemalloc where it is linked.  Source: jemalloc(3), TUNING. */
extern const char *malloc_conf;
const char *malloc_conf = "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0";

/* Signals that this thread waits for.  All threads inherit the mask, so they come here. */
static void
block_signals(sigset_t *signals)
{
	sigemptyset(signals);
	sigaddset(signals, SIGTERM);
	sigaddset(signals, SIGINT);
	sigaddset(signals, SIGHUP);
	sigaddset(signals, SIGUSR1);
	sigaddset(signals, SERVER_SIGNAL);
	pthread_sigmask(SIG_BLOCK, signals, NULL);
	/* What these would end the process for has an error of its own: EPIPE, and EFBIG behind RLIMIT_FSIZE. */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN);
}

/* The next of SIGNALS. */
static int
next_signal(const sigset_t *signals)
{
	int received;

	do
		received = sigwaitinfo(signals, NULL);
	while (received < 0);
	return received;
}

/* Read the settings from all their sources into CONFIG, and check them as a whole.  Mistakes go to ERRORS.  Returns 0 or -EINVAL; then
 * options->check may still be looked at. */
static int
read_settings(struct config *config, int argc, char **argv, struct options *options, FILE *errors)
{
	int error = options_parse(argc, argv, config, options, errors);

	if (options->help || options->version || (error < 0 && !config->mistaken))
		return error; /* or the options' form: no setting was looked at */
	/* On after a mistake, so that one run finds all that there are. */
	if (config_finish(config, errors) < 0)
		error = -EINVAL;
	return error;
}

/* Each line of TEXT is a mistake. */
static void
log_mistakes(char *text)
{
	for (char *line = strsep(&text, "\n"); line != NULL; line = strsep(&text, "\n")) {
		if (*line != '\0')
			log_error("%s", line);
	}
}

static int
read_settings_again(struct config *config, int argc, char **argv)
{
	struct options options;
	char *text = NULL;
	size_t bytes;
	FILE *errors = open_memstream(&text, &bytes);
	int error = -ENOMEM;

	config_init(config);
	if (errors != NULL) {
		error = read_settings(config, argc, argv, &options, errors);
		(void)fclose(errors);
		log_mistakes(text);
	}
	free(text);
	if (error < 0)
		config_fini(config);
	return error;
}

/* How the log is to be from now on. */
struct log_choice {
	enum log_level level;
	enum log_format format;
};

static struct log_choice
log_choice_of(const struct config *config)
{
	return (struct log_choice){ config->log_level, config->log_format };
}

static void
change_log(struct log_thread *log, const struct log_choice *choice)
{
	log_set_level(choice->level);
	log_thread_set_writer(log, log_output_choose(choice->format));
}

/* Read the settings again, and let them take the place of what is served. */
static void
reload(struct server *server, struct log_thread *log, int argc, char **argv)
{
	struct log_choice log_choice;
	struct config config;
	int error;

	log_info("reloading");
	notify_reloading();
	error = read_settings_again(&config, argc, argv);
	log_choice = log_choice_of(&config); /* the server takes the rest */
	if (error == 0)
		error = server_reload(server, &config);
	if (error == 0)
		change_log(log, &log_choice);
	if (error == 0)
		log_info("reloaded: serving %zu exports", server_export_count(server));
	else
		log_error("not reloaded: all stays as it was");
	notify_status("serving %zu exports%s", server_export_count(server),
		      error == 0 ? "" : "; the last reload failed, see the log");
	notify_ready();
}

/* Serve until SIGTERM or SIGINT.  Returns the exit status. */
static int
serve_until_told(struct config *config, const sigset_t *signals, struct log_thread *log, int argc,
		 char **argv)
{
	struct server_sockets sockets = { .first = 0 };
	unsigned core_count = config->cores.count;
	struct server *server;
	int error, received;

	sockets.count = notify_take_sockets(&sockets.first);
	error = server_start(config, &sockets, &server);
	if (error < 0)
		return error == -ECANCELED ? EXIT_SUCCESS : EXIT_FAILURE;
	log_info("ready");
	notify_status("serving %zu exports on %u cores", server_export_count(server), core_count);
	notify_ready();
	for (;;) {
		received = next_signal(signals);
		if (received == SIGHUP) {
			server_busy(server, "reloading");
			reload(server, log, argc, argv);
		} else if (received == SIGUSR1) {
			server_busy(server, "reporting");
			server_report(server);
		} else if (received == SERVER_SIGNAL) {
			server_busy(server, "closing what is not served any more");
			server_tidy(server);
		} else {
			break;
		}
		server_busy(server, NULL);
	}
	server_busy(server, "stopping");
	log_info("%s: answering what is in flight, then stopping", strsignal(received));
	notify_status("answering what is in flight");
	notify_stopping();
	if (server_stop(server) < 0)
		return EXIT_FAILURE;
	log_info("stopped");
	return EXIT_SUCCESS;
}

static int
serve(struct config *config, int argc, char **argv)
{
	struct log_thread *log;
	sigset_t signals;
	int error, status;

	/* First: threads inherit the mask. */
	block_signals(&signals);
	log_set_level(config->log_level);
	error = log_thread_start(log_output_choose(config->log_format), &log);
	if (error < 0) {
		log_error("the log cannot be written: %s", strerror(-error));
		return EXIT_FAILURE;
	}
	status = serve_until_told(config, &signals, log, argc, argv);
	log_thread_stop(log);
	return status;
}

static int
run(struct config *config, int argc, char **argv)
{
	struct options options;
	int error = read_settings(config, argc, argv, &options, stderr);

	if (error < 0 && !config->mistaken)
		return EXIT_FAILURE;
	if (options.help) {
		options_print_help(stdout);
		return EXIT_SUCCESS;
	}
	if (options.version) {
		printf("millraced %s\n", MILLRACE_VERSION);
		return EXIT_SUCCESS;
	}
	if (options.check && inspection_run(config, stdout) < 0)
		error = -EINVAL;
	if (error < 0)
		return EXIT_FAILURE;
	return options.check ? EXIT_SUCCESS : serve(config, argc, argv);
}

int
main(int argc, char **argv)
{
	struct config config;
	int status;

	if (!log_hold_standard_files())
		return EXIT_FAILURE; /* UNTESTED: without a /dev/null */
	config_init(&config);
	status = run(&config, argc, argv);
	config_fini(&config);
	return status;
}
