/* Calls delete_module(2) of ia32 by int 0x80, from a code segment of this process's own making. */
#include <asm/ldt.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DELETE_MODULE 129
#define SELECTOR (0 << 3 | 4 | 3) /* the first of the local table, level 3 */

static unsigned long stack;

int main(void)
{
	struct user_desc segment = {
		.limit = 0xfffff,
		.limit_in_pages = 1,
		.seg_32bit = 1,
		.contents = MODIFY_LDT_CONTENTS_CODE,
		.useable = 1,
	};
	unsigned char *page =
	    mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	unsigned int name = (unsigned long)page + 2048, back = (unsigned long)page + 1024, flags = O_NONBLOCK;
	unsigned char code[] = {
		0xb8, DELETE_MODULE,
		0,    0,
		0, /* mov eax */
		0xbb, 0,
		0,    0,
		0, /* mov ebx, name */
		0xb9, 0,
		0,    0,
		0, /* mov ecx, flags */
		0xcd, 0x80,
		0xea, 0,
		0,    0,
		0,    0x33,
		0, /* jmp 0x33:back */
	};
	unsigned char return_[] = { 0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, 0x48, 0x8b, 0x21, 0xc3 }; /* rsp = stack; ret */
	void *where = &stack;
	struct {
		unsigned int offset;
		unsigned short selector;
	} target, *into = &target;
	long result;

	if (page == MAP_FAILED || syscall(SYS_modify_ldt, 1, &segment, sizeof(segment)))
		return 77;
	target.offset = (unsigned long)page;
	target.selector = SELECTOR;
	memcpy(code + 6, &name, 4);
	memcpy(code + 11, &flags, 4);
	memcpy(code + 18, &back, 4);
	memcpy(return_ + 2, &where, 8);
	memcpy(page, code, sizeof(code));
	memcpy(page + 1024, return_, sizeof(return_));
	strcpy((char *)page + 2048, "krie_none");
	/* Not by lret: QEMU emulates that with the kernel's rights, and fails at user memory where there is SMAP. */
	asm volatile("lea 1f(%%rip), %%rax; push %%rax; mov %%rsp, (%%rdi); ljmpl *(%%rsi); 1:"
		     : "=a"(result), "+D"(where), "+S"(into)
		     :
		     : "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
	return -(int)result;
}
