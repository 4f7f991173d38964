/* A hierarchical timer wheel without wrap-around.
 *
 * A slot of level L spans 64^L ticks.  A timer lives at the level of the highest 6-bit digit in which its
 * tick differs from now_tick, in the slot that this digit names.  So every timer of a level is due before
 * every timer of the levels above, and within a level slots are due in rising order from the current digit:
 * the next slot with something to do is the first set bit of the lowest level that has one, and a gap of
 * any length is crossed in one step.  Only the top level is a ring, as there is no digit above it to change.
 *
 * Invariants: occupied[l] has bit s set exactly when slots[l][s] is not empty; no timer in the wheel has a
 * tick before now_tick (one that was started late is filed under now_tick); outside of
 * timer_wheel_advance, count is the number of timers in the slots.
 * A slot that comes up above level 0 is dealt out again by its timers' own deadlines ("cascade"), so a
 * timer that was held at the end of the wheel's range is never early. */
#include "reactor/timer.h"

#include "reactor/check.h"

#define DIGIT_BITS 6
#define LEVEL_TOP  (TIMER_LEVELS - 1)

_Static_assert(TIMER_SLOTS == 1 << DIGIT_BITS, "a slot is named by one digit");
_Static_assert(TIMER_SLOTS == 64, "a level's slots are the bits of one word");

/* A slot with timers in it, and the first tick it stands for. */
struct due_slot {
	uint64_t tick;
	unsigned level, slot;
};

static uint64_t deadline_tick(uint64_t deadline_ns);
static unsigned tick_level(const struct timer_wheel *wheel, uint64_t tick);
static void place(struct timer_wheel *wheel, struct timer *timer);
static bool find_next_slot(const struct timer_wheel *wheel, struct due_slot *next);
static void collect_due(struct timer_wheel *wheel, uint64_t tick, struct list_node *due);
static void take_slot(struct timer_wheel *wheel, const struct due_slot *from, struct list_node *to);

void
timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ns)
{
	wheel->now_tick = now_ns / TIMER_TICK_NS;
	wheel->count = 0;
	for (unsigned level = 0; level < TIMER_LEVELS; level++) {
		wheel->occupied[level] = 0;
		for (unsigned slot = 0; slot < TIMER_SLOTS; slot++)
			list_init(&wheel->slots[level][slot]);
	}
}

void
timer_init(struct timer *timer, void (*expired)(struct timer *timer))
{
	timer->expired = expired;
	list_init(&timer->node);
	timer->deadline_ns = TIMER_NO_DEADLINE;
	timer->level = 0;
	timer->slot = 0;
}

void
timer_start(struct timer_wheel *wheel, struct timer *timer, uint64_t deadline_ns)
{
	timer_stop(wheel, timer);
	timer->deadline_ns = deadline_ns;
	place(wheel, timer);
	wheel->count++;
}

void
timer_stop(struct timer_wheel *wheel, struct timer *timer)
{
	if (!timer_running(timer))
		return;
	CHECK(wheel->count > 0);
	wheel->count--;
	list_remove(&timer->node);
	/* Also right for a timer that timer_wheel_advance has taken out of its slot but not called yet: the
	 * bit says whether the slot is empty, whoever emptied it. */
	if (list_empty(&wheel->slots[timer->level][timer->slot]))
		wheel->occupied[timer->level] &= ~((uint64_t)1 << timer->slot);
}

bool
timer_running(const struct timer *timer)
{
	return !list_empty(&timer->node);
}

unsigned
timer_wheel_advance(struct timer_wheel *wheel, uint64_t now_ns)
{
	uint64_t tick = now_ns / TIMER_TICK_NS;
	struct list_node due, *node;
	unsigned count = 0;

	/* A clock that steps back finds nothing due: what is filed under now_tick may lie after it. */
	if (tick < wheel->now_tick)
		return 0;

	/* All are collected before the first is called.  So callbacks see a wheel that stands at TICK, and
	 * what they start for TICK or earlier is filed where the next call will look first. */
	list_init(&due);
	collect_due(wheel, tick, &due);
	while ((node = list_take_first(&due)) != NULL) {
		struct timer *timer = container_of(node, struct timer, node);

		DCHECK(deadline_tick(timer->deadline_ns) <= tick);
		wheel->count--;
		count++;
		timer->expired(timer);
	}
	return count;
}

uint64_t
timer_wheel_next_ns(const struct timer_wheel *wheel)
{
	struct due_slot next;

	if (!find_next_slot(wheel, &next))
		return TIMER_NO_DEADLINE;
	if (next.tick > UINT64_MAX / TIMER_TICK_NS)
		return TIMER_NO_DEADLINE - 1; /* beyond the clock's own end, but not "no timer" */
	return next.tick * TIMER_TICK_NS;
}

/* Rounded up, so that no timer is early. */
static uint64_t
deadline_tick(uint64_t deadline_ns)
{
	return deadline_ns / TIMER_TICK_NS + (deadline_ns % TIMER_TICK_NS != 0);
}

static unsigned
tick_level(const struct timer_wheel *wheel, uint64_t tick)
{
	uint64_t difference = tick ^ wheel->now_tick;
	unsigned level;

	if (difference == 0)
		return 0;
	level = (63 - (unsigned)__builtin_clzll(difference)) / DIGIT_BITS;
	return level < LEVEL_TOP ? level : LEVEL_TOP;
}

/* File TIMER, which is in no list, under its deadline. */
static void
place(struct timer_wheel *wheel, struct timer *timer)
{
	const unsigned top_shift = LEVEL_TOP * DIGIT_BITS;
	uint64_t tick = deadline_tick(timer->deadline_ns);
	uint64_t top_slot_last = (wheel->now_tick >> top_shift) + TIMER_SLOTS - 1;
	unsigned level, slot;

	if (tick < wheel->now_tick)
		tick = wheel->now_tick;
	if (tick >> top_shift > top_slot_last)
		tick = top_slot_last << top_shift;

	level = tick_level(wheel, tick);
	slot = (unsigned)(tick >> (level * DIGIT_BITS)) % TIMER_SLOTS;
	timer->level = (uint8_t)level;
	timer->slot = (uint8_t)slot;
	list_append(&wheel->slots[level][slot], &timer->node);
	wheel->occupied[level] |= (uint64_t)1 << slot;
}

/* The occupied slot that comes up first; false if all are empty. */
static bool
find_next_slot(const struct timer_wheel *wheel, struct due_slot *next)
{
	for (unsigned level = 0; level < TIMER_LEVELS; level++) {
		unsigned shift = level * DIGIT_BITS;
		uint64_t bits = wheel->occupied[level];
		uint64_t now_slots = wheel->now_tick >> shift; /* slots of this size since tick 0 */
		unsigned digit = (unsigned)(now_slots % TIMER_SLOTS), ahead;

		if (bits == 0)
			continue;
		/* Turned so that bit 0 is the current slot; the mask makes a turn by 0 defined. */
		bits = bits >> digit | bits << (-digit % TIMER_SLOTS);
		ahead = (unsigned)__builtin_ctzll(bits);
		next->tick = (now_slots + ahead) << shift;
		next->level = level;
		next->slot = (digit + ahead) % TIMER_SLOTS;
		return true;
	}
	return false;
}

/* Move now_tick on to TICK, and every timer due by then to the end of DUE, in order of ticks.
 * Each turn empties one slot; what it cascades goes to lower levels, except timers that wait for the end
 * of the wheel's range, which go further round the top level. */
static void
collect_due(struct timer_wheel *wheel, uint64_t tick, struct list_node *due)
{
	struct due_slot next;

	while (find_next_slot(wheel, &next) && next.tick <= tick) {
		struct list_node cascade, *node;

		wheel->now_tick = next.tick;
		if (next.level == 0) {
			take_slot(wheel, &next, due);
			continue;
		}
		list_init(&cascade);
		take_slot(wheel, &next, &cascade);
		while ((node = list_take_first(&cascade)) != NULL)
			place(wheel, container_of(node, struct timer, node));
	}
	wheel->now_tick = tick;
}

static void
take_slot(struct timer_wheel *wheel, const struct due_slot *from, struct list_node *to)
{
	list_move_all(to, &wheel->slots[from->level][from->slot]);
	wheel->occupied[from->level] &= ~((uint64_t)1 << from->slot);
}
