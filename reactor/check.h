/* Assertions for programmer errors, and the few attributes and macros every file needs.
 * CHECK stays in release builds; DCHECK is for costly ones and for debug and sanitizer builds.
 * Neither is for what a client, an administrator or the kernel can cause: that is an error code. */
#ifndef REACTOR_CHECK_H
#define REACTOR_CHECK_H

#include <stddef.h>

/* The caller must look at the result: the function can fail. */
#define MUST_USE __attribute__((warn_unused_result))

#define PRINTF_LIKE(format_index, first_index) \
	__attribute__((format(printf, format_index, first_index)))

/* The structure of TYPE whose MEMBER is at POINTER. */
#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Print FILE:LINE and EXPRESSION to standard error and abort. */
_Noreturn void check_failed(const char *file, int line, const char *expression);

#define CHECK(x) (__builtin_expect(!!(x), 1) ? (void)0 : check_failed(__FILE__, __LINE__, #x))

#ifdef MILLRACE_DEBUG
#define DCHECK(x) CHECK(x)
#else
#define DCHECK(x) ((void)sizeof(x))
#endif

#endif
