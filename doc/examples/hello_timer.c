/* One core says hello three times, 20 ms apart, and stops.
 *	cc $(pkg-config --cflags millrace-reactor) hello_timer.c $(pkg-config --libs --static millrace-reactor) */
#include "reactor/core.h"

#include <stdio.h>
#include <string.h>

#define PERIOD_NS  ((uint64_t)20000000)
#define HELLOS_MAX 3

/* Owned by main; touched by the core's thread only, until said has been posted. */
struct greeter {
	struct message start;
	struct timer timer;
	struct core *core;
	unsigned hello_count;
	sem_t said;
};

static void
say_hello(struct timer *timer)
{
	struct greeter *greeter = container_of(timer, struct greeter, timer);

	printf("hello %u from core %u\n", ++greeter->hello_count, greeter->core->index);
	if (greeter->hello_count == HELLOS_MAX)
		sem_post(&greeter->said);
	else
		reactor_timer_start(greeter->core->reactor, timer, PERIOD_NS);
}

/* The first thing on the core: only its own thread may start its timers. */
static void
start(struct message *message)
{
	struct greeter *greeter = container_of(message, struct greeter, start);

	timer_init(&greeter->timer, say_hello);
	reactor_timer_start(greeter->core->reactor, &greeter->timer, PERIOD_NS);
}

int
main(void)
{
	static const struct reactor_config config = { .disk_slots = 8, .poll_slots = 8 };
	struct greeter greeter = { .start.deliver = start };
	struct cpu_list list;
	struct cores cores;
	int error = cpu_list_auto(&list);

	list.count = 1;
	if (error == 0)
		error = cores_start(&cores, &list, &config, 1 << 20, 1 << 16);
	if (error < 0) {
		fprintf(stderr, "cannot start: %s\n", strerror(-error));
		return 1;
	}
	greeter.core = &cores.cores[0];
	sem_init(&greeter.said, 0, 0);
	reactor_send(greeter.core->reactor, &greeter.start);
	while (sem_wait(&greeter.said) != 0)
		;
	cores_stop(&cores);
	sem_destroy(&greeter.said);
	return 0;
}
