/* The tables of settings.  To add one: a field in daemon/config.h, its default in config_init or config_export_init, a line
 * here, and its lines in etc/millrace.conf. */
#include "daemon/config_key.h"

#include <assert.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/config_type.h"
#include "daemon/config_value.h"

/* The offset of MEMBER, which must have TYPE, in struct IN. */
#define FIELD(in, type, member)        \
	(offsetof(struct in, member) + \
	 0 * sizeof((type *)NULL == &((const struct in *)NULL)->member))

#define KEY(text, kind, ...)                                           \
	{                                                              \
		.name = text, .type = &config_type_##kind, __VA_ARGS__ \
	}
#define NUMBER(text, in, member, least, most, ...)                                                \
	KEY(text, number, .offset = FIELD(in, const unsigned, member), .min = least, .max = most, \
	    __VA_ARGS__)
#define BYTES(text, in, member, least, most, ...)                                                \
	KEY(text, bytes, .offset = FIELD(in, const uint64_t, member), .min = least, .max = most, \
	    __VA_ARGS__)
#define YES_NO(text, in, member) KEY(text, bool, .offset = FIELD(in, const bool, member))
/* LEAST: 1, or 0 if it may be empty. */
#define TEXT(text, in, member, least) \
	KEY(text, string, .offset = FIELD(in, char *const, member), .min = least)
#define RANGES(text, in, member) \
	KEY(text, ranges, .offset = FIELD(in, const struct access_list, member))
#define WORD(text, in, kind, member, choice) \
	KEY(text, word, .offset = FIELD(in, const kind, member), .words = choice)

static const char *const priorities[PRIORITY_COUNT + 1] = {
	[PRIORITY_LATENCY] = "latency",
	[PRIORITY_NORMAL] = "normal",
	[PRIORITY_BACKGROUND] = "background",
};
static const char *const removed_exports[] = {
	[CONFIG_REMOVED_DRAIN] = "drain",
	[CONFIG_REMOVED_DROP] = "drop",
	NULL,
};
static_assert(sizeof(enum config_removed) == sizeof(unsigned), "a word is kept as unsigned");
static const char *const log_levels[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
	NULL,
};
static_assert(sizeof(enum log_level) == sizeof(unsigned), "a word is kept as unsigned");
static const char *const log_formats[] = {
	[LOG_FORMAT_TEXT] = "text",
	[LOG_FORMAT_JSON] = "json",
	NULL,
};
static_assert(sizeof(enum log_format) == sizeof(unsigned), "a word is kept as unsigned");
static const char *const tls_modes[] = {
	[TLS_MODE_OFF] = "off",
	[TLS_MODE_ALLOWED] = "allowed",
	[TLS_MODE_REQUIRED] = "required",
	NULL,
};
static_assert(sizeof(enum tls_mode) == sizeof(unsigned), "a word is kept as unsigned");
static_assert(sizeof(enum priority) == sizeof(unsigned), "a word is kept as unsigned");
static_assert(sizeof(enum volume_create) == sizeof(unsigned), "a word is kept as unsigned");
static_assert(sizeof(enum volume_cache) == sizeof(unsigned), "a word is kept as unsigned");
static_assert(sizeof(enum volume_kind) == sizeof(unsigned), "a word is kept as unsigned");

static const struct config_key reactor_keys[] = {
	KEY("cores", cores),
	YES_NO("skip-core-0", config, skip_core_0),
	YES_NO("skip-smt", config, skip_smt),
	NUMBER("queue-depth", config, queue_depth, CONFIG_QUEUE_DEPTH_MIN, CONFIG_QUEUE_DEPTH_MAX,
	       .note = "disk requests per core"),
	NUMBER("poll-us", config, poll_us, 0, CONFIG_POLL_US_MAX,
	       .note_of_zero = "(sleep at once)"),
	NUMBER("socket-batch", config, socket_batch, 0, CONFIG_SOCKET_BATCH_MAX,
	       .note_of_zero = "(never)"),
	NUMBER("stall-ms", config, stall_ms, CONFIG_STALL_MS_MIN, CONFIG_STALL_MS_MAX),
	BYTES("buffer-memory", config, buffer_memory_bytes, CONFIG_BUFFER_MEMORY_MIN,
	      CONFIG_BUFFER_MEMORY_MAX, .note = "per core"),
	YES_NO("lock-memory", config, lock_memory),
};
static_assert(ARRAY_COUNT(reactor_keys) <= CONFIG_KEYS_MAX, "the reader counts them");

static const struct config_key server_keys[] = {
	KEY("listen", listen),
	NUMBER("max-connections", config, connections_max, 1, CONFIG_CONNECTIONS_MAX),
	NUMBER("max-connections-per-client", config, connections_per_client_max, 0,
	       CONFIG_CONNECTIONS_MAX, .note_of_zero = "(any number)"),
	NUMBER("requests-per-connection", config, requests_per_connection, 1, CONFIG_REQUESTS_MAX),
	NUMBER("handshake-s", config, handshake_s, 1, CONFIG_HANDSHAKE_S_MAX),
	NUMBER("dead-peer-s", config, dead_peer_s, CONFIG_DEAD_PEER_S_MIN, CONFIG_DEAD_PEER_S_MAX),
	RANGES("allow", config, access.allow),
	RANGES("deny", config, access.deny),
	WORD("removed-exports", config, enum config_removed, removed_exports, removed_exports),
	WORD("log-level", config, enum log_level, log_level, log_levels),
	WORD("log-format", config, enum log_format, log_format, log_formats),
	NUMBER("slow-ms", config, slow_ms, 0, CONFIG_SLOW_MS_MAX, .note_of_zero = "(off)"),
	TEXT("user", config, user, 1),
	YES_NO("seccomp", config, seccomp),
	YES_NO("core-dumps", config, core_dumps),
	TEXT("exports-dir", config, exports_dir, 1),
};
static_assert(ARRAY_COUNT(server_keys) <= CONFIG_KEYS_MAX, "the reader counts them");

static const struct config_key tls_keys[] = {
	WORD("mode", config, enum tls_mode, tls_mode, tls_modes),
	TEXT("certificate", config, tls.certificate, 1),
	TEXT("key", config, tls.key, 1),
	TEXT("ca", config, tls.ca, 1),
	YES_NO("verify-client", config, tls.verify_client),
	TEXT("psk-file", config, tls.psk_file, 1),
	TEXT("priority", config, tls.priority, 1),
	YES_NO("kernel", config, tls.kernel),
};
static_assert(ARRAY_COUNT(tls_keys) <= CONFIG_KEYS_MAX, "the reader counts them");

static const struct config_key export_keys[] = {
	WORD("type", config_export, enum volume_kind, type, volume_kind_names),
	TEXT("path", config_export, path, 0),
	BYTES("size", config_export, size_bytes, 1, CONFIG_VOLUME_BYTES_MAX),
	WORD("create", config_export, enum volume_create, create, volume_create_names),
	TEXT("fault", config_export, fault, 1),
	WORD("cache", config_export, enum volume_cache, cache, volume_cache_names),
	YES_NO("read-only", config_export, read_only),
	RANGES("read-only-for", config_export, read_only_for),
	RANGES("allow", config_export, access.allow),
	RANGES("deny", config_export, access.deny),
	YES_NO("tls-only", config_export, tls_only),
	KEY("allow-names", names,
	    .offset = FIELD(config_export, const struct tls_names, allow_names)),
	WORD("priority", config_export, enum priority, priority, priorities),
	NUMBER("limit-iops", config_export, limit_iops, 0, CONFIG_LIMIT_IOPS_MAX,
	       .note_of_zero = "(none)"),
	BYTES("limit-bytes", config_export, limit_bytes, 0, CONFIG_VOLUME_BYTES_MAX,
	      .note_of_zero = "(none)"),
	NUMBER("burst-ms", config_export, burst_ms, 1, CONFIG_BURST_MS_MAX),
	KEY("slow-ms", own_number, .offset = FIELD(config_export, const unsigned, slow_ms),
	    .max = CONFIG_SLOW_MS_MAX, .note_of_zero = "(off)"),
	TEXT("description", config_export, description, 0),
};
static_assert(ARRAY_COUNT(export_keys) <= CONFIG_KEYS_MAX, "the reader counts them");

/* The last one is that of exports, in messages too. */
const struct config_section config_sections[] = {
	{ "reactor", false, reactor_keys, ARRAY_COUNT(reactor_keys) },
	{ "server", false, server_keys, ARRAY_COUNT(server_keys) },
	{ "tls", false, tls_keys, ARRAY_COUNT(tls_keys) },
	{ "export", true, export_keys, ARRAY_COUNT(export_keys) },
};
const unsigned config_section_count = ARRAY_COUNT(config_sections);
static_assert(ARRAY_COUNT(config_sections) <= CONFIG_SECTIONS_MAX, "the reader counts them");

const struct config_key *
config_key_find(const struct config_section *section, const char *name)
{
	for (unsigned i = 0; i < section->key_count; i++) {
		if (strcmp(section->keys[i].name, name) == 0)
			return &section->keys[i];
	}
	return NULL;
}

void
config_key_list(const struct config_section *section, char *text, size_t text_bytes)
{
	text[0] = '\0';
	for (unsigned i = 0; i < section->key_count; i++)
		config_value_join(text, text_bytes, i > 0 ? ", " : "", section->keys[i].name, "");
}

void
config_section_list(const char *conjunction, char *text, size_t text_bytes)
{
	char last[16];

	snprintf(last, sizeof(last), " %s [", conjunction);
	text[0] = '\0';
	for (unsigned i = 0; i < config_section_count; i++) {
		const char *before = i == 0 ? "[" : i + 1 < config_section_count ? ", [" : last;

		config_value_join(text, text_bytes, before, config_sections[i].name,
				  config_sections[i].of_export ? " NAME]" : "]");
	}
}
