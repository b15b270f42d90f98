// SPDX-License-Identifier: GPL-2.0-only
/*
 * copy.c - bytes between a program and a ring
 *
 * copy_from_iter() and copy_to_iter() would do, but
 *
 * - hardened usercopy looks the kernel's side up in the tree of all mappings, under a global lock,
 *   with each call. A ring's window is bounded by whoever asks for it;
 * - on processors without fast string instructions (ERMS) the kernel copies with "rep movsq", which
 *   is no faster there than plain loads and stores, and where instructions are translated slower by
 *   a third.
 *
 * What is unusual, a fault among it, is left to the kernel's own functions.
 */
#include <linux/uio.h>

#include "module.h"

/* What is left of the present segment, if it is a program's memory; n = 0 if not. */
static void __user *vmcomm_copy_segment(const struct iov_iter *i, size_t *n)
{
	struct iovec v;

	*n = 0;
	if (iter_is_ubuf(i)) {
		*n = iov_iter_count(i);
		return i->ubuf + i->iov_offset;
	}
	if (!iter_is_iovec(i))
		return NULL;
	v = vmcomm_iter_iovec(i);
	*n = min(v.iov_len, iov_iter_count(i));
	return v.iov_base;
}

static void vmcomm_copy_advance(struct iov_iter *i, size_t n)
{
	if (iter_is_ubuf(i)) {
		i->iov_offset += n;
		i->count -= n;
	} else {
		iov_iter_advance(i, n);
	}
}

#ifdef CONFIG_X86_64
#define vmcomm_copy_plain() (!boot_cpu_has(X86_FEATURE_ERMS))
#else
#define vmcomm_copy_plain() false
#endif

/*
 * All of a loop in one page: QEMU's TCG does not chain translated code across pages, and a loop that
 * lay in two took three times as long. Functions of this size, so aligned, do (suite core looks).
 */
#define vmcomm_copy_loop noinline __aligned(256)

/* Return: false if not all of it could be read. */
static vmcomm_copy_loop bool vmcomm_copy_words_in(u8 *to, const u8 __user *from, size_t n)
{
	u64 a, b, c, d;

	if (!user_read_access_begin(from, n))
		return false;
	for (; n >= 32; n -= 32, to += 32, from += 32) {
		unsafe_get_user(a, (const u64 __user *)from, fault);
		unsafe_get_user(b, (const u64 __user *)from + 1, fault);
		unsafe_get_user(c, (const u64 __user *)from + 2, fault);
		unsafe_get_user(d, (const u64 __user *)from + 3, fault);
		((u64 *)to)[0] = a;
		((u64 *)to)[1] = b;
		((u64 *)to)[2] = c;
		((u64 *)to)[3] = d;
	}
	for (; n >= 8; n -= 8, to += 8, from += 8) {
		unsafe_get_user(a, (const u64 __user *)from, fault);
		*(u64 *)to = a;
	}
	for (; n; n--, to++, from++)
		unsafe_get_user(*to, from, fault);
	user_read_access_end();
	return true;

fault:
	user_read_access_end();
	return false;
}

static vmcomm_copy_loop bool vmcomm_copy_words_out(u8 __user *to, const u8 *from, size_t n)
{
	if (!user_write_access_begin(to, n))
		return false;
	for (; n >= 32; n -= 32, to += 32, from += 32) {
		unsafe_put_user(((const u64 *)from)[0], (u64 __user *)to, fault);
		unsafe_put_user(((const u64 *)from)[1], (u64 __user *)to + 1, fault);
		unsafe_put_user(((const u64 *)from)[2], (u64 __user *)to + 2, fault);
		unsafe_put_user(((const u64 *)from)[3], (u64 __user *)to + 3, fault);
	}
	for (; n >= 8; n -= 8, to += 8, from += 8)
		unsafe_put_user(*(const u64 *)from, (u64 __user *)to, fault);
	for (; n; n--, to++, from++)
		unsafe_put_user(*from, to, fault);
	user_write_access_end();
	return true;

fault:
	user_write_access_end();
	return false;
}

static bool vmcomm_copy_user_in(void *to, const void __user *from, size_t n)
{
	if (vmcomm_copy_plain())
		return vmcomm_copy_words_in(to, from, n);
	return access_ok(from, n) && !raw_copy_from_user(to, from, n);
}

static bool vmcomm_copy_user_out(void __user *to, const void *from, size_t n)
{
	if (vmcomm_copy_plain())
		return vmcomm_copy_words_out(to, from, n);
	return access_ok(to, n) && !raw_copy_to_user(to, from, n);
}

/* As copy_from_iter(). May sleep. */
size_t vmcomm_copy_in(void *to, size_t len, struct iov_iter *i)
{
	size_t done = 0, n;
	void __user *from;

	vmcomm_access_check(to, len, true);
	while (done < len) {
		from = vmcomm_copy_segment(i, &n);
		n = min(n, len - done);
		if (!n || !vmcomm_copy_user_in(to + done, from, n))
			return done + copy_from_iter(to + done, len - done, i);
		vmcomm_copy_advance(i, n);
		done += n;
	}
	return done;
}

/* As copy_to_iter(). May sleep. */
size_t vmcomm_copy_out(const void *from, size_t len, struct iov_iter *i)
{
	size_t done = 0, n;
	void __user *to;

	vmcomm_access_check(from, len, false);
	while (done < len) {
		to = vmcomm_copy_segment(i, &n);
		n = min(n, len - done);
		if (!n || !vmcomm_copy_user_out(to, from + done, n))
			return done + copy_to_iter(from + done, len - done, i);
		vmcomm_copy_advance(i, n);
		done += n;
	}
	return done;
}
