/* Readings of /proc/stat.  The kernel counts in ticks of a hundredth of a second, so what is between two readings must be long. */
#include "net/cpu_usage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Between two readings; one that takes T of the CPU is followed by a pause of so many T. */
#define READ_NS	    ((uint64_t)250 * 1000000)
#define PAUSE_READS 100u

/* Figures of that age say nothing. */
#define OLD_NS ((uint64_t)1000 * 1000000)

/* Lines of hundreds of CPUs; what is behind them is not seen. */
#define TEXT_BYTES 32768u

struct cpu_usage_core {
	unsigned idle;			/* atomic: between the last two readings */
	int left;			/* atomic: of that, less what was claimed */
	bool claimed;			/* atomic: since the last reading */
	uint64_t idle_ticks, all_ticks; /* at that, since the machine began */
};

int
cpu_usage_init(struct cpu_usage *usage, const struct cores *cores, const char *path)
{
	*usage = (struct cpu_usage){ .cores = cores };
	usage->per_core = calloc(cores->count, sizeof(usage->per_core[0]));
	if (usage->per_core == NULL)
		return -ENOMEM;
	usage->fd = open(path, O_RDONLY | O_CLOEXEC);
	return 0;
}

void
cpu_usage_fini(struct cpu_usage *usage)
{
	if (usage->fd >= 0)
		(void)close(usage->fd);
	free(usage->per_core);
}

/* ---- reading ---- */

/* CORE's CPU has spent IDLE of ALL ticks with nothing to do. */
static void
take_ticks(struct cpu_usage_core *core, uint64_t idle_ticks, uint64_t all_ticks)
{
	int left = __atomic_load_n(&core->left, __ATOMIC_RELAXED);
	unsigned idle = 0;

	/* The kernel's counters of idle time go back at times. */
	if (all_ticks > core->all_ticks && idle_ticks > core->idle_ticks)
		idle = (unsigned)((idle_ticks - core->idle_ticks) * CPU_USAGE_WHOLE /
				  (all_ticks - core->all_ticks));
	core->idle_ticks = idle_ticks;
	core->all_ticks = all_ticks;
	/* What was claimed is seen in a part of this time only. */
	if (!__atomic_exchange_n(&core->claimed, false, __ATOMIC_RELAXED) || left > (int)idle)
		left = (int)idle;
	__atomic_store_n(&core->idle, idle, __ATOMIC_RELAXED);
	__atomic_store_n(&core->left, left, __ATOMIC_RELAXED);
}

/* LINE is what the kernel says of CPU. */
static void
take_line(struct cpu_usage *usage, unsigned cpu, const char *line)
{
	uint64_t user, nice, system, idle, disk, irq, soft_irq, steal;

	if (sscanf(line,
		   "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64
		   "%" SCNu64,
		   &user, &nice, &system, &idle, &disk, &irq, &soft_irq, &steal) != 8)
		return;
	for (unsigned i = 0; i < usage->cores->count; i++)
		if (usage->cores->cores[i].cpu == cpu)
			take_ticks(&usage->per_core[i], idle + disk,
				   user + nice + system + idle + disk + irq + soft_irq + steal);
}

static void
take_text(struct cpu_usage *usage, char *text)
{
	char *rest, *line = strtok_r(text, "\n", &rest);
	unsigned cpu;
	int bytes;

	for (; line != NULL && strncmp(line, "cpu", 3) == 0; line = strtok_r(NULL, "\n", &rest))
		if (sscanf(line, "cpu%u%n", &cpu, &bytes) == 1)
			take_line(usage, cpu, line + bytes);
}

/* What this thread has had of a CPU so far. */
static uint64_t
thread_ns(void)
{
	struct timespec time = { .tv_sec = 0 };

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void
read_all(struct cpu_usage *usage, uint64_t now_ns)
{
	uint64_t elapsed_ns = now_ns - usage->looked_ns;
	uint64_t begin_ns = thread_ns(), pause_ns;
	char text[TEXT_BYTES];
	ssize_t bytes = pread(usage->fd, text, sizeof(text) - 1, 0);

	text[bytes > 0 ? bytes : 0] = '\0';
	take_text(usage, text);
	pause_ns = (thread_ns() - begin_ns) * PAUSE_READS;
	usage->looked_ns = now_ns;
	__atomic_store_n(&usage->next_ns, now_ns + (pause_ns > READ_NS ? pause_ns : READ_NS),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&usage->known_ns, elapsed_ns < OLD_NS ? now_ns : 0, __ATOMIC_RELEASE);
}

static bool
is_due(const struct cpu_usage *usage, uint64_t now_ns)
{
	return now_ns >= __atomic_load_n(&usage->next_ns, __ATOMIC_RELAXED);
}

void
cpu_usage_look(struct cpu_usage *usage, uint64_t now_ns)
{
	if (usage->fd < 0 || !is_due(usage, now_ns) ||
	    __atomic_exchange_n(&usage->reading, true, __ATOMIC_ACQUIRE))
		return;
	/* Another core may have read it meanwhile. */
	if (is_due(usage, now_ns))
		read_all(usage, now_ns);
	__atomic_store_n(&usage->reading, false, __ATOMIC_RELEASE);
}

/* ---- asking ---- */

static bool
known(const struct cpu_usage *usage, uint64_t now_ns)
{
	uint64_t known_ns = __atomic_load_n(&usage->known_ns, __ATOMIC_ACQUIRE);

	return known_ns != 0 && now_ns < known_ns + OLD_NS;
}

bool
cpu_usage_idle(const struct cpu_usage *usage, unsigned index, uint64_t now_ns, unsigned *idle)
{
	if (!known(usage, now_ns))
		return false;
	*idle = __atomic_load_n(&usage->per_core[index].idle, __ATOMIC_RELAXED);
	return true;
}

bool
cpu_usage_left(const struct cpu_usage *usage, unsigned index, uint64_t now_ns, int *left)
{
	if (!known(usage, now_ns))
		return false;
	*left = __atomic_load_n(&usage->per_core[index].left, __ATOMIC_RELAXED);
	return true;
}

void
cpu_usage_claim(struct cpu_usage *usage, unsigned index, int share)
{
	/* Relaxed: if two claim at the same moment, the next readings put it right. */
	__atomic_sub_fetch(&usage->per_core[index].left, share, __ATOMIC_RELAXED);
	__atomic_store_n(&usage->per_core[index].claimed, true, __ATOMIC_RELAXED);
}
