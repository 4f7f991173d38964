/* Opening listeners. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/listener.h"

static struct address
address_of(const char *text)
{
	struct address address;
	const char *why;

	cr_assert_eq(address_parse(text, &address, &why), 0);
	return address;
}

static bool
exists(const char *path)
{
	struct stat status;

	return lstat(path, &status) == 0;
}

Test(listener, port_zero_becomes_the_kernels_choice)
{
	struct address address = address_of("127.0.0.1:0");
	struct listener listener;

	cr_assert_eq(listener_open(&listener, &address), 0);
	cr_assert_neq(((struct sockaddr_in *)&listener.address.storage)->sin_port, 0);
	listener_close(&listener);
}

/* How the connections of FD, a TCP socket, will control congestion. */
static void
read_congestion_control(int fd, char name[16])
{
	socklen_t bytes = 16;

	memset(name, 0, 16);
	cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &bytes), 0);
}

static void
assert_congestion_control(const char *text, const char *expected)
{
	struct address address = address_of(text);
	struct listener listener;
	char name[16];

	cr_assert_eq(listener_open(&listener, &address), 0);
	read_congestion_control(listener.fd, name);
	cr_assert_str_eq(name, expected, "%s", text);
	listener_close(&listener);
}

Test(listener, nothing_paces_what_stays_within_the_machine)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char usual[16];

	cr_assert_geq(fd, 0);
	read_congestion_control(fd, usual);
	(void)close(fd);
	assert_congestion_control("127.0.0.1:0", "reno");
	assert_congestion_control("127.9.8.7:0", "reno");
	assert_congestion_control("[::1]:0", "reno");
	assert_congestion_control("0.0.0.0:0", usual);
	assert_congestion_control("[::]:0", usual);
}

Test(listener, port_in_use_is_refused)
{
	struct address address = address_of("127.0.0.1:0");
	struct listener first, second;

	cr_assert_eq(listener_open(&first, &address), 0);
	cr_assert_eq(listener_open(&second, &first.address), -EADDRINUSE);
	listener_close(&first);
}

/* The address of LISTENER, an IPv4 one, with HOST instead. */
static struct address
with_host(const struct listener *listener, in_addr_t host)
{
	struct address address = listener->address;

	((struct sockaddr_in *)&address.storage)->sin_addr.s_addr = htonl(host);
	return address;
}

Test(listener, one_and_every_address_share_a_port_only_while_both_are_told)
{
	struct address any = address_of("127.0.0.1:0"), every, other;
	struct listener first, second, third;

	cr_assert_eq(listener_open(&first, &any), 0);
	every = with_host(&first, INADDR_ANY);
	cr_assert_eq(listener_open(&second, &every), -EADDRINUSE);
	cr_assert_eq(listener_open_beside(&second, &every), -EADDRINUSE);
	listener_share(&first, true);
	cr_assert_eq(listener_open(&second, &every), -EADDRINUSE);
	cr_assert_eq(listener_open_beside(&second, &every), 0);
	listener_share(&first, false);

	other = with_host(&first, INADDR_LOOPBACK + 1);
	cr_assert_eq(listener_open(&third, &other), -EADDRINUSE);
	listener_close(&first);
	cr_assert_eq(listener_open(&third, &other), -EADDRINUSE);
	listener_close(&second);
}

Test(listener, closing_removes_the_unix_socket)
{
	struct address address = address_of("unix:build/unit-listener-close");
	struct listener listener;

	cr_assert_eq(listener_open(&listener, &address), 0);
	cr_assert(exists("build/unit-listener-close"));
	listener_close(&listener);
	cr_assert_not(exists("build/unit-listener-close"));
}

Test(listener, stale_unix_socket_is_replaced)
{
	struct address address = address_of("unix:build/unit-listener-stale");
	struct listener gone, listener;

	cr_assert_eq(listener_open(&gone, &address), 0);
	(void)close(gone.fd); /* as a killed server does: the path stays */
	cr_assert(exists("build/unit-listener-stale"));
	cr_assert_eq(listener_open(&listener, &address), 0);
	listener_close(&listener);
}

Test(listener, stale_unix_socket_that_may_not_be_removed_is_not_said_to_be_in_use)
{
	static const char directory[] = "build/unit-listener-sticky",
			  path[] = "build/unit-listener-sticky/socket";
	struct address address = address_of("unix:build/unit-listener-sticky/socket");
	struct listener gone, listener;

	if (geteuid() != 0)
		cr_skip_test("needs root to be somebody else");
	cr_assert_eq(mkdir(directory, 0755), 0);
	cr_assert_eq(listener_open(&gone, &address), 0);
	(void)close(gone.fd);
	cr_assert_eq(chmod(directory, 01777), 0);
	cr_assert_eq(chmod(path, 0777), 0);
	cr_assert_eq(seteuid(65534), 0); /* in this test's own process */
	cr_assert_eq(listener_open(&listener, &address), -EPERM);
	cr_assert_eq(seteuid(0), 0);
	cr_assert_eq(chmod(path, 0755), 0);
	cr_assert_eq(seteuid(65534), 0);
	cr_assert_eq(listener_open(&listener, &address), -EACCES);
	cr_assert_eq(seteuid(0), 0);
	cr_assert(exists(path));
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(rmdir(directory), 0);
}

Test(listener, unix_socket_that_answers_is_left_alone)
{
	struct address address = address_of("unix:build/unit-listener-alive");
	struct listener first, second;

	cr_assert_eq(listener_open(&first, &address), 0);
	cr_assert_eq(listener_open(&second, &address), -EADDRINUSE);
	cr_assert(exists("build/unit-listener-alive"));
	listener_close(&first);
}

Test(listener, unix_socket_of_a_server_that_hangs_is_left_alone_at_once, .timeout = 10)
{
	struct address address = address_of("unix:build/unit-listener-hangs");
	int clients[2] = { socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0),
			   socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0) };
	struct listener first, second;

	cr_assert_eq(listener_open(&first, &address), 0);
	/* It accepts nobody, and its queue is full. */
	cr_assert_eq(listen(first.fd, 0), 0);
	cr_assert_eq(connect(clients[0], (struct sockaddr *)&address.storage, address.bytes), 0);
	cr_assert_neq(connect(clients[1], (struct sockaddr *)&address.storage, address.bytes), 0);
	cr_assert_eq(listener_open(&second, &address), -EADDRINUSE);
	cr_assert(exists("build/unit-listener-hangs"));
	listener_close(&first);
	close(clients[0]);
	close(clients[1]);
}

Test(listener, file_that_is_no_socket_is_left_alone)
{
	struct address address = address_of("unix:build/unit-listener-file");
	struct listener listener;
	int fd = open("build/unit-listener-file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	(void)close(fd);
	cr_assert_eq(listener_check(&address), -EEXIST);
	cr_assert_eq(listener_open(&listener, &address), -EEXIST);
	cr_assert(exists("build/unit-listener-file"));
	address = address_of("unix:build/unit-listener-file/socket");
	cr_assert_eq(listener_check(&address), -ENOTDIR);
	(void)unlink("build/unit-listener-file");
}

Test(listener, a_check_finds_what_opening_would_and_makes_nothing)
{
	struct address missing = address_of("unix:build/unit-listener-gone/socket");
	struct address new = address_of("unix:build/unit-listener-new");
	struct address taken = address_of("unix:build/unit-listener-taken");
	struct address port = address_of("192.0.2.1:1");
	struct listener listener;

	cr_assert_eq(listener_check(&missing), -ENOENT);
	cr_assert_eq(listener_open(&listener, &missing), -ENOENT);
	cr_assert_eq(listener_check(&new), 0);
	cr_assert_not(exists("build/unit-listener-new"));
	/* Who listens there, or whose address it is, is a matter of the moment. */
	cr_assert_eq(listener_open(&listener, &taken), 0);
	cr_assert_eq(listener_check(&taken), 0);
	listener_close(&listener);
	cr_assert_eq(listener_check(&port), 0);
}

Test(listener, a_check_finds_a_directory_that_cannot_be_written)
{
	struct address address = address_of("unix:build/unit-listener-closed/socket");

	cr_assert_eq(mkdir("build/unit-listener-closed", 0555), 0);
	if (geteuid() == 0)
		cr_assert_eq(seteuid(65534), 0); /* in this test's own process */
	cr_assert_eq(listener_check(&address), -EACCES);
	(void)seteuid(getuid());
	cr_assert_eq(rmdir("build/unit-listener-closed"), 0);
}
