/* Sets no flags of a file that it opens for reading, by a system call of 32 bits; prints the answer. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#define IOCTL 54
#define FS_IOC32_SETFLAGS 0x40046602

int main(int count, char **arguments)
{
	int *flags = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	int file = count == 2 ? open(arguments[1], O_RDONLY) : -1, answer;

	if (file < 0 || flags == MAP_FAILED)
		return 1;
	__asm__ volatile("int $0x80"
			 : "=a"(answer)
			 : "a"(IOCTL), "b"(file), "c"(FS_IOC32_SETFLAGS), "d"(flags)
			 : "memory", "r8", "r9", "r10", "r11");
	printf("%d\n", answer);
	return 0;
}
