/* getaddrinfo without asking a name server: linked with --wrap=getaddrinfo.  A fuzzer would bother the network, and wait for it. */
#include "tests/fuzz/fuzz.h"

#include <netdb.h>

int __real_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		       struct addrinfo **result);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		       struct addrinfo **result);

int
__wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		   struct addrinfo **result)
{
	struct addrinfo numeric = { .ai_socktype = SOCK_STREAM };

	if (hints != NULL)
		numeric = *hints;
	numeric.ai_flags |= AI_NUMERICHOST;
	return __real_getaddrinfo(node, service, &numeric, result);
}
