// SPDX-License-Identifier: Apache-2.0
// A connection for every request: connect.c ADDRESS PORT SECONDS; prints connections per second.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char request[] = "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int exchange(const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char answer[4096];
	ssize_t got, total = 0;

	if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof(*to)) ||
	    write(fd, request, sizeof(request) - 1) < 0)
		return -1;
	while ((got = read(fd, answer, sizeof(answer))) > 0)
		total += got;
	close(fd);
	return got < 0 || total == 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	double began = now(), seconds;
	long done = 0;

	if (argc != 4 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons(atoi(argv[2]));
	seconds = atof(argv[3]);
	for (; now() - began < seconds; done++) {
		if (exchange(&to)) {
			perror("exchange");
			return 1;
		}
	}
	printf("%.1f\n", done / (now() - began));
	return 0;
}
