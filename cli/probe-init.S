/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * probe-init.S - the first and only program of the guest that doctor boots: a whole ELF file
 *
 * It writes one line to the console, which proves that kernel and user space run, and switches the
 * machine off.
 */
#ifdef __x86_64__
	.section .rodata
	.globl cli_probe_init, cli_probe_init_size
	.balign 16
cli_probe_init:
	.byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0	/* 64 bit, little-endian */
	.zero 8
	.short 2, 62				/* executable, x86-64 */
	.long 1
	.quad 0x400000 + start - cli_probe_init
	.quad 64, 0				/* program header, no sections */
	.long 0
	.short 64, 56, 1, 64, 0, 0
	.long 1, 5				/* load, readable and executable */
	.quad 0, 0x400000, 0x400000
	.quad end - cli_probe_init, end - cli_probe_init, 4096
start:
	mov $1, %eax				/* write(1, text, size) */
	mov $1, %edi
	lea text(%rip), %rsi
	mov $end - text, %edx
	syscall
	mov $169, %eax				/* reboot(..., POWER_OFF) */
	mov $0xfee1dead, %edi
	mov $672274793, %esi
	mov $0x4321fedc, %edx
	syscall
1:	jmp 1b
text:
	.ascii "\nVMCOMM-PROBE-OK\n"
end:
	.balign 4
cli_probe_init_size:
	.long end - cli_probe_init
#endif
	.section .note.GNU-stack, "", %progbits
