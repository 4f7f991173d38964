/* libevent's own HTTP server. */
#include "bench/loops/server.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>

static void
on_request(struct evhttp_request *request, void *argument)
{
	char *body = argument;
	struct evbuffer *buffer = evbuffer_new();

	if (buffer == NULL ||
	    evbuffer_add_reference(buffer, body, HTTP_BODY_BYTES, NULL, NULL) != 0)
		server_fail("no memory");
	(void)evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
				"text/plain");
	evhttp_send_reply(request, HTTP_OK, "OK", buffer);
	evbuffer_free(buffer);
}

void
server_run(struct server *server)
{
	struct event_base *base = event_base_new();
	struct evhttp *http = base == NULL ? NULL : evhttp_new(base);
	char *body = server_allocate(HTTP_BODY_BYTES, 1);

	for (unsigned i = 0; i < HTTP_BODY_BYTES; i++)
		body[i] = http_body_byte(i);
	if (http == NULL || server->load != LOAD_HTTP ||
	    evhttp_accept_socket(http, server->listen_fd) != 0)
		server_fail("evhttp: HTTP only, and it must be given its listener");
	evhttp_set_gencb(http, on_request, body);
	(void)event_base_dispatch(base);
	server_fail("evhttp: nothing left to wait for");
}
