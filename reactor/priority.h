/* Priority classes: whose operation goes first when a core has more to do than one thing. */
#ifndef REACTOR_PRIORITY_H
#define REACTOR_PRIORITY_H

enum priority {
	PRIORITY_LATENCY,    /* few and short, somebody waits for each: before all others */
	PRIORITY_NORMAL,     /* the default */
	PRIORITY_BACKGROUND, /* can wait; never more than a part of the disk's slots */
	PRIORITY_COUNT,
};

#endif
