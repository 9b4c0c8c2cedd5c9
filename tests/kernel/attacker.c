/* A process of nobody's that becomes root through the test module:
 *
 *     attacker ROUNDS FOLDER INIT_TASK root|escape
 *     attacker ROUNDS FOLDER INIT_TASK return|escape SHAPE INIT_CRED ENTRY      by a hijack: see kmod/hijack.c
 *
 * Each round is a process of its own. Once it is root, the first thing that it does is to make a file in FOLDER, which
 * only root may. Prints how many rounds were killed, how many ran on after the module, and how many made the file. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[256];
static volatile int *ran;

/* Without the C library: after an escape nothing of this thread's state can be relied on. */
static long call3(long number, long first, long second, long third)
{
	long result;

	asm volatile("syscall"
		     : "=a"(result)
		     : "a"(number), "D"(first), "S"(second), "d"(third)
		     : "rcx", "r11", "memory");
	return result;
}

static void landed(void)
{
	long descriptor;

	++*ran;
	descriptor = call3(SYS_open, (long)path, O_CREAT | O_EXCL | O_WRONLY, 0600);
	call3(SYS_exit_group, descriptor >= 0 ? 0 : 2, 0, 0);
}

/* Where a hijacked kernel returns to: back into it. */
asm("bounce: jmp *%rbx");
extern const char bounce[];

static void attack(int device, const char *init_task, int escape, char **hijack)
{
	static char stack[65536] __attribute__((aligned(16))), kernel_stack[65536] __attribute__((aligned(16)));
	char command[192];
	/* A page fault on the way would be a proper entry into the kernel, and the end: on its way out signals are
	 * seen. */
	const void *memory = kernel_stack + sizeof(kernel_stack) - 64;

	mlockall(MCL_CURRENT);
	if (hijack && !strcmp(hijack[0], "user_code"))
		memory = bounce;
	if (hijack)
		snprintf(command, sizeof(command), "hijack %s %s %s %s %lx %lx %lx", hijack[0], init_task, hijack[1],
			 hijack[2], (unsigned long)memory, escape ? (unsigned long)landed : 0,
			 (unsigned long)(stack + sizeof(stack) - 8));
	else if (escape)
		snprintf(command, sizeof(command), "escape %s %lx %lx", init_task, (unsigned long)landed,
			 (unsigned long)(stack + sizeof(stack) - 8));
	else
		snprintf(command, sizeof(command), "root %s", init_task);
	memset(stack, 0, sizeof(stack));
	memset(kernel_stack, 0, sizeof(kernel_stack));
	*ran += 0;
	if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
		_exit(3);
	if (write(device, command, strlen(command)) < 0)
		_exit(4);
	landed();
}

int main(int count, char **arguments)
{
	int rounds, device, killed = 0, made = 0, other = 0;

	if (count != 5 && count != 8)
		return 1;
	rounds = atoi(arguments[1]);
	device = open("/dev/krie_test", O_WRONLY);
	ran = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (device < 0 || ran == MAP_FAILED)
		return 1;
	for (int round = 0; round < rounds; round++) {
		int status;
		pid_t child;

		snprintf(path, sizeof(path), "%s/%d", arguments[2], round);
		child = fork();
		if (child == 0)
			attack(device, arguments[3], !strcmp(arguments[4], "escape"),
			       count == 8 ? arguments + 5 : NULL);
		if (child < 0 || waitpid(child, &status, 0) != child)
			return 1;
		killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		other += WIFEXITED(status) && WEXITSTATUS(status) > 2;
		made += !access(path, F_OK);
	}
	printf("%d %d %d %d\n", killed, *ran, made, other);
	return 0;
}
