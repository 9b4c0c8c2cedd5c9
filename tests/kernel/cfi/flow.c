/* What programs with rights of their own do, such as su, sudo and newuidmap: flow WHAT ... They end with 0, or 1. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <unistd.h>

/* As login(1) and su(1): for good. */
static int become(uid_t user)
{
	return initgroups("root", user) || setresgid(user, user, user) || setresuid(user, user, user);
}

/* As sudo(8): its rights are put aside and taken back, until it becomes somebody else for good. */
static int aside(uid_t user)
{
	uid_t real, effective, saved;

	if (getresuid(&real, &effective, &saved))
		return 1;
	for (int round = 0; round < 3; round++)
		if (seteuid(real) || seteuid(saved) || setreuid(saved, real) || setreuid(real, saved) ||
		    setresuid(real, saved, saved))
			return 1;
	setfsuid(real);
	setfsuid(saved);
	return effective ? 0 : setresuid(0, 0, 0) || become(user);
}

/* As newuidmap(1). */
static int map(const char *process, const char *lines)
{
	char path[64];
	int file;

	snprintf(path, sizeof(path), "/proc/%s/uid_map", process);
	file = open(path, O_WRONLY);
	return file < 0 || write(file, lines, strlen(lines)) != (ssize_t)strlen(lines);
}

int main(int count, char **words)
{
	int failed = 1;

	if (count == 3 && !strcmp(words[1], "become"))
		failed = become(atoi(words[2]));
	if (count == 3 && !strcmp(words[1], "aside"))
		failed = aside(atoi(words[2]));
	if (count == 4 && !strcmp(words[1], "map"))
		failed = map(words[2], words[3]);
	if (failed)
		perror(words[1]);
	return failed;
}
