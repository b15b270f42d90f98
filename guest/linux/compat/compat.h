/* SPDX-License-Identifier: GPL-2.0-only */
/* compat.h - every difference between kernel versions; none in the logic */
#ifndef VMCOMM_COMPAT_H
#define VMCOMM_COMPAT_H

#include <linux/version.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <net/sock.h>

/* 6.5: ioctl callbacks get a kernel pointer; sendpage is gone */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
typedef int *vmcomm_ioctl_arg;
static inline int vmcomm_ioctl_put(vmcomm_ioctl_arg arg, int v)
{
	*arg = v;
	return 0;
}
#define vmcomm_prot_no_sendpage(prot)
#define vmcomm_ops_no_sendpage(ops)
#else
typedef unsigned long vmcomm_ioctl_arg;
static inline int vmcomm_ioctl_put(vmcomm_ioctl_arg arg, int v)
{
	return put_user(v, (int __user *)arg);
}
/* without it the kernel calls sendmsg */
#define vmcomm_prot_no_sendpage(prot) ((prot)->sendpage = NULL)
#define vmcomm_ops_no_sendpage(ops)   ((ops)->sendpage = sock_no_sendpage)
#endif

/* 6.4: a single buffer is an iovec, too */
#ifdef iter_iov_addr
#define vmcomm_iter_iovec(i)                                                                       \
	((struct iovec){.iov_base = iter_iov_addr(i), .iov_len = iter_iov_len(i)})
#else
#define vmcomm_iter_iovec(i) iov_iter_iovec(i)
#endif

/* 6.7: READ_ONCE'd 32-bit flags */
#define vmcomm_tsflags(sk) READ_ONCE((sk)->sk_tsflags)

#endif
