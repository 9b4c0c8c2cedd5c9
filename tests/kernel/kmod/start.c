// SPDX-License-Identifier: GPL-2.0
/* A program that the kernel starts by itself, as who can write to its memory has it do. */
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/umh.h>

#include "krie_test.h"

#define WORDS 8

int start_helper(char *words)
{
	char *arguments[WORDS + 1] = {}, *variables[WORDS + 1] = {};
	char **to = arguments, *word;
	int status;

	while ((word = strsep(&words, " "))) {
		if (!strcmp(word, "env"))
			to = variables;
		else if (to == arguments + WORDS || to == variables + WORDS)
			return -E2BIG;
		else
			*to++ = word;
	}
	if (!arguments[0])
		return -EINVAL;
	status = call_usermodehelper(arguments[0], arguments, variables, UMH_WAIT_PROC);
	return status < 0 ? status : 0;
}
