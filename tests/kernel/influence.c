/* Preloaded into a program, whose executable may then do what it would not: see test_identity.py.
 *
 * WEAR=FILE: forget the executable, and claim this one (PR_SET_MM_MAP), in a user namespace of its own. SHARE=1: a
 * child with the same memory. Then wait. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long low[64], high[64];
static char stack[65536] __attribute__((aligned(16)));
static char text[64];

static void say(long number)
{
	int length = snprintf(text, sizeof(text), "%ld\n", number);

	syscall(SYS_write, 1, text, length);
}

static int wait_here(void *unused)
{
	for (;;)
		syscall(SYS_pause);
	return 0;
}

static void wear(const char *path)
{
	struct prctl_mm_map map = {};
	unsigned long field[53] = {};
	char exe[512] = "", line[1024], *word;
	int count = 0, number = 3;
	FILE *file;

	unshare(CLONE_NEWUSER);
	map.exe_fd = open(path, O_RDONLY);
	if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
		_exit(9);
	file = fopen("/proc/self/stat", "r");
	if (!file || !fgets(line, sizeof(line), file))
		_exit(9);
	fclose(file);
	for (word = strtok(strrchr(line, ')') + 2, " "); word && number < 53; word = strtok(NULL, " "))
		field[number++] = strtoul(word, NULL, 10);
	file = fopen("/proc/self/maps", "r");
	while (file && count < 64 && fgets(line, sizeof(line), file))
		if (strstr(line, exe) && sscanf(line, "%lx-%lx", &low[count], &high[count]) == 2)
			count++;
	map.start_code = field[26], map.end_code = field[27], map.start_stack = field[28];
	map.start_data = field[45], map.end_data = field[46], map.start_brk = field[47];
	map.arg_start = field[48], map.arg_end = field[49], map.env_start = field[50], map.env_end = field[51];
	map.brk = (unsigned long)sbrk(0);
	for (int i = 0; i < count; i++)
		syscall(SYS_munmap, low[i], high[i] - low[i]);
	say(syscall(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0));
	wait_here(NULL);
}

__attribute__((constructor)) static void begin(void)
{
	if (getenv("WEAR"))
		wear(getenv("WEAR"));
	if (getenv("SHARE")) {
		say(clone(wait_here, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL));
		wait_here(NULL);
	}
}
