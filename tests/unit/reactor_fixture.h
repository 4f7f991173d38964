/* What the tests of reactor/reactor.h share: one reactor, operations that note their end, files and pipes.
 *
 * The variables are the test's own, because Criterion runs each test in a process of its own.  Everything belongs to
 * the thread of the test, which is the reactor's too, and asserts there; what other threads may call says so.
 * Nothing here returns an error: what fails ends the test. */
#ifndef TESTS_UNIT_REACTOR_FIXTURE_H
#define TESTS_UNIT_REACTOR_FIXTURE_H

#include "reactor/reactor.h"

#define MS	    ((uint64_t)1000000)
#define PATIENCE_NS (20000 * MS) /* long enough for a machine that is busy with other things */
#define BLOCK	    4096
#define BLOCKS	    64
#define DISK_SLOTS  8
#define POLL_SLOTS  8

/* An operation that notes its end. */
struct test_op {
	struct op op;
	unsigned done_count;
	long result;
};

extern struct reactor *reactor;
extern bool submitting;	    /* in a call during which no done may be called */
extern unsigned done_total; /* operations */
extern char buffers[BLOCKS][BLOCK];

/* ---- the reactor ---- */

void create_reactor(unsigned disk_slots, unsigned poll_slots, unsigned poll_us);

/* For test suites: one of DISK_SLOTS and POLL_SLOTS that does not spin, and the end of whatever was created. */
void reactor_fixture_init(void);
void reactor_fixture_fini(void);

/* reactor_create with CONFIG returns ERROR and leaves nothing behind.  Before any reactor was created. */
void assert_create_fails(const struct reactor_config *config, int error);

/* ---- operations ---- */

/* Idle, and with note_done. */
void test_op_init(struct test_op *test_op);

/* Counts in the test_op and in done_total. */
void note_done(struct op *op, long result);

/* The operation must be filled in; it is not done before the next turn. */
void submit(struct test_op *test_op);

/* These fill it in, too.  offset: bytes. */
void submit_poll(struct test_op *test_op, int fd, int events);
void submit_read(struct test_op *test_op, int fd, void *buffer, size_t bytes, uint64_t offset);
void submit_write(struct test_op *test_op, int fd, void *buffer, size_t bytes, uint64_t offset);

/* Done once, with RESULT. */
void assert_done(const struct test_op *test_op, long result);

/* Done once, with EVENTS.  The result of a poll may have bits that nobody asked for. */
void assert_polled(const struct test_op *test_op, int events);

/* ---- turns ---- */

/* Take turns until TOTAL operations are done, and not one more. */
void turn_until_done(unsigned total);

/* Take turns for a while in which nothing should end. */
void turn_for_a_while(void);

void turn_until_idle(void);

/* ---- files, pipes, buffers ---- */

/* A file of BLOCKS blocks, block i filled with byte i, opened for direct I/O and without a name. */
int open_file(void);

/* Does not block: fds[0] is to read from, fds[1] to write to. */
void make_pipe(int fds[2]);

/* Also for the two ends of a socket. */
void close_pipe(int fds[2]);

void write_byte(int fd);
void read_byte(int fd);

/* Is the whole of buffers[INDEX] filled with BYTE? */
bool buffer_is(unsigned index, int byte);

/* ---- waking a reactor ---- */

/* Wait until the reactor, which runs on another thread, has slept more than SLEEPS times, and likely does still.
 * On any other thread. */
void wait_for_sleep(uint64_t sleeps);

/* Run the reactor while another thread sends it messages, each when it sleeps: every one arrives soon. */
void assert_messages_wake(void);

/* ---- what the process uses ---- */

/* Of the calling thread, in the kernel and outside of it. */
uint64_t thread_cpu_ns(void);

/* How many of each it has. */
unsigned process_fds(void);
unsigned process_threads(void);

/* Let MORE descriptors be opened, no more. */
void limit_fds(unsigned more);

/* The mapped rings of this process. */
unsigned process_contexts(void);

#endif
