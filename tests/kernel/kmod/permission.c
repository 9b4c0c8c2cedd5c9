// SPDX-License-Identifier: GPL-2.0
/* Nobody shall load this by mistake: the command line of the boot must say so. */
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "krie_test.h"

#define WORD "krie.test_module=allow"
#define LONGEST 4096

int krie_test_permitted(void)
{
	struct file *file;
	char *line, *rest, *word;
	ssize_t count;
	loff_t position = 0;
	int result = -EPERM;

	line = kzalloc(LONGEST + 1, GFP_KERNEL);
	if (!line)
		return -ENOMEM;
	file = filp_open("/proc/cmdline", O_RDONLY, 0);
	if (IS_ERR(file)) {
		kfree(line);
		return PTR_ERR(file);
	}
	count = kernel_read(file, line, LONGEST, &position);
	filp_close(file, NULL);
	rest = strim(line);
	while (count > 0 && (word = strsep(&rest, " ")))
		if (!strcmp(word, WORD))
			result = 0;
	kfree(line);
	return result;
}
