/* Ordinary work, so that its cost can be compared with and without KRIe: workload NAME N FILE.
 * FILE is what is run, or read. */
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *path;

static int forkexec(void)
{
	char *arguments[] = { "true", NULL };
	pid_t child;

	return posix_spawn(&child, path, NULL, NULL, arguments, NULL) || waitpid(child, NULL, 0) != child;
}

static int files(void)
{
	char buffer[64];
	int file = open(path, O_RDONLY);

	return file < 0 || read(file, buffer, sizeof(buffer)) < 0 || close(file);
}

static int pingpong(void)
{
	static int there[2], back[2], started;
	char byte = 0;

	if (!started) {
		if (pipe(there) || pipe(back))
			return 1;
		if (fork() == 0) {
			close(there[1]);
			while (read(there[0], &byte, 1) == 1)
				if (write(back[1], &byte, 1) != 1)
					break;
			_exit(0);
		}
		close(there[0]);
		started = 1;
	}
	return write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1;
}

static int bystander(void)
{
	return syscall(SYS_getppid) < 0;
}

static int set_user(void)
{
	return setuid(0);
}

int main(int count, char **words)
{
	const struct {
		const char *name;
		int (*once)(void);
	} works[] = { { "forkexec", forkexec },
		      { "files", files },
		      { "pingpong", pingpong },
		      { "setuid", set_user },
		      { "getppid", bystander } };

	path = words[count - 1];
	for (unsigned long i = 0; count == 4 && i < sizeof(works) / sizeof(*works); i++) {
		if (strcmp(words[1], works[i].name))
			continue;
		for (long left = atol(words[2]); left; left--)
			if (works[i].once())
				return 1;
		return 0;
	}
	return 2;
}
