/* bench/load/link.h: the socket's options.  What goes through it is tested end to end, with real servers. */
#include "bench/load/link.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

Test(link, nothing_paces_a_load_within_the_machine)
{
	struct address address = { .bytes = sizeof(struct sockaddr_in) };
	struct sockaddr_in *loopback = (struct sockaddr_in *)&address.storage;
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char control[16] = "";
	socklen_t bytes = sizeof(control);
	struct link link;

	loopback->sin_family = AF_INET;
	loopback->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert_eq(bind(server, (struct sockaddr *)loopback, address.bytes), 0);
	cr_assert_eq(listen(server, 1), 0);
	cr_assert_eq(getsockname(server, (struct sockaddr *)loopback, &address.bytes), 0);
	cr_assert_eq(link_open(&link, &address), 0);
	cr_assert_eq(getsockopt(link.fd, IPPROTO_TCP, TCP_CONGESTION, control, &bytes), 0);
	cr_assert_str_eq(control, "reno");
	link_close(&link);
	(void)close(server);
}
