/* daemon/alive.h, with a socket in the place of the service manager's, and no cores. */
#include "daemon/alive.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define INTERVAL_MS 20

static int manager;
static struct cores no_cores;
static struct heartbeat *heartbeat;

static void
begin(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	cr_redirect_stderr();
	/* An abstract address, which needs no file. */
	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "millrace-alive-%d", getpid());
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(manager, (struct sockaddr *)&address,
			  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
				      strlen(address.sun_path + 1))),
		     0);
	address.sun_path[0] = '@';
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	cr_assert_eq(heartbeat_create(&no_cores, &heartbeat), 0);
}

static void
end(void)
{
	heartbeat_destroy(heartbeat);
	close(manager);
}

TestSuite(alive, .init = begin, .fini = end);

static unsigned
take_all(void)
{
	char message[64];
	unsigned count = 0;

	while (recv(manager, message, sizeof(message), 0) > 0)
		count++;
	return count;
}

/* How often the manager is told within MS, what it was told before left out: also what has waited for room in its socket. */
static unsigned
told_within(unsigned ms)
{
	unsigned count = 0;

	(void)take_all();
	usleep(INTERVAL_MS * 1000 / 2);
	(void)take_all();
	for (unsigned i = 0; i < ms; i += INTERVAL_MS) {
		usleep(INTERVAL_MS * 1000);
		count += take_all();
	}
	return count;
}

/* Whether the manager is told no more, before long: for 200 ms at a time. */
static bool
falls_silent(void)
{
	for (unsigned i = 0; i < 50; i++)
		if (told_within(200) == 0)
			return true;
	return false;
}

static struct alive *
start(unsigned busy_s_max)
{
	struct alive *alive;

	cr_assert_eq(alive_start(heartbeat, INTERVAL_MS, busy_s_max, &alive), 0);
	return alive;
}

Test(alive, tells_while_the_main_thread_waits)
{
	struct alive *alive = start(1);

	cr_assert_geq(told_within(1500), 10);
	alive_stop(alive);
	cr_assert_eq(told_within(5 * INTERVAL_MS), 0);
}

Test(alive, tells_while_it_is_busy_but_not_for_ever)
{
	struct alive *alive = start(1);

	alive_busy(alive, "a test");
	cr_assert_geq(told_within(500), 3);
	cr_assert(falls_silent());
	cr_assert_eq(told_within(300), 0);
	alive_busy(alive, NULL);
	cr_assert_geq(told_within(500), 3);
	alive_stop(alive);
}

Test(alive, goes_on_without_cores_when_they_are_about_to_stop)
{
	struct alive *alive = start(1);

	alive_forget_cores(alive);
	cr_assert_geq(told_within(500), 3);
	alive_stop(alive);
}

Test(alive, may_be_missing)
{
	alive_busy(NULL, "a test");
	alive_forget_cores(NULL);
	alive_stop(NULL);
}
