// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * resume.c - vmcomm-xen-resume: let a domain run on that stands still for a save or a migration that
 * was given up. xl has no command for it; xl itself does so unless it was killed.
 *
 *	vmcomm-xen-resume --look DOMID	ends with 1 if it stands still, with 0 if not
 *	vmcomm-xen-resume DOMID		lets it run; one that runs is left alone
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxl.h>

static int work(libxl_ctx *ctx, uint32_t domid, bool look)
{
	libxl_dominfo info;
	bool stands;

	libxl_dominfo_init(&info);
	if (libxl_domain_info(ctx, &info, domid)) {
		fprintf(stderr, "there is no domain %u\n", domid);
		return 2;
	}
	stands = info.shutdown && info.shutdown_reason == LIBXL_SHUTDOWN_REASON_SUSPEND;
	libxl_dominfo_dispose(&info);
	if (look || !stands)
		return look && stands;
	/* In the same domain: the guest's suspend returns as one that was cancelled. */
	return libxl_domain_resume(ctx, domid, 1, NULL) ? 2 : 0;
}

int main(int argc, char **argv)
{
	bool look = argc == 3 && !strcmp(argv[1], "--look");
	xentoollog_logger_stdiostream *logger;
	libxl_ctx *ctx = NULL;
	unsigned long domid;
	char *rest;
	int status;

	domid = argc == 2 + look ? strtoul(argv[1 + look], &rest, 10) : 0;
	if (!domid || domid > 0x7fef || *rest) {
		fprintf(stderr, "Usage: vmcomm-xen-resume [--look] DOMID\n");
		return 2;
	}
	logger = xtl_createlogger_stdiostream(stderr, XTL_ERROR, 0);
	if (!logger || libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, (xentoollog_logger *)logger)) {
		fprintf(stderr, "cannot talk to Xen: is this a dom0?\n");
		return 2;
	}
	status = work(ctx, (uint32_t)domid, look);
	libxl_ctx_free(ctx);
	xtl_logger_destroy((xentoollog_logger *)logger);
	return status;
}
