// SPDX-License-Identifier: Apache-2.0
// A server and a client that do as little as can be, so that what is between them shows.
//
//     lean serve ADDRESS PORT
//     lean load ADDRESS PORT CONNECTIONS SECONDS     prints requests, seconds and the median in us
//
// One thread, epoll, keep-alive connections with one request at a time; a request or a response is
// taken to come in one piece, and anything else ends the program.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST	4096
#define BUCKETS 100000 // of a tenth of a microsecond

static const char response[] = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
static const char request[] = "GET /0 HTTP/1.1\r\nHost: bench\r\n\r\n";
static double sent_at[MOST];
static unsigned took[BUCKETS];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void watch(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (fd >= MOST || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		fail("epoll_ctl");
}

static int is_whole(const char *data, ssize_t length)
{
	return length >= 4 && !memcmp(data + length - 4, "\r\n\r\n", 4);
}

static void answer(int fd)
{
	char data[4096];
	ssize_t got = recv(fd, data, sizeof(data), 0);

	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		close(fd);
		return;
	}
	if (!is_whole(data, got) ||
	    send(fd, response, sizeof(response) - 1, MSG_NOSIGNAL) != sizeof(response) - 1)
		fail("answer");
}

static void serve(const struct sockaddr_in *at)
{
	int epoll = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct epoll_event events[256];
	int on = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (const struct sockaddr *)at, sizeof(*at)) || listen(listener, 4096))
		fail("listen");
	watch(epoll, listener);
	for (;;) {
		int count = epoll_wait(epoll, events, 256, -1);

		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;

			if (fd != listener) {
				answer(fd);
				continue;
			}
			while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
				watch(epoll, fd);
		}
	}
}

static void ask(int fd)
{
	sent_at[fd] = now();
	if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != sizeof(request) - 1)
		fail("ask");
}

// Whether a response has come.
static int take(int fd)
{
	char data[4096];
	ssize_t got = recv(fd, data, sizeof(data), 0);
	long bucket;

	if (got < 0 && errno == EAGAIN)
		return 0;
	if (!is_whole(data, got) || memcmp(data, "HTTP/1.1 200", 12))
		fail("take");
	bucket = (now() - sent_at[fd]) * 1e7;
	took[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
	return 1;
}

static double median(long total)
{
	long seen = 0;

	for (long i = 0; i < BUCKETS; i++)
		if ((seen += took[i]) * 2 >= total)
			return i / 10.0;
	return 0;
}

static int load(const struct sockaddr_in *to, int connections, double seconds)
{
	int epoll = epoll_create1(0);
	struct epoll_event events[256];
	double began;
	long done = 0;

	for (int i = 0; i < connections; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		struct epoll_event ready = { .events = EPOLLOUT, .data.fd = fd };
		int each = epoll_create1(0);

		if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) && errno != EINPROGRESS)
			fail("connect");
		epoll_ctl(each, EPOLL_CTL_ADD, fd, &ready);
		if (epoll_wait(each, &ready, 1, 5000) != 1)
			fail("connect");
		close(each);
		watch(epoll, fd);
		ask(fd);
	}
	began = now();
	while (now() - began < seconds) {
		int count = epoll_wait(epoll, events, 256, 1000);

		for (int i = 0; i < count; i++) {
			if (!take(events[i].data.fd))
				continue;
			done++;
			ask(events[i].data.fd);
		}
	}
	printf("%ld %.3f %.1f\n", done, now() - began, median(done));
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	if (argc < 4 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1)
		return 2;
	address.sin_port = htons(atoi(argv[3]));
	if (argc == 4 && !strcmp(argv[1], "serve"))
		serve(&address);
	if (argc == 6 && !strcmp(argv[1], "load"))
		return load(&address, atoi(argv[4]), atof(argv[5]));
	return 2;
}
