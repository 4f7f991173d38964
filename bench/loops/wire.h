/* What goes over the connections: known to the servers and to the load. */
#ifndef BENCH_LOOPS_WIRE_H
#define BENCH_LOOPS_WIRE_H

/* An echo's sizes are those of an NBD request and its reply: the reply is this part of the request. */
#define ECHO_REQUEST_BYTES 28
#define ECHO_REPLY_BYTES   16
#define ECHO_REPLY_OFFSET  8

#define HTTP_REQUEST \
	"GET /index.txt HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n"
#define HTTP_BODY_BYTES 1024

/* Byte INDEX of the body. */
static inline char
http_body_byte(unsigned index)
{
	return (char)('a' + index % 23);
}

#endif
