// SPDX-License-Identifier: Apache-2.0
/*
 * kmesh-cni: a chained CNI plugin (https://www.cni.dev/docs/spec/) that changes nothing in the network.
 * It tells the Kmesh daemon of a pod that comes or goes, and waits for its word, so that the pod's first
 * connection is governed. Its result is its predecessor's, byte for byte.
 *
 * A daemon that is away, being restarted or upgraded, must not keep pods from starting: ADD waits for it
 * a little where there was one lately (its socket is there), and then succeeds. The daemon enrols the pod
 * when it is back, for it looks for every pod of its node then.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SOCKET "/run/kmesh/cni.sock"
#define LARGEST_CONFIG (4u << 20)
#define LARGEST_ANSWER 65536u
#define DEEPEST 256
#define WAIT_MS 5000   /* for a daemon that is being restarted */
#define ANSWER_MS 15000
#define AGAIN_MS 100

struct span {
	const char *at;
	size_t size;
};

/* JSON, as far as finding a member of the outermost object takes. Each returns the end, or NULL. */

static const char *skip_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

static const char *skip_string(const char *at, const char *end)
{
	for (at++; at < end; at++) {
		if (*at == '\\')
			at++;
		else if (*at == '"')
			return at + 1;
	}
	return NULL;
}

static const char *skip_value(const char *at, const char *end)
{
	char closing[DEEPEST];
	int depth = 0;

	do {
		at = skip_space(at, end);
		if (at >= end)
			return NULL;
		if (*at == '"') {
			at = skip_string(at, end);
			if (!at)
				return NULL;
		} else if (*at == '{' || *at == '[') {
			if (depth == DEEPEST)
				return NULL;
			closing[depth++] = *at++ == '{' ? '}' : ']';
		} else if (*at == '}' || *at == ']') {
			if (!depth || closing[--depth] != *at++)
				return NULL;
		} else if (*at == ',' || *at == ':') {
			if (!depth)
				return NULL;
			at++;
		} else {
			const char *start = at;

			while (at < end && !strchr(" \t\r\n,:{}[]\"", *at))
				at++;
			if (at == start)
				return NULL;
		}
	} while (depth);
	return at;
}

static bool find_member(struct span json, const char *name, struct span *value)
{
	const char *end = json.at + json.size, *at = skip_space(json.at, end);
	size_t length = strlen(name);

	if (at >= end || *at++ != '{')
		return false;
	for (;;) {
		const char *key, *key_end, *start;

		key = at = skip_space(at, end);
		if (at >= end || *at != '"')
			return false;
		key_end = skip_string(at, end);
		if (!key_end)
			return false;
		at = skip_space(key_end, end);
		if (at >= end || *at++ != ':')
			return false;
		start = skip_space(at, end);
		at = skip_value(start, end);
		if (!at)
			return false;
		if ((size_t)(key_end - key) == length + 2 && !memcmp(key + 1, name, length)) {
			*value = (struct span){start, (size_t)(at - start)};
			return true;
		}
		at = skip_space(at, end);
		if (at >= end || *at++ != ',')
			return false;
	}
}

/* A string member without escapes, copied out. */
static bool find_text(struct span json, const char *name, char *text, size_t size)
{
	struct span value;

	if (!find_member(json, name, &value) || value.size < 2 || value.size - 1 > size ||
	    *value.at != '"' || memchr(value.at, '\\', value.size))
		return false;
	memcpy(text, value.at + 1, value.size - 2);
	text[value.size - 2] = '\0';
	return true;
}

/* Telling the runtime. */

static int fail(const char *version, int code, const char *message, const char *details)
{
	printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"kmesh-cni: %s\",\"details\":\"%s\"}\n",
	       version, code, message, details);
	return 1;
}

static const char *const versions[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};
#define VERSIONS (sizeof(versions) / sizeof(*versions))

static int tell_versions(void)
{
	printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[", versions[VERSIONS - 1]);
	for (size_t i = 0; i < VERSIONS; i++)
		printf("%s\"%s\"", i ? "," : "", versions[i]);
	puts("]}");
	return 0;
}

static bool is_supported(const char *version)
{
	for (size_t i = 0; i < VERSIONS; i++)
		if (!strcmp(version, versions[i]))
			return true;
	return false;
}

/* Asking the daemon. */

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int connect_once(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int handle;

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	handle = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (handle < 0 || !connect(handle, (struct sockaddr *)&address, sizeof(address)))
		return handle;
	int reason = errno;

	close(handle);
	errno = reason;
	return -1;
}

/* No socket at all: no daemon is installed, or it has been uninstalled. Refused: it will be back. */
static int connect_to_daemon(const char *path, bool patient)
{
	long long end = now_ms() + WAIT_MS;
	bool was_there = false;

	for (;;) {
		int handle = connect_once(path);

		if (handle >= 0)
			return handle;
		was_there |= errno == ECONNREFUSED || errno == EAGAIN;
		if (!patient || !was_there || now_ms() >= end)
			return -1;
		poll(NULL, 0, AGAIN_MS);
	}
}

static bool send_all(int handle, const char *data, size_t size)
{
	while (size) {
		ssize_t sent = send(handle, data, size, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		data += sent;
		size -= (size_t)sent;
	}
	return true;
}

static bool send_request(int handle)
{
	static const char *const names[] = {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS",
					    "CNI_IFNAME", "CNI_ARGS"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const char *value = getenv(names[i]);

		if (!value || strchr(value, '\n'))
			continue;
		if (!send_all(handle, names[i], strlen(names[i])) || !send_all(handle, "=", 1) ||
		    !send_all(handle, value, strlen(value)) || !send_all(handle, "\n", 1))
			return false;
	}
	return send_all(handle, "\n", 1);
}

/* The whole answer, or -1 when none came in time. */
static ssize_t receive(int handle, char *answer, size_t size)
{
	long long end = now_ms() + ANSWER_MS;
	size_t have = 0;

	while (have < size) {
		struct pollfd wait = {.fd = handle, .events = POLLIN};
		long long left = end - now_ms();
		ssize_t got;

		if (left <= 0)
			return -1;
		if (poll(&wait, 1, (int)left) <= 0)
			continue;
		got = recv(handle, answer + have, size - have, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (!got)
			return (ssize_t)have;
		have += (size_t)got;
	}
	return (ssize_t)have;
}

/* Returns 0 when all is well, or nobody was there to ask; else prints what the daemon said. */
static int ask_daemon(const char *path, const char *command)
{
	static char answer[LARGEST_ANSWER];
	int handle = connect_to_daemon(path, !strcmp(command, "ADD"));
	ssize_t size = -1;

	if (handle < 0)
		return 0;
	if (send_request(handle))
		size = receive(handle, answer, sizeof(answer));
	close(handle);
	if (size <= 0 || !strncmp(answer, "ok", 2))
		return 0;
	/* ADD and DEL have no way to fail: the daemon keeps at it, and says on the pod what is so. */
	if (strcmp(command, "CHECK"))
		return 0;
	fwrite(answer, 1, (size_t)size, stdout);
	return 1;
}

static bool read_config(struct span *config)
{
	size_t room = 65536, have = 0;
	char *data = malloc(room);

	while (data) {
		ssize_t got = read(STDIN_FILENO, data + have, room - have);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			break;
		if (!got) {
			*config = (struct span){data, have};
			return true;
		}
		have += (size_t)got;
		if (have == room) {
			if (room >= LARGEST_CONFIG)
				break;
			data = realloc(data, room *= 2);
		}
	}
	return false;
}

int main(void)
{
	const char *command = getenv("CNI_COMMAND");
	char version[16] = "1.0.0", path[108] = SOCKET;
	struct span config, result;
	bool has_result;

	if (!command)
		return fail(version, 4, "no CNI_COMMAND", "this is a CNI plugin: the container runtime runs it");
	if (!strcmp(command, "VERSION"))
		return tell_versions();
	if (!read_config(&config))
		return fail(version, 5, "cannot read the configuration", "");
	if (!find_text(config, "cniVersion", version, sizeof(version)))
		return fail(version, 6, "the configuration has no cniVersion", "");
	if (!is_supported(version))
		return fail("1.0.0", 1, "this cniVersion is not supported", "0.3.0 to 1.1.0 are");
	find_text(config, "socket", path, sizeof(path));
	has_result = find_member(config, "prevResult", &result);
	if (!strcmp(command, "STATUS") || !strcmp(command, "GC"))
		return 0; /* pods may be added whether or not the daemon is there */
	if (strcmp(command, "ADD") && strcmp(command, "CHECK") && strcmp(command, "DEL"))
		return fail(version, 4, "CNI_COMMAND is none that is known", "");
	if (!has_result && strcmp(command, "DEL"))
		return fail(version, 7, "no prevResult", "this plugin must be chained after another");
	if (ask_daemon(path, command))
		return 1;
	if (!strcmp(command, "ADD")) {
		fwrite(result.at, 1, result.size, stdout);
		putchar('\n');
	}
	return fflush(stdout) ? 1 : 0;
}
