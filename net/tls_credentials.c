/* Loading credentials, so that whatever is wrong is said with the file's name before a client meets it. */
#include "net/tls_credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "reactor/log.h"

#define FILE_BYTES_MAX (1u << 20)

/* A file, and how messages name it. */
struct source {
	const char *path, *name;
};

static int load_priority(const struct tls_files *files, struct tls_credentials *made);
static int load_x509(const struct tls_files *files, struct tls_credentials *made);
static int load_psk(const struct tls_files *files, struct tls_credentials *made);

static struct source
source_of(const char *path, const char *origin)
{
	return (struct source){ path, origin != NULL ? origin : path };
}

/* ---- files ---- */

/* A key that others can read is no secret; one that the group can write is not ours. */
static int
check_private(const struct source *source, mode_t mode)
{
	if ((mode & (S_IRWXO | S_IWGRP)) == 0)
		return 0;
	log_error("%s: holds secret keys, but its mode is %04o, so that others can read or change "
		  "them; run chmod "
		  "600 %s, and make new keys if somebody may have read these",
		  source->name, mode & 07777u, source->path);
	return -EPERM;
}

static int
check_file(const struct source *source, int fd, bool private)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return -errno; /* UNTESTED: it is open */
	if (!S_ISREG(status.st_mode) || status.st_size > FILE_BYTES_MAX) {
		log_error("%s: not a regular file of at most %u bytes", source->name,
			  FILE_BYTES_MAX);
		return -EINVAL;
	}
	return private ? check_private(source, status.st_mode) : 0;
}

static int
read_whole(const struct source *source, int fd, gnutls_datum_t *content)
{
	uint8_t *bytes = malloc(FILE_BYTES_MAX);
	size_t count = 0;
	ssize_t got = 0;

	if (bytes == NULL)
		return -ENOMEM; /* UNTESTED: no fault for malloc */
	while (count < FILE_BYTES_MAX &&
	       (got = read(fd, bytes + count, FILE_BYTES_MAX - count)) > 0)
		count += (size_t)got;
	if (got < 0) {
		int error = -errno;

		log_error("%s: cannot be read: %s", source->name, strerror(-error));
		free(bytes);
		return error;
	}
	*content = (gnutls_datum_t){ bytes, (unsigned)count };
	return 0;
}

/* The daemon may have been root when it read the file before. */
static void
log_unreadable(const struct source *source, int error)
{
	if (error == -EACCES)
		log_error(
			"%s: cannot be opened: %s; the daemon runs as uid %u and gid %u now: give "
			"the file to that group and let it read (chgrp %u %s, chmod 640 %s), "
			"and let it enter the directories above",
			source->name, strerror(-error), (unsigned)geteuid(), (unsigned)getegid(),
			(unsigned)getegid(), source->path, source->path);
	else
		log_error("%s: cannot be opened: %s", source->name, strerror(-error));
}

/* Read SOURCE; PRIVATE: it must be closed to others.  Returns 0, or a negative errno, logged. */
static int
file_load(const struct source *source, bool private, gnutls_datum_t *content)
{
	/* Non-blocking: a FIFO must not stop the start. */
	int fd = open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int error;

	if (fd < 0) {
		error = -errno;
		log_unreadable(source, error);
		return error;
	}
	error = check_file(source, fd, private);
	if (error == 0)
		error = read_whole(source, fd, content);
	close(fd);
	return error;
}

static void
file_unload(gnutls_datum_t *content)
{
	explicit_bzero(content->data, content->size);
	free(content->data);
}

/* ---- certificates ---- */

/* Several certificates, in the order of their file. */
struct chain {
	gnutls_x509_crt_t *certificates;
	unsigned count;
};

static void
chain_unload(struct chain *chain)
{
	for (unsigned i = 0; i < chain->count; i++)
		gnutls_x509_crt_deinit(chain->certificates[i]);
	gnutls_free(chain->certificates);
}

static int
chain_load(const struct source *source, struct chain *chain)
{
	gnutls_datum_t content;
	int error = file_load(source, false, &content);

	if (error < 0)
		return error;
	*chain = (struct chain){ .count = 0 };
	error = gnutls_x509_crt_list_import2(&chain->certificates, &chain->count, &content,
					     GNUTLS_X509_FMT_PEM, 0);
	file_unload(&content);
	if (error >= 0)
		return 0;
	log_error("%s: holds no certificate in PEM form: %s", source->name, gnutls_strerror(error));
	return -EINVAL;
}

/* Whether CERTIFICATE is valid now; if not, text of TEXT_BYTES says why. */
static bool
is_current(gnutls_x509_crt_t certificate, char *text, size_t text_bytes)
{
	time_t begin = gnutls_x509_crt_get_activation_time(certificate);
	time_t end = gnutls_x509_crt_get_expiration_time(certificate);
	time_t now = time(NULL);
	struct tm when;
	char stamp[32];

	if (now >= begin && now <= end)
		return true;
	gmtime_r(now < begin ? &begin : &end, &when);
	strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S UTC", &when);
	snprintf(text, text_bytes, "%s %s", now < begin ? "is not valid before" : "has expired at",
		 stamp);
	return false;
}

/* The server's own, the first, must be valid, and for servers: clients take no other.  Those behind it lead to an authority; whether a
 * client needs one of them depends on which it knows. */
static int
check_own(const struct source *source, const struct chain *chain)
{
	char why[64];
	int error = 0;

	if (!gnutls_x509_crt_check_key_purpose(chain->certificates[0], GNUTLS_KP_TLS_WWW_SERVER,
					       0)) {
		log_error("%s: the certificate is for other purposes than TLS servers; put one in "
			  "its "
			  "place that is for them, or for any",
			  source->name);
		return -EINVAL;
	}

	for (unsigned i = 0; i < chain->count; i++) {
		if (is_current(chain->certificates[i], why, sizeof(why)))
			continue;
		if (i > 0) {
			log_warning("%s: certificate %u of %u %s: clients that need it will not "
				    "trust the server's; put a new one in its place, or take it "
				    "out if none does",
				    source->name, i + 1, chain->count, why);
			continue;
		}
		log_error("%s: certificate %u of %u %s; put a new one in its place", source->name,
			  i + 1, chain->count, why);
		error = -EINVAL;
	}
	return error;
}

/* Authorities: one that is valid must be among them. */
static int
check_authorities(const struct source *source, const struct chain *chain)
{
	unsigned current = 0;
	char why[64];

	for (unsigned i = 0; i < chain->count; i++) {
		if (is_current(chain->certificates[i], why, sizeof(why)))
			current++;
		else
			log_warning("%s: certificate %u of %u %s: no client that it signed gets in",
				    source->name, i + 1, chain->count, why);
	}
	if (current > 0)
		return 0;
	log_error("%s: none of its %u certificates is valid now, so no client could get in; put a "
		  "new one in",
		  source->name, chain->count);
	return -EINVAL;
}

static int
key_load(const struct source *source, gnutls_x509_privkey_t *key)
{
	gnutls_datum_t content;
	int error = file_load(source, true, &content);

	if (error < 0)
		return error;
	error = gnutls_x509_privkey_init(key);
	if (error == 0)
		error = gnutls_x509_privkey_import2(*key, &content, GNUTLS_X509_FMT_PEM, NULL, 0);
	file_unload(&content);
	if (error == 0)
		return 0;
	if (error == GNUTLS_E_DECRYPTION_FAILED)
		log_error("%s: the key is encrypted; store it without a passphrase, closed to "
			  "others by its mode",
			  source->name);
	else
		log_error("%s: holds no private key in PEM form: %s", source->name,
			  gnutls_strerror(error));
	gnutls_x509_privkey_deinit(*key);
	*key = NULL;
	return -EINVAL;
}

static int
load_certificate(const struct tls_files *files, struct tls_credentials *made)
{
	struct source key_source = source_of(files->key, files->origins.key);
	struct source source = source_of(files->certificate, files->origins.certificate);
	gnutls_x509_privkey_t key = NULL;
	struct chain chain;
	/* Each whatever the other comes to, to find all mistakes. */
	int key_error = key_load(&key_source, &key), error = chain_load(&source, &chain);

	if (error < 0)
		goto err_after_key;
	error = check_own(&source, &chain);
	if (error == 0)
		error = key_error;
	if (error < 0)
		goto err_after_chain;
	error = gnutls_certificate_set_x509_key(made->x509, chain.certificates, (int)chain.count,
						key);
	if (error < 0) {
		log_error("%s: cannot be used with the key in %s: %s", source.name, files->key,
			  gnutls_strerror(error));
		error = -EINVAL;
	}
err_after_chain:
	chain_unload(&chain);
err_after_key:
	gnutls_x509_privkey_deinit(key);
	return error < 0 ? error : 0;
}

static int
load_authorities(const struct tls_files *files, struct tls_credentials *made)
{
	struct source source = source_of(files->ca, files->origins.ca);
	struct chain chain;
	int error = chain_load(&source, &chain);

	if (error < 0)
		return error;
	error = check_authorities(&source, &chain);
	if (error == 0 &&
	    gnutls_certificate_set_x509_trust(made->x509, chain.certificates, (int)chain.count) < 0)
		error = -ENOMEM; /* UNTESTED: no fault for GnuTLS's malloc */
	chain_unload(&chain);
	return error;
}

static int
load_x509(const struct tls_files *files, struct tls_credentials *made)
{
	int error, authorities_error = 0;

	if (files->certificate == NULL)
		return 0;
	if (files->key == NULL || (files->ca == NULL && files->verify_client))
		return -EINVAL; /* the check of the settings has said so */
	if (gnutls_certificate_allocate_credentials(&made->x509) < 0)
		return -ENOMEM; /* UNTESTED: as above */
	error = load_certificate(files, made);
	if (files->ca != NULL)
		authorities_error = load_authorities(files, made);
	return error < 0 ? error : authorities_error;
}

/* ---- pre-shared keys ---- */

/* GnuTLS asks for the key of the identity NAME; it frees what it gets. */
static int
find_key(gnutls_session_t session, const gnutls_datum_t *name, gnutls_datum_t *key)
{
	const struct tls_credentials *credentials = gnutls_session_get_ptr(session);
	const struct tls_psk *psk = tls_psk_find(&credentials->keys, name->data, name->size);

	if (psk == NULL)
		return -1;
	key->data = gnutls_malloc(psk->key_bytes);
	if (key->data == NULL)
		return -1; /* UNTESTED: no fault for GnuTLS's malloc */
	memcpy(key->data, psk->key, psk->key_bytes);
	key->size = (unsigned)psk->key_bytes;
	return 0;
}

static int
load_psk(const struct tls_files *files, struct tls_credentials *made)
{
	struct source source = source_of(files->psk_file, files->origins.psk_file);
	char why[TLS_PSK_LINE_TEXT];
	gnutls_datum_t content;
	int error;

	if (source.path == NULL)
		return 0;
	error = file_load(&source, true, &content);
	if (error < 0)
		return error;
	error = tls_psk_parse(&made->keys, (const char *)content.data, content.size, why);
	file_unload(&content);
	if (error < 0) {
		log_error("%s: %s", source.name, why);
		return error;
	}
	if (gnutls_psk_allocate_server_credentials(&made->psk) < 0)
		return -ENOMEM; /* UNTESTED: as above */
	gnutls_psk_set_server_credentials_function2(made->psk, find_key);
	if (gnutls_psk_set_server_known_dh_params(made->psk, GNUTLS_SEC_PARAM_MEDIUM) < 0)
		return -ENOMEM; /* UNTESTED: as above */
	return 0;
}

/* ---- the whole ---- */

/* Each exchange of keys in the largest of them keeps a core for 0.3 s, and the client chooses; those with 2048 bits stay, for
 * DHE-PSK. */
#define WITHOUT_SLOW_GROUPS ":-GROUP-FFDHE3072:-GROUP-FFDHE4096:-GROUP-FFDHE6144:-GROUP-FFDHE8192"

/* Those of datagrams, which a session over a stream never speaks: -VERS-TLS-ALL leaves them in a list. */
static bool
is_dtls(unsigned version)
{
	return version >= GNUTLS_DTLS_VERSION_MIN && version <= GNUTLS_DTLS_VERSION_MAX;
}

/* Nothing older than TLS 1.2 may be asked for; NAME: what asks, for messages.  Source: the NBD protocol, "TLS versions". */
static int
check_versions(const char *name, gnutls_priority_t priority)
{
	const unsigned *versions;
	int count = gnutls_priority_protocol_list(priority, &versions);
	bool any = false;

	for (int i = 0; i < count; i++) {
		if (is_dtls(versions[i]))
			continue;
		any = true;
		if (versions[i] == GNUTLS_TLS1_2 || versions[i] == GNUTLS_TLS1_3)
			continue;
		log_error("%s: allows %s; NBD needs TLS 1.2 or later: add "
			  "-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2",
			  name, gnutls_protocol_get_name((gnutls_protocol_t)versions[i]));
		return -EINVAL;
	}
	if (any)
		return 0;
	log_error("%s: allows no version of TLS; add +VERS-TLS1.3:+VERS-TLS1.2", name);
	return -EINVAL;
}

static int
load_priority(const struct tls_files *files, struct tls_credentials *made)
{
	const char *text = files->priority != NULL ? files->priority : TLS_PRIORITY_DEFAULT;
	const char *name = files->origins.priority != NULL ? files->origins.priority : text;
	const char *without = strstr(text, "GROUP-FFDHE") == NULL ? WITHOUT_SLOW_GROUPS : "";
	const char *wrong_from;
	char *whole;
	int error;

	if (asprintf(&whole, "%s%s", text, without) < 0)
		return -ENOMEM; /* UNTESTED: no fault for malloc */
	error = gnutls_priority_init(&made->priority, whole, &wrong_from);
	if (error < 0) {
		made->priority = NULL;
		log_error("%s: GnuTLS does not take it from \"%s\" on: %s", name,
			  text + (wrong_from - whole), gnutls_strerror(error));
	}
	free(whole);
	return error < 0 ? -EINVAL : check_versions(name, made->priority);
}

int
tls_credentials_load(const struct tls_files *files, struct tls_credentials **credentials)
{
	struct tls_credentials *made = calloc(1, sizeof(*made));
	int error, next;

	if (made == NULL)
		return -ENOMEM; /* UNTESTED: no fault for malloc */
	made->references = 1;
	made->verify_client = files->verify_client;
	if (files->kernel)
		made->kernel = tls_kernel_find();
	/* All of them, to find all mistakes. */
	error = load_priority(files, made);
	next = load_x509(files, made);
	if (error == 0)
		error = next;
	next = load_psk(files, made);
	if (error == 0)
		error = next;
	if (error < 0) {
		tls_credentials_put(made);
		return error;
	}
	if (made->kernel.ciphers != 0)
		log_info("TLS: the kernel encrypts what is sent over TCP%s",
			 made->kernel.changes_keys
				 ? ""
				 : " with TLS 1.2; for TLS 1.3 it needs Linux 6.14");
	*credentials = made;
	return 0;
}

struct tls_credentials *
tls_credentials_get(struct tls_credentials *credentials)
{
	/* Relaxed: the caller has a reference already, which keeps it alive. */
	(void)__atomic_add_fetch(&credentials->references, 1, __ATOMIC_RELAXED);
	return credentials;
}

void
tls_credentials_put(struct tls_credentials *credentials)
{
	/* Partner: each other's put.  Release: its uses come before; acquire: the last one frees after all of them. */
	if (credentials == NULL ||
	    __atomic_sub_fetch(&credentials->references, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	if (credentials->x509 != NULL)
		gnutls_certificate_free_credentials(credentials->x509);
	if (credentials->psk != NULL)
		gnutls_psk_free_server_credentials(credentials->psk);
	if (credentials->priority != NULL)
		gnutls_priority_deinit(credentials->priority);
	tls_psk_clear(&credentials->keys);
	free(credentials);
}
