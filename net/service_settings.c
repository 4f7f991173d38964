/* Counting references. */
#include "net/service_settings.h"

#include "reactor/check.h"

void
service_settings_init(struct service_settings *settings,
		      void (*on_unused)(struct service_settings *settings))
{
	settings->on_unused = on_unused;
	settings->references = 1;
}

struct service_settings *
service_settings_get(struct service_settings *settings)
{
	/* Relaxed: the caller has a reference, or it could not get one. */
	__atomic_add_fetch(&settings->references, 1, __ATOMIC_RELAXED);
	return settings;
}

void
service_settings_put(struct service_settings *settings)
{
	/* Whoever is last sees all that the others have done with it. */
	unsigned left = __atomic_sub_fetch(&settings->references, 1, __ATOMIC_ACQ_REL);

	CHECK(left != UINT32_MAX);
	if (left == 0 && settings->on_unused != NULL)
		settings->on_unused(settings);
}
